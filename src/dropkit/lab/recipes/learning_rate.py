"""How a learning rate moves over a run: a factor of it at each step, for every engine."""

import math
from collections.abc import Callable, Mapping

from ...errors import DropkitTypeError, UnknownNameError
from ...visible import a_type
from ..imported import imported, is_named

CONSTANT = "constant"
Factor = Callable[[int, int], float]
"""(step from 0, steps of the whole run) -> what the learning rate is multiplied by."""

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
    found: Factor = imported(schedule)
    if not callable(found):
        raise DropkitTypeError(f"schedule {schedule} is {a_type(found)}: give a function (step, steps)")
    return found
