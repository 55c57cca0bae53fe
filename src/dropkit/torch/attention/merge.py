"""Parts of attention over the keys, put together."""

from collections.abc import Iterable

import torch

from ...errors import DropkitValueError


def merge_attention(parts: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over all keys, of parts over some: `lse = log sum exp(lse_i)`, `out = sum of exp(lse_i - lse) out_i`.

    Args:
        parts: what `attention(..., return_lse=True)` gave for each part of the keys: (batch, heads, queries, features)
            and (batch, heads, queries).

    Returns:
        Output and log-sum-exps of the whole, of the first part's dtypes. Gradients flow to all parts; a query that sees
        no key in any part gives 0, -inf and no gradient.

    Raises:
        DropkitValueError: no parts; parts of different shapes.

    Source: Dao et al. 2022 (arXiv:2205.14135).

    >>> out, lse = torch.ones(1, 1, 2, 4), torch.zeros(1, 1, 2)
    >>> merge_attention([(out, lse), (3 * out, lse)])[0][0, 0, 0]
    tensor([2., 2., 2., 2.])
    """
    pairs = list(parts)
    shapes = {(tuple(out.shape), tuple(lse.shape)) for out, lse in pairs}
    if len(shapes) != 1 or any(out.shape[:-1] != lse.shape for out, lse in pairs):
        raise DropkitValueError(
            "merge_attention needs parts (out, lse) of one shape, (batch, heads, queries, features) and "
            f"(batch, heads, queries), got {sorted(shapes)}"
        )
    each = torch.stack([lse for _, lse in pairs])
    empty = (each == -torch.inf).all(0)
    each = each.masked_fill(empty, 0.0)  # whose outputs are 0; a sum of no exponentials has no gradient
    total = torch.logsumexp(each, 0)
    shares = (each - total).exp().unsqueeze(-1)
    first = pairs[0][0]
    out = sum((share * out for share, (out, _) in zip(shares, pairs, strict=True)), torch.zeros_like(first))
    return out.to(first.dtype), total.masked_fill(empty, -torch.inf)
