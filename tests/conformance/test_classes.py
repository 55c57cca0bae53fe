"""The table of torch's classes for branches, layers, weights, heads and pooling, and the proof that it can fail."""

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dropkit.torch as dt
from dropkit.torch import depth, embedded, heads, pooling, weights
from dropkit.torch.layers import Drawn

from . import classes
from .classes import CHECKS, ROWS, Row


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_conforms(row: Row, check: str) -> None:
    CHECKS[check](row)


class All(nn.Module):
    """The classes of all rows side by side, but for those that decide on the host what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = [row for row in ROWS if not getattr(row.make(0.25), "decides", False)]
        self.held = nn.ModuleList([row.make(0.25) for row in self.rows])

    def forward(self, x: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        return [one(*given) for one, given in zip(self.held, x, strict=True)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # in the compiler itself
def test_all_that_do_not_decide_what_runs_are_one_compiled_program_at_every_rate() -> None:
    """The others are `test_depth_compiled`'s: there the host decides, between graphs."""
    torch.compiler.reset()
    model = dt.bind(All(), 5)
    x = [classes.inputs(row, torch.float32) for row in model.rows]
    run = torch.compile(model, backend="eager", fullgraph=True)
    for p in (0.25, 0.5):
        for row, one in zip(model.rows, model.held, strict=True):
            if row.moves:
                one.p = p
        with dt.at(step=2):
            found = run(x)
        with dt.at(step=2):
            wanted = model(x)
        for row, y, expected in zip(model.rows, found, wanted, strict=True):
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6, msg=row.name)


def test_every_class_has_a_row() -> None:
    """Of those that are no `Dropout` with a noise and a share, which `test_variants` holds to their values."""
    made = {type(row.make(0.25)).__name__ for row in ROWS}
    there = {
        name
        for room in (depth, weights, heads, pooling, embedded)
        for name, kind in vars(room).items()
        if inspect.isclass(kind) and issubclass(kind, Drawn) and kind.__doc__ and "Abstract." not in kind.__doc__
    }
    assert there - {"Depth", "ResidualDrop"} <= made, there - made


class Wrong(dt.StochasticDepth):
    """A planted mistake: kept branches are not rescaled."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * (1 - self.p) if self.training else input


class OnInEvaluation(dt.StochasticDepth):
    """A planted mistake: evaluation scales."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) if self.training else input * (1 - self.p)


class OfTheBatch(dt.StochasticDepth):
    """A planted mistake: a sample's mask depends on where in the batch it stands."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.flip(0)).flip(0)


class Detached(dt.StochasticDepth):
    """A planted mistake: half of the gradient is lost."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = super().forward(input)
        return (y + y.detach()) / 2


class Unchecked(nn.Module):
    """A planted mistake: it takes any rate."""

    def __init__(self, p: Any) -> None:
        super().__init__()
        self.p = p


class Forgetful(dt.StochasticDepth):
    """A planted mistake: it keeps a state of its own that nobody loads."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(input) * (1 + 0.1 * self.calls)


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (lambda p: Wrong(p, "row"), "forward"),
        (lambda p: Wrong(p, "row"), "statistics"),
        (lambda p: OnInEvaluation(p, "row"), "evaluation"),
        (lambda p: OfTheBatch(p, "row"), "sharded"),
        (lambda p: Detached(p, "row"), "gradients"),
        (Unchecked, "errors"),
        (lambda p: Forgetful(p, "row"), "state"),
        (lambda p: dt.StochasticDepth(min(p * 1.04, 1.0), "row"), "forward"),
    ],
)
def test_a_planted_wrong_value_is_caught(make: Any, check: str) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[check](replace(ROWS[0], make=make))


def test_a_wrong_rate_of_the_oracle_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = classes.drawn
    monkeypatch.setattr(classes, "drawn", lambda row, p, step: right(row, p * 1.4, step))
    with pytest.raises(AssertionError):
        classes.rate(ROWS[0])


def test_moments_of_the_table_are_those_of_the_papers() -> None:
    """P4, P5: E[y] = x and Var[y] = x^2 p / q of a branch; P17: q W v and q p (W^2)(v^2) of raw DropConnect."""
    rows = {row.name: row for row in ROWS}
    held, x = classes.model(rows["drop path"]), classes.inputs(rows["drop path"])
    mean, variance = classes.moments(rows["drop path"], held, x)
    q = classes.rounded(classes.P)
    np.testing.assert_allclose(mean, x[0], rtol=1e-12)
    np.testing.assert_allclose(variance, x[0] ** 2 * (1 - q) / q, rtol=1e-12)
    row = rows["drop connect raw"]
    held, x = classes.model(row), classes.inputs(row)
    mean, variance = classes.moments(row, held, x)
    w, v = classes.weight(held.d), x[0].numpy()
    np.testing.assert_allclose(mean, q * v @ w.T, rtol=1e-12)
    np.testing.assert_allclose(variance, q * (1 - q) * v**2 @ (w**2).T, rtol=1e-10)
