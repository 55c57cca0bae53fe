"""`explain`, `doctor`, `sites`, `check`, `set_rate` and `Schedule` know every law and share, users' own included."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt
from dropkit.axes.noise import Alpha, Bernoulli, Hard, Noise, Numbers, Plain, Soft
from dropkit.axes.share import Axes, Exactly, Refining
from dropkit.grid import grid
from dropkit.probe import Explanation
from tests.conformance.laws import LAWS, SHARES
from tests.conformance.own import OWN


class Scaled(Hard):
    """y = x where kept, 0 elsewhere; q x where no noise is on: dropout as in 2012."""

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return 1.0, 0.0, 0.0

    def off(self, q: Any) -> Any:
        return q, 0.0


class Lifting(Hard):
    """y = x where kept, 3 elsewhere."""

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return 1.0, 0.0, 3.0


class Jumping(Soft):
    """y = (1 + p z) x + p z."""

    source = "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        return 1 + (1 - q) * n, (1 - q) * n


class Pairs(Refining):
    """Neighbours along the last axis share the number of the first."""

    def kept(self, t: Any, shape: tuple[int, ...], part: Any, uniform: Any, xp: Any) -> Any:
        u = uniform(shape, part, ())
        return u[..., [0, 0, 2, 2, 4, 4, 6, 6]] < t / 65536


NOISES: dict[str, Noise] = {
    **{law.name: law.noise for law in (*LAWS, *OWN)},
    **{name: variant.noise for name, variant in grid.items()},
    "scaled": Scaled(),
    "lifting": Lifting(),
    "jumping": Jumping(),
}
SHARINGS: dict[str, Any] = {share.name: share.share for share in SHARES}


class Net(nn.Module):
    """Two layers with a dropout between them, a layer or a call."""

    def __init__(self, noise: Noise, *, call: bool = False, p: float = 0.25, **axes: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
        self.noise, self.axes, self.p = noise, axes, p
        self.drop = None if call else dt.Dropout(p, noise=noise, **axes)
        self.register_buffer("o", torch.full((8,), 0.4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x))
        other = self.o if self.noise.needs_other else None
        if self.drop is not None:
            h = self.drop(h) if other is None else self.drop(h, other)
        else:
            h = dt.dropout(h, self.p, training=self.training, noise=self.noise, other=other, **self.axes)
        return self.last(h)


X = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))


def explained(noise: Noise, **more: Any) -> Explanation:
    torch.manual_seed(0)
    return dropkit.explain(Net(noise, **more), X)


def one(found: Explanation) -> Any:
    (site,) = found.sites
    return site


@pytest.mark.parametrize("call", [False, True], ids=["layer", "call"])
@pytest.mark.parametrize("name", NOISES)
def test_a_law_is_told_as_it_says_itself(name: str, call: bool) -> None:
    noise = NOISES[name]
    found = explained(noise, call=call)
    site = one(found)
    assert (site.train, site.eval, site.now) == (True, False, True)
    assert site.drawn == ("values" if isinstance(noise, Soft) else "mask")
    assert bool(site.off) == (noise.off(0.75) is not None)
    assert site.zeroes == ("first",)
    assert site.changes == ("", "last")
    assert site.gradients == ("first", "last")
    told = " ".join(found.sentences)
    assert "in evaluation too" not in told
    assert ("sub-networks" in told) == (site.drawn == "mask")
    assert ("a number for each of 8 units" in told) == (site.drawn == "values")
    assert ("By design of its law" in told) == (noise.off(0.75) is not None)
    assert {finding.code for finding in found.findings} == ({"DK110"} if isinstance(noise, Alpha) else set())


@pytest.mark.parametrize("call", [False, True], ids=["layer", "call"])
@pytest.mark.parametrize("name", NOISES)
def test_check_finds_nothing_wrong_with_a_law(name: str, call: bool) -> None:
    noise = NOISES[name]
    torch.manual_seed(0)
    report = dt.check(Net(noise, call=call), X)
    assert report.ok, report
    (row,) = report.sites
    adds = isinstance(noise, Soft) and noise.factors(np.array([0.5]), np.asarray(0.5), np)[1] is not None
    assert row.gradient == ("not checked: it adds numbers, which no gradient shows" if adds else "ok")
    assert (row.recomputation, row.off_in_eval, row.on_in_train) == ("ok", "ok", "ok")


WORDS = {
    "inverted": "zeroes a part of what is behind first (tanh)",
    "alpha": "saturates a part of what is behind first (tanh)",
    "doubling": "replaces a part of what is behind first (tanh) by 8 times the other tensor",
    "mixing": "replaces a part of what is behind first (tanh) by the other tensor",
    "masked": "sets a part of what is behind first (tanh) to -inf",
    "lifting": "sets a part of what is behind first (tanh) to 3",
    "scaled": "zeroes a part of what is behind first (tanh)",
    "wobbling": "multiplies by noise what is behind first (tanh)",
    "shifting": "adds noise to what is behind first (tanh)",
    "jumping": "multiplies by noise what is behind first (tanh)",
}


@pytest.mark.parametrize("name", WORDS)
def test_a_sentence_says_what_a_law_does(name: str) -> None:
    noise = NOISES[name]
    first = explained(noise).sentences[0]
    law = "" if isinstance(noise, Bernoulli) else f", noise {type(noise).__name__}()"
    units = "a number for each of 8 units" if isinstance(noise, Soft) else "each of 8 units"
    assert first == f"drop (Dropout, p 0.25{law}) {WORDS[name]}: {units}, per sample."


def test_an_evaluation_that_scales_is_told_as_such_and_no_finding() -> None:
    found = explained(Scaled())
    assert "By design of its law, drop gives 0.75 x in evaluation." in found.sentences
    assert found.findings == ()
    both = replace(found, sites=(found.sites[0], replace(found.sites[0], name="more")))
    assert "By design of their law, drop and more give 0.75 x in evaluation." in both.sentences
    other = explained(NOISES["doubling"])
    assert (
        "By design of its law, drop gives 0.375 x + 0.5 o in evaluation, o being the other tensor." in other.sentences
    )
    assert not any("By design" in told for told in explained(Scaled(), when="always").sentences)


@pytest.mark.parametrize("noise", [Bernoulli(), Alpha(), NOISES["mixing"]], ids=lambda law: type(law).__name__)
@pytest.mark.parametrize("share", SHARINGS)
def test_a_share_is_told_as_what_it_is(share: str, noise: Noise) -> None:
    found = explained(noise, share=SHARINGS[share])
    words = {
        "elements": "each of 8 units, per sample",
        "axis": "one draw per sample",
        "ends": "one draw, shared by the batch",
        "exactly": "exactly 6 of 8 units, per sample",
    }
    assert words.get(share, f"8 units, kept as {SHARINGS[share]!r} says") in " ".join(found.sentences)
    assert one(found).mask_shape == tuple(
        1 if axis in {a % 2 for a in SHARINGS[share].axes} else size for axis, size in enumerate((32, 8))
    )


@pytest.mark.parametrize(
    ("shape", "over", "words", "networks"),
    [
        ((4, 8), (-1,), "exactly 6 of 8 units, per sample", "28"),
        ((4, 5, 8), (2,), "exactly 6 of each 8 along axis 2, per sample", "2^24.0"),
        ((4, 5, 8), (1, -1), "exactly 30 of 40 units, per sample", "2^29.7"),
        ((4, 8), (0,), "exactly 3 of each 4 along axis 0, over the batch", ""),
    ],
)
def test_an_exact_count_is_counted(shape: tuple[int, ...], over: tuple[int, ...], words: str, networks: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), dt.Dropout(0.25, share=Exactly(over)), nn.Linear(8, 2))
    found = dropkit.explain(model, torch.randn(shape))
    told = " ".join(found.sentences)
    assert words in told
    assert (f"one of {networks} sub-networks" in told) if networks else "sub-networks" not in told
    assert one(found).kept == 0.75


def test_the_share_that_is_kept_counts_and_not_the_rate() -> None:
    model = nn.Sequential(nn.Linear(8, 10), dt.Dropout(0.33, share=Exactly((-1,))), nn.Linear(10, 2))
    told = dropkit.explain(model, torch.randn(4, 8)).sentences
    assert "Active on average: 7 of 10 units at 1." in told


def test_a_share_of_ones_own_is_named() -> None:
    found = explained(Bernoulli(), share=Pairs())
    assert "8 units, kept as Pairs() says" in found.sentences[0]
    assert not any("sub-networks" in told for told in found.sentences)
    assert dt.check(Net(Bernoulli(), share=Pairs()), X).ok


class Two(nn.Module):
    """Two dropouts, by one key or by two, on other data."""

    def __init__(self, noise: Noise, keys: tuple[int, int]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(64, 2)
        self.noise, self.keys = noise, keys

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        other = torch.full((64,), 0.4) if self.noise.needs_other else None
        h = sum(
            dt.dropout(layer(x), 0.25, training=True, key=dropkit.Key(key), noise=self.noise, other=other)
            for layer, key in zip((self.first, self.second), self.keys, strict=True)
        )
        return self.last(h)


@pytest.mark.parametrize("name", NOISES)
def test_twins_are_known_by_their_mask_or_their_values(name: str) -> None:
    torch.manual_seed(0)
    same, other = (dropkit.explain(Two(NOISES[name], keys), X) for keys in ((1, 1), (1, 2)))
    told = name != "jumping"  # of m x + s with both at random, the numbers cannot be told from other data
    assert [bool(site.twins) for site in same.sites] == [told, told]
    assert [site.twins for site in other.sites] == [(), ()]


@pytest.mark.parametrize("name", NOISES)
def test_sites_say_law_and_share(name: str) -> None:
    noise = NOISES[name]
    for model in (Net(noise), Net(noise, call=True)):
        (site,) = dt.sites(model, X)
        assert site.noise is noise
        assert ("noise" in dt.table([site])) == (type(noise) is not Bernoulli)
    (site,) = dt.sites(Net(Bernoulli(), share=Exactly((-1,))), X)
    assert site.share == Exactly((-1,))
    assert "share Exactly(over=(-1,))" in dt.table([site])


@pytest.mark.parametrize("name", NOISES)
def test_rates_move_under_every_law(name: str) -> None:
    noise = NOISES[name]
    for share in ((), Axes((1,)), *([Exactly((-1,))] if isinstance(noise, Hard) else [])):
        model = Net(noise, share=share)
        dt.set_rate(model, "drop", 0.5)
        fresh = Net(noise, p=0.5, share=share)
        fresh.load_state_dict(model.state_dict())
        schedule = dt.Schedule(moved := copy.deepcopy(model), dropkit.axes.rate.Linear(0.5, 0.0, 10))
        found = []
        for each in (model, fresh, moved):
            assert each.drop is not None
            with dt.at(seed=1, site="a", step=3):
                found.append(each.drop(X, each.o) if noise.needs_other else each.drop(X))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
        schedule.step()
        assert moved.drop is not None
        assert moved.drop.p == 0.45


@pytest.mark.parametrize(
    "drop",
    [
        lambda: nn.AlphaDropout(0.25),
        lambda: dt.AlphaDropout(0.25),
        lambda: nn.FeatureAlphaDropout(0.25),
        lambda: dt.Dropout(0.25, noise=Alpha()),
        lambda: type("Quiet", (nn.AlphaDropout,), {})(0.25),
    ],
)
def test_alpha_dropout_is_known_by_its_law_and_not_by_its_name(drop: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.SELU(), drop(), nn.Linear(8, 2))
    assert dt.check(model, torch.randn(32, 8)).ok
    found = dropkit.explain(model, torch.randn(32, 8))
    assert (one(found).law, found.findings) == ("Alpha()", ())


def test_a_name_alone_makes_no_alpha_dropout() -> None:
    class AlphabetDropout(dt.Dropout):
        pass

    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), AlphabetDropout(0.25), nn.Linear(8, 2))
    found = dropkit.explain(model, torch.randn(32, 8))
    assert (one(found).law, one(found).becomes, found.findings) == ("Bernoulli()", "zero", ())
    assert dt.check(model, torch.randn(32, 8)).ok


def test_another_mask_in_backward_is_found_under_every_hard_law() -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, noise: Noise) -> torch.Tensor:
            ctx.noise = noise
            return dt.dropout(x, 0.5, training=True, key=dropkit.Key(1), noise=noise)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            with torch.enable_grad():
                x = torch.ones_like(grads[0], requires_grad=True)
                y = dt.dropout(x, 0.5, training=True, key=dropkit.Key(2), noise=ctx.noise)
            return torch.autograd.grad(y, x, grads[0])[0], None

    class Drop(dt.Dropout):
        def forward(self, input: torch.Tensor, other: Any = None) -> torch.Tensor:
            return Broken.apply(input, self.noise) if self.training else input

    for noise in (Bernoulli(), Alpha(), NOISES["masked"], Lifting(), NOISES["wobbling"]):
        model = nn.Sequential(nn.Linear(8, 8), Drop(0.5, noise=noise), nn.Linear(8, 2))
        report = dt.check(model, X)
        assert report.sites[0].gradient.startswith("FAILED: forward and backward draw other "), noise
        drawn = "numbers" if isinstance(noise, Soft) else "masks"
        assert f"draw other {drawn}" in report.sites[0].gradient


def test_the_functions_of_torch_say_their_law() -> None:
    class Calls(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.alpha_dropout(x, 0.25, self.training) + F.dropout(x, 0.5, self.training)

    assert [site.noise for site in dt.sites(Calls(), X)] == [Alpha(), Bernoulli()]
