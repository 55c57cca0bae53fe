"""Noise on edges, nodes and messages of graphs."""

from .entry import Variant

GRAPHS: dict[str, Variant] = {}
