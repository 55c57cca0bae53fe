"""Rates that move: what holds for every schedule, compositions, depth, bad input, and where rates go."""

import copy
import doctest
import math
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropkit.numpy
from dropkit import Drop, DropkitError, Key, keep
from dropkit.axes import rate
from dropkit.axes.rate import (
    Annealed,
    AntiCurriculum,
    Constant,
    Cosine,
    Curriculum,
    Cyclic,
    Early,
    ExpM4t,
    Exponential,
    FlatCos,
    From,
    Gap,
    Late,
    LayerSkip,
    Linear,
    Piecewise,
    ProgressiveLayerDrop,
    Rate,
    Schedule,
    Step,
    VShape,
    Warmup,
    exponential_in_depth,
    linear_in_depth,
    linspace_in_depth,
    uniform_in_depth,
)

ULP = 2.0**-52

EVERY: list[Schedule] = [
    Constant(0.3),
    Step(0.5, 0.1, every=10, floor=0.1),
    Linear(0.5, 0.1, steps=40),
    Linear(0.1, 0.7, steps=40),
    Warmup(0.4, steps=30),
    Cosine(0.5, 0.1, steps=40),
    Cosine(0.0, 1.0, steps=40),
    Exponential(0.5, 0.1, gamma=0.1),
    Exponential(0.1, 0.5, gamma=0.7),
    Piecewise([(0, 0.2), (10, 0.5), (25, 0.1)]),
    Piecewise([(0, 0.2), (10, 0.5), (25, 0.1)], mode="linear"),
    VShape(0.2, 0.4, turn=10, steps=40),
    Cyclic(0.1, 0.5, period=15),
    Early(0.5, steps=30),
    Early(0.5, steps=30, mode="constant"),
    Late(0.4, start=30),
    Curriculum(0.5, gamma=0.5),
    AntiCurriculum(0.5, gamma=0.5),
    Annealed(0.5, steps=30),
    ProgressiveLayerDrop(gamma=0.5),
    FlatCos(0.15, steps=31),
    ExpM4t(0.05, steps=40),
    LayerSkip(0.2, steps=40),
    From(lambda step: 1 / (2 + step), name="1 / (2 + step)"),
    Warmup(0.4, steps=10).then(Cyclic(0.1, 0.4, period=6), at=20),
    Linear(0.9, 0.0, steps=40).clip(0.1, 0.5),
    Linear(0.9, 0.0, steps=40).scale(0.5),
]


def test_curriculum_over_a_training_is_the_papers() -> None:
    schedule = Curriculum.over(0.5, steps=10_000)
    kept = [1 - schedule.at(step) for step in (1000, 2500, 5000)]
    assert np.allclose(kept, [0.684, 0.541, 0.503], rtol=0, atol=5e-4)
    assert schedule == Curriculum(0.5, gamma=0.001)


def test_piecewise_by_hand() -> None:
    points = [(0, 0.0), (10, 0.5), (20, 0.25)]
    constant, linear = Piecewise(points), Piecewise(points, mode="linear")
    assert [constant.at(step) for step in (0, 9, 10, 19, 20, 99)] == [0.0, 0.0, 0.5, 0.5, 0.25, 0.25]
    assert [linear.at(step) for step in (0, 5, 10, 12, 20, 99)] == [0.0, 0.25, 0.5, 0.45, 0.25, 0.25]


# ---- what holds for every schedule -----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_pure_frozen_and_recorded(schedule: Schedule) -> None:
    forwards = [schedule.at(step) for step in range(100)]
    assert [schedule.at(step) for step in reversed(range(100))] == forwards[::-1]
    assert all(0 <= p <= 1 and type(p) is float for p in forwards)
    assert schedule.at(np.int64(7)) == forwards[7]
    assert copy.deepcopy(schedule) == schedule
    assert hash(copy.copy(schedule)) == hash(schedule)
    assert " at 0x" not in repr(schedule)
    if "From" not in repr(schedule):  # a multiple of every period apart, everything else has settled
        assert schedule.at(10**12) == schedule.at(10**12 + 30)
        assert pickle.loads(pickle.dumps(schedule)) == schedule
        assert eval(repr(schedule), vars(rate)) == schedule


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_the_highest_value_is_known_at_construction(schedule: Schedule) -> None:
    """Scaling to just below 1 is allowed and past 1 refused at once: the step that `scale` looks at is the highest."""
    highest = max(schedule.at(step) for step in range(200))
    assert max(schedule.scale(0.99 / highest).at(step) for step in range(200)) <= 1
    if isinstance(schedule, From):
        assert schedule.scale(2.5).at(5) == pytest.approx(2.5 / 7)
        with pytest.raises(ValueError, match=r"gives 1.25 at step 0; a rate must lie in \[0, 1\]"):
            schedule.scale(2.5).at(0)
    else:
        with pytest.raises(DropkitError, match=r"scaled by .* at step \d+; a rate must lie in \[0, 1\]"):
            schedule.scale(1.01 / highest)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_steps_are_whole_and_not_negative(schedule: Schedule) -> None:
    with pytest.raises(ValueError, match="step must be at least 0 steps, got -1"):
        schedule.at(-1)
    for step in (1.0, True, "3", None):
        with pytest.raises(TypeError, match="step must be a whole number of steps"):
            schedule.at(step)  # type: ignore[arg-type]


probabilities = st.floats(0, 1)


@given(probabilities, probabilities, st.integers(1, 50), st.floats(1e-6, 10))
def test_ramps_are_monotone_and_stay_between_their_ends(start: float, end: float, steps: int, gamma: float) -> None:
    low, high = min(start, end), max(start, end)
    for schedule in (Linear(start, end, steps), Cosine(start, end, steps), Exponential(start, end, gamma)):
        values = [schedule.at(step) for step in range(steps + 3)]
        assert values[0] == start
        assert all(low <= p <= high for p in values)
        rises = [b - a for a, b in pairwise(values)]
        assert all(rise >= 0 for rise in rises) if end >= start else all(rise <= 0 for rise in rises)
        if not isinstance(schedule, Exponential):
            assert values[steps:] == [end] * 3
    assert Exponential(start, end, gamma).at(10**9) == end


# ---- composition -----------------------------------------------------------------------------------------------------


def test_then_counts_the_second_from_its_own_start() -> None:
    schedule = Warmup(0.5, steps=10).then(Linear(0.5, 0.1, steps=4), at=20).then(0.9, at=30)
    assert [schedule.at(step) for step in (0, 5, 10, 19, 20, 22, 24, 29, 30)] == pytest.approx(
        [0.0, 0.25, 0.5, 0.5, 0.5, 0.3, 0.1, 0.1, 0.9], abs=ULP
    )


def test_clip_and_scale_act_on_the_whole_before_it_is_judged() -> None:
    percent = From(lambda step: 40 + step, name="percent")
    assert percent.scale(0.01).at(10) == 0.5
    assert percent.scale(0.01).clip(0.0, 0.5).at(100) == 0.5
    assert From(lambda step: -step, name="falling").clip(0.1).at(5) == 0.1
    with pytest.raises(ValueError, match=r"gives nan at step 3; a rate must lie in \[0, 1\]"):
        From(lambda step: math.nan, name="nan").clip().at(3)


def test_any_object_with_at_composes() -> None:
    class Half:
        def at(self, step: int) -> float:
            return 0.5 / (1 + step)

    assert Constant(0.2).then(Half(), at=5).at(6) == 0.25
    assert rate.Scale(Half(), 0.5).at(0) == 0.25


def test_a_function_is_checked_when_it_is_asked() -> None:
    schedule = From(lambda step: 0.1 * step, name="0.1 * step")
    assert schedule.at(10) == 1.0
    with pytest.raises(DropkitError, match=r"From\(name='0.1 \* step'\) gives 1.1\d* at step 11; a rate must lie in"):
        schedule.at(11)
    with pytest.raises(
        TypeError, match="gives no number at step 2: a rate must be a number, got None of type NoneType"
    ):
        From(lambda step: None, name="none").at(2)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="gives no number at step 0: a rate must be a number, got array"):
        From(lambda step: np.zeros(3), name="many").at(0)  # type: ignore[arg-type,return-value]
    assert From(math.sqrt).name == "sqrt"
    assert From(np.float64).at(1) == 1.0


# ---- depth -----------------------------------------------------------------------------------------------------------


def values(rates: list[Rate], step: int = 0) -> list[float]:
    return [r.at(step) for r in rates]


def test_linear_in_depth_is_stochastic_depths_rule() -> None:
    assert values(linear_in_depth(0.5, 4)) == [0.125, 0.25, 0.375, 0.5]
    # Huang et al. 2016: with L = 54 blocks and p_L = 0.5 the expected depth is (3 L - 1) / 4 = 40.25.
    assert sum(1 - p for p in values(linear_in_depth(0.5, 54))) == pytest.approx(40.25, abs=1e-12)


def test_linspace_in_depth_is_timms_rule() -> None:
    assert values(linspace_in_depth(0.1, 12)) == pytest.approx(np.linspace(0, 0.1, 12).tolist(), abs=ULP)
    assert values(linspace_in_depth(0.1, 1)) == [0.0]


def test_exponential_in_depth_is_layerskips_rule() -> None:
    wanted = [0.2 * (math.exp(layer * math.log(2) / 11) - 1) for layer in range(12)]
    assert values(exponential_in_depth(0.2, 12)) == pytest.approx(wanted, abs=ULP)
    assert (values(exponential_in_depth(0.2, 1)), values(exponential_in_depth(0.2, 12))[-1]) == ([0.0], 0.2)
    half = 0.2 * (math.exp(50 * math.log(2) / 100) - 1)  # of depth and of time, as the paper multiplies them
    assert exponential_in_depth(LayerSkip(0.2, steps=101), 3)[1].at(50) == pytest.approx(half**2 / 0.2, abs=ULP)


def test_depth_and_step_together() -> None:
    # ScheduledDropPath: cell 3 of 6, half of the ramp: 3/6 * 1/2 * 0.4
    assert linear_in_depth(Warmup(0.4, steps=100), 6)[2].at(50) == pytest.approx(0.1, abs=ULP)
    # progressive layer dropping: 1 - (l / L) (1 - theta(t)) is what layer l keeps
    theta = 0.5 * math.exp(-0.7) + 0.5
    kept = [1 - p for p in values(linear_in_depth(ProgressiveLayerDrop(), 12), step=700)]
    assert kept == pytest.approx([1 - layer / 12 * (1 - theta) for layer in range(1, 13)], abs=2 * ULP)
    assert uniform_in_depth(Warmup(0.4, steps=100), 3) == [Warmup(0.4, steps=100)] * 3


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "builtin", "message"),
    [
        (lambda: Linear(0.5, 1.1, 10), ValueError, r"end must lie in \[0, 1\], got 1.1"),
        (lambda: Linear(0.5, 0.1, 0), ValueError, "steps must be at least 1 step, got 0"),
        (lambda: Linear(0.5, 0.1, 10.0), TypeError, "steps must be a whole number of steps, got 10.0"),
        (lambda: Linear(None, 0.1, 10), TypeError, "start must be a number in"),
        (lambda: Constant(np.zeros(3)), TypeError, "p must be a number, got array"),
        (lambda: Warmup(math.nan, 10), ValueError, r"p must lie in \[0, 1\], got nan"),
        (lambda: Exponential(0.5, 0.1, 0.0), ValueError, "gamma must be finite and above 0, got 0.0"),
        (lambda: Exponential(0.5, 0.1, math.inf), ValueError, "gamma must be finite and above 0, got inf"),
        (lambda: Exponential(0.5, 0.1, "fast"), TypeError, "gamma must be a number, got 'fast' of type str"),
        (lambda: Piecewise([]), ValueError, "the first point must be at step 0, got no points"),
        (lambda: Piecewise([(1, 0.5)]), ValueError, "the first point must be at step 0, got 1"),
        (lambda: Piecewise([(0, 0.5), (5, 1.5)]), ValueError, r"p at step 5 must lie in \[0, 1\], got 1.5"),
        (lambda: Piecewise([(0, 0.5), (5, 0.1), (5, 0.2)]), ValueError, r"must rise, got \[0, 5, 5\]"),
        (lambda: Piecewise([0.5, 0.1]), TypeError, r"points must be pairs \(step, p\) such as"),
        (lambda: Piecewise([(0, 0.5)], mode="cubic"), ValueError, "unknown mode 'cubic'; Known: constant, linear"),
        (lambda: VShape(0.2, 0.2, turn=10, steps=10), ValueError, "turn must come before the end, got turn 10 and"),
        (lambda: VShape(0.2, 0.1, 5, 10, bottom=0.15), ValueError, "bottom 0.15 lies above start 0.2 or end 0.1"),
        (lambda: Cyclic(0.5, 0.1, 10), ValueError, "a cycle needs low <= high, got low 0.5 and high 0.1"),
        (lambda: Cyclic(0.1, 0.5, 1), ValueError, "period must be at least 2 steps, got 1"),
        (lambda: Early(0.5, 10, mode="cosine"), ValueError, "unknown mode 'cosine'; did you mean 'linear'"),
        (lambda: Late(0.5, -1), ValueError, "start must be at least 0 steps, got -1"),
        (lambda: Constant(0.5).then(0.1, at=0), ValueError, "at must be at least 1 step, got 0"),
        (
            lambda: Constant(0.5).then(lambda step: 0.1, at=9),
            TypeError,
            r"got the function .* wrap it: From\(function\)",
        ),
        (lambda: Constant(0.5).then("0.1", at=9), TypeError, r"p must be a number in \[0, 1\], got '0.1'"),
        (lambda: Constant(0.5).clip(0.5, 0.4), ValueError, "clip needs low <= high, got low 0.5 and high 0.4"),
        (lambda: Constant(0.5).scale(-1), ValueError, "factor must be finite and at least 0, got -1"),
        (lambda: Linear(0.1, 0.6, 50).scale(2), ValueError, "gives 1.2 at step 50; .* scale by at most 1/0.6"),
        (lambda: From(0.5), TypeError, "function must be callable with a step, got 0.5"),
        (lambda: linear_in_depth(0.5, 0), ValueError, "layers must be at least 1 layer, got 0"),
        (lambda: linspace_in_depth(0.5, 2.0), TypeError, "layers must be a whole number of layers, got 2.0"),
        (lambda: FlatCos(0.15, 0), ValueError, "steps must be at least 1 step, got 0"),
        (lambda: ExpM4t(1.05, 10), ValueError, r"p must lie in \[0, 1\], got 1.05"),
        (lambda: LayerSkip(0.2, 2.5), TypeError, "steps must be a whole number of steps, got 2.5"),
        (lambda: exponential_in_depth(0.5, 0), ValueError, "layers must be at least 1 layer, got 0"),
        (lambda: uniform_in_depth(1.5, 2), ValueError, r"p must lie in \[0, 1\], got 1.5"),
    ],
)
def test_bad_values(make: object, builtin: type[Exception], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        make()  # type: ignore[operator]
    assert isinstance(caught.value, builtin)


# ---- where rates go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moving", [*EVERY, Gap(0.1, start=0.2)], ids=repr)
def test_a_plain_loop_in_numpy(moving: Rate) -> None:
    """Setting p before each forward gives the mask of that p at that step, and the backward pass the same mask."""
    drop = Drop(moving)
    layer = dropkit.numpy.Dropout(0.0, seed=3, site="drop")
    x = np.ones((8, 64), np.float32)
    for step in range(0, 30, 3):
        layer.step = step
        layer.p = drop.p(step)
        y = layer.forward(x, training=True)
        kept = keep(x.shape, drop.p(step), Key(3, "drop", step))
        lowered = drop.lower(step)
        t, scale = (65536, 1.0) if lowered is None else (lowered.t, lowered.a)  # None: p = 0, nothing is dropped
        assert drop.p(step) == moving.at(step)
        assert np.array_equal(y, np.where(kept, np.float32(scale), np.float32(0)))
        assert abs(t / 65536 - (1 - moving.at(step))) <= 0.5 / 65536
        assert np.array_equal(layer.backward(x), y)


def test_the_documentation_runs() -> None:
    path = Path(__file__).parents[1] / "docs" / "rates.md"
    found = doctest.testfile(str(path), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted >= 10
    assert found.failed == 0


def test_a_rate_that_falls_by_steps_is_the_decimal_that_was_meant() -> None:
    """Not 0.30000000000000004, and at its start and its floor exactly those."""
    for start, drop, wanted in [(0.5, 0.1, [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]), (0.9, 0.3, [0.9, 0.6, 0.3, 0.1, 0.1, 0.1])]:
        rate = Step(start, drop, every=7, floor=0.1)
        assert [rate.at(7 * fall) for fall in range(6)] == wanted
    assert Step(1 / 3, 0.1, every=1, floor=0.0).at(0) == 1 / 3
    assert Step(0.5, 1e-9, every=1, floor=0.0).at(3) == 0.499999997
