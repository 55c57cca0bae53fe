"""Attention composed of torch's operations: any device, dtype and transform; the reference of the others in float64."""

from collections.abc import Callable

import torch

from .request import Request

Dropout = Callable[[torch.Tensor], torch.Tensor]


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, request: Request, dropout: Dropout | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What comes out, and the logarithm of each row's sum of exponentials; half types are computed in float32."""
    wide = torch.promote_types(q.dtype, torch.float32)
    if (groups := q.shape[1] // k.shape[1]) > 1:
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = torch.matmul(q.to(wide), k.to(wide).transpose(-1, -2)) * request.scale
    mask = request.masked.mask
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    for hidden in _hidden(scores, request, dropout if request.before else None):
        scores = scores.masked_fill(hidden, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    empty = lse == -torch.inf  # a row that sees nothing gives 0, and no gradient
    weights = (scores - lse.masked_fill(empty, 0.0).unsqueeze(-1)).exp()
    if dropout is not None and not request.before:
        weights = dropout(weights)
    return torch.matmul(weights, v.to(wide)).to(q.dtype), lse


def _hidden(scores: torch.Tensor, request: Request, dropout: Dropout | None) -> list[torch.Tensor]:
    """What a query does not see: by the mask, by order, by dropout before the softmax."""
    mask, diagonal = request.masked
    found = []
    if mask is not None:  # -inf that is added hides too: a row of it alone would have a gradient that is no number
        found.append(~mask if mask.dtype == torch.bool else mask == -torch.inf)
    if diagonal is not None:
        found.append(~torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(diagonal))
    if dropout is not None:
        found.append(dropout(torch.ones_like(scores, requires_grad=False)) == 0)
    return found
