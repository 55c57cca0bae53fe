"""Noise on weights."""

from .entry import Variant

WEIGHTS: dict[str, Variant] = {}
