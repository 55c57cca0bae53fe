"""Edges that are left out of an edge list."""

from typing import Any

import torch

from ...axes.noise import Fill
from ...axes.share.refining.exactly import rounded_down
from ...drop import Lowered
from ...errors import DropkitValueError, UnknownNameError
from ...place import Part, Place, place_of
from .. import ops
from ..arithmetic import continuous, formula
from ..depth import running
from ..depth.path import Depth
from ..draw import Draw
from ..layers import as_leaf
from .adjacency import checked_edges

KEYED_BY = ("place", "pair")
NODES = 1 << 31  # a pair of nodes is source * NODES + target, below 2**62


class DropEdge(Depth):
    """Leave edges out of a graph while training: the columns of the edge list that are kept, in their order.

    Each edge goes with probability p by itself, or `exact` keeps `int((1 - p) E)` of E edges, as in the paper. Nothing
    is rescaled here: normalise the adjacency of the edges that are left, as the authors do, by `graphs.normalized`. All
    edges stay in evaluation. One call serves all layers of a forward; a `DropEdge` for each layer is the paper's
    layer-wise form.

    Args:
        p: drop probability in [0, 1]; the authors' `sampling_percent` is 1 - p.
        exact: keep an exact count.
        by: what a mask bit belongs to: "place", the edge's number in the list; or "pair", its (source, target),
            whatever the order of the list, so that copies of an edge go together. Nodes are then below 2**31.
        undirected: an edge and its reverse go together; means by="pair". An exact count is then of pairs.
        when: "train", "always" or "never".

    Shapes: edge list (2, E) of integers; further tensors, as edge weights, with E entries along axis 0, are filtered
    too. Returns the edge list, or a tuple of it and these.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; another `by`. When it runs, no edge
            list, a tensor without an entry for each edge, a node that is negative or too large.
        DropkitRuntimeError: exported in training.

    Bits by place are `dropkit.keep((E,), p, key)`, and `at(rows=...)` numbers the edges; bits by pair are those of
    `keep(..., index=source * 2**31 + target)`, with the smaller node as the source where undirected, and the same on
    all processes. `exact` keeps the edges whose `dropkit.uniform` numbers, of the same indices, are smallest.

    Source: Rong et al. 2020 (arXiv:1907.10903).

    >>> edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    >>> DropEdge(0.5, exact=True)(edges).shape
    torch.Size([2, 2])
    >>> DropEdge(0.5).eval()(edges) is edges
    True
    """

    decides = True
    law_known = shows_mask = False  # a dropped edge is gone, and no 0
    takes_out = "edge"

    def __init__(
        self,
        p: float = 0.5,
        *,
        exact: bool = False,
        by: str = "place",
        undirected: bool = False,
        when: str = "train",
    ) -> None:
        if by not in KEYED_BY:
            raise UnknownNameError("by", str(by), KEYED_BY)
        super().__init__(p, when=when)
        self.exact, self.undirected = bool(exact), bool(undirected)
        self.by = "pair" if undirected else by
        self.noise = Fill(0.0)
        self.p = p

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for each edge."""
        return (checked_edges(input).shape[1],)

    def count(self, shape: tuple[int, ...]) -> int | None:
        """How many edges stay; of pairs that go together none can say without the list."""
        return rounded_down(shape[0], float(self._p)) if self.exact and self.by == "place" else None

    def forward(self, edges: torch.Tensor, *others: torch.Tensor) -> Any:
        """The edges that are kept, and what belongs to them."""
        if isinstance(edges, torch.fx.Proxy):
            return as_leaf(self, edges, *others)
        if self.active:
            return self._left(edges, others)
        _check(edges, others)
        return (edges, *others) if others else edges

    @running.outside_graphs
    def _left(compiler: Any, self: "DropEdge", edges: torch.Tensor, others: tuple[torch.Tensor, ...]) -> Any:
        _check(edges, others)
        drawn = self._lowered is not None or callable(compiler)  # what is compiled behind counts the calls
        kept = self._kept(edges) if drawn else None
        if kept is None and not callable(compiler):
            return (edges, *others) if others else edges
        if kept is None:  # a program of the rate 0 would be another one
            kept = torch.arange(edges.shape[1], device=edges.device)
        edges = edges.index_select(1, kept)
        others = tuple(other.index_select(0, kept.to(other.device)) for other in others)
        if callable(compiler):  # what comes behind is one program, however many edges stay
            torch._dynamo.maybe_mark_dynamic(edges, 1)
            for other in others:
                torch._dynamo.maybe_mark_dynamic(other, 0)
        return (edges, *others) if others else edges

    def _kept(self, edges: torch.Tensor) -> torch.Tensor | None:
        """Numbers of the edges that the next draw keeps, in their order; None where all are."""
        draw = self.fresh((self._lowered, float(self._p)))
        law, p = draw.lowered  # in a forward that is run again, those of the first time
        if law is None or edges.shape[1] == 0:
            return None
        if self.by == "place":
            return self._of(edges.shape[1], draw.part, draw, law, p, edges.device)
        pairs, where = torch.unique(self._pairs(edges), return_inverse=True)
        chosen = torch.zeros(len(pairs), dtype=torch.bool, device=edges.device)
        chosen[self._of(len(pairs), Part(rows=pairs), draw, law, p, edges.device)] = True
        return chosen[where].nonzero().flatten()

    def _of(self, count: int, part: Part, draw: Draw, law: Lowered, p: float, device: torch.device) -> torch.Tensor:
        place = place_of((count,), (), part)
        formula.check_rows(place)
        if self.exact:
            return smallest(place, draw, rounded_down(count, p), device).sort().values
        return bits(place, draw, law, device).nonzero().flatten()

    def _pairs(self, edges: torch.Tensor) -> torch.Tensor:
        source, target = edges.long()
        if int(edges.min()) < 0 or int(edges.max()) >= NODES:
            raise DropkitValueError(
                f"nodes must lie in [0, 2**31) to key edges by their pair, got {edges.min()} to {edges.max()}"
            )
        if self.undirected:
            source, target = torch.minimum(source, target), torch.maximum(source, target)
        return source * NODES + target

    def _more_repr(self) -> str:
        said = f", exact={self.exact}" if self.exact else ""
        said += ", undirected=True" if self.undirected else f", by={self.by!r}" if self.by != "place" else ""
        return said + super()._more_repr()


def _check(edges: Any, others: tuple[Any, ...]) -> None:
    checked_edges(edges)
    for other in others:
        if not isinstance(other, torch.Tensor) or other.dim() == 0 or len(other) != edges.shape[1]:
            got = tuple(other.shape) if isinstance(other, torch.Tensor) else other
            raise DropkitValueError(
                f"what belongs to edges must be a tensor with {edges.shape[1]} entries along axis 0, got {got!r}"
            )


def bits(place: Place, draw: Draw, law: Lowered, device: torch.device) -> torch.Tensor:
    """The mask bits of a place."""
    ones = torch.ones(place.shape, device=device)
    return ops.scale_kept(ones, draw.key, law, place) != 0


def smallest(place: Place, draw: Draw, count: int, device: torch.device) -> torch.Tensor:
    """Numbers of the elements with the smallest keyed numbers, as many as said; of equal ones the first."""
    return torch.argsort(continuous.uniform(draw.key, place, device), stable=True)[:count]
