"""What is dropped at once, and for whom, in words."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .facts import Facts, Shape, Site
from .names import called, listed

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
    if len({mask[1:] for mask in site.call_masks}) > 1 and not site.share:
        every = [_drawn_for(replace(site, mask_shape=mask), mask, batch) for mask in site.call_masks]
        who = every[0].rpartition(", ")[2]
        if all(words.endswith(f", {who}") for words in every):
            return f"{listed(dict.fromkeys(words.removesuffix(f', {who}') for words in every))}, call by call, {who}"
        return f"{listed(dict.fromkeys(every))}, call by call"
    return site.share or _drawn_for(site, shape, batch)


def _drawn_for(site: Site, shape: Shape, batch: int | None) -> str:
    if site.target == "attention weights":
        return _attention_words(shape, batch)
    if len(shape) == 0:
        return "one draw"
    shared = shared_by_batch(site, batch)
    if site.draws == 1:
        one = "one draw, shared by the batch" if shared else "one draw per sample"
        return f"{one} (the whole branch)" if drops_branch(site) else one
    return f"{_units(site)}, {'shared by the batch' if shared else 'per sample'}"


def shared_by_batch(site: Site, batch: int | None = None) -> bool:
    """Whether all samples get the same mask.

    >>> shared_by_batch(Site(name="drop", kind="Dropout", layer="drop", p=0.5, mask_shape=(1, 8)))
    True
    """
    shape = site.mask_shape or ()
    return shape[:1] == (1,) and batch != 1


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


def call_sentences(site: Site) -> Iterator[str]:
    """Where a dropout that is called several times drops each time."""
    if len(site.call_masks) != site.calls or site.calls < 2:
        return
    one = "each with a mask of its own" + ("" if site.by_hand else " and all with one rate")
    if len(set(zip(site.call_masks, site.call_zeroes, strict=True))) == 1:
        yield f"{called(site)} is called {site.calls} times in a forward, {one}."
        return
    where = [
        f"{listed(zeroes) or 'a value computed in between'} ({' x '.join(map(str, mask[1:])) or 1})"
        for mask, zeroes in zip(site.call_masks, site.call_zeroes, strict=True)
    ]
    yield f"{called(site)} is called {site.calls} times in a forward, {one}: on {listed(where)}."


def element_sentences(sites: Sequence[Site], explanation: Facts) -> Iterator[str]:
    """Of batch x time x features: that single elements are dropped, and how whole neurons would be."""
    kinds = {layer.name: layer.kind for layer in explanation.layers}
    found: dict[int, list[Site]] = {}
    for site in sites:
        shape = site.mask_shape or ()
        plain = site.target == "output" and site.drawn == "mask" and not (site.share or site.by_hand)
        if plain and len(shape) == site.input_rank == 3 and min(shape[1:]) > 1:
            channels_first = explanation.framework == "torch" and any("Conv1d" in kinds[name] for name in site.zeroes)
            found.setdefault(2 if channels_first else 1, []).append(site)
    for axis, there in found.items():
        names = listed(called(site) for site in there)
        verb = "drops" if len(there) == 1 else "drop"
        p = f"{there[0].p:g}" if len({site.p for site in there}) == 1 else "p"
        more = f"share=({axis},)" if explanation.framework == "torch" else "noise_shape=(None, 1, None)"
        call = f"dropkit.{explanation.framework}.Dropout({p}, {more})"
        yield (
            f"{names} {verb} single elements, not neurons: along axis {axis} each entry draws its own. To drop whole "
            f"{'channels' if axis == 2 else 'neurons, the same at every step'}: {call}."
        )
