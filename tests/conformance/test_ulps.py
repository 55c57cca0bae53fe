"""How far continuous noise may be from its equation: units in the last place of float32, counted at max(|y|, 1).

Masks are the same bits everywhere. Logarithms, exponentials and cosines are not, so soft laws have a bound instead. The
numbers that the equation gets are those of `dropkit.uniform` and `dropkit.normal`; it is computed in double precision.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import dropkit
import dropkit.jax
import dropkit.numpy
import dropkit.torch
from dropkit.axes.noise import Soft

from .laws import LAWS, MORE_LAWS, Law

KEY, SIZE = dropkit.Key(3, "ulp"), 20_000
BOUND = 16  # of every law but these, whose odds go through a power of 1 / T
BOUNDS = {"concrete": 64, "hard concrete corrected": 32}


def by_numpy(**how: Any) -> Any:
    return dropkit.numpy.dropout(np.ones(SIZE, np.float32), **how)


def by_torch(**how: Any) -> Any:
    return dropkit.torch.dropout(torch.ones(SIZE), **how).numpy()


def by_jax(**how: Any) -> Any:
    return np.asarray(dropkit.jax.dropout(jnp.ones(SIZE), how.pop("p"), **how))


WAYS = {"numpy": by_numpy, "torch": by_torch, "jax": by_jax}


def farthest(law: Law, way: str, p: float, key: dropkit.Key = KEY) -> float:
    """The largest distance from the equation, in units in the last place."""
    q = 1 - np.rint(p * 65536) / 65536
    numbers = np.asarray(getattr(dropkit, law.noise.source)((SIZE,), KEY), np.float64)
    wanted = np.asarray(law.y(np.ones(SIZE), None, q, numbers), np.float64)
    unit = np.spacing(np.maximum(abs(wanted), 1.0).astype(np.float32)).astype(np.float64)
    return float(
        (abs(WAYS[way](p=p, training=True, key=key, noise=law.noise).astype(np.float64) - wanted) / unit).max()
    )


@pytest.mark.parametrize("way", WAYS)
def test_continuous_noise_is_within_its_bound(way: str) -> None:
    for law in (*LAWS, *MORE_LAWS):
        if isinstance(law.noise, Soft):
            for p in (0.1, 0.5, 0.9):
                assert farthest(law, way, p) <= BOUNDS.get(law.name, BOUND), (law.name, p)


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_number_or_rate_is_outside_of_it(way: str) -> None:
    gaussian = next(law for law in LAWS if law.name == "gaussian")
    assert farthest(gaussian, way, 0.5, dropkit.Key(3, "ulp", 1)) > 1000
    shifted = Law("gaussian", gaussian.noise, lambda x, o, q, n: gaussian.y(x, o, q * (1 - 2**-16), n))
    assert farthest(shifted, way, 0.5) > BOUND
