"""The table of laws, shares and whens over every frontend and path, and the proof that it can fail."""

import itertools
import re
from typing import Any

import numpy as np
import pytest

import dropkit.jax
import dropkit.numpy
import dropkit.torch
from dropkit.axes.noise import (
    AdditiveGaussian,
    Alpha,
    Bernoulli,
    Concrete,
    Fill,
    Hard,
    HardConcrete,
    Numbers,
    Plain,
    Raw,
    Shakeout,
)
from dropkit.axes.share import Antithetic, Axes, Block, Exactly, Exclusive, axes_named
from dropkit.errors import DropkitError
from dropkit.numpy.ops import Arrays

from . import columns_jax
from .columns_torch import TORCH, Compiled
from .laws import CHECKS, LAWS, MORE_LAWS, MORE_SHARES, SHARES, Law, Numpy, moments, more_pairs, pairs
from .own import OWN, Doubling, Masked

SLOW = ("torch compiled", "jax jit", "jax formula")
EAGER = [column for column in (Numpy(), *TORCH, *columns_jax.COLUMNS) if column.name not in SLOW]
COLUMNS: list[Any] = [
    pytest.param(column, marks=pytest.mark.slow) if column.name in SLOW else column
    for column in (Numpy(), *TORCH, *columns_jax.COLUMNS)
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("law", "share"), pairs(), ids=lambda row: row.name)
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_conforms(column: Any, law: Any, share: Any, check: str) -> None:
    CHECKS[check](column, law, share)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("law", "share"), more_pairs(), ids=lambda row: row.name)
@pytest.mark.parametrize("column", EAGER, ids=lambda column: column.name)
def test_the_further_ones_conform(column: Any, law: Any, share: Any, check: str) -> None:
    CHECKS[check](column, law, share)


def test_the_mean_and_the_variance_are_those_of_the_equation() -> None:
    """Within 5 standard errors, 40,000 elements, at a fixed key; and the law states that mean."""
    for law in (*LAWS, *MORE_LAWS):
        check_moments(law)


def check_moments(law: Law) -> None:
    o = -0.5 if law.noise.needs_other else 1.0
    x, key = np.full((200, 200), 1.5), dropkit.Key(seed=3, site="mean")
    for p in (0.1, 0.25, 0.5, 0.8):
        q = 1 - np.rint(p * 65536) / 65536
        mean, variance = moments(law, 1.5, o, q)
        if law.mean is not None:
            np.testing.assert_allclose(mean, law.mean(1.5, o, q), rtol=1e-5, err_msg=law.name)
        u, v = law.noise.mean(q)
        np.testing.assert_allclose(u * 1.5 + v * o, mean, rtol=2e-6, err_msg=law.name)
        other = x * 0 + o if law.noise.needs_other else None
        y = dropkit.numpy.dropout(x, p, training=True, key=key, noise=law.noise, other=other)
        assert abs(y.mean() - mean) < 5 * (variance / y.size) ** 0.5, (law.name, p)
        fourth = ((y - mean) ** 4).mean()
        assert abs(((y - mean) ** 2).mean() - variance) < 5 * (max(fourth - variance**2, 0) / y.size) ** 0.5 + 1e-9, (
            law.name,
            p,
        )


def test_a_mean_that_is_stated_wrongly_is_caught() -> None:
    class Claims(Raw):
        def mean(self, q: float) -> tuple[float, float]:
            return 1.0, 0.0

    class Relaxed(Concrete):
        def mean(self, q: float) -> tuple[float, float]:
            return 1.0, 0.0

    for name, noise in (("raw", Claims()), ("concrete 2/3", Relaxed(2 / 3)), ("uniform", Concrete(0.1))):
        right = next(law for law in MORE_LAWS if law.name == name)
        with pytest.raises(AssertionError):
            check_moments(Law(name, noise, right.y, right.off, right.mean))


def test_a_hard_concrete_gate_is_zero_at_the_rate_and_has_the_published_mean() -> None:
    """P(z = 0) = p; at ln a = -2 the mean is .1426 and the gate of evaluation .0430, at 2 .8574 and .9570."""
    x, key = np.ones((300, 300)), dropkit.Key(seed=4, site="gates")
    for p in (0.1, 0.5):
        zeros = np.count_nonzero(dropkit.numpy.dropout(x, p, training=True, key=key, noise=HardConcrete()) == 0)
        q = 1 - np.rint(p * 65536) / 65536
        assert abs(zeros - (1 - q) * x.size) < 4.5 * (q * (1 - q) * x.size) ** 0.5
    for log_a, mean, fixed in ((-2, 0.1426, 0.0430), (2, 0.8574, 0.9570)):
        q = 1 / (1 + np.exp(-log_a + 2 / 3 * np.log(0.1 / 1.1)))
        assert abs(HardConcrete().mean(q)[0] - mean) < 1e-4
        assert abs(HardConcrete().off(q)[0] - fixed) < 6e-5


def test_a_relaxed_mask_is_biased_as_published_and_hard_where_the_temperature_falls() -> None:
    """P(z < 1/2) = p at any temperature."""
    for temperature, p, bias in ((0.1, 0.1, 0.9987), (2 / 3, 0.02, 0.9821), (2 / 3, 0.1, 0.9497), (2 / 3, 0.2, 0.9389)):
        assert abs(Concrete(temperature).mean(1 - p)[0] - bias) < 6e-5
        assert Concrete(temperature, correct=True).mean(1 - p)[0] == 1
    u = dropkit.uniform((1000,), dropkit.Key(1, "gates"))
    for temperature in (0.01, 0.1, 2 / 3):
        z = Concrete(temperature).factors(u, 0.75, Arrays)[0] * 0.75
        assert ((z > 0.5) == (u < 0.75)).all()
    hard = Concrete(1e-7).factors(u, 0.75, Arrays)[0]
    np.testing.assert_allclose(hard, np.where(u < 0.75, 4 / 3, 0), rtol=1e-6, atol=1e-30)


def test_clipped_blocks_drop_every_position_as_often() -> None:
    """Each position's count over 20,000 maps within 5 standard errors of a binomial, at the border too; 1d, 2d, 3d."""
    for size, shape in ((4, (20_000, 9)), ((2, 3), (20_000, 4, 5)), ((2, 1, 2), (20_000, 3, 2, 3))):
        share = Block(size, over=tuple(range(1, len(shape))), clipped=True)
        y = dropkit.numpy.dropout(np.ones(shape), 0.2, training=True, key=dropkit.Key(6, "clipped"), share=share)
        counts = np.count_nonzero(y == 0, axis=0)
        assert (abs(counts - 0.2 * 20_000) < 5 * (0.2 * 0.8 * 20_000) ** 0.5).all()
        assert (np.unique(y[y != 0]) == 65536 / 52429).all()  # never by what this very batch kept


def test_a_higher_rate_drops_a_superset() -> None:
    """Of every law's mask and every share's, but for one of several parts, whose arcs move."""
    x, key = np.ones((3, 4, 9, 10)), dropkit.Key(seed=7, site="nested")
    for share in (*SHARES, *MORE_SHARES):
        dropped = [
            dropkit.numpy.dropout(x, p, training=True, key=key, share=share.share) == 0
            for p in (0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.95, 1.0)
        ]
        nested = all((less <= more).all() for less, more in itertools.pairwise(dropped))
        assert nested == (share.name != "exclusive"), share.name
        assert any((less != more).any() for less, more in itertools.pairwise(dropped))


def test_of_several_parts_one_is_dropped_at_a_time_and_each_as_often() -> None:
    x = np.ones((4000, 3, 2))
    for p, most in ((0.1, 1), (0.25, 1), (0.5, 2), (0.8, 3)):
        y = dropkit.numpy.dropout(x, p, training=True, key=dropkit.Key(8), share=Exclusive((1,), axes=(2,)))
        gone = y[..., 0] == 0
        assert (gone == (y[..., 1] == 0)).all()
        assert gone.sum(1).max() == most and gone.sum(1).min() >= most - 1
        assert (abs(gone.sum(0) - 4000 * p) < 4.5 * (4000 * p * (1 - p)) ** 0.5).all()


def test_opposite_draws_correlate_as_little_as_they_can() -> None:
    x = np.ones((20_000, 2))
    for p in (0.2, 0.5, 0.9):
        y = dropkit.numpy.dropout(x, p, training=True, key=dropkit.Key(9), share=Antithetic((1,)))
        both = ((y != 0).all(1)).mean()
        assert abs(both - max(1 - 2 * p, 0)) < 4.5 * (0.25 / 20_000) ** 0.5
        assert ((y == 0).all(1).any()) == (p > 0.5)


def test_axes_have_names() -> None:
    assert Axes.named("N C H W", "H W") == Axes((2, 3))
    assert axes_named("N ... C", "N C") == (0, -1)
    x, key = np.ones((4, 3, 2, 2)), dropkit.Key(1)
    spatial = [
        dropkit.numpy.dropout(x, 0.5, training=True, key=key, share=s) for s in ((2, 3), Axes.named("N C H W", "H W"))
    ]
    assert (spatial[0] == spatial[1]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: axes_named("N C", "H"), "layout 'N C' has no axis 'H'"),
        (lambda: axes_named("N C C", "C"), "layout 'N C C' or names 'C' has a name twice"),
        (
            lambda: axes_named(("N", "C"), "C"),
            "layout and names must be text such as 'N C H W', got ('N', 'C') and 'C'",
        ),
        (lambda: Axes.named("N ... C", "..."), "layout 'N ... C' has no axis '...'"),
        (lambda: Block(3, clipped=1), "clipped must be True or False, got 1"),
        (lambda: Antithetic((0, 1)), "over must name one axis, got (0, 1)"),
        (lambda: Exclusive(()), "over must name at least one axis, got ()"),
        (lambda: of(Exclusive((1,), (1,))), "Exclusive over axis 1 tells apart entries that axes (1,) share"),
        (lambda: of(Antithetic((0,), (-2,))), "Antithetic over axis 0 tells apart entries that axes (-2,) share"),
        (lambda: of(Block(2, (-1,), axes=(1,))), "Block over axis 1 tells apart entries that axes (1,) share"),
        (lambda: of(Exclusive((1,)), 300), "Exclusive over axis 1 takes up to 256 parts, got 300"),
    ],
)
def test_parameters_of_shares_are_checked(make: Any, message: str) -> None:
    with pytest.raises(DropkitError, match=re.escape(message)):
        make()


def of(share: Any, size: int = 4) -> Any:
    return dropkit.numpy.dropout(np.ones((2, size)), 0.5, training=True, key=dropkit.Key(), share=share)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shakeout(-0.1), "c must be a finite number of at least 0, got -0.1"),
        (lambda: Shakeout(float("nan")), "c must be a finite number of at least 0, got nan"),
        (lambda: Fill(float("nan")), "value must be a number, or an infinity, got nan"),
        (lambda: Fill("zero"), "value must be a number, or an infinity, got 'zero'"),
        (lambda: Concrete(0), "temperature must be a finite number above 0, got 0"),
        (lambda: Concrete(True), "temperature must be a finite number above 0, got True"),
        (lambda: HardConcrete(float("inf")), "temperature must be a finite number above 0, got inf"),
        (lambda: AdditiveGaussian(0.0), "scale must be a finite number above 0, got 0.0"),
        (lambda: Concrete(0.1, correct=1), "correct must be True or False, got 1"),
    ],
)
def test_parameters_of_laws_are_checked(make: Any, message: str) -> None:
    with pytest.raises(DropkitError, match=re.escape(message)):
        make()


def of_all(dropout: Any, x: Any, o: Any, key: Any) -> list[Any]:
    """What all further laws and shares make of x."""
    how = {"training": True, "key": key}
    laws = [
        dropout(x, 0.3, noise=law.noise, **how, **({"other": o} if law.noise.needs_other else {})) for law in MORE_LAWS
    ]
    return laws + [dropout(x, 0.3, share=share.share, **how) for share in MORE_SHARES]


@pytest.mark.slow
@pytest.mark.parametrize("frontend", ["torch", "jax"])
def test_all_further_laws_and_shares_are_one_compiled_program(frontend: str) -> None:
    """With one compilation for all of them, and moving rates in `moving` for each when it is eager."""
    x, o = (np.random.default_rng(seed).normal(size=(6, 8)).astype(np.float32) for seed in (1, 2))
    key = dropkit.Key(5, "laws", 2)
    expected = of_all(dropkit.numpy.dropout, x, o, key)
    if frontend == "torch":
        import torch

        torch.compiler.reset()
        run = torch.compile(lambda x, o: of_all(dropkit.torch.dropout, x, o, key), backend="aot_eager", fullgraph=True)
        found = [y.numpy() for y in run(torch.tensor(x), torch.tensor(o))]
    else:
        import jax

        found = jax.jit(lambda x, o: of_all(dropkit.jax.dropout, x, o, key))(x, o)
    for y, wanted, row in zip(found, expected, (*MORE_LAWS, *MORE_SHARES), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=1e-6, err_msg=row.name)


@pytest.mark.parametrize("share", [*SHARES, *MORE_SHARES], ids=lambda share: share.name)
def test_the_fraction_kept_over_many_draws_is_what_the_share_says(share: Any) -> None:
    """Within 4.5 standard errors over many tensors at fixed keys, each tensor's fraction one observation."""
    x = np.ones((3, 4, 9, 10), np.float32)
    for p in (0.1, 0.3, 0.5):
        keys = (dropkit.Key(seed=2, site="fraction", step=step) for step in range(3000 if share in SHARES else 300))
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
