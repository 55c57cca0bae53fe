"""Dropout of weights: masks on the parameters of a module rather than on what it computes."""

from .connect import DropConnect as DropConnect
from .drop import WeightDrop as WeightDrop
from .embedding import EmbeddingDropout as EmbeddingDropout
