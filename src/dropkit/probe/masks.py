"""What is dropped at once, and for whom, in words."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..language import counted, joined, say, template
from .facts import Facts, Shape, Site
from .names import by, called, listed

_CHANNELS = re.compile(r"[123]d$|spatial|channel|feature", re.IGNORECASE)
_BATCH, _SAMPLE = template("shared by the batch"), template("per sample")
_WHO = template("{before}, {item}")  # what is dropped at once, and for whom
_BRANCH = re.compile(r"path|depth", re.IGNORECASE)
# Of what is called several times: a dropout by hand may have a rate of its own in each call.
OWN_MASKS = template("{who} is called {calls} times in a forward, each with a mask of its own.")
OWN_MASKS_ON = template("{who} is called {calls} times in a forward, each with a mask of its own: on {where}.")
ONE_RATE = template("{who} is called {calls} times in a forward, each with a mask of its own and all with one rate.")
ONE_RATE_ON = template(
    "{who} is called {calls} times in a forward, each with a mask of its own and all with one rate: on {where}."
)


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
        return say("mask not seen")
    if site.drawn == "values":
        what = joined(_drawn_for(site, shape, batch), _WHO)
        return what if site.draws == 1 else say("a number for {what}", what=what)
    if len({mask[1:] for mask in site.call_masks}) > 1 and not site.share:
        every = [_drawn_for(replace(site, mask_shape=mask), mask, batch) for mask in site.call_masks]
        who = every[0][1]
        if who and all(other == who for _, other in every):
            names = listed(dict.fromkeys(what for what, _ in every))
            return say("{names}, call by call, {who}", names=names, who=who)
        names = listed(dict.fromkeys(joined(parts, _WHO) for parts in every))
        return say("{names}, call by call", names=names)
    return site.share or joined(_drawn_for(site, shape, batch), _WHO)


def _drawn_for(site: Site, shape: Shape, batch: int | None) -> tuple[str, str]:
    """What is dropped at once, and for whom, where that is not said in one."""
    if site.target == "attention weights":
        return _attention_words(shape, batch)
    if site.target == "weights":
        lengths = by(tuple(size for size in shape if size > 1))
        if 1 in shape:
            return say("each of {lengths}, for all along the other axes", lengths=lengths), ""
        return say("each of {lengths} weights", lengths=lengths), ""
    if len(shape) == 0:
        return say("one draw"), ""
    shared = shared_by_batch(site, batch)
    if site.draws == 1:
        branch = drops_branch(site)
        if not shared:
            return say("one draw per sample (the whole branch)") if branch else say("one draw per sample"), ""
        return say("one draw"), say("shared by the batch (the whole branch)") if branch else say(_BATCH)
    return _units(site), say(_BATCH if shared else _SAMPLE)


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
    lengths = by(tuple(shape[axis] for axis in drawn))
    if len(drawn) == len(shape) - 1:
        return say("each of {lengths} units", lengths=lengths)
    if drawn == [len(shape) - 1] or (drawn == [1] and (len(shape) > 3 or _CHANNELS.search(site.kind))):
        return say("whole channels: each of {lengths}", lengths=lengths)
    if drawn == [1]:
        return say("whole vectors: each of {lengths}", lengths=lengths)
    return say("each of {lengths}, for all along the other axes", lengths=lengths)


def _attention_words(shape: Sequence[int], batch: int | None) -> tuple[str, str]:
    *outer, rows, columns = (1, 1, *shape) if len(shape) < 2 else shape
    weights = by((rows, columns))
    # torch's own attention folds the heads into the batch.
    if len(outer) == 1 and batch and outer[0] > batch and outer[0] % batch == 0:
        outer = [batch, outer[0] // batch]
    heads = math.prod(outer[1:])
    shared = outer[:1] == [1] and batch != 1
    if heads > 1:
        what = say("each attention weight: {heads} heads x {weights}", heads=heads, weights=weights)
    else:
        what = say("each attention weight: {weights}", weights=weights)
    return what, say(_BATCH if shared else _SAMPLE)


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
    return say("channels") if _units(site).startswith("whole channels") else say("units")


def call_sentences(site: Site) -> Iterator[str]:
    """Where a dropout that is called several times drops each time; passes on purpose, and equal views."""
    if site.passes:
        names = [f"{site.name}@{turn}" if turn else site.name for turn in range(site.passes)]
        words = template(
            "{who} drops in {passes} passes on purpose, each a draw of the same step by its name: {names}."
        )
        yield say(words, who=called(site), passes=site.passes, names=listed(names))
    if site.views:
        words = template("{who} drops the same elements of the same input in {views} calls: their results are equal.")
        yield say(words, who=called(site), views=site.views)
    if len(site.call_masks) != site.calls or site.calls < 2:
        return
    given: dict[str, Any] = {"who": called(site), "calls": site.calls}
    if len(set(zip(site.call_masks, site.call_zeroes, strict=True))) == 1:
        yield say(OWN_MASKS if site.by_hand else ONE_RATE, **given)
        return
    between = say("a value computed in between")
    where = [
        say("{what} ({shape})", what=listed(zeroes) or between, shape=by(mask[1:]) or "1")
        for mask, zeroes in zip(site.call_masks, site.call_zeroes, strict=True)
    ]
    yield say(OWN_MASKS_ON if site.by_hand else ONE_RATE_ON, **given, where=listed(where))


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
        p = f"{there[0].p:g}" if len({site.p for site in there}) == 1 else "p"
        more = f"share=({axis},)" if explanation.framework == "torch" else "noise_shape=(None, 1, None)"
        call = f"dropkit.{explanation.framework}.Dropout({p}, {more})"
        single = counted(
            len(there),
            "{who} drops single elements, not neurons: along axis {axis} each entry draws its own.",
            "{who} drop single elements, not neurons: along axis {axis} each entry draws its own.",
            who=names,
            axis=axis,
        )
        if axis == 2:
            yield say("{single} To drop whole channels: {call}.", single=single, call=call)
        else:
            yield say("{single} To drop whole neurons, the same at every step: {call}.", single=single, call=call)
