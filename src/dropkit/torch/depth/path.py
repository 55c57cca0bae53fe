"""Stochastic depth as a layer on the output of a branch, under torchvision's name and under timm's."""

from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ...axes.noise import Fill
from ...axes.when import When
from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..arithmetic import scripted
from ..layers import Drawn, as_leaf, checked_rate

MODES = ("batch", "row")


def checked_mode(mode: Any) -> str:
    """The mode, if it is one.

    Raises:
        DropkitValueError: it is not.
    """
    if mode not in MODES:
        raise DropkitValueError(f"mode has to be either 'batch' or 'row', but got {mode!r}")
    return str(mode)


def of_samples(x: torch.Tensor, mode: str, *own: int) -> tuple[int, ...]:
    """The shape of a mask with a bit, or several, for each sample or for all of them."""
    rows = 1 if mode == "batch" or x.dim() == 0 else x.shape[0]
    return (rows, *own) if own else (rows, *[1] * (x.dim() - 1))


class Depth(Drawn, _DropoutNd):
    """What the modules for branches and layers share: a rate, and when it is on. Abstract."""

    def __init__(self, p: float, *, when: str = "train") -> None:
        checked_rate(p)
        super().__init__(p)
        self.when = When.of(when).value

    def __prepare_scriptable__(self) -> nn.Module:
        if type(self) not in (StochasticDepth, DropPath):
            raise DropkitRuntimeError(
                f"TorchScript knows StochasticDepth and DropPath, and not {type(self).__name__}: use torch.export, in "
                "evaluation"
            )
        return super().__prepare_scriptable__()

    def extra_repr(self) -> str:
        """The rate, and what is set."""
        return f"p={self.p}{self._more_repr()}"


class StochasticDepth(Depth):
    """Drop a whole branch: `y = x * m / (1 - p)` with one m for the batch, or one for each sample.

    Stands on the output of a residual branch, never on the skip connection: `x + drop(branch(x))`. The branch has been
    computed by then; `ResidualDrop` wraps the branch and does not compute what it drops.

    Args:
        p: drop probability in [0, 1].
        mode: "row", each sample by itself; "batch", all together, as in the paper.
        when: "train", "always" or "never".

    Shapes: any with the batch as axis 0, output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; another mode.

    Source: Huang et al. 2016 (arXiv:1603.09382), inverted; the signature of `torchvision.ops.StochasticDepth`.

    >>> StochasticDepth(0.2, "row")
    StochasticDepth(p=0.2, mode=row)
    >>> torch.unique(StochasticDepth(0.5, "row")(torch.ones(8, 3, 4)), dim=1).shape[1]
    1
    """

    mode: str
    _first: int

    def __init__(self, p: float, mode: str, *, when: str = "train") -> None:
        super().__init__(p, when=when)
        self.mode = checked_mode(mode)
        self._first = 0 if mode == "batch" else 1

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with samples dropped, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.channels(input, self.p, active, False, self._first, False)
        else:  # noqa: RET505
            if isinstance(input, torch.fx.Proxy):
                return as_leaf(self, input)
            return self._dropped(input, tuple(range(self._first, input.dim())))

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for the batch, or one for each sample."""
        return of_samples(input, self.mode)

    def _more_repr(self) -> str:
        return f", mode={self.mode}{super()._more_repr()}"


class DropPath(Depth):
    """Drop a whole branch of each sample: `y = x * m / (1 - p)`, one m for each sample; `x * m` without the scale.

    Args:
        drop_prob: drop probability in [0, 1]; `p` is the same number.
        scale_by_keep: whether to divide by 1 - p, so that the mean stays.
        when: "train", "always" or "never".

    Shapes: any with the batch as axis 0, output as input. Dtypes: float16, bfloat16, float32, float64.

    Raises:
        DropkitValueError, DropkitTypeError: a rate outside [0, 1], NaN or no number.

    Source: Huang et al. 2016 (arXiv:1603.09382), inverted; the signature of `timm.layers.DropPath`.

    >>> DropPath(0.1).drop_prob
    0.1
    >>> DropPath(0.1, scale_by_keep=False)
    DropPath(drop_prob=0.1, scale_by_keep=False)
    """

    __jit_unused_properties__: ClassVar = [*Drawn.__jit_unused_properties__, "drop_prob"]

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True, *, when: str = "train") -> None:
        if not isinstance(scale_by_keep, bool):
            raise DropkitTypeError(f"scale_by_keep must be True or False, got {scale_by_keep!r}")
        super().__init__(drop_prob, when=when)
        self.scale_by_keep = scale_by_keep
        if not scale_by_keep:
            self.noise = Fill(0.0)
            self.p = drop_prob

    @property
    def drop_prob(self) -> float:
        """The drop probability under timm's name; may be assigned."""
        return self.p

    @drop_prob.setter
    def drop_prob(self, value: float) -> None:
        self.p = value

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The input with samples dropped, or the input itself where nothing is dropped."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            active = self.when == "always" or (self.training and self.when == "train")
            return scripted.channels(input, self.p, active, False, 1, False)
        else:  # noqa: RET505
            if isinstance(input, torch.fx.Proxy):
                return as_leaf(self, input)
            return self._dropped(input, tuple(range(1, input.dim())))

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for each sample."""
        return of_samples(input, "row")

    def extra_repr(self) -> str:
        """The rate under timm's name, and what is set."""
        scale = "" if self.scale_by_keep else ", scale_by_keep=False"
        return f"drop_prob={round(self.p, 3):.3g}{scale}{self._more_repr()}"


def stochastic_depth(input: torch.Tensor, p: float, mode: str, training: bool = True) -> torch.Tensor:
    """`StochasticDepth` as a function, with the signature of `torchvision.ops.stochastic_depth`.

    Raises:
        DropkitValueError, DropkitTypeError: as the class.

    >>> stochastic_depth(torch.ones(2, 3), 1.0, "batch")
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return StochasticDepth(p, mode).train(training)(input)


def drop_path(
    x: torch.Tensor, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True
) -> torch.Tensor:
    """`DropPath` as a function, with the signature of `timm.layers.drop_path`.

    Raises:
        DropkitValueError, DropkitTypeError: as the class.

    >>> drop_path(torch.ones(1, 2), 0.5)
    tensor([[1., 1.]])
    """
    return DropPath(drop_prob, scale_by_keep).train(training)(x)
