"""torch as laws and shares know a library of arrays."""

from collections.abc import Sequence

import numpy as np
import torch


class Arrays:
    """torch as laws and shares know a library of arrays."""

    where, sqrt, cumsum = torch.where, torch.sqrt, torch.cumsum
    log, exp, clip = torch.log, torch.exp, torch.clip
    moveaxis, reshape = torch.moveaxis, torch.reshape

    @staticmethod
    def take(table: np.ndarray, t: torch.Tensor) -> torch.Tensor:
        """Entries of a NumPy table."""
        # As a list of indices: a single one a compiler takes for a number whose value it has to ask for.
        index = t.reshape(-1).to(torch.int64)
        return torch.as_tensor(table, device=t.device).index_select(0, index).reshape(t.shape)

    @staticmethod
    def sort(x: torch.Tensor) -> torch.Tensor:
        """Sorted along the last axis."""
        return torch.sort(x, dim=-1)[0]

    @staticmethod
    def pad(bits: torch.Tensor, widths: Sequence[tuple[int, int]]) -> torch.Tensor:
        """False before and behind, as `numpy.pad`."""
        return torch.nn.functional.pad(bits, [width for pair in reversed(widths) for width in pair])
