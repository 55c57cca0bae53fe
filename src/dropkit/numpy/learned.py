"""Dropout whose rate is learned, with its own backward pass."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..axes.when import When
from ..counter import Key
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..mask import uniform
from .ops import check_dtype


class ConcreteDropout:
    """Concrete dropout: a relaxed mask, so that the rate has a gradient.

        d = sigmoid((logit(p) + logit(u)) / t),   y = x (1 - d) / (1 - p)

    with u the uniform numbers of (seed, site, step), those of `dropkit.torch.learned.ConcreteDropout`. Backward gives
    the gradient of x, and in `logit_grad` that of logit(p), through the gate and through 1 / (1 - p). Alone it drives
    p to a bound: add `penalty_grad(n, ...)` of the regulariser, as `sgd` does where it is told n.

    Args:
        p: initial drop probability, in (0, 1) and inside clamp.
        temperature: t, above 0.
        clamp: bounds of p, such as (0.0, 0.5).
        when: "train", "always" (Monte Carlo dropout) or "never".
        seed, site: coordinates of the noise; give each layer of a network a site of its own.
        inputs: how many inputs are dropped, for the penalty; by default the features of the last x.
        length_scale: the prior's l, for the weights that are given to `penalty`.

    Raises:
        DropkitTypeError, DropkitValueError: p or clamp outside their ranges, a temperature that is not positive.

    Source: Gal, Hron, Kendall 2017 (NeurIPS), "Concrete Dropout".

    >>> layer = ConcreteDropout(0.5, seed=1, site="drop")
    >>> y = layer.forward(np.ones((2, 8), np.float32), training=True)
    >>> dx = layer.backward(np.ones_like(y))
    >>> np.array_equal(dx, y), round(layer.p, 6)
    (True, 0.5)
    """

    def __init__(
        self,
        p: float = 0.1,
        *,
        temperature: float = 0.1,
        clamp: tuple[float, float] = (0.0, 1.0),
        when: str = "train",
        seed: int = 0,
        site: int | str = 0,
        inputs: int | None = None,
        length_scale: float = 1e-2,
    ):
        low, high = clamp
        if not 0 <= low < high <= 1:
            raise DropkitValueError(f"clamp must be two bounds with 0 <= low < high <= 1, got {clamp!r}")
        if isinstance(p, str) or not hasattr(p, "__float__"):
            raise DropkitTypeError(f"p must be a number in (0, 1), got {p!r} of type {type(p).__name__}")
        if not (0 < p < 1 and low <= p <= high):
            raise DropkitValueError(
                f"p must lie in (0, 1) and inside clamp {clamp!r}, got {p}; 0 and 1 have no gradient"
            )
        if not temperature > 0:
            raise DropkitValueError(f"temperature must be above 0, got {temperature}")
        self.when: When = When.of(when)
        self.key = Key(seed, site)
        self.clamp, self.temperature = (float(low), float(high)), float(temperature)
        self.inputs, self.length_scale = inputs, float(length_scale)
        self.logit = math.log(p) - math.log1p(-p)
        self.logit_grad = 0.0
        self.step = 0
        self._last: tuple[NDArray, NDArray] | None = None

    @property
    def p(self) -> float:
        """The present drop probability."""
        return 1 / (1 + math.exp(-self.logit))

    def forward(self, x: NDArray, *, training: bool, rows: ArrayLike | None = None) -> NDArray:
        """x under the relaxed mask, or x itself; `rows` gives each sample's own row number in the data set."""
        if not self.when.active(training):
            self._last = (x, np.ones((), x.dtype))
            return x
        check_dtype(x)
        u = uniform(x.shape, Key(self.key.seed, self.key.site, self.step), rows=rows).astype(np.float64)
        self.step += 1
        gate = 1 / (1 + np.exp((self.logit + np.log(u) - np.log1p(-u)) / self.temperature))  # 1 - d
        self._last = (x, gate)
        return (x * (gate * (1 + math.exp(self.logit)))).astype(x.dtype)

    def backward(self, grad: NDArray) -> NDArray:
        """The gradient with respect to x; sets logit_grad."""
        if self._last is None:
            raise DropkitRuntimeError("ConcreteDropout.backward comes after a forward; call forward first")
        x, gate = self._last
        if gate.ndim == 0:
            self.logit_grad = 0.0
            return grad
        odds = math.exp(self.logit)
        # d/dlogit of (1 - d) (1 + odds)
        slope = -gate * (1 - gate) / self.temperature * (1 + odds) + gate * odds
        self.logit_grad = float((grad * x * slope).sum())
        return (grad * (gate * (1 + odds))).astype(grad.dtype)

    def penalty(self, n: int, weight: NDArray | None = None) -> float:
        """The regulariser for a loss that is a mean over n samples: `(l^2/2 ||W||^2 / (1 - p) - K H(p)) / n`.

        Args:
            n: samples in the data set.
            weight: W of the layer that this dropout feeds.

        Raises:
            DropkitValueError: n below 1; the number of inputs K is not known yet.
        """
        p, squares = self.p, 0.0 if weight is None else float((weight.astype(np.float64) ** 2).sum())
        entropy = -p * math.log(p) - (1 - p) * math.log1p(-p)
        return (self.length_scale**2 / 2 * squares / (1 - p) - self._inputs(n) * entropy) / n

    def penalty_grad(self, n: int, weight: NDArray | None = None) -> float:
        """The derivative of `penalty` in logit(p)."""
        p, squares = self.p, 0.0 if weight is None else float((weight.astype(np.float64) ** 2).sum())
        odds = math.exp(self.logit)
        return (self.length_scale**2 / 2 * squares * odds + self._inputs(n) * self.logit * p * (1 - p)) / n

    def sgd(self, lr: float, n: int | None = None, weight: NDArray | None = None) -> None:
        """One step of gradient descent on logit(p), with the regulariser where n is given; p stays inside clamp."""
        self.logit -= lr * (self.logit_grad + (0.0 if n is None else self.penalty_grad(n, weight)))
        low, high = (-math.inf if b == 0 else math.inf if b == 1 else math.log(b) - math.log1p(-b) for b in self.clamp)
        self.logit = min(max(self.logit, low), high)

    def _inputs(self, n: int) -> int:
        if n < 1:
            raise DropkitValueError(f"n must be the number of samples in the data set, at least 1, got {n}")
        if self.inputs is None and self._last is None:
            raise DropkitValueError("how many inputs are dropped is not known before a forward: pass inputs=")
        return self._last[0].shape[-1] if self.inputs is None and self._last is not None else int(self.inputs or 0)
