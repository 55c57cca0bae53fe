"""Laws of users' own: values of kinds that dropkit itself may not have."""

from typing import Any

import numpy as np

from dropkit.axes.noise import Hard, Numbers, Plain, Soft

from .laws import Law


class Doubling(Hard):
    """y = x / q where kept, 2 o / (1 - q) elsewhere; q x / 2 + o / 2 where no noise is on."""

    needs_other = True

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return xp.where(q > 0, 1 / xp.where(q > 0, q, 1.0), 0.0), 0.0, 2 / (1 - q)

    def off(self, q: Any) -> Any:
        return q / 2, q * 0 + 0.5


class Mixing(Hard):
    """y = x / q - p / q o where kept, o elsewhere."""

    needs_other = True

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        inverse = xp.where(q > 0, 1 / xp.where(q > 0, q, 1.0), 0.0)
        return inverse, -(1 - q) * inverse, 1.0


class Masked(Hard):
    """y = x where kept, minus infinity elsewhere."""

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return 1.0, 0.0, float("-inf")


class Wobbling(Soft):
    """y = x (1 + p (2 u - 1))."""

    source = "uniform"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        return 1 + (1 - q) * (2 * n - 1), None


class Shifting(Soft):
    """y = x + p z."""

    source = "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        return 1.0, (1 - q) * n


OWN = [
    Law(
        "doubling", Doubling(), lambda x, o, q, kept: np.where(kept, x / q if q else x, 2 * o / (1 - q)),
        lambda x, o, q: q * x / 2 + o / 2,
    ),
    Law("mixing", Mixing(), lambda x, o, q, kept: np.where(kept, (x - (1 - q) * o) / q if q else x, o)),
    Law("masked", Masked(), lambda x, o, q, kept: np.where(kept, x, -np.inf)),
    Law("wobbling", Wobbling(), lambda x, o, q, u: x * (1 + (1 - q) * (2 * u - 1))),
    Law("shifting", Shifting(), lambda x, o, q, z: x + (1 - q) * z),
]  # fmt: skip
