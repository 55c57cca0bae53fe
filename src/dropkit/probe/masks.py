"""What is dropped at once, and for whom, in words."""

import math
import re
from collections.abc import Sequence

from .facts import Shape, Site

_CHANNELS = re.compile(r"[123]d$|spatial|channel|feature", re.IGNORECASE)
_BRANCH = re.compile(r"path|depth", re.IGNORECASE)


def mask_words(site: Site, batch: int | None = None) -> str:
    """What is dropped at once, and for whom.

    Args:
        site: whose mask has 1 where a draw is shared; the first axis is the batch.
        batch: samples in the run; with a single one it does not show whether a draw is shared by the batch.

    >>> site = Site(name="drop", kind="Dropout", layer="drop", p=0.5, mask_shape=(8, 1024))
    >>> mask_words(site)
    'each of 1024 units, per sample'
    """
    shape = site.mask_shape
    if shape is None:
        return "mask not seen"
    if site.drawn == "values":
        return f"a number for {_drawn_for(site, shape, batch)}"
    return site.share or _drawn_for(site, shape, batch)


def _drawn_for(site: Site, shape: Shape, batch: int | None) -> str:
    if site.target == "attention weights":
        return _attention_words(shape, batch)
    if len(shape) == 0:
        return "one draw"
    shared = shape[0] == 1 and batch != 1
    if site.draws == 1:
        one = "one draw, shared by the batch" if shared else "one draw per sample"
        return f"{one} (the whole branch)" if drops_branch(site) else one
    return f"{_units(site)}, {'shared by the batch' if shared else 'per sample'}"


def _units(site: Site) -> str:
    shape = site.mask_shape or ()
    drawn = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
    lengths = " x ".join(str(shape[axis]) for axis in drawn)
    if len(drawn) == len(shape) - 1:
        return f"each of {lengths} units"
    if drawn == [len(shape) - 1] or (drawn == [1] and (len(shape) > 3 or _CHANNELS.search(site.kind))):
        return f"whole channels: each of {lengths}"
    if drawn == [1]:
        return f"whole vectors: each of {lengths}"
    return f"each of {lengths}, for all along the other axes"


def _attention_words(shape: Sequence[int], batch: int | None) -> str:
    *outer, rows, columns = (1, 1, *shape) if len(shape) < 2 else shape
    weights = f"{rows} x {columns}"
    # torch's own attention folds the heads into the batch.
    if len(outer) == 1 and batch and outer[0] > batch and outer[0] % batch == 0:
        outer = [batch, outer[0] // batch]
    heads = math.prod(outer[1:])
    shared = outer[:1] == [1] and batch != 1
    who = "shared by the batch" if shared else "per sample"
    return f"each attention weight: {f'{heads} heads x ' if heads > 1 else ''}{weights}, {who}"


def drops_branch(site: Site) -> bool:
    """Whether it drops all of its input or none of it: stochastic depth.

    >>> drops_branch(Site(name="path", kind="DropPath", layer="path", p=0.1, mask_shape=(8, 1, 1)))
    True
    """
    shape = site.mask_shape or ()
    named = _BRANCH.search(f"{site.kind} {site.name}")
    return site.target == "output" and len(shape) > 1 and site.draws == 1 and (len(shape) > 2 or bool(named))


def unit(site: Site) -> str:
    """What is dropped one by one."""
    return "channels" if _units(site).startswith("whole channels") else "units"
