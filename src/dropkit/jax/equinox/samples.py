"""A share as a sample knows it, in the noise of all samples, which lie along axes before the sample's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...axes.share import Axes, Refining, Sharing, Uniform
from ...place import Part, noise_shape


def of_samples(share: Sequence[int] | Refining, before: int) -> Sharing:
    """The share of an array that has further axes before those that the share counts.

    >>> of_samples((0, -1), 2)
    Axes(axes=(2, -1))
    """
    if isinstance(share, Refining):
        return OfSamples(share, before) if before else share
    return Axes(_moved(share, before))


def _moved(axes: Sequence[int], before: int) -> tuple[int, ...]:
    return tuple(axis + before if axis >= 0 else axis for axis in axes)


@dataclass(frozen=True)
class OfSamples(Refining):
    """What a share does to one sample, an array with `before` axes of size 1 in front."""

    share: Refining
    before: int

    @property
    def axes(self) -> Sequence[int]:  # type: ignore[override]
        """Those of the share."""
        return _moved(self.share.axes, self.before)

    def fraction(self, t: Any, shape: tuple[int, ...], part: Part, xp: Any) -> Any:
        """That of the sample."""
        return self.share.fraction(t, shape[self.before :], self._own(part), xp)

    def kept(self, t: Any, shape: tuple[int, ...], part: Part, uniform: Uniform, xp: Any) -> Any:
        """That of the sample."""
        n, samples = self.before, part.in_whole(shape)
        first, counts = (tuple(entries[:n]) for entries in samples)

        def of_sample(shape: tuple[int, ...], part: Part, axes: Sequence[int]) -> Any:
            offset = part.offset or (0,) * len(shape)
            whole = Part((*first, *offset), (*counts, *(part.global_shape or shape)), None)
            return xp.reshape(uniform((1,) * n + shape, whole, _moved(axes, n)), noise_shape(shape, axes))

        kept = self.share.kept(t, shape[n:], self._own(part), of_sample, xp)
        return xp.reshape(kept, (1,) * n + tuple(kept.shape))

    def _own(self, part: Part) -> Part:
        return Part(part.offset and part.offset[self.before :], part.global_shape and part.global_shape[self.before :])
