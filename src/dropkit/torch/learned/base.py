"""What every learned site has: a draw by the rules of `dropkit.torch.at` and `bind`, a rate, and a penalty."""

import operator
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ...axes.when import when as parse_when
from ...errors import DropkitTypeError, DropkitValueError
from ...layout import Layout
from .. import ops, recomputation
from ..coordinates import draw_for
from ..layers import Drawn
from ..recomputation import Words

_ANY = 1  # a fixed rate's place in a draw; here the rate is a parameter
_PATIENCE = 100  # training forwards of a site without a call of `regularizer` after which it counts as forgotten
_warned: set[str] = set()  # what has been said once


class Learned(Drawn):
    """A dropout whose rate is a parameter. Abstract: a family gives `rate`, `forward` and, where it has one, `penalty`.

    Args:
        when: "train" (noise in training mode only), "always" (Monte Carlo too) or "never".

    Raises:
        DropkitValueError: a `when` that is none of the three.
    """

    rate_names: tuple[str, ...] = ()  # its parameters that are rates, as against weights
    _since = 0  # training forwards since the last call of `regularizer`

    def __init__(self, when: str = "train") -> None:
        super().__init__()
        self.when = parse_when(when).value

    @property
    def active(self) -> bool:
        """Whether a forward now would draw noise."""
        return self.when == "always" or (self.training and self.when == "train")

    def rate(self) -> torch.Tensor:
        """The present drop probability, a function of the parameters."""
        raise NotImplementedError

    def penalty(self) -> torch.Tensor | None:
        """The regulariser in nats for the whole data set, or None where the method has none."""
        return None

    def bounds(self) -> tuple[float, float]:
        """Between which values the drop probability may move."""
        return 0.0, 1.0

    @property
    def p(self) -> float:
        """The mean of the present drop probabilities, as a number.

        >>> from dropkit.torch.learned import ConcreteDropout
        >>> round(ConcreteDropout(0.25).p, 6)
        0.25
        """
        return self.rate().detach().mean().item()

    @p.setter
    def p(self, value: float) -> None:
        raise DropkitTypeError(
            f"the rate of {type(self).__name__} is learned, so p cannot be set to {value!r}; give it to the "
            "constructor as the first rate, or change the parameters that `rate_parameters(model)` lists"
        )

    def draw(self, x: torch.Tensor, share: Sequence[int] = ()) -> tuple[Words, Layout]:
        """Key and place of this forward's noise on a tensor like x; a recomputed forward gets those it had."""
        self._notice()
        draw, place = ops.prepare(x, _ANY, self._fresh, share)
        return draw.key, place

    def _fresh(self, rate: Any) -> recomputation.Draw:
        return draw_for(rate, site=self.site)

    def _notice(self) -> None:
        """Warn, once, of a training in which the rate cannot learn as it should."""
        if torch.compiler.is_compiling() or not self.training:
            return
        if not torch.is_grad_enabled():
            if not _inside_checkpoint():
                warn_once(
                    "no_grad",
                    f"a {type(self).__name__} runs in training mode under torch.no_grad, so its rate learns nothing "
                    "there: leave no_grad, or call model.eval() if this is no training",
                )
            return
        if self._regularised():
            self._since += 1
            if self._since > _PATIENCE:
                warn_once(
                    "regularizer",
                    f"a {type(self).__name__} has run {_PATIENCE} training forwards without its regulariser, and the "
                    "data alone drive a rate to its bound: add dropkit.torch.regularizer(model, n=len(data)) to the "
                    "loss",
                )

    def _regularised(self) -> bool:
        return type(self).penalty is not Learned.penalty


def warn_once(about: str, message: str) -> None:
    """One UserWarning a process for each subject."""
    if about not in _warned:
        _warned.add(about)
        warnings.warn(message, UserWarning, stacklevel=5)


def _inside_checkpoint() -> bool:
    """Whether a reentrant activation checkpoint runs us: it takes the gradient in a second forward."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """A parameter's shape as a tuple.

    Raises:
        DropkitTypeError: not a sequence of integers.
        DropkitValueError: a size below 1.
    """
    try:
        found = tuple(operator.index(size) for size in shape)
    except TypeError:
        raise DropkitTypeError(f"shape must be a sequence of sizes such as (64,), got {shape!r}") from None
    if any(size < 1 for size in found):
        raise DropkitValueError(f"shape must hold sizes of at least 1, got {found}")
    return found


def positive(name: str, value: float) -> float:
    """A finite number above 0.

    Raises:
        DropkitValueError: anything else.
    """
    if not 0 < value < float("inf"):
        raise DropkitValueError(f"{name} must be a positive number, got {value!r}")
    return float(value)


def probability(name: str, value: float) -> float:
    """A number strictly between 0 and 1, where a logit is finite.

    Raises:
        DropkitValueError: anything else.
    """
    if not 0 < value < 1:
        raise DropkitValueError(
            f"{name} must lie strictly between 0 and 1, where its logit is finite, got {value!r}; for a rate of 0 or 1 "
            "use a fixed Dropout"
        )
    return float(value)
