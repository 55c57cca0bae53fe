"""Kinds of dropout by name, for strategies and specs such as `channel:0.1`: what is shared, and which law.

A later kind is one row more: whatever `dropkit.axes` has.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...axes.noise import Alpha, Bernoulli, Concrete, Fill, Gaussian, Noise
from ...axes.share import Axes, Block, Exactly, Prefix, Sharing
from ...axes.when import When
from ...errors import DropkitValueError, UnknownNameError
from ...grid import grid

BLOCK = 7  # the side of a block, as published, where the map is that large
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """A kind of dropout.

    Args:
        words: what is dropped, in words.
        axes: how many a tensor needs, the batch's among them.
        share: (shape of the tensor, which axis has the channels) -> who shares a draw.
        noise: what becomes of an element.

    >>> VARIANTS["channel"].share((8, 16, 5, 5), 1)
    (2, 3)
    """

    words: str
    axes: int
    share: Callable[[Shape, int], Sharing | tuple[int, ...]]
    noise: Noise = Bernoulli()  # noqa: RUF009  # a frozen value


def _element(shape: Shape, channels: int) -> tuple[int, ...]:
    return ()


def _channel(shape: Shape, channels: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(1, len(shape)) if axis != channels)


def _sample(shape: Shape, channels: int) -> tuple[int, ...]:
    return tuple(range(1, len(shape)))


def _time(shape: Shape, channels: int) -> tuple[int, ...]:
    return (1,)


def _token(shape: Shape, channels: int) -> tuple[int, ...]:
    return tuple(range(2, len(shape)))


def _block(shape: Shape, channels: int) -> Sharing:
    over = _channel(shape, channels)
    side = min(BLOCK, *(shape[axis] for axis in over))
    return Block(max(1, side - (side % 2 == 0)), over)


def _exact(shape: Shape, channels: int) -> Sharing:
    return Exactly(_sample(shape, channels))


def _all(shape: Shape, channels: int) -> Sharing:
    return Axes(_sample(shape, channels))


def _nested(shape: Shape, channels: int) -> Sharing:
    return Prefix((channels,), axes=_channel(shape, channels))


def _clipped(shape: Shape, channels: int) -> Sharing:
    over = _channel(shape, channels)
    return Block(min(BLOCK, *(shape[axis] for axis in over)), over, clipped=True)


# fmt: off
_KINDS = {
    "element": Variant("single values", 1, _element),
    "channel": Variant("whole channels of N x C x ...", 3, _channel),
    "token": Variant("whole steps of N x time x features", 3, _token),
    "time": Variant("features of N x time x features, the same at all steps", 3, _time),
    "sample": Variant("all of a sample: stochastic depth", 2, _sample),
    "path": Variant("the branch of a sample: DropPath", 2, _sample),
    "block": Variant("blocks of a map (DropBlock)", 4, _block),
    "exact": Variant("exactly that share of a sample's values", 2, _exact),
    "gaussian": Variant("times Gaussian noise", 1, _element, Gaussian()),
    "channel-gaussian": Variant("channels times Gaussian noise", 3, _channel, Gaussian()),
    "alpha": Variant("single values to SELU's lower end", 1, _element, Alpha()),
    "channel-alpha": Variant("whole channels to SELU's lower end", 3, _channel, Alpha()),
    "relaxed": Variant("a relaxed mask of single values", 1, _element, Concrete()),  # "concrete" learns its rate
    "nested": Variant("the last values of a sample, at random from which on (nested)", 2, _nested, Fill(0.0)),
    "clipped-block": Variant("blocks of a map, cut at the border", 4, _clipped),
}
# fmt: on
# Every law of the grid that acts on single activations by itself is a kind under its name there.
_LAWS = {
    name.replace("_", "-"): Variant(f"single values: {name.replace('_', ' ')}", 1, _element, variant.noise)
    for name, variant in grid.items()
    if variant.place == "activation" and not variant.noise.needs_other and variant.when is When.TRAIN
    if variant.share == Axes() and variant.noise not in [kind.noise for kind in _KINDS.values()]
}
# What the grid calls otherwise.
_ALSO = {
    "dropout": "element", "spatial": "channel", "locked": "time", "stochastic_depth": "sample", "drop_path": "path",
    "dropblock": "block", "dropblock_clipped": "clipped-block", "feature_alpha": "channel-alpha",
}  # fmt: skip
VARIANTS: Mapping[str, Variant] = MappingProxyType(_KINDS | _LAWS)


def variant_of(name: str) -> Variant:
    """The kind of a name.

    Raises:
        UnknownNameError: there is none; those that there are are listed.
        DropkitValueError: it is an entry of the grid that is more than one tensor and a mask.
    """
    published = name.replace("-", "_")
    name = _ALSO.get(published, name)
    if name not in VARIANTS and published in grid and grid[published].torch:
        raise DropkitValueError(
            f"{name!r} is no kind of dropout that stands behind a layer by itself: give the model a "
            f"dropkit.torch.{grid[published].torch} and compare the rates of its site"
        )
    if name not in VARIANTS:
        raise UnknownNameError("kind of dropout", name, VARIANTS)
    return VARIANTS[name]


def check_shape(name: str, site: str, shape: Shape | None) -> None:
    """Refuse a kind for a tensor without the axes that it needs.

    Raises:
        DropkitValueError: it has fewer.
    """
    found = variant_of(name)
    if shape is not None and len(shape) < found.axes:
        raise DropkitValueError(
            f"{name} drops {found.words}, and {site} gets a tensor of shape {('samples', *shape[1:])}: it needs "
            f"{found.axes} axes; choose another kind, or other places with {name}:0.1@PATTERN".replace("'", "")
        )
