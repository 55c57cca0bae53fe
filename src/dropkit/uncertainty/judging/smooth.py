"""Calibration error without bins: residuals smoothed by as much as they are off."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import classified

CELLS = 4096
HALVINGS = 50


def smooth_ece(probabilities: Any, y: Any) -> float:
    """Smooth calibration error: the s at which `integral over [0, 1] of |r_s(t)| dt = s`.

    `r_s(t) = 1/n sum_i K_s(t, f_i) ([sample i is right] - f_i)`, where f_i is the confidence (the largest probability),
    and K_s the Gaussian kernel of standard deviation s reflected at 0 and 1. The integral falls as s grows, so there is
    one such s. It has no bins, moves little when confidences do, and is within a constant factor of the distance to the
    nearest calibrated confidences. Confidences are split linearly between the points of a grid, 1 / 4096 apart.

    Args:
        probabilities: shape (..., classes), or a result whose `mean` has it; all leading axes are samples.
        y: class numbers, shape (...).

    Returns:
        The error, in [0, 1], to about 1e-4.

    Raises:
        DropkitValueError, DropkitTypeError: as `nll`.

    Source: Blasiok and Nakkiran, ICLR 2024, arXiv:2309.12236 (smECE).

    >>> round(smooth_ece([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]], [0, 1, 1, 0]), 3)
    0.4
    """
    p, found = classified(probabilities, y)
    waves = _cosines(p.max(1).astype(np.float64), (p.argmax(1) == found).astype(np.float64))
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _smoothed(waves, middle) > middle else (low, middle)
    return low


def _cosines(sure: NDArray[np.float64], hit: NDArray[np.float64]) -> NDArray[np.float64]:
    """The residuals on a grid as cosines: mirrored at both ends, which is what reflects the kernel."""
    place = np.clip(sure, 0, 1) * CELLS
    left = np.minimum(place.astype(np.int64), CELLS - 1)
    part = place - left
    off = (hit - sure) / len(sure)
    mass = np.bincount(left, off * (1 - part), CELLS + 1) + np.bincount(left + 1, off * part, CELLS + 1)
    mass[[0, -1]] *= 2  # the mirror has them once, and has the others twice
    return np.fft.rfft(np.concatenate([mass, mass[-2:0:-1]])).real


def _smoothed(waves: NDArray[np.float64], deviation: float) -> float:
    """The integral of |r|: in cosines a Gaussian kernel only damps. Whole cells, and a half at each end."""
    damped = waves * np.exp(-0.5 * np.square(np.pi * np.arange(len(waves)) * deviation))
    density = np.abs(np.fft.irfft(damped, 2 * CELLS)[: CELLS + 1])
    return float(density.sum() - (density[0] + density[-1]) / 2)
