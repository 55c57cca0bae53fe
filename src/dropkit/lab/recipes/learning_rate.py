"""How a learning rate moves over a run: a factor of it at each step, for every engine."""

import math
from collections.abc import Callable, Mapping

from ...errors import DropkitTypeError, DropkitValueError, UnknownNameError
from ...visible import a_type
from ..imported import failed, imported, is_named

CONSTANT = "constant"
Factor = Callable[[int, int], float]
"""(step from 0, steps of the whole run) -> what the learning rate is multiplied by."""

USUAL = 0.001
TRIED = 100  # steps of a run that a schedule is tried on
WARM, LOW = 0.3, 0.04  # of one cycle: which share of it goes up, and where it begins


def _cosine(step: int, steps: int) -> float:
    return (1 + math.cos(math.pi * min(step, steps) / max(1, steps))) / 2


def _one_cycle(step: int, steps: int) -> float:
    """Half a cosine up from LOW to 1 in the first WARM of the steps, half a cosine down to nearly 0 in the others."""
    top = WARM * steps
    if step < top:
        return LOW + (1 - LOW) * (1 - math.cos(math.pi * step / top)) / 2
    return (1 + math.cos(math.pi * min(1.0, (step - top) / max(1.0, steps - top)))) / 2


def _step(step: int, steps: int) -> float:
    """A tenth after half of the steps, a hundredth after three quarters."""
    return 1.0 if step < steps / 2 else 0.1 if step < 3 * steps / 4 else 0.01


SCHEDULES: Mapping[str, Factor] = {
    CONSTANT: lambda step, steps: 1.0,
    "cosine": _cosine,
    "one-cycle": _one_cycle,
    "step": _step,
}


def factor(schedule: str) -> Factor:
    """The function of a schedule, by its name or its `module:name`.

    Raises:
        UnknownNameError: there is none of that name.
        DropkitTypeError: it is no function.

    >>> factor("cosine")(50, 100), factor("step")(60, 100)
    (0.5, 0.1)
    """
    if not is_named(schedule):
        if schedule not in SCHEDULES:
            raise UnknownNameError("schedule of the learning rate", str(schedule), SCHEDULES)
        return SCHEDULES[schedule]
    given: Factor = imported(schedule)
    if not callable(given):
        raise DropkitTypeError(f"schedule {schedule} is {a_type(given)}: give a function (step, steps)")

    def found(step: int, steps: int) -> float:
        try:
            value = given(step, steps)
            number = float(value)
        except Exception as error:
            raise DropkitValueError(failed(f"schedule {schedule}", error)) from error
        if not 0 <= number < math.inf:
            raise DropkitValueError(
                f"schedule {schedule} gave {number:g} at step {step} of {steps}: give a number of at least 0, by which "
                "the learning rate is multiplied"
            )
        return value

    return found


def check_schedule(schedule: str) -> None:
    """Refuse a schedule that there is not, or that gives no factor at the beginning, the middle or the end of a run.

    >>> check_schedule("cosine")
    """
    moved = factor(schedule)
    for step in (0, TRIED // 2, TRIED - 1):
        moved(step, TRIED)


def checked_rate(rate: float) -> float:
    """A learning rate.

    Raises:
        DropkitValueError: it is no number above 0.

    >>> checked_rate(0.1)
    0.1
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise DropkitValueError(f"the learning rate must be a number above 0, got {rate!r}; try {USUAL}")
    return float(rate)
