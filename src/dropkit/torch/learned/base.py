"""What every learned site has: a draw by the rules of `dropkit.torch.at` and `bind`, a rate, and a penalty."""

import operator
import sys
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ...axes.when import When
from ...errors import DropkitTypeError, DropkitValueError
from ...place import Place
from ...visible import a_type
from .. import ops
from ..arithmetic.laws import inverted
from ..draw import Draw, Words
from ..drawing import ranks
from ..drawing.coordinates import draw_for
from ..layers import Drawn
from . import reduction

_ANY = inverted(1)  # a fixed rate's place in a draw; here the rate is a parameter
_PATIENCE = 100  # training forwards of a site without a call of `regularizer` after which it counts as forgotten
_warned: set[str] = set()  # what has been said once
live: "weakref.WeakSet[Learned]" = weakref.WeakSet()  # every site there is
looks: list[Callable[[], None]] = []  # what else wants to know that a site trains


class Learned(Drawn):
    """A dropout whose rate is a parameter. Abstract: a family gives `rate`, `forward` and, where it has one, `penalty`.

    The parameters of rates are float32 or wider whatever `model.to(dtype)` says, since a step of 0.001 is lost in a
    logit of half precision, and have at least one axis, since `fully_shard` takes no scalar.

    Args:
        when: "train" (noise in training mode only), "always" (Monte Carlo too) or "never".

    Raises:
        DropkitValueError: a `when` that is none of the three.

    >>> from dropkit.torch.learned import ConcreteDropout
    >>> isinstance(ConcreteDropout(0.5), Learned), ConcreteDropout(0.5).rate_names
    (True, ('logit',))
    """

    rate_names: tuple[str, ...] = ()  # its parameters that are rates, as against weights
    since = 0  # training forwards since the last call of `regularizer`
    batch = 0  # size of axis 0 in the last of them
    _shape: tuple[int, ...] = ()  # of the rate, as it was asked for

    def __init__(self, when: str = "train") -> None:
        super().__init__()
        self.when = When.of(when).value
        live.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        live.add(self)

    def hold(self, name: str, value: torch.Tensor) -> None:
        """Make a tensor the parameter of the rate."""
        self._shape = tuple(value.shape)
        self.register_parameter(name, nn.Parameter(widened(value).reshape(value.shape or (1,))))

    def held(self, name: str) -> torch.Tensor:
        """The parameter of the rate as the formulas take it: whole, wide, of the shape that was asked for."""
        return widened(whole(getattr(self, name))).reshape(self._shape)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "Learned":
        parameters = [self._parameters[name] for name in self.rate_names if name in self._parameters]
        rates = [tensor for p in parameters if p is not None for tensor in (p, p.grad) if tensor is not None]

        def wide(tensor: torch.Tensor) -> torch.Tensor:
            new = fn(tensor)
            narrowed = new.dtype in NARROW and any(tensor is rate for rate in rates)
            return widened(tensor).to(new.device) if narrowed else new

        return super()._apply(wide, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in self.rate_names:
            saved = state_dict.get(prefix + name)
            if isinstance(saved, torch.Tensor):  # as a scalar by older versions, or in half precision
                state_dict[prefix + name] = widened(saved).reshape(saved.shape or (1,))
        super()._load_from_state_dict(state_dict, prefix, *rest)

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
        return whole(self.rate()).detach().mean().item()

    @p.setter
    def p(self, value: float) -> None:
        raise DropkitTypeError(
            f"the rate of {type(self).__name__} is learned, so p cannot be set to {value!r}; give it to the "
            "constructor as the first rate, or change the parameters that `rate_parameters(model)` lists"
        )

    def extra_repr(self) -> str:
        """The rate if it is one number that is here, or its shape."""
        here = all(getattr(self, name).numel() == 1 for name in self.rate_names) and not any(
            hasattr(parameter, "full_tensor") for parameter in self.parameters(recurse=False)
        )  # to gather it would take all ranks
        text = f"p={self.rate().item():.4g}" if here else f"shape={self._shape}"
        return text + self._more_repr()

    def draw(self, x: torch.Tensor, share: Sequence[int] = ()) -> tuple[Words, Place]:
        """Key and place of this forward's noise on a tensor like x; a recomputed forward gets those it had."""
        ops.check_dtype(x)  # in integers the noise would be cut off
        self._notice(x)
        if ranks.several() and self.site is not None:
            self.site.seen(x)
        draw, place = ops.prepare(x, _ANY, self._fresh, share)
        assert isinstance(place, Place)
        return draw.key, place

    def _fresh(self, lowered: Any) -> Draw:
        return draw_for(lowered, site=self.site)

    def _notice(self, x: torch.Tensor) -> None:
        """Warn, once, of a training in which the rate cannot learn as it should."""
        if torch.compiler.is_compiling() or not self.training:
            return
        reduction.remember(self)
        if not torch.is_grad_enabled():
            if not _inside_checkpoint():
                warn_once(
                    "no_grad",
                    f"{a_type(self)} runs in training mode under torch.no_grad, so its rate learns nothing "
                    "there: leave no_grad, or call model.eval() if this is no training",
                )
            return
        self.batch = x.shape[0] if x.dim() else 1
        for look in looks:
            look()
        self._look_at_dtypes()
        if self._regularised():
            self.since += 1
            if self.since > _PATIENCE:
                warn_once(
                    "regularizer",
                    f"{a_type(self)} has run {_PATIENCE} training forwards without its regulariser, and the "
                    "data alone drive a rate to its bound: add dropkit.torch.regularizer(model, n=len(data)) to the "
                    "loss",
                )

    def _look_at_dtypes(self) -> None:
        # under fully_shard a forward sees a copy in the type of its mixed precision; what the optimizer moves is wide
        if getattr(self, "_is_fsdp_managed_module", False):
            return
        for name in self.rate_names:
            dtype = getattr(self, name).dtype
            if dtype in NARROW:
                warn_once(
                    "dtype",
                    f"the {name} of {a_type(self)} is {dtype}, in which small steps of the optimizer are lost "
                    "and the rate may never move: leave rates in float32, as model.to(dtype) does, or set it back with "
                    f"module.{name}.data = module.{name}.data.float()",
                )

    def _regularised(self) -> bool:
        return type(self).penalty is not Learned.penalty


NARROW = (torch.float16, torch.bfloat16)


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32 if it is narrower."""
    return tensor.float() if tensor.dtype in NARROW else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which `fully_shard` has left a part on each rank; every rank has to ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def outside(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter that is used outside forward: its gradient lies as it does, to be added to others."""
    return _Outside.apply(parameter) if hasattr(parameter, "full_tensor") else parameter


class _Outside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Any) -> torch.Tensor:
        ctx.placements = parameter.placements
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> torch.Tensor:
        return grads[0].redistribute(placements=ctx.placements)


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
