"""Noise on tokens and patches, and on what they are embedded as."""

from .entry import Variant

TOKENS: dict[str, Variant] = {}
