"""Dropout of graphs: of edges, nodes and messages, on edge lists."""

from .adjacency import normalized as normalized
from .edges import DropEdge as DropEdge
from .nodes import DropMessage as DropMessage
from .nodes import DropNode as DropNode
