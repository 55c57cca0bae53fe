"""Modules: torch's own dropout classes, drawn by dropkit."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ..axes.noise import Alpha, Bernoulli, Noise
from ..axes.share import Refining, Sharing
from ..axes.when import When
from ..drop import Drop, Lowered, checked_noise, lower
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..threshold import ONE, threshold
from . import channels, ops
from .arithmetic import laws, scripted
from .bound import state
from .drawing import ranks
from .named import Named

_world = ranks.world


class Drawn(Named):
    """What every dropout module of dropkit shares: a rate that may move, when it is on, and where its draws come from.

    `p` is data: it is kept as a number for eager calls and as a 0-dim tensor for compiled ones, so that assigning
    another compiles nothing again.
    """

    __jit_unused_properties__: ClassVar = ["p", "active", "drop"]
    __jit_ignored_attributes__: ClassVar = ["noise", "share", "_lowered"]  # which TorchScript would try to compile

    when: str
    inplace: bool
    noise: Noise = Bernoulli()
    share: Any = ()  # the axes that share a draw, or a share that refines
    # whether `noise` says all; output and gradient show one mask; p is a constant of the method; it says what runs
    law_known, shows_mask, fixed, decides = True, True, False, False
    of_batch, of_weights = True, False  # what it drops has a row for each sample; is a weight
    effect, takes_out = "", ""  # "mixes", "joins", ... where that is no mask on its input; a "token", "edge", "square"
    _p: float
    _lowered: Lowered | None
    _rate: torch.Tensor
    _numbers: torch.Tensor | None

    @property
    def p(self) -> float:
        """The drop probability; may be assigned at any time, a number or 0-dim tensor in [0, 1]."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        t = checked_rate(value)
        number = float(value) if isinstance(value, torch.Tensor) else value
        rate = torch.tensor(1 - t / ONE, dtype=torch.float32, device="cpu")  # exact: t has 17 bits
        # past Module.__setattr__, which looks for parameters: schedules assign at every step
        lowered = lower(self.noise, t)
        self.__dict__.update(_p=number, _lowered=lowered, _rate=rate, _numbers=laws.held(self.noise, t))

    @property
    def active(self) -> bool:
        """Whether a forward now would drop.

        >>> Dropout(0.3).eval().active, Dropout(0.3, when="always").eval().active
        (False, True)
        """
        return self.when == "always" or (self.training and self.when == "train")

    @property
    def drop(self) -> Drop:
        """This dropout as a point on the four axes.

        >>> Dropout(0.3).drop.p()
        0.3
        """
        return Drop(self.p, share=self.share, when=self.when, noise=self.noise)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...] | None:
        """The shape of the mask for this input, with 1 where a draw is shared; None where `share` says all of it."""
        return None

    def count(self, shape: tuple[int, ...]) -> int | None:
        """How many it keeps of what a mask of this shape is for, where that is an exact number."""
        return None

    def _dropped(self, input: torch.Tensor, share: Any, other: torch.Tensor | None = None) -> torch.Tensor:
        if not self.active:
            return input if type(self.noise) is Bernoulli else self._without_noise(input, other)
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            # backward has the tensor of its forward: an assignment makes another one
            held = self._numbers
            lowered: Any = (
                laws.lowered_at(self.noise, self._rate) if held is None else Lowered(self._rate, self.noise, held)
            )
        else:
            lowered = self._lowered
            if lowered is None:
                return input
            if _world._default_pg is not None and self.site is not None and self.of_batch:
                self.site.seen(input)
        if not ops.droppable(input, lowered):
            return input
        return ops.apply(input, lowered, self.fresh, share, self.inplace, other)

    def _without_noise(self, input: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        """The input, or what a law that is not the identity without noise makes of it."""
        if self.noise.off(0.5) is None:
            return input
        if torch.compiler.is_compiling():
            lowered = laws.lowered_at(self.noise, self._rate, training=False)
        else:
            lowered = lower(self.noise, threshold(self._p), training=False)
        if lowered is None or not ops.droppable(input, lowered):
            return input
        return ops.apply(input, lowered, self.fresh, (), self.inplace, other)

    def _channels_dropped(self, input: torch.Tensor, axes: Callable[[torch.Tensor], tuple[int, ...]]) -> torch.Tensor:
        if isinstance(input, torch.fx.Proxy):
            return as_leaf(self, input)
        share = axes(input)
        if self.active and (torch.compiler.is_compiling() or 0 < self._p < 1):  # p's value is no code
            channels.check(input, axes)
        return self._dropped(input, share)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local: Any, strict: bool, missing: Any, unexpected: list[str], errors: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local, strict, missing, unexpected, errors)
        if unexpected:
            state.left_out(unexpected, self.site is not None)

    def __prepare_scriptable__(self) -> nn.Module:
        if type(self.noise) not in (Bernoulli, Alpha) or isinstance(self.share, Refining):
            raise DropkitRuntimeError(
                f"TorchScript knows inverted and alpha dropout that share axes, and this is {self!r}: use torch.export"
            )
        if hasattr(self.site, "clock"):
            raise DropkitRuntimeError(
                "TorchScript knows no seed and step, and this model is bound: script a copy that is not, "
                "dropkit.torch.unbind(copy.deepcopy(model)); torch.export and torch.compile take the model as it is"
            )
        return self

    def _replicate_for_data_parallel(self) -> Any:
        if hasattr(self.site, "clock"):
            raise DropkitRuntimeError(
                "torch.nn.DataParallel runs copies of a bound model in threads, which would share one clock: use "
                "DistributedDataParallel, or dropkit.torch.unbind the model"
            )
        return super()._replicate_for_data_parallel()

    def extra_repr(self) -> str:
        """torch's own, and the axes that torch does not have where they are set."""
        return f"p={self.p}, inplace={self.inplace}{self._more_repr()}"

    def _more_repr(self) -> str:
        return "" if self.when == "train" else f", when={self.when!r}"


def checked_rate(p: float) -> int:
    """The threshold of a module's p.

    Raises:
        DropkitValueError, DropkitTypeError: not one number in [0, 1]; a tensor that requires grad.
    """
    if isinstance(p, torch.Tensor):
        if p.requires_grad:
            raise DropkitTypeError(
                "p requires grad, but a hard mask has no gradient in p: pass p.detach(), or learn it by a relaxed noise"
            )
        if p.numel() != 1:
            raise DropkitValueError(
                f"a dropout module has one p, but got a tensor of shape {tuple(p.shape)}; "
                "dropkit.torch.dropout takes a p that broadcasts to x"
            )
    return threshold(p)


def as_leaf(module: nn.Module, proxy: Any, *others: Any) -> Any:
    """One call_module node: torch.fx looks into every class from outside torch.nn, and here is nothing to see."""
    tracer = proxy.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), (proxy, *others), {})


class Dropout(Drawn, nn.Dropout):
    """`torch.nn.Dropout` whose mask is a function of coordinates: `y = x * keep / (1 - p)` in training, x in eval.

    Args:
        p: drop probability in [0, 1]; may be assigned at any time, which recompiles nothing.
        inplace: write into the input.
        share: axes along which one draw is shared; (2, 3) drops whole channels of N x C x H x W. Or a value of
            `dropkit.axes.share`.
        when: "train" (only in training mode), "always" (Monte Carlo dropout) or "never".
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`. One that needs a second
            tensor gets it as the second argument of a call.

    Shapes: any, output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a bad share, when or noise.

    Unbound, it draws a key from torch's default generator at each forward (`torch.manual_seed` governs it); bound by
    `dropkit.torch.bind`, its mask follows from the model's seed, its module path and the step.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> Dropout(0.3)
    Dropout(p=0.3, inplace=False)
    >>> Dropout(0.3, share=(2, 3))
    Dropout(p=0.3, inplace=False, share=(2, 3))
    """

    _axes: list[int]
    _alpha: bool

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        share: Sequence[int] | Sharing = (),
        when: str = "train",
        noise: Noise | None = None,
    ) -> None:
        checked_rate(p)  # refuses what torch's own check lets pass, such as NaN
        super().__init__(p, inplace)
        shared: Any = Drop(0.0, share=share).share
        self.share = ops.axes_of(shared)
        self._axes = list(shared.axes)  # for TorchScript, which knows no tuple of any length
        self.when = When.of(when).value
        self._alpha = isinstance(noise, Alpha)
        if noise is not None:
            self.noise = checked_noise(noise)
            self.p = p

    def forward(self, input: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """The input with elements dropped, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.dropout(input, self.p, active, self.inplace, self._axes, self._alpha)
        else:  # noqa: RET505  # TorchScript compiles one branch only where there are two
            if isinstance(input, torch.fx.Proxy):
                return as_leaf(self, input) if other is None else as_leaf(self, input, other)
            return self._dropped(input, self.share, other)

    def _more_repr(self) -> str:
        noise = "" if type(self.noise) is Bernoulli else f", noise={self.noise!r}"
        return (f", share={self.share}" if self.share else "") + super()._more_repr() + noise


class _Constructed(Drawn):
    """The constructor of the classes that share what their name says."""

    def __init__(self, p: float = 0.5, inplace: bool = False, *, when: str = "train") -> None:
        checked_rate(p)
        super().__init__(p, inplace)
        self.when = When.of(when).value


class Dropout1d(_Constructed, nn.Dropout1d):
    """`torch.nn.Dropout1d`: whole channels of N x C x L, or of C x L, are dropped.

    Args:
        p: drop probability of a channel in [0, 1].
        inplace: write into the input.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.
        DropkitRuntimeError: an input of other than two or three axes, in evaluation too.

    Source: Tompson et al. 2015 (arXiv:1411.4280).

    >>> torch.unique(Dropout1d(0.5)(torch.ones(4, 8, 16)), dim=2).shape
    torch.Size([4, 8, 1])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with channels dropped, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.channels(input, self.p, active, self.inplace, input.dim() - 1, False)
        else:  # noqa: RET505
            return self._channels_dropped(input, channels.of_1d)


class Dropout2d(_Constructed, nn.Dropout2d):
    """`torch.nn.Dropout2d`: whole channels of N x C x H x W are dropped; three axes are N x C x L and warn.

    Args:
        p: drop probability of a channel in [0, 1].
        inplace: write into the input.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.
        DropkitRuntimeError: an input of fewer than two axes, in training.

    Source: Tompson et al. 2015 (arXiv:1411.4280).

    >>> Dropout2d(0.2)
    Dropout2d(p=0.2, inplace=False)
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with channels dropped, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.channels(input, self.p, active, self.inplace, 2, False)
        else:  # noqa: RET505
            return self._channels_dropped(input, channels.of_2d)


class Dropout3d(_Constructed, nn.Dropout3d):
    """`torch.nn.Dropout3d`: whole channels of N x C x D x H x W, or of C x D x H x W, are dropped.

    Args:
        p: drop probability of a channel in [0, 1].
        inplace: write into the input.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.

    Source: Tompson et al. 2015 (arXiv:1411.4280).

    >>> Dropout3d(0.2, True)
    Dropout3d(p=0.2, inplace=True)
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with channels dropped, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.channels(input, self.p, active, self.inplace, 2 if input.dim() == 5 else 1, False)
        else:  # noqa: RET505
            return self._channels_dropped(input, channels.of_3d)


class AlphaDropout(_Constructed, nn.AlphaDropout):
    """`torch.nn.AlphaDropout`, for SELU: a dropped element takes SELU's lower limit, mean 0 and variance 1 are kept.

    With alpha' = -1.7581, `y = a * (x * keep + alpha' * (1 - keep)) + b`, `a = 1 / sqrt((1 - p)(1 + p alpha'^2))`,
    `b = -a p alpha'`; zeros for p = 1.

    Args:
        p: drop probability in [0, 1].
        inplace: write into the input; torch's class takes this and does not do it.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> AlphaDropout(0.1)
    AlphaDropout(p=0.1, inplace=False)
    """

    noise = Alpha()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with elements dropped to SELU's limit, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.dropout(input, self.p, active, self.inplace, [], True)
        else:  # noqa: RET505
            if isinstance(input, torch.fx.Proxy):
                return as_leaf(self, input)
            return self._dropped(input, ())


class FeatureAlphaDropout(_Constructed, nn.FeatureAlphaDropout):
    """`torch.nn.FeatureAlphaDropout`: alpha dropout of whole channels of N x C x anything.

    Args:
        p: drop probability of a channel in [0, 1].
        inplace: write into the input; torch's class takes this and does not do it.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.
        DropkitRuntimeError: an input of fewer than two axes, in training.

    Source: Klambauer et al. 2017 (arXiv:1706.02515); Tompson et al. 2015 (arXiv:1411.4280).

    >>> FeatureAlphaDropout(0.1)
    FeatureAlphaDropout(p=0.1, inplace=False)
    """

    noise = Alpha()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with channels dropped to SELU's limit, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.channels(input, self.p, active, self.inplace, 2, True)
        else:  # noqa: RET505
            return self._channels_dropped(input, channels.of_features)
