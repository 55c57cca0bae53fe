"""What a probe found, in words: masks, a summary in sentences, what to expect; and all of it as JSON."""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from ..plain import json_text
from .explanation import Explanation, Layer, Site
from .names import SHOWN, Places, label, listed

FORMAT = 1  # of the JSON
_CHANNELS = re.compile(r"[123]d$|spatial|channel|feature", re.IGNORECASE)
_BRANCH = re.compile(r"path|depth", re.IGNORECASE)
_FOLDER = re.compile(r"[/\\]")
_ALPHA = re.compile(r"alpha", re.IGNORECASE)
_NOISE = re.compile(r"gauss", re.IGNORECASE)  # multiplies by anything, and so picks no sub-network
_TARGETS = {
    "input": "the model's input",
    "attention weights": "the attention weights in {}",
    "hidden states": "what {} hands from one of its layers to the next",
    "state": "the state that {} carries from step to step",
}


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


def drops(site: Site) -> bool:
    """Whether anything is dropped there in training, as far as is known."""
    return site.p != 0 and not site.idle and site.train is not False


def sentences(explanation: Explanation) -> tuple[str, ...]:
    """What dropout does in a model: what it zeroes, what changes, what does not, and what to expect of it.

    >>> from dropkit.probe.explanation import Layer
    >>> layers = (Layer(name="", parent=None, kind="Net"), Layer(name="head", parent="", kind="Linear"))
    >>> sentences(Explanation(model="Net", framework="torch", inputs=((1, 3),), layers=layers, sites=()))
    ('No dropout was found in this model.',)
    """
    if not explanation.sites:
        return ("No dropout was found in this model.",) if not _random(explanation) else _unknown(explanation)
    active = [site for site in explanation.sites if drops(site)]
    return (
        *(_one_by_one if len(active) <= SHOWN else _together)(active, explanation),
        *_unaffected(explanation),
        *_at_odds(explanation),
        *_otherwise_random(explanation),
        *_expected(active, explanation),
    )


def _random(explanation: Explanation) -> list[str]:
    """Layers whose outputs change from run to run without any dropout that is known."""
    places = Places(explanation)
    return places.blocks((layer.name for layer in explanation.layers if layer.random), places.leaf)


def _unknown(explanation: Explanation) -> tuple[str, ...]:
    names = listed(_random(explanation))
    return (
        "No dropout that is known was found in this model, but it is random in training.",
        f"With the same inputs, another output in every run: {names}.",
    )


def _otherwise_random(explanation: Explanation) -> Iterator[str]:
    names = _random(explanation)
    if names and not any(site.by_hand for site in explanation.sites):
        yield f"Random in training without any dropout that is known: {listed(names)}."


def _one_by_one(sites: Sequence[Site], explanation: Explanation) -> Iterator[str]:
    places = Places(explanation)
    for site in sites:
        mask = "" if site.mask_shape is None else f": {mask_words(site, batch_of(explanation))}"
        yield f"{_drop([site], places)}{mask}."
        yield _outputs(f"{_called(site)} changes", site.changes, places)
    # Often all of them change the same gradients, and one sentence says so.
    for gradients in dict.fromkeys(site.gradients for site in sites):
        names = [_called(site) for site in sites if site.gradients == gradients]
        yield _gradients(f"{listed(names)} {'change' if len(names) > 1 else 'changes'}", gradients, places)


def _together(sites: Sequence[Site], explanation: Explanation) -> Iterator[str]:
    places = Places(explanation)
    ordered = sorted(sites, key=lambda site: (site.target, site.kind, site.effect, site.p or 0))
    for _, group in groupby(ordered, key=lambda site: (site.target, site.kind, site.effect, site.p)):
        yield f"{_drop(list(group), places)}."
    start = f"All {len(sites)} dropouts together change"
    yield _outputs(start, {name for site in sites for name in site.changes}, places)
    yield _gradients(start, {name for site in sites for name in site.gradients}, places)


def _drop(sites: Sequence[Site], places: Places) -> str:
    """What sites of one kind, p and target do where they are."""
    first, one = sites[0], len(sites) == 1
    kind = first.kind if first.p is None else f"{first.kind}, p {first.p:g}"
    who = f"{first.name if one else f'{len(sites)} dropouts'} ({kind})"
    if first.by_hand:
        who, does = _by_hand(sites, who)
        if first.effect != "drops":
            there = listed(dict.fromkeys(site.layer or "the model" for site in sites))
            return f"{who} {does}" if first.effect == "decides" else f"{who} {does} data in {there}"
    elif _NOISE.search(first.kind):
        does = "multiplies by noise" if one else "multiply by noise"
    elif _ALPHA.search(first.kind):
        does = "saturates a part of" if one else "saturate a part of"
    else:
        does = "zeroes a part of" if one else "zero a part of"
    if first.target in _TARGETS:
        what = _TARGETS[first.target].format(listed(dict.fromkeys(site.layer or "the model" for site in sites)))
    else:
        names = places.blocks({name for site in sites for name in site.zeroes}, places.leaf)
        what = _output(names, {site.behind for site in sites}, _blocks(sites))
    return f"{who} {does} {what}"


def _blocks(sites: Sequence[Site]) -> Sequence[str]:
    """The blocks in which dropouts stand."""
    inside = (site.layer if ":" in site.name else re.split("[./]", site.layer)[:-1] for site in sites)
    return list(dict.fromkeys(name if isinstance(name, str) else ".".join(name) for name in inside))


def _output(names: Sequence[str], behind: set[tuple[str, ...]], blocks: Sequence[str]) -> str:
    """What is dropped: the output of layers, what functions make of it, or what is computed between layers."""
    if not names:
        return f"a value computed in {listed(block or 'the model' for block in blocks)}"
    functions = ", ".join(next(iter(behind))) if len(behind) == 1 else ""
    if not functions:
        return f"the output of {listed(names)}"
    shown = listed(names)
    return (
        f"what is behind {shown[:-1]}; {functions})" if shown.endswith(")") else f"what is behind {shown} ({functions})"
    )


def zeroed_words(layer: Layer, sites: Iterable[Site]) -> str:
    """ "zeroed", or behind which functions; empty where no site zeroes a layer's output.

    >>> layer = Layer(name="b1", parent="", kind="BatchNorm2d", zeroed_by=("drop",))
    >>> zeroed_words(layer, [Site(name="drop", kind="Dropout", layer="drop", p=0.5, behind=("relu", "max_pool2d"))])
    'zeroed behind it (relu, max_pool2d)'
    """
    behind = {site.behind for site in sites if site.name in layer.zeroed_by}
    if not layer.zeroed_by:
        return ""
    functions = ", ".join(next(iter(behind))) if len(behind) == 1 else ""
    return f"zeroed behind it ({functions})" if functions else "zeroed"


def _by_hand(sites: Sequence[Site], who: str) -> tuple[str, str]:
    """Who and does what, of random operations that are no known dropout."""
    first, one = sites[0], len(sites) == 1
    place = _FOLDER.split(first.source)[-1]
    who = f"{who}, a random operation by hand at {place}," if one else f"{who}, random operations by hand,"
    does = {
        "drops": ("zeroes a part of", "zero a part of"),
        "adds": ("adds random numbers to", "add random numbers to"),
        "fills": ("replaces a part of the", "replace a part of the"),
        "decides": ("decides what runs", "decide what runs"),
    }.get(first.effect, ("multiplies by random numbers", "multiply by random numbers"))
    if first.effect == "drops" and not first.zero_share:
        does = "multiplies by noise", "multiply by noise"
    words = does[0] if one else does[1]
    share = f" ({100 * first.zero_share:.0f} %)" if first.zero_share and one else ""
    return who, words.replace(" a part", f" a part{share}")


def _called(site: Site) -> str:
    return f"dropout {site.name}" if site.name.isdecimal() else site.name


def _outputs(start: str, names: Iterable[str], places: Places) -> str:
    names = set(names)
    changed = places.blocks(names, places.leaf)
    if not changed:
        return f"{start} {'only the output of the model' if '' in names else 'no output of a later layer'}."
    if changed == ["every layer"]:
        return f"{start} the output of every layer."
    later = "the outputs of later layers" if len(changed) > 1 else "the output of a later layer"
    return f"{start} {later}: {listed(changed)}."


def _gradients(start: str, names: Iterable[str], places: Places) -> str:
    every = {layer.name: label(layer) for layer in places.layers if places.trains(layer)}
    changed = set(names) & set(every)
    if not changed:
        return f"{start} no gradient."
    shown = places.blocks(changed, places.trains)
    if len(changed) < len(every):
        return f"{start} the gradient of {listed(shown)}."
    these = f": {listed(every.values())}" if len(every) <= SHOWN else ""
    return f"{start} the gradient of every trainable layer{these}."


def _unaffected(explanation: Explanation) -> Iterator[str]:
    places = Places(explanation)
    layers = explanation.layers
    sites = {site.layer for site in explanation.sites}
    frozen = places.blocks((layer.name for layer in layers if layer.frozen), places.owns)
    if frozen:
        yield f"Frozen, and so without gradient: {listed(frozen)}."
    unused = [label(layer) for layer in layers if layer.gradient == "unused" and places.owns(layer)]
    if unused:
        yield f"No output depends on {listed(unused)}, so there is no gradient."
    same = [layer.name for layer in layers if layer.gradient == "unchanged" and layer.touched]
    if same:
        yield f"The gradient is the same with and without dropout in {listed(places.blocks(same, places.trains))}."
    passing = passed_on(explanation)
    spared = {layer.name for layer in layers if not layer.touched and layer.name not in sites | passing}
    names = places.blocks(spared, places.leaf)
    yield f"Not affected by any dropout: {listed(names)}." if names else "No layer is unaffected."


def passed_on(explanation: Explanation) -> set[str]:
    """Layers without parameters between a layer whose output is zeroed and the dropout: theirs is zeroed with it.

    >>> from dropkit.probe.explanation import Layer
    >>> layers = (
    ...     Layer(name="", parent=None, kind="Net"),
    ...     Layer(name="hidden", parent="", kind="Linear", parameters=9),
    ...     Layer(name="relu", parent="", kind="ReLU", inputs=("hidden",)),
    ...     Layer(name="drop", parent="", kind="Dropout", inputs=("relu",)),
    ... )
    >>> drop = Site(name="drop", kind="Dropout", layer="drop", p=0.5, zeroes=("hidden",))
    >>> passed_on(Explanation(model="Net", framework="torch", inputs=(), layers=layers, sites=(drop,)))
    {'relu'}
    """
    plain = {layer.name: layer for layer in explanation.layers if not layer.parameters}
    inputs = {layer.name: layer.inputs for layer in explanation.layers}
    found: set[str] = set()
    for site in explanation.sites:
        if site.target != "output" or not drops(site):
            continue
        waiting = list(inputs.get(site.layer, ()))
        while waiting:
            name = waiting.pop()
            if name in plain and name not in found and name not in site.zeroes:
                found.add(name)
                waiting += inputs[name]
        if not inputs.get(site.layer):  # a call in a block, of which is known what it zeroes alone
            ahead = set(site.zeroes)
            for name, layer in plain.items():
                if not layer.touched and not ahead.isdisjoint(layer.inputs):
                    ahead.add(name)
            found |= ahead - set(site.zeroes)
    return found


def _at_odds(explanation: Explanation) -> Iterator[str]:
    """Sites that do not drop where they could, or do where they should not."""
    sites = explanation.sites
    for site in sites:
        if site.idle:
            yield f"{site.name} never drops: {site.idle}."
    told = [site for site in sites if not site.idle]
    if off := [site.name for site in told if site.p == 0]:
        yield f"Of p 0, and so without effect: {listed(off)}."
    told = [site for site in told if site.p != 0]
    if dead := [site.name for site in told if site.train is False]:
        yield f"Not active in training: {listed(dead)}."
    if on := [site.name for site in told if site.eval]:
        yield f"Active in evaluation too: {listed(on)}."
    now = [site for site in told if site.train and site.now is False]
    if now and len(now) == len(told):
        mode = "" if explanation.layers[0].training else ", in evaluation mode"
        yield f"As the model was handed in{mode}, no dropout is active."
    elif now:
        yield f"As the model was handed in, not active: {listed([site.name for site in now])}."


def _expected(sites: Sequence[Site], explanation: Explanation) -> Iterator[str]:
    """Sub-networks, active units and depth, for sites whose mask was seen; twins draw once."""
    seen: set[str] = set()
    drawn: list[Site] = []
    for site in sites:
        masks = site.p is not None and 0 < site.p < 1 and not _NOISE.search(site.kind)
        if masks and site.draws and seen.isdisjoint(site.twins):
            drawn.append(site)
            seen.add(site.name)
    if not drawn:
        return
    bits = sum(site.draws_of_a_forward or 0 for site in drawn)
    value = f" = {2**bits:,}" if bits <= 20 else ""
    yield f"Every training step draws, for each sample, one of 2^{bits}{value} sub-networks."
    branches = [site for site in drawn if drops_branch(site)]
    units = [site for site in drawn if not drops_branch(site)]
    if units:
        yield f"Active on average: {'; '.join(_active(units))}."
    if branches:
        depth = sum(1 - (site.p or 0) for site in branches)
        word = "branch" if len(branches) == 1 else "branches"
        yield f"Of {len(branches)} residual {word} {number(depth)} are active on average."


def _active(sites: Sequence[Site]) -> list[str]:
    # Of a dropout that runs several times: the first call, which the others mostly are like.
    counts: dict[tuple[str, int, float], list[str]] = {}
    for site in sites:
        what = "attention weights" if site.target == "attention weights" else _unit(site)
        what += f" in each of {site.calls} calls" if site.calls > 1 else ""
        counts.setdefault((what, site.draws or 0, site.p or 0), []).append(site.name)
    rows = []
    for (what, draws, p), names in counts.items():
        place = names[0] if len(names) == 1 else f"each of {len(names)} dropouts"
        rows.append(f"{number((1 - p) * draws)} of {draws} {what} at {place}")
    return rows if len(rows) <= SHOWN else [*rows[:SHOWN], f"and {len(rows) - SHOWN} more kinds"]


def _unit(site: Site) -> str:
    return "channels" if _units(site).startswith("whole channels") else "units"


def number(value: float) -> str:
    """A number with one decimal, where it has any.

    >>> number(14.4), number(512.0)
    ('14.4', '512')
    """
    return f"{value:.1f}".removesuffix(".0")


def batch_of(explanation: Explanation) -> int | None:
    """How many samples the model was run with."""
    return explanation.inputs[0][0] if explanation.inputs and explanation.inputs[0] else None


def to_json(explanation: Explanation) -> str:
    """All that a probe found, with summary and findings, as JSON; a number that is not finite becomes null.

    Returns:
        An object with `format` (1), `sentences`, `findings` and the fields of an `Explanation`, in this order.

    >>> from dropkit.probe.explanation import Layer
    >>> layers = (Layer(name="", parent=None, kind="Net"),)
    >>> import json
    >>> text = to_json(Explanation(model="Net", framework="torch", inputs=((1, 3),), layers=layers, sites=()))
    >>> json.loads(text)["sentences"]
    ['No dropout was found in this model.']
    """
    return json_text(explanation.to_dict())


def findings_json(explanation: Explanation, ignore: Collection[str] = ()) -> str:
    """The findings alone: an object with `format`, `model`, `framework`, `sites` (their number) and `findings`."""
    from .findings import findings

    found = [asdict(finding) for finding in findings(explanation, ignore)]
    about = {"model": explanation.model, "framework": explanation.framework, "sites": len(explanation.sites)}
    return json_text({"format": FORMAT, **about, "findings": found})
