"""Intervals over folds of one data set: these share training samples, so that their scores are not independent."""

import math
from dataclasses import replace

from ..statistics.interval import Interval


def of_folds(interval: Interval, overlap: float) -> Interval:
    """The interval of a mean over n folds: its standard error is `sd sqrt(1 / n + overlap)`.

    The corrected resampled t interval of Nadeau and Bengio 2003, Inference for the Generalization Error, Machine
    Learning 52: `overlap` is test samples by training samples, 1 / (k - 1) for k folds. 0 leaves the interval as it is.

    >>> round(of_folds(Interval(mean=0.1, half=0.02, sd=0.01, n=5), 0.25).half, 3)
    0.03
    """
    if interval.half is None or interval.sd is None or not overlap:
        return interval
    factor = math.sqrt(1 + interval.n * overlap)
    return replace(interval, half=factor * interval.half, sd=factor * interval.sd)
