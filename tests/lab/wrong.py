"""What users give that is wrong: models, losses, metrics and schedules as `tests.lab.wrong:NAME`, in any framework."""

from typing import Any

import numpy as np
from torch import nn


def good() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.Dropout(0.2), nn.Linear(8, 2))


def nothing() -> None:
    return None


def a_class() -> Any:
    return nn.Linear


instance = nn.Linear(2, 2)


class Nan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = good()

    def forward(self, x: Any) -> Any:
        return self.inner(x) / 0 * 0


def detached(outputs: Any, targets: Any) -> Any:
    return (outputs.detach().argmax(1) != targets).float().mean()


def fails(outputs: Any, targets: Any) -> Any:
    raise KeyError("no such column")


def text(outputs: Any, targets: Any) -> str:
    return "0.5"


def other_samples(outputs: Any, targets: Any) -> Any:
    return outputs[:3].sum(1)


def not_a_number(outputs: Any, targets: Any) -> Any:
    return outputs.sum() * float("nan")


def words(outputs: Any, targets: Any) -> str:
    return "good"


def wrong_side(outputs: Any, targets: Any) -> float:
    return float(np.mean(outputs.argmax(1) == targets))


wrong_side.higher_is_better = False  # type: ignore[attr-defined]


def falls_below(step: int, steps: int) -> float:
    return 0.5 - step / steps


def late_failure(step: int, steps: int) -> float:
    return [1.0, 1.0][step * 3 // steps]


def no_number(step: int, steps: int) -> str:
    return "half"
