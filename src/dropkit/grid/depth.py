"""Noise on branches and layers."""

from .entry import Variant

DEPTH: dict[str, Variant] = {}
