"""Dropout of tokens: those that are dropped are taken out of the sequence, and not computed."""

from .cutout import Cutout as Cutout
from .patches import PatchDropout as PatchDropout
from .patches import TokenDrop as TokenDrop
