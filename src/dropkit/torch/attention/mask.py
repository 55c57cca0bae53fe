"""The mask of attention weights as a torch tensor."""

import torch

from ...attention import block_of
from ...counter import Key
from ...place import place_of
from ...threshold import threshold
from ..arithmetic import formula


def attention_mask_block(
    p: float,
    key: Key,
    *,
    shape: tuple[int, ...],
    q: tuple[int, int] | None = None,
    k: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """`dropkit.attention_mask_block` on a device: bool, (batch, heads, q1 - q0, k1 - k0), True is kept.

    Args:
        p, key, shape, q, k: as there.
        device: torch's default one by default.

    Raises:
        DropkitValueError, DropkitTypeError: as there.

    >>> attention_mask_block(0.5, Key(seed=1, site="attention"), shape=(1, 1, 2, 4), q=(1, 2)).shape
    torch.Size([1, 1, 1, 4])
    """
    local, part = block_of(shape, q, k)
    where = torch.get_default_device() if device is None else torch.device(device)
    return formula.keep_mask(place_of(local, (), part), threshold(p), key.words, where).expand(local)
