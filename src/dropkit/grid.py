"""The grid: published dropouts as values on the axes noise x share x when, each with its paper. A dict one can read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .axes.noise import Alpha, Bernoulli, Gaussian, Noise, Zoneout
from .axes.rate import Rate
from .axes.share import Axes, Block, Sharing
from .axes.when import When
from .drop import Drop
from .errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Variant:
    """A published dropout: all that it says but the rate.

    Args:
        paper: where it is from.
        noise, share, when: as those of `dropkit.Drop`.

    >>> grid["spatial"](0.2) == Drop(0.2, share=(2, 3))
    True
    """

    paper: str
    noise: Noise = field(default_factory=Bernoulli)
    share: Sharing = field(default_factory=Axes)
    when: When = When.TRAIN

    def __call__(self, rate: Rate | float) -> Drop:
        """The dropout at a rate, a number or a schedule."""
        return Drop(rate, share=self.share, when=self.when, noise=self.noise)


class Grid(Mapping[str, Variant]):
    """Variants by name.

    >>> grid["alpha"].paper
    'Klambauer et al. 2017 (arXiv:1706.02515)'
    """

    def __init__(self, variants: dict[str, Variant]):
        self._variants = variants

    def __getitem__(self, name: str) -> Variant:
        if name not in self._variants:
            raise UnknownNameError("variant", name, self.names())
        return self._variants[name]

    def __contains__(self, name: Any) -> bool:
        return name in self._variants

    def __iter__(self) -> Iterator[str]:
        return iter(self._variants)

    def __len__(self) -> int:
        return len(self._variants)

    def names(self) -> tuple[str, ...]:
        """The names of all variants."""
        return tuple(self._variants)


# fmt: off
grid = Grid({
    "dropout": Variant("Srivastava et al. 2014 (JMLR 15:1929)"),
    "spatial": Variant("Tompson et al. 2015 (arXiv:1411.4280)", share=Axes((2, 3))),  # of N x C x H x W
    "alpha": Variant("Klambauer et al. 2017 (arXiv:1706.02515)", noise=Alpha()),
    "feature_alpha": Variant("Klambauer et al. 2017 (arXiv:1706.02515)", noise=Alpha(), share=Axes((2, 3))),
    "locked": Variant("Gal and Ghahramani 2016 (arXiv:1512.05287)", share=Axes((1,))),  # of batch x time x features
    "gaussian": Variant("Srivastava et al. 2014 (JMLR 15:1929), section 10", noise=Gaussian()),
    "zoneout": Variant("Krueger et al. 2017 (arXiv:1606.01305)", noise=Zoneout()),
    "dropblock": Variant("Ghiasi, Lin and Le 2018 (arXiv:1810.12890)", share=Block(7)),  # of N x C x H x W
    "monte_carlo": Variant("Gal and Ghahramani 2016 (arXiv:1506.02142)", when=When.ALWAYS),
})
# fmt: on
