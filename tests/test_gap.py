"""Feedback on the rate: the gap is held, the state resumes exactly, and a missing metric is an error."""

import json
import math

import numpy as np
import pytest

from dropkit import DropkitError
from dropkit.axes import rate
from dropkit.axes.rate import Constant, Gap, Late, controllers, linear_in_depth


def plant(gap: Gap, epochs: int, sensitivity: float = 1.0, lag: float = 0.7) -> list[float]:
    """Gaps of a training whose gap follows 0.5 - sensitivity * p with a lag, as a network's does over epochs."""
    found, now = [], 0.5
    for _ in range(epochs):
        now = lag * now + (1 - lag) * (0.5 - sensitivity * gap.at(0))
        found.append(now)
        gap.update(train=0.3, validation=0.3 + now)
    return found


@pytest.mark.parametrize("options", [{}, {"gain": 0.2, "smoothing": 0.3}, {"gain": 0.3, "proportional": 0.5}], ids=str)
@pytest.mark.parametrize("target", [0.1, 0.25])
def test_the_gap_is_held_at_the_target(target: float, options: dict[str, float]) -> None:
    gap = Gap(target, **options)  # type: ignore[arg-type]
    assert plant(gap, 200)[-20:] == pytest.approx([target] * 20, abs=1e-6)
    assert gap.at(0) == pytest.approx(0.5 - target, abs=1e-6)


def test_proportional_damps_the_swing() -> None:
    overshoot = [0.2 - min(plant(Gap(0.2, gain=0.5, proportional=k, max_change=1.0), 100)) for k in (0.0, 1.0)]
    assert overshoot[0] > 2 * max(overshoot[1], 0.0)
    assert overshoot[0] > 0.01


def test_a_target_out_of_reach_ends_at_a_bound_and_is_left_without_delay() -> None:
    gap = Gap(0.1, high=0.3)
    plant(gap, 500)
    assert gap.at(0) == 0.3
    assert gap.update(train=0.5, validation=0.5) == pytest.approx(0.25)  # nothing wound up over 500 epochs
    for _ in range(50):
        gap.update(train=0.5, validation=0.5)
    assert gap.at(0) == 0.0


def test_each_update_is_the_formula() -> None:
    """Smoothed PI control against the formula written out over the whole history."""
    measured = [0.4, 0.1, -0.2, 0.9, 0.3]
    gap = Gap(0.15, low=0.05, high=0.4, start=0.2, gain=0.3, proportional=0.2, smoothing=0.6, max_change=0.08)
    p, smooth, error = 0.2, None, None
    for value in measured:
        smooth = value if smooth is None else 0.6 * smooth + 0.4 * value
        before, error = error, smooth - 0.15
        change = 0.3 * error + (0.2 * (error - before) if before is not None else 0.0)
        p = min(max(p + min(max(change, -0.08), 0.08), 0.05), 0.4)
        assert gap.update(train=1.0, validation=1.0 + value) == pytest.approx(p, abs=1e-15)


def test_an_accuracy_gap_is_train_minus_validation() -> None:
    loss, accuracy = Gap(0.05, gain=1.0), Gap(0.05, metric="accuracy", gain=1.0)
    assert loss.update(train=0.9, validation=1.0) == pytest.approx(0.05)
    assert accuracy.update(train=1.0, validation=0.9) == pytest.approx(0.05)
    assert accuracy.update(train=0.9, validation=1.0) == 0.0


def test_a_controller_without_a_validation_metric() -> None:
    gap = Gap(0.1)
    gap.update(train=0.2, validation=0.5)
    before = gap.state()
    for arguments, message in [
        (
            {"train": 0.2},
            "a Gap controller without a validation metric has no gap to hold at 0.1; pass validation=<loss> ",
        ),
        ({"validation": 0.2}, "a Gap controller without a train metric has no gap to hold at 0.1"),
        (
            {"train": 0.2, "validation": math.nan},
            "the validation loss is nan at update 1; a Gap controller needs finite",
        ),
        ({"train": math.inf, "validation": 0.2}, "the train loss is inf at update 1"),
        ({"train": 0.2, "validation": "0.5"}, "the validation loss must be a number, got '0.5' of type str"),
    ]:
        with pytest.raises(DropkitError, match=message):
            gap.update(**arguments)  # type: ignore[arg-type]
    assert gap.state() == before


def test_state_round_trips_through_json_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    losses = rng.uniform(0, 1, size=(60, 2))
    whole = Gap(0.1, smoothing=0.9, proportional=0.3)
    curve = [whole.update(train=a, validation=a + b) for a, b in losses]
    for killed in (0, 1, 17, 59):
        first = Gap(0.1, smoothing=0.9, proportional=0.3)
        for a, b in losses[:killed]:
            first.update(train=a, validation=a + b)
        saved = json.dumps(first.state(), allow_nan=False)
        resumed = Gap(0.1, smoothing=0.9, proportional=0.3)
        resumed.load(json.loads(saved))
        assert resumed.state() == first.state()
        assert [resumed.update(train=a, validation=a + b) for a, b in losses[killed:]] == curve[killed:]
        assert resumed.state() == whole.state()


def test_a_controllers_record_is_its_settings_and_it_composes() -> None:
    gap, other = Gap(0.1, start=0.2), Gap(0.1, start=0.2)
    record = repr(gap)
    gap.update(train=0.1, validation=0.9)
    assert repr(gap) == record == repr(other)
    assert gap != other
    schedule = Constant(0.0).then(gap, at=100)
    assert [schedule.at(0), schedule.at(100)] == [0.0, gap.at(0)]
    assert [r.at(0) for r in linear_in_depth(gap, 2)] == [gap.at(0) / 2, gap.at(0)]
    assert controllers(schedule.clip(0, 0.4).then(other, at=200)) == [gap, other]
    assert controllers(linear_in_depth(gap, 2)[0]) == [gap]
    assert controllers(Constant(0.1)) == controllers(Constant(0.1).then(Late(0.4, 9), at=3)) == []
    with pytest.raises(ValueError, match=r"gives 1.2\d* at step 0; a rate must lie in \[0, 1\]"):
        rate.Scale(gap, 4.0).at(0)


SAVED = Gap(0.1).state()


@pytest.mark.parametrize(
    ("make", "builtin", "message"),
    [
        (lambda: Gap(math.nan), ValueError, "target must be finite, got nan"),
        (lambda: Gap(0.1, metric="f1"), ValueError, "unknown metric 'f1'; .*Known: accuracy, loss"),
        (lambda: Gap(0.1, low=0.5, high=0.4), ValueError, "a controller needs low <= high"),
        (lambda: Gap(0.1, start=0.6), ValueError, r"start must lie in \[low, high\] = \[0.0, 0.5\], got 0.6"),
        (lambda: Gap(0.1, gain=0), ValueError, "gain must be finite and above 0, got 0"),
        (lambda: Gap(0.1, proportional=-1), ValueError, "proportional must be at least 0, got -1"),
        (lambda: Gap(0.1, smoothing=1), ValueError, "smoothing must be below 1, got 1.0"),
        (lambda: Gap(0.1, max_change=0), ValueError, "max_change must be finite and above 0, got 0"),
        (lambda: Gap(0.1).load([0.1]), TypeError, "state must be a mapping as Gap.state"),
        (lambda: Gap(0.1).load({"p": 0.1}), ValueError, r"has the keys p, gap, error, updates; got \['p'\]"),
        (lambda: Gap(0.1).load({**SAVED, "gap": math.inf}), ValueError, "state 'gap' must be finite"),
        (lambda: Gap(0.1).load({**SAVED, "p": "x"}), TypeError, "state 'p' must be a number, got 'x'"),
        (lambda: Gap(0.1).load({**SAVED, "p": 0.7}), ValueError, r"state 'p' is 0.7, outside \[low, high\]"),
        (lambda: Gap(0.1).load({**SAVED, "updates": 0.5}), ValueError, "must be a whole number of at least 0"),
    ],
)
def test_bad_values(make: object, builtin: type[Exception], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        make()  # type: ignore[operator]
    assert isinstance(caught.value, builtin)
