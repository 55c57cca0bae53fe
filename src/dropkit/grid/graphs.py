"""Noise on edges, nodes and messages of graphs."""

from ..axes.noise import Fill
from ..axes.share import Axes
from .entry import Variant

GRAPHS: dict[str, Variant] = {
    "drop_edge": Variant(
        "Rong et al. 2020 (arXiv:1907.10903)",
        noise=Fill(0.0),
        place="edge",
        layout="E",
        formula="y = edges with m = 1, one m for each edge, P(m = 1) = q; in evaluation y = all edges",
        applies="graph convolutions, deep ones above all; edges drawn anew in each step, or for each layer",
        form="each edge by itself; exact=True keeps int(q E) of them, as the paper and its code. Each direction of an "
        "edge by itself, as that code; undirected=True drops both together. Nothing is scaled: normalise the adjacency "
        "of the edges that are left, by graphs.normalized. The code's sampling_percent is q",
        cite="rong2020dropedge",
        torch="DropEdge",
    ),
    "drop_node": Variant(
        "Feng et al. 2020 (arXiv:2005.11079)",
        share=Axes((1,)),
        place="node",
        layout="N C",
        formula="y = x m / q, one m for each node; in evaluation y = x",
        applies="features of nodes before they are propagated, as GRAND does with several draws",
        form="inverted, as GRAND's paper; scale=False is x m in training and q x in evaluation, as its code. "
        "Edges stay: what drops nodes with their edges, as PyG's dropout_node, is another thing",
        cite="feng2020graph",
        torch="DropNode",
    ),
    "drop_message": Variant(
        "Fang et al. 2023 (arXiv:2204.10037)",
        place="message",
        layout="E C",
        formula="y = x m / q, one m for each element of what goes along an edge; in evaluation y = x",
        applies="messages between their making and their sum; dropout, DropEdge and DropNode are this with shared m",
        form="inverted, as published",
        cite="fang2023dropmessage",
        torch="DropMessage",
    ),
}
