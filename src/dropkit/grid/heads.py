"""Noise on heads, and losses that need several passes."""

from .entry import Variant

HEADS: dict[str, Variant] = {}
