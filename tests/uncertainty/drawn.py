"""Predictions drawn with fixed seeds, and a result as predictions of many passes have it."""

from dataclasses import dataclass
from typing import Any

import numpy as np


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def predictions(n: int, classes: int, seed: int = 0, sure: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure, (n, classes), and labels drawn from what they should have been."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(n, classes))
    y = (z + random.gumbel(size=z.shape)).argmax(1)
    return softmax(sure * z), y


def passes(total: int, n: int, classes: int, seed: int = 0, spread: float = 1.5) -> np.ndarray:
    """Probabilities of passes, (total, n, classes)."""
    random = np.random.default_rng(seed)
    return softmax(random.normal(size=(n, classes)) + spread * random.normal(size=(total, n, classes)))


@dataclass
class Result:
    """What a prediction of many passes holds."""

    mean: Any
    variance: Any = None
    quantiles: Any = None
    samples: Any = None
    levels: tuple[float, ...] = ()
    share: str = "pass"
