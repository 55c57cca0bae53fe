"""torch.nn.functional's dropout with torch's own signature, so that a changed import is the whole change."""

import torch

from . import ops


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """`torch.nn.functional.dropout`, drawn by dropkit: ambient key, or the one of an enclosing `dropkit.torch.at`.

    Like torch's it drops by default: pass `training=self.training`, or use `dropkit.torch.dropout`, which insists.

    Args:
        input: floating tensor of any shape.
        p: drop probability in [0, 1].
        training: whether to drop.
        inplace: write into input.

    Returns:
        A tensor like input, or input itself where nothing is dropped.

    Raises:
        DropkitValueError, DropkitTypeError: as `dropkit.torch.dropout`.

    >>> dropout(torch.ones(3), p=1.0)
    tensor([0., 0., 0.])
    """
    return ops.dropout(input, p, training=bool(training), inplace=inplace)
