"""The four axes: validated at construction, frozen, and a product of plain values."""

import dataclasses

import pytest

from dropkit import Drop, DropkitError
from dropkit.axes.noise import Alpha, Bernoulli
from dropkit.axes.rate import Constant, Step
from dropkit.axes.share import Share
from dropkit.axes.when import When
from dropkit.drop import alpha, element, feature_alpha, monte_carlo, spatial
from dropkit.mask import alpha_factors


def test_drop_is_a_product_of_values() -> None:
    assert Drop(0.5) == Drop(Constant(0.5), Share(()), When.TRAIN, Bernoulli())
    assert hash(Drop(0.5)) == hash(element(0.5))
    assert spatial(0.2) == Drop(0.2, share=[2, 3])
    assert monte_carlo(0.2) == Drop(0.2, when="always")
    assert alpha(0.2) == Drop(0.2, noise=Alpha()) != element(0.2)
    assert feature_alpha(0.2, axes=(2,)) == Drop(0.2, share=(2,), noise=Alpha())
    assert Drop(0.2).lower() == (65536 - 13107, 65536 / (65536 - 13107), 0.0, 0.0)
    assert alpha(0.2).lower() == (65536 - 13107, *alpha_factors(65536 - 13107))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Drop(0.5).rate = 0.1  # type: ignore[misc]


def test_when() -> None:
    active = {
        w: (Drop(0.5, when=w).active(True), Drop(0.5, when=w).active(False)) for w in ("train", "always", "never")
    }
    assert active == {"train": (True, False), "always": (True, True), "never": (False, False)}


def test_step_rate_falls_to_its_floor_and_stays() -> None:
    rate = Step(start=0.5, drop=0.1, every=3, floor=0.1)
    assert [rate.at(step) for step in range(0, 18, 3)] == [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    assert [rate.at(step) for step in (2, 3, 5, 6)] == [0.5, 0.4, 0.4, 0.3]
    assert Drop(rate).p(7) == 0.3
    assert Step(start=0.5, drop=0.3, every=1, floor=0.1).at(2) == 0.1


@pytest.mark.parametrize(
    ("make", "builtin", "message"),
    [
        (lambda: Constant(1.5), ValueError, r"p must lie in \[0, 1\], got 1.5"),
        (lambda: Constant(float("nan")), ValueError, r"p must lie in \[0, 1\], got nan"),
        (lambda: Constant("0.5"), TypeError, r"p must be a number in \[0, 1\], got '0.5' of type str"),
        (lambda: Step(start=-0.1), ValueError, r"start must lie in \[0, 1\], got -0.1"),
        (lambda: Step(start=0.2, floor=0.3), ValueError, "floor 0.3 lies above start 0.2"),
        (lambda: Step(every=0), ValueError, "every must be at least 1 step, got 0"),
        (lambda: Step(every=1.5), TypeError, "every must be a whole number of steps, got 1.5"),
        (lambda: Share((1, 1)), ValueError, r"share names an axis twice: \(1, 1\)"),
        (lambda: Share("time"), TypeError, "share must be a sequence of axis numbers"),
        (lambda: Drop(0.5, when="sometimes"), ValueError, "when must be one of train, always, never; got 'sometimes'"),
        (lambda: Drop(0.5, noise="gauss"), TypeError, "noise must be a value of dropkit.axes.noise, got 'gauss'"),
        (lambda: Drop(None), TypeError, "p must be a number"),
    ],
)
def test_bad_values(make: object, builtin: type[Exception], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        make()  # type: ignore[operator]
    assert isinstance(caught.value, builtin)
