"""The four axes: validated at construction, frozen, and a product of plain values."""

import dataclasses

import numpy as np
import pytest

import dropkit.numpy
from dropkit import Drop, DropkitError, Key, grid
from dropkit.axes.noise import Alpha, Bernoulli, alpha_factors
from dropkit.axes.rate import Constant, Step
from dropkit.axes.share import Axes, Exactly, Share
from dropkit.axes.when import When
from dropkit.numpy.ops import Arrays
from dropkit.place import WHOLE, Part


def test_drop_is_a_product_of_values() -> None:
    assert Drop(0.5) == Drop(Constant(0.5), Axes(()), When.TRAIN, Bernoulli())
    assert hash(Drop(0.5)) == hash(grid["dropout"](0.5))
    assert grid["spatial"](0.2) == Drop(0.2, share=[2, 3])
    assert grid["monte_carlo"](0.2) == Drop(0.2, when="always")
    assert grid["alpha"](0.2) == Drop(0.2, noise=Alpha()) != Drop(0.2)
    assert grid["feature_alpha"](0.2) == Drop(0.2, share=(2, 3), noise=Alpha())
    assert Share is Axes
    with pytest.raises(DropkitError, match="unknown variant 'zonout'"):
        grid["zonout"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Drop(0.5).rate = 0.1  # type: ignore[misc]


def test_a_drop_is_lowered_to_plain_numbers() -> None:
    t = 65536 - 13107
    assert Drop(0.2).lower()[:5] == (t, Bernoulli(), 65536 / t, 0.0, 0.0)
    assert grid["alpha"](0.2).lower()[2:5] == alpha_factors(t)
    assert Drop(0.2).lower(training=False) is None is Drop(0.0).lower()
    assert Drop(Step(start=0.5, drop=0.1, every=3, floor=0.1)).lower(step=7).t == Drop(0.3).lower().t
    assert Drop(0.2).lower(p=0.5).t == 32768
    assert Drop(1.0).lower().t == 0 and Drop(1.0, noise=Alpha()).lower()[2:5] == (0.0, 0.0, 0.0)
    slope = grid["alpha"](0.2).lower().slope()
    assert slope[2:5] == (alpha_factors(t)[0], 0.0, 0.0)
    assert str(slope.b) == "-0.0"  # x + 0 turns -0 into 0


def test_exactly_k_of_every_group_are_kept_and_every_element_as_often() -> None:
    key = Key(seed=4, site="exactly")
    x = np.ones((4000, 6))
    kept = dropkit.numpy.dropout(x, 0.4, training=True, key=key, share=Exactly((-1,))) != 0
    assert (kept.sum(-1) == 4).all()  # 3.6, rounded
    error = (4000 * 4 / 6 * 2 / 6) ** 0.5
    assert (abs(kept.sum(0) - 4000 * 4 / 6) < 4.5 * error).all()
    images = np.ones((3, 5, 4, 4))
    kept = dropkit.numpy.dropout(images, 0.75, training=True, key=key, share=Exactly((-2, -1)))
    assert ((kept != 0).sum((-2, -1)) == 4).all() and set(np.unique(kept)) == {0, 4}
    everything = dropkit.numpy.dropout(x, 0.05, training=True, key=key, share=Exactly((-1,)))
    assert (everything == 1).all()  # 5.7 of 6 are all of them
    nothing = dropkit.numpy.dropout(x, 0.95, training=True, key=key, share=Exactly((-1,)))
    assert (nothing == 0).all()


def test_equal_numbers_do_not_change_how_many_are_kept() -> None:
    ties = np.zeros((2, 8), np.float32) + 0.25
    ties[1, 3] = 0.125
    kept = Exactly((-1,)).kept(24576, (2, 8), Part(), lambda shape, part, axes: ties, Arrays)
    assert kept.astype(int).tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0]]


def test_a_group_that_lies_apart_is_refused() -> None:
    x, key = np.ones((4, 6)), Key()
    with pytest.raises(DropkitError, match="Exactly over axis 0 needs neighbours, and rows scatter them"):
        dropkit.numpy.dropout(x, 0.5, training=True, key=key, share=Exactly((0,)), rows=np.arange(4))
    with pytest.raises(DropkitError, match="share axis 2 does not exist"):
        dropkit.numpy.dropout(x, 0.5, training=True, key=key, share=Exactly((2,)))


def test_a_part_says_where_a_tensor_lies() -> None:
    assert Part.of(None, None, None) is WHOLE
    assert Part.of([1, 2], (4, 8), None) == Part((1, 2), (4, 8))
    assert Part((1, 2), (4, 8)).in_whole((3, 3)) == ((1, 2), (4, 8))
    assert Part((1, 2), (4, 8), split=((1, 1, 2),)).in_whole((3, 3)) == ((1, 10), (4, 16))
    with pytest.raises(DropkitError, match="axis 1 would reach from 6 to 9 of 8"):
        Part((1, 6), (4, 8)).in_whole((3, 3))


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
        (lambda: Exactly(()), ValueError, r"over must name at least one axis, got \(\)"),
        (lambda: Exactly("last"), TypeError, "over must be a sequence of axis numbers"),
    ],
)
def test_bad_values(make: object, builtin: type[Exception], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        make()  # type: ignore[operator]
    assert isinstance(caught.value, builtin)
