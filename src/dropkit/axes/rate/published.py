"""Schedules as published, each with the numbers its authors used."""

import math
from dataclasses import dataclass

from ...errors import UnknownNameError
from .schedule import Schedule, between, positive, set_probabilities, set_steps
from .shapes import SETTLED


@dataclass(frozen=True, slots=True)
class Early(Schedule):
    """Dropout in the first steps only: `p * (1 - step / (steps - 1))` or p before step `steps`, 0 from it on.

    Both ends of the line are within the early steps: step 0 has p and step `steps - 1` already 0, as in the authors'
    `linspace(p, 0, steps)`; the values are those of the authors' arrays to the last bit.

    Args:
        p: drop probability at step 0.
        steps: early steps, epochs times optimizer steps an epoch; the authors take 50 epochs of 300. 0 means never.
        mode: "linear" or "constant".

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.
        UnknownNameError: another mode.

    Source: Liu et al. 2023 (arXiv:2303.01500), p 0.1 for dropout and 0.5 for stochastic depth, linear.

    >>> rate = Early(0.1, steps=11)
    >>> [rate.at(step) for step in (0, 5, 10, 11)]
    [0.1, 0.05, 0.0, 0.0]
    """

    p: float
    steps: int
    mode: str = "linear"

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        set_steps(self, "steps", least=0)
        if self.mode not in ("linear", "constant"):
            raise UnknownNameError("mode", str(self.mode), ("linear", "constant"))

    def _p(self, step: int) -> float:
        if step >= self.steps:
            return 0.0
        if self.mode == "constant" or self.steps == 1:
            return self.p
        # linspace's own order of operations, so that its arrays are met bit for bit
        return max(0.0, self.p + step * (-self.p / (self.steps - 1))) if step < self.steps - 1 else 0.0

    def _peak(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Late(Schedule):
    """Dropout in the later steps only: 0 before step `start`, p from it on. The authors have no linear form of it.

    Args:
        p: drop probability of the later steps.
        start: the first of them; the authors take 50 epochs of 300. 0 means always.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: Liu et al. 2023 (arXiv:2303.01500), p 0.4 for the stochastic depth of ViT-B.

    >>> rate = Late(0.4, start=100)
    >>> rate.at(99), rate.at(100)
    (0.0, 0.4)
    """

    p: float
    start: int

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        set_steps(self, "start", least=0)

    def _p(self, step: int) -> float:
        return 0.0 if step < self.start else self.p

    def _peak(self) -> int:
        return self.start


@dataclass(frozen=True, slots=True)
class Curriculum(Schedule):
    """From no dropout to p: the keep probability is `(1 - k) exp(-gamma step) + k` with k = 1 - p.

    So `p(step) = p (1 - exp(-gamma step))`.

    Args:
        p: drop probability in the limit; the paper writes its complement, the keep probability.
        gamma: per step, finite and above 0. The authors' MNIST code has 0.001; `Curriculum.over` has the paper's rule.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: Morerio et al. 2017 (arXiv:1703.06229).

    >>> rate = Curriculum(0.5, gamma=0.001)
    >>> [round(rate.at(step), 4) for step in (0, 1000, 10_000)]
    [0.0, 0.3161, 0.5]
    """

    p: float = 0.5
    gamma: float = 0.001

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        object.__setattr__(self, "gamma", positive("gamma", self.gamma))

    @classmethod
    def over(cls, p: float, steps: int) -> "Curriculum":
        """The paper's gamma, 10 / steps, for a training of so many steps.

        >>> rate = Curriculum.over(0.5, steps=1000)
        >>> round(1 - rate.at(100), 3), round(1 - rate.at(250), 3)
        (0.684, 0.541)
        """
        return cls(p, 10 / positive("steps", steps))

    def _p(self, step: int) -> float:
        return between(0.0, self.p, -math.expm1(-self.gamma * step))

    def _peak(self) -> int:
        return math.ceil(min(SETTLED / self.gamma, 2.0**63))


@dataclass(frozen=True, slots=True)
class AntiCurriculum(Schedule):
    """From p to no dropout, the control of Curriculum Dropout: the keep probability is `1 - p exp(-gamma step)`.

    Args:
        p: drop probability at step 0.
        gamma: per step, finite and above 0; the authors' code has 0.001.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: `ann_dropout` in the code of Morerio et al. 2017. Annealed dropout as published is `Annealed`.

    >>> rate = AntiCurriculum(0.5, gamma=0.001)
    >>> [round(rate.at(step), 4) for step in (0, 1000, 10_000)]
    [0.5, 0.1839, 0.0]
    """

    p: float = 0.5
    gamma: float = 0.001

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        object.__setattr__(self, "gamma", positive("gamma", self.gamma))

    def _p(self, step: int) -> float:
        return self.p * math.exp(-self.gamma * step)

    def _peak(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Annealed(Schedule):
    """Straight down to none: `p * max(0, 1 - step / steps)`.

    Args:
        p: drop probability at step 0.
        steps: the step from which there is none, at least 1.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: Rennie, Goel and Thomas 2014, "Annealed dropout training of deep networks" (SLT).

    >>> rate = Annealed(0.5, steps=100)
    >>> rate.at(0), rate.at(50), rate.at(100)
    (0.5, 0.25, 0.0)
    """

    p: float
    steps: int

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        set_steps(self, "steps")

    def _p(self, step: int) -> float:
        return between(self.p, 0.0, step / self.steps)

    def _peak(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class ProgressiveLayerDrop(Schedule):
    """Of the last layer: it keeps with `theta(step) = (1 - theta) exp(-gamma step) + theta`, so `p = 1 - theta(step)`.

    Layer l of L has l/L of it: `linear_in_depth(ProgressiveLayerDrop(), L)`.

    Args:
        theta: keep probability of the last layer in the limit.
        gamma: per step, finite and above 0.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: Zhang and He 2020 (arXiv:2010.13369); the defaults are DeepSpeed's.

    >>> rate = ProgressiveLayerDrop(theta=0.5, gamma=0.001)
    >>> [round(rate.at(step), 4) for step in (0, 1000, 10_000)]
    [0.0, 0.3161, 0.5]
    """

    theta: float = 0.5
    gamma: float = 0.001

    def __post_init__(self) -> None:
        set_probabilities(self, "theta")
        object.__setattr__(self, "gamma", positive("gamma", self.gamma))

    def _p(self, step: int) -> float:
        return between(0.0, 1.0 - self.theta, -math.expm1(-self.gamma * step))

    def _peak(self) -> int:
        return math.ceil(min(SETTLED / self.gamma, 2.0**63))


@dataclass(frozen=True, slots=True)
class FlatCos(Schedule):
    """p for the first half, then half a cosine down to none: `p (1 + cos(pi max(0, 2 step / steps - 1))) / 2`.

    Args:
        p: drop probability of the first half.
        steps: steps of the whole training, at least 1; 0 is dropped from there on.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: RealMLP (Holzmuller, Grinsztajn and Steinwart 2024, arXiv:2407.04491), p = 0.15; `flat_cos` in its code.

    >>> rate = FlatCos(0.15, steps=100)
    >>> [round(rate.at(step), 4) for step in (0, 50, 75, 100)]
    [0.15, 0.15, 0.075, 0.0]
    """

    p: float
    steps: int

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        set_steps(self, "steps")

    def _p(self, step: int) -> float:
        if step >= self.steps:
            return 0.0
        past = max(0, 2 * step - self.steps)  # of the second half, in half steps
        return between(self.p, 0.0, math.sin(0.5 * math.pi * past / self.steps) ** 2)

    def _peak(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class ExpM4t(Schedule):
    """Down by exp(-4 t) over a training: `p exp(-4 min(1, step / steps))`, which ends at 0.0183 p.

    Args:
        p: drop probability at step 0.
        steps: steps of the whole training, at least 1.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: `expm4t` in the code of RealMLP (Holzmuller, Grinsztajn and Steinwart 2024, arXiv:2407.04491), p = 0.05 in
    its later tuned settings.

    >>> rate = ExpM4t(0.05, steps=100)
    >>> [round(rate.at(step), 4) for step in (0, 25, 100, 200)]
    [0.05, 0.0184, 0.0009, 0.0009]
    """

    p: float
    steps: int

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        set_steps(self, "steps")

    def _p(self, step: int) -> float:
        return self.p * math.exp(-4.0 * min(1.0, step / self.steps))

    def _peak(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class LayerSkip(Schedule):
    """Of the last layer, from none to p over a training: `p (2^t - 1)`, t = min(1, step / (steps - 1)).

    Layer l of L has `2^((l - 1) / (L - 1)) - 1` of it: `exponential_in_depth(LayerSkip(p, steps), L)`. Where a trained
    model is only tuned, the authors let the rate not move: `exponential_in_depth(p, L)`.

    Args:
        p: drop probability of the last layer at the end.
        steps: steps of the whole training, at least 1.

    Raises:
        DropkitTypeError, DropkitValueError: an argument of the wrong type or outside its range.

    Source: Elhoushi et al. 2024 (arXiv:2404.16710), whose exp(x ln 2) - 1 this is.

    >>> rate = LayerSkip(0.2, steps=101)
    >>> [round(rate.at(step), 4) for step in (0, 50, 100, 200)]
    [0.0, 0.0828, 0.2, 0.2]
    """

    p: float
    steps: int

    def __post_init__(self) -> None:
        set_probabilities(self, "p")
        set_steps(self, "steps")

    def _p(self, step: int) -> float:
        return between(0.0, self.p, 2.0 ** min(1.0, step / max(1, self.steps - 1)) - 1.0)

    def _peak(self) -> int:
        return max(1, self.steps - 1)
