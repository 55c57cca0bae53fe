"""The table of laws, shares and whens over every frontend and path, and the proof that it can fail."""

from typing import Any

import numpy as np
import pytest

import dropkit
from dropkit.axes.noise import Alpha, Bernoulli, Hard, Numbers, Plain
from dropkit.axes.share import Exactly

from . import columns_jax
from .columns_torch import TORCH, Compiled
from .laws import CHECKS, LAWS, SHARES, Law, Numpy, pairs
from .own import OWN, Doubling, Masked

SLOW = ("torch compiled", "jax jit", "jax formula")
COLUMNS: list[Any] = [
    pytest.param(column, marks=pytest.mark.slow) if column.name in SLOW else column
    for column in (Numpy(), *TORCH, *columns_jax.COLUMNS)
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("law", "share"), pairs(), ids=lambda row: row.name)
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_conforms(column: Any, law: Any, share: Any, check: str) -> None:
    CHECKS[check](column, law, share)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_the_mean_over_many_draws_is_what_the_law_says(law: Any) -> None:
    """Within 4.5 standard errors, 40,000 elements, at a fixed key."""
    x, o = np.full((200, 200), 1.5), np.full((200, 200), -0.5) if law.noise.needs_other else None
    key = dropkit.Key(seed=3, site="mean")
    for p in (0.1, 0.5, 0.8):
        if law.mean is not None:
            y = dropkit.numpy.dropout(x, p, training=True, key=key, noise=law.noise, other=o)
            error = y.std() / np.sqrt(y.size)
            q = 1 - np.rint(p * 65536) / 65536
            assert abs(y.mean() - law.mean(1.5, -0.5, q)) < 4.5 * error, p


@pytest.mark.parametrize("share", SHARES, ids=lambda share: share.name)
def test_the_fraction_kept_over_many_draws_is_what_the_share_says(share: Any) -> None:
    """Within 4.5 standard errors over 3,000 tensors at fixed keys, each tensor's fraction one observation."""
    x = np.ones((3, 4, 9, 10), np.float32)
    for p in (0.1, 0.3, 0.5):
        keys = (dropkit.Key(seed=2, site="fraction", step=step) for step in range(3000))
        kept = [
            np.count_nonzero(dropkit.numpy.dropout(x, p, training=True, key=key, share=share.share)) / x.size
            for key in keys
        ]
        q = share.q(x.shape, 1 - np.rint(p * 65536) / 65536)
        error = max(np.std(kept) / np.sqrt(len(kept)), 1e-9)
        assert abs(np.mean(kept) - q) < 4.5 * error, p


# ---------------------------------------------------------------------------------------------------------------------
# that the table can fail: broken laws, broken shares, broken frontends


class Unscaled(Bernoulli):
    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return q * 0 + 1, 0.0, 0.0


class OnInEvaluation(Bernoulli):
    def off(self, q: Any) -> Any:
        return q, 0.0


class ShiftedAlpha(Alpha):
    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        a, b, c = super().numbers(q, xp)
        return a, b, c + 0.25


class OneTooMany(Exactly):
    def kept(self, t: Any, *rest: Any) -> Any:
        return super().kept(min(t + 65536 // 8, 65536), *rest)


class Backwards(Numpy):
    def gradients(self, x: Any, p: Any, grad: Any, dtype: str, **how: Any) -> Any:
        key = how["key"]
        return super().gradients(x, p, grad, dtype, **how | {"key": dropkit.Key(key.seed, key.site, key.step + 1)})


class ForgetsTheShare(Numpy):
    def dropout(self, x: Any, p: Any, dtype: str, **how: Any) -> Any:
        return super().dropout(x, p, dtype, **how | {"share": ()})


class ForgetsTheNoise(Numpy):
    def dropout(self, x: Any, p: Any, dtype: str, **how: Any) -> Any:
        return super().dropout(x, p, dtype, **how | {"noise": Bernoulli(), "other": None})


class ForgetsThePlace(Numpy):
    def dropout(self, x: Any, p: Any, dtype: str, **how: Any) -> Any:
        return super().dropout(x, p, dtype, **{k: v for k, v in how.items() if k not in ("offset", "global_shape")})


class ForgetsWhen(Numpy):
    def layer(self, *args: Any, **how: Any) -> Any:
        return super().layer(*args, **how | {"when": "train"})


def row(name: str, noise: Any = None, share: Any = None) -> Any:
    """A row of the table, with a value of the same kind in its place."""
    law = next((law for law in LAWS if law.name == name), LAWS[0])
    shared = next((shared for shared in SHARES if shared.name == name), SHARES[0])
    if noise is not None:
        law = Law(law.name, noise, law.y, law.off, law.mean)
    if share is not None:
        shared = type(shared)(shared.name, share, shared.kept, shared.q, shared.soft)
    return law, shared


@pytest.mark.parametrize(
    ("column", "rows", "check"),
    [
        (Numpy(), row("inverted", Unscaled()), "forward"),
        (Numpy(), row("inverted", OnInEvaluation()), "layers"),
        (Numpy(), row("alpha", ShiftedAlpha()), "forward"),
        (Numpy(), row("exactly", share=OneTooMany((-1,))), "forward"),
        (Backwards(), row("inverted"), "backward"),
        (ForgetsTheShare(), row("axis"), "forward"),
        (ForgetsTheNoise(), row("alpha"), "forward"),
        (ForgetsThePlace(), row("inverted"), "sharded"),
        (ForgetsWhen(), row("inverted"), "layers"),
    ],
    ids=lambda value: getattr(value, "name", None) or (value if isinstance(value, str) else value[0].name),
)
def test_a_broken_law_share_or_frontend_is_caught(column: Any, rows: Any, check: str) -> None:
    with pytest.raises(AssertionError):
        CHECKS[check](column, *rows)


# ---------------------------------------------------------------------------------------------------------------------
# laws of users' own: values of kinds that dropkit itself may not have


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "refusals"])
@pytest.mark.parametrize("law", OWN, ids=lambda law: law.name)
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_law_of_ones_own_conforms(column: Any, law: Any, check: str) -> None:
    if law.name == "masked" and check == "backward":
        law = Law("masked", Masked(), lambda x, o, q, kept: np.where(kept, x, 0))
    for share in SHARES if isinstance(law.noise, Hard) else [share for share in SHARES if share.soft]:
        CHECKS[check](column, law, share)


def test_a_law_that_has_no_numbers_at_rate_0_is_not_asked_for_them() -> None:
    """A share may keep all of a small group though a rate was asked."""
    x, o = np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32)
    how = {"training": True, "key": dropkit.Key(), "share": Exactly((-1,)), "noise": Doubling()}
    assert (dropkit.numpy.dropout(x, 0.05, **how, other=o) == x).all()
    import torch

    assert (dropkit.torch.dropout(torch.tensor(x), 0.05, **how, other=torch.tensor(o)).numpy() == x).all()


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # in torch.compile itself
@pytest.mark.parametrize(
    ("law", "share"), [("gaussian", "axis"), ("zoneout", "elements"), ("inverted", "block 2d"), ("inverted", "exactly")]
)
def test_what_is_no_kernel_compiles_to_code_in_one_graph(law: str, share: str) -> None:
    """With torch's own compiler, which takes apart what `aot_eager` leaves whole."""
    column = Compiled(backend="inductor")
    for check in ("moving", "backward"):
        CHECKS[check](column, row(law)[0], row(share)[1])
