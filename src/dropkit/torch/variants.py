"""Published dropouts under their own names: a `Dropout` with the noise and the share that the name says."""

from collections.abc import Sequence
from typing import Any

import torch

from ..axes.noise import AdditiveGaussian, Fill, Gaussian, LogNormal, Raw, Uniform
from ..axes.noise import Zoneout as Keeping
from ..axes.share import Block, Prefix
from ..errors import DropkitValueError
from .layers import Dropout


class _Blocks(Dropout):
    """Dropout of whole blocks of the last axes."""

    axes_of_map: int

    def __init__(
        self, p: float, block_size: int, inplace: bool = False, *, clipped: bool = False, when: str = "train"
    ) -> None:
        over = tuple(range(-self.axes_of_map, 0))
        super().__init__(p, inplace, share=Block(block_size, over, clipped=clipped), when=when)

    @property
    def block_size(self) -> Any:
        """The side of a block, or one for each axis."""
        return self.share.size

    @property
    def drop_prob(self) -> float:
        """p, as timm calls it."""
        return self.p

    def _dropped(self, input: torch.Tensor, share: Any, other: torch.Tensor | None = None) -> torch.Tensor:
        if input.dim() != self.axes_of_map + 2:
            raise DropkitValueError(
                f"input should be {self.axes_of_map + 2} dimensional. Got {input.dim()} dimensions: "
                f"{type(self).__name__} drops blocks of N x C x {' x '.join('DHW'[3 - self.axes_of_map :])}"
            )
        return super()._dropped(input, share, other)


class DropBlock1d(_Blocks):
    """Blocks of N x C x L are dropped whole, each channel by itself, so that the mean rate over the map is p.

    Arguments, errors and source are those of `DropBlock2d`.

    >>> DropBlock1d(0.1, block_size=5)
    DropBlock1d(p=0.1, inplace=False, share=Block(size=5, over=(-1,)))
    """

    axes_of_map = 1


class DropBlock2d(_Blocks):
    """`torchvision.ops.DropBlock2d` that drops what is asked for: whole blocks of N x C x H x W, `y = x m / (1 - p)`.

    gamma, the probability that a block begins at a place, is solved so that the mean rate over the map is p.
    torchvision's and timm's drop less, and scale by what the whole batch kept.

    Args:
        p: drop probability in [0, 1].
        block_size: side of a block, even ones too; or one for each axis. A block larger than the map is cut to it.
        inplace: write into the input.
        clipped: blocks may also begin outside and are cut at the border: every position has rate p.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`; a block size below 1; an input of other than four axes.

    Source: Ghiasi, Lin and Le 2018 (arXiv:1810.12890).

    >>> DropBlock2d(0.1, block_size=7).drop_prob
    0.1
    """

    axes_of_map = 2


class DropBlock3d(_Blocks):
    """Blocks of N x C x D x H x W are dropped whole, so that the mean rate over the map is p.

    Arguments, errors and source are those of `DropBlock2d`.

    >>> DropBlock3d(0.1, block_size=(1, 7, 7)).block_size
    (1, 7, 7)
    """

    axes_of_map = 3


class LockedDropout(Dropout):
    """Variational dropout of sequences: one mask for all time steps, `y = x m / (1 - p)`.

    Args:
        p: drop probability in [0, 1].
        inplace: write into the input.
        batch_first: whether time is axis 1, of N x T x C; else it is axis 0, of T x N x C.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.

    Source: Gal and Ghahramani 2016 (arXiv:1512.05287); Merity, Keskar and Socher 2018 (arXiv:1708.02182).

    >>> bool((LockedDropout(0.5)(torch.ones(7, 2, 16)).std(dim=0) == 0).all())
    True
    """

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, batch_first: bool = False, when: str = "train"
    ) -> None:
        super().__init__(p, inplace, share=(1,) if batch_first else (0,), when=when)


class DropHead(Dropout):
    """Whole heads of N x heads x T x C are dropped, `y = x m / (1 - p)`, never by the count that a draw left.

    Args:
        p: drop probability in [0, 1].
        inplace: write into the input.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.

    Source: Zhou et al. 2020 (arXiv:2004.13342).

    >>> torch.unique(DropHead(0.5)(torch.ones(2, 8, 4, 4)).flatten(2), dim=2).shape
    torch.Size([2, 8, 1])
    """

    def __init__(self, p: float = 0.1, inplace: bool = False, *, when: str = "train") -> None:
        super().__init__(p, inplace, share=(2, 3), when=when)


class DropKey(Dropout):
    """Whole keys of scores, N x heads x queries x keys, become minus infinity before the softmax.

    The softmax spreads what is left over the other keys, so nothing is rescaled and each row sums to 1. Where all keys
    of a query would go, that row keeps its scores.

    Args:
        p: drop probability of a key in [0, 1].
        inplace: write into the scores.
        share: axes along which one draw is shared: (2,), all queries of a head; () draws for each score by itself, as
            the authors' code.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`.

    Source: Li et al. 2023 (arXiv:2208.02646).

    >>> weights = DropKey(0.5)(torch.zeros(1, 2, 4, 8)).softmax(-1)
    >>> bool(torch.isclose(weights.sum(-1), torch.ones(())).all())
    True
    """

    noise = Fill(float("-inf"))

    def __init__(
        self, p: float = 0.1, inplace: bool = False, *, share: Sequence[int] = (2,), when: str = "train"
    ) -> None:
        super().__init__(p, inplace, share=share, when=when, noise=type(self).noise)

    def _dropped(self, input: torch.Tensor, share: Any, other: torch.Tensor | None = None) -> torch.Tensor:
        if not self.active or input.dim() == 0:
            return input
        given = input.clone() if self.inplace else input
        y = super()._dropped(input, share, other)
        none = torch.isneginf(y).all(-1, keepdim=True)
        return y.copy_(torch.where(none, given, y)) if self.inplace else torch.where(none, given, y)


class NestedDropout(Dropout):
    """The first k units are kept and the rest are zero, k drawn for each sample; nothing is rescaled.

    Units come to be ordered by how much they matter, so that a code can be cut anywhere.

    Args:
        p: mean rate over the units, in [0, 1].
        inplace: write into the input.
        over: the axis of the units.
        law: "geometric", "uniform", or weights of the prefixes of 1, 2, ..., n units: `dropkit.axes.share.Prefix`.
        axes: axes that share a draw: (2, 3) of N x C x H x W, with over=1, drops whole channels.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`; a law that is none.

    Source: Rippel, Gelbart and Adams 2014 (arXiv:1402.0915).

    >>> y = NestedDropout(0.5)(torch.ones(4, 16))
    >>> bool((y[:, 1:] <= y[:, :-1]).all())
    True
    """

    noise = Fill(0.0)

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        over: int = -1,
        law: str | Sequence[float] = "geometric",
        axes: Sequence[int] = (),
        when: str = "train",
    ) -> None:
        super().__init__(p, inplace, share=Prefix((over,), law, axes), when=when, noise=type(self).noise)


class _OfNoise(Dropout):
    """A dropout of one law."""

    def __init__(self, p: float = 0.5, inplace: bool = False, *, when: str = "train") -> None:
        super().__init__(p, inplace, when=when, noise=type(self).noise)


class GaussianDropout(_OfNoise):
    """Multiplicative Gaussian noise: `y = x (1 + sqrt(p / (1 - p)) z)`; arguments of `Dropout`.

    Source: Srivastava et al. 2014 (JMLR 15:1929), section 10.

    >>> GaussianDropout(0.1)
    GaussianDropout(p=0.1, inplace=False, noise=Gaussian())
    """

    noise = Gaussian()


class UniformDropout(_OfNoise):
    """Multiplicative uniform noise: `y = x (1 + b r)`, r in (-1, 1), b^2 = 3 p / (1 - p); arguments of `Dropout`.

    Source: Li et al. 2019 (arXiv:1801.05134), "Uout".

    >>> UniformDropout(0.0033)
    UniformDropout(p=0.0033, inplace=False, noise=Uniform())
    """

    noise = Uniform()


class LogNormalDropout(_OfNoise):
    """Multiplicative log-normal noise: `y = x exp(s z - s^2 / 2)`, s^2 = -ln(1 - p); arguments of `Dropout`.

    Source: Achille and Soatto 2018 (arXiv:1611.01353).

    >>> bool((LogNormalDropout(0.5)(torch.ones(64)) > 0).all())
    True
    """

    noise = LogNormal()


class GaussianNoise(Dropout):
    """Added Gaussian noise: `y = x + stddev sqrt(p / (1 - p)) z`, of the standard deviation itself at p = 1/2.

    Args:
        stddev: a finite number above 0.
        p: the rate that moves it, in [0, 1].
        inplace: write into the input.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`; a stddev that is no such number.

    Source: Bishop 1995 (Neural Computation 7:108).

    >>> GaussianNoise(0.1)
    GaussianNoise(p=0.5, inplace=False, noise=AdditiveGaussian(scale=0.1))
    """

    def __init__(self, stddev: float, p: float = 0.5, inplace: bool = False, *, when: str = "train") -> None:
        super().__init__(p, inplace, when=when, noise=AdditiveGaussian(stddev))


class RawDropout(_OfNoise):
    """Dropout of 2012, not rescaled: `y = x m` in training and `y = (1 - p) x` in evaluation; arguments of `Dropout`.

    Source: Hinton et al. 2012 (arXiv:1207.0580).

    >>> RawDropout(0.25).eval()(torch.ones(2))
    tensor([0.7500, 0.7500])
    """

    noise = Raw()


class Zoneout(_OfNoise):
    """A dropped unit keeps its previous value: called with `(new, previous)`; `(1 - p) new + p previous` in evaluation.

    Args:
        p: probability of keeping the previous value, in [0, 1].
        inplace: write into the new state.
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `Dropout`; a call without the previous state.

    Source: Krueger et al. 2017 (arXiv:1606.01305).

    >>> Zoneout(0.25).eval()(torch.ones(2), torch.zeros(2))
    tensor([0.7500, 0.7500])
    """

    noise = Keeping()

    def __init__(self, p: float = 0.05, inplace: bool = False, *, when: str = "train") -> None:
        super().__init__(p, inplace, when=when)
