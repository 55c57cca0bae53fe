"""The adjacency that an edge list says, normalised."""

from typing import Any

import torch

from ...errors import DropkitTypeError, DropkitValueError

FORMS = ("symmetric", "rows", "first-order")


def checked_edges(edges: Any) -> torch.Tensor:
    """An edge list.

    Raises:
        DropkitTypeError, DropkitValueError: it is none.
    """
    if not isinstance(edges, torch.Tensor) or edges.is_floating_point() or edges.is_complex():
        what = f"a tensor of {edges.dtype}" if isinstance(edges, torch.Tensor) else repr(edges)
        raise DropkitTypeError(f"edges must be an integer tensor of shape (2, E), got {what}")
    if edges.dim() != 2 or edges.shape[0] != 2:
        raise DropkitValueError(f"edges must have shape (2, E), sources and targets, got {tuple(edges.shape)}")
    return edges


def normalized(
    edges: torch.Tensor, nodes: int, weights: torch.Tensor | None = None, form: str = "symmetric"
) -> torch.Tensor:
    """The adjacency of an edge list with loops added, normalised: D^-1/2 (A + I) D^-1/2, D the sums of rows of A + I.

    What DropEdge's authors do with the edges that are left, in every step. Row t of the matrix holds the edges that
    come to node t, so that `normalized(...) @ x` sums over the sources; copies of an edge add up.

    Args:
        edges: (2, E), sources and targets; loops that are in it stay, and one of weight 1 is added for each node.
        nodes: how many there are.
        weights: of the edges, (E,); 1 by default.
        form: "symmetric"; "rows" for D^-1 (A + I); or "first-order" for I + D^-1/2 A D^-1/2 with D of A alone, in which
            nodes without edges have their loop.

    Returns:
        A sparse COO tensor (nodes, nodes), float32 or of the weights' dtype; differentiable in the weights.

    Raises:
        DropkitTypeError, DropkitValueError: no edge list, a node outside [0, nodes), other weights or another form.

    Source: Kipf and Welling 2017 (arXiv:1609.02907).

    >>> normalized(torch.tensor([[0, 1], [1, 0]]), 2).to_dense()
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    checked_edges(edges)
    if form not in FORMS:
        raise DropkitValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    if type(nodes) is not int or nodes < 1:
        raise DropkitValueError(f"nodes must be a whole number of at least 1, got {nodes!r}")
    if edges.device.type == "cpu" and edges.numel() and (int(edges.min()) < 0 or int(edges.max()) >= nodes):
        raise DropkitValueError(f"nodes must lie in [0, {nodes}), got {int(edges.min())} to {int(edges.max())}")
    if weights is not None and (not isinstance(weights, torch.Tensor) or weights.shape != edges.shape[1:]):
        got = tuple(weights.shape) if isinstance(weights, torch.Tensor) else weights
        raise DropkitValueError(f"weights must have one entry for each of {edges.shape[1]} edges, got {got!r}")
    loops = torch.arange(nodes, device=edges.device)
    if weights is None:
        weights = torch.ones(edges.shape[1], device=edges.device)
    ones = weights.new_ones(nodes)
    source, target = (torch.cat([ends.long(), loops]) for ends in edges)
    values, degree = torch.cat([weights, ones]), torch.zeros_like(ones)
    if form == "first-order":
        degree = degree.index_add(0, edges[1].long(), weights)
        root = torch.where(degree > 0, degree, 1.0).rsqrt()
        values = torch.cat([root[edges[1]] * weights * root[edges[0]], ones])
    else:
        degree = degree.index_add(0, target, values)
        values = values / degree[target] if form == "rows" else degree.rsqrt()[target] * values * degree.rsqrt()[source]
    return torch.sparse_coo_tensor(torch.stack([target, source]), values, (nodes, nodes), check_invariants=False)
