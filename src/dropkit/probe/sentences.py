"""What a probe found, in words: a summary in sentences, and what to expect."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from .facts import Facts, Layer, Site
from .masks import call_sentences, drops_branch, element_sentences, mask_words, shared_by_batch, unit
from .names import SHOWN, Places, called, label, listed

_FOLDER = re.compile(r"[/\\]")
_TARGETS = {
    "input": "the model's input",
    "attention weights": "the attention weights in {}",
    "hidden states": "what {} hands from one of its layers to the next",
    "state": "the state that {} carries from step to step",
}


def drops(site: Site) -> bool:
    """Whether anything is dropped there in training, as far as is known."""
    return site.p != 0 and not site.idle and site.train is not False


def sentences(explanation: Facts) -> tuple[str, ...]:
    """What dropout does in a model: what it zeroes, what changes, what does not, and what to expect of it.

    >>> from dropkit.probe import Explanation, Layer
    >>> layers = (Layer(name="", parent=None, kind="Net"), Layer(name="head", parent="", kind="Linear"))
    >>> sentences(Explanation(model="Net", framework="torch", inputs=((1, 3),), layers=layers, sites=()))
    ('No dropout was found in this model.',)
    """
    if not explanation.sites:
        return ("No dropout was found in this model.",) if not _random(explanation) else _unknown(explanation)
    active = [site for site in explanation.sites if drops(site)]
    return (
        *(_one_by_one if len(active) <= SHOWN else _together)(active, explanation),
        *element_sentences(active, explanation),
        *_unaffected(explanation),
        *_at_odds(explanation),
        *_otherwise_random(explanation),
        *_expected(active, explanation),
    )


def _random(explanation: Facts) -> list[str]:
    """Layers whose outputs change from run to run without any dropout that is known."""
    places = Places(explanation)
    return places.blocks((layer.name for layer in explanation.layers if layer.random), places.leaf)


def _unknown(explanation: Facts) -> tuple[str, ...]:
    names = listed(_random(explanation))
    return (
        "No dropout that is known was found in this model, but it is random in training.",
        f"With the same inputs, another output in every run: {names}.",
    )


def _otherwise_random(explanation: Facts) -> Iterator[str]:
    names = _random(explanation)
    if names and not any(site.by_hand for site in explanation.sites):
        yield f"Random in training without any dropout that is known: {listed(names)}."


def _one_by_one(sites: Sequence[Site], explanation: Facts) -> Iterator[str]:
    places = Places(explanation)
    for site in sites:
        mask = "" if site.mask_shape is None else f": {mask_words(site, batch_of(explanation))}"
        yield f"{_drop([site], places)}{mask}."
        yield from call_sentences(site)
        yield _outputs(f"{called(site)} changes", site.changes, places)
    # Often all of them change the same gradients, and one sentence says so.
    for gradients in dict.fromkeys(site.gradients for site in sites):
        names = [called(site) for site in sites if site.gradients == gradients]
        yield from _gradients(listed(names), "" if len(names) > 1 else "s", gradients, places)


def _together(sites: Sequence[Site], explanation: Facts) -> Iterator[str]:
    places = Places(explanation)
    ordered = sorted(sites, key=lambda site: (site.target, site.kind, site.effect, site.p or 0))
    for _, group in groupby(ordered, key=lambda site: (site.target, site.kind, site.effect, site.p)):
        yield f"{_drop(list(group), places)}."
    start = f"All {len(sites)} dropouts together change"
    yield _outputs(start, {name for site in sites for name in site.changes}, places)
    yield from _gradients(
        start.removesuffix(" change"), "", {name for site in sites for name in site.gradients}, places
    )


def _drop(sites: Sequence[Site], places: Places) -> str:
    """What sites of one kind, p and target do where they are."""
    first, one = sites[0], len(sites) == 1
    kind = first.kind if first.p is None else f"{first.kind}, p {first.p:g}"
    kind += f", noise {first.law}" if _unusual(first) else ""
    tail = ""
    who = f"{first.name if one else f'{len(sites)} dropouts'} ({kind})"
    if first.by_hand:
        who, does = _by_hand(sites, who)
        if first.effect != "drops":
            there = listed(dict.fromkeys(site.layer or "the model" for site in sites))
            return f"{who} {does}" if first.effect == "decides" else f"{who} {does} data in {there}"
    else:
        does, tail = _does(first, one)
    if first.target in _TARGETS:
        what = _TARGETS[first.target].format(listed(dict.fromkeys(site.layer or "the model" for site in sites)))
    else:
        names = places.blocks({name for site in sites for name in site.zeroes}, places.leaf)
        what = _output(names, {site.behind for site in sites}, _blocks(sites))
    return f"{who} {does} {what}{tail}"


def _unusual(site: Site) -> bool:
    """Whether it has a law that its kind does not name."""
    return site.law not in ("", "Bernoulli()") and site.law.partition("(")[0].lower() not in site.kind.lower()


def _does(site: Site, one: bool) -> tuple[str, str]:
    """What a law does, as it says itself: in front of what is dropped, and behind it."""
    s, es = ("s", "es") if one else ("", "")
    if site.drawn == "values":
        return (f"add{s} noise to" if site.effect == "adds" else f"multipl{'ies' if one else 'y'} by noise"), ""
    if site.law == "Alpha()":
        return f"saturate{s} a part of", ""
    if site.becomes == "zero":
        return f"zero{es} {'all' if site.p == 1 else 'a part'} of", ""
    if site.becomes.endswith("tensor"):
        return f"replace{s} a part of", f" by {site.becomes}"
    return f"set{s} a part of", f" to {site.becomes}"


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


def _outputs(start: str, names: Iterable[str], places: Places) -> str:
    names = set(names)
    changed = places.blocks(names, places.leaf)
    if not changed:
        return f"{start} {'only the output of the model' if '' in names else 'no output of a later layer'}."
    if changed == ["every layer"]:
        return f"{start} the output of every layer."
    several = len(changed) > 1 or changed[0].endswith(" layers)")
    later = "the outputs of later layers" if several else "the output of a later layer"
    return f"{start} {later}: {listed(changed)}."


def _gradients(who: str, s: str, names: Iterable[str], places: Places) -> Iterator[str]:
    """Whose gradients change, and of whom nothing is left of them."""
    every = {layer.name: label(layer) for layer in places.layers if places.trains(layer)}
    zero = {layer.name for layer in places.layers if layer.gradient == "zero"} & set(every) & set(names)
    changed = set(names) & set(every) - zero
    if zero:
        still = listed(places.blocks(zero, places.trains))
        yield f"{who} make{s} the gradient of {still} zero: nothing is learned there."
    shown = listed(places.blocks(changed, places.trains))
    if len(changed) == len(every) > 0:
        shown = "every trainable layer" + (f": {listed(every.values())}" if len(every) <= SHOWN else "")
    if changed or not zero:
        yield f"{who} change{s} {f'the gradient of {shown}' if changed else 'no gradient'}."


def _unaffected(explanation: Facts) -> Iterator[str]:
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


def passed_on(explanation: Facts) -> set[str]:
    """Layers without parameters between a layer whose output is zeroed and the dropout: theirs is zeroed with it.

    >>> from dropkit.probe import Explanation, Layer
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


def _at_odds(explanation: Facts) -> Iterator[str]:
    """Sites that do not drop where they could, or do where they should not."""
    sites = explanation.sites
    for site in sites:
        if site.idle:
            yield f"{site.name} never drops: {site.idle}."
    told = [site for site in sites if not site.idle]
    if off := [site.name for site in told if site.p == 0]:
        yield f"Of p 0, and so without effect: {listed(off)}."
    told = [site for site in told if site.p != 0]
    scaling = [site for site in told if site.off and not site.deliberate]
    for result in dict.fromkeys(site.off for site in scaling):
        names = [site.name for site in scaling if site.off == result]
        gives = f"its law, {names[0]} gives" if len(names) == 1 else f"their law, {listed(names)} give"
        other = ", o being the other tensor" if result.endswith("o") else ""
        yield f"By design of {gives} {result} in evaluation{other}."
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


def _expected(sites: Sequence[Site], explanation: Facts) -> Iterator[str]:
    """Sub-networks, active units and depth, for sites whose mask was seen; twins draw once."""
    seen: set[str] = set()
    drawn: list[Site] = []
    for site in sites:
        masks = site.p is not None and 0 < site.p < 1 and site.drawn == "mask"
        if masks and site.draws and seen.isdisjoint(site.twins):
            drawn.append(site)
            seen.add(site.name)
    if not drawn:
        return
    choices = [_choices(site) for site in drawn]
    if None not in choices:
        shared = all(shared_by_batch(site, batch_of(explanation)) for site in drawn)
        whom = "for the whole batch" if shared else "for each sample"
        yield f"Every training step draws, {whom}, one of {_power(sum(filter(None, choices)))} sub-networks."
    branches = [site for site in drawn if drops_branch(site)]
    units = [site for site in drawn if not drops_branch(site)]
    if units:
        yield f"Active on average: {'; '.join(_active(units))}."
    if branches:
        depth = sum(_kept(site) for site in branches)
        word = "branch" if len(branches) == 1 else "branches"
        yield f"Of {len(branches)} residual {word} {number(depth)} are active on average."


def _active(sites: Sequence[Site]) -> list[str]:
    counts: dict[tuple[str, int, float], list[str]] = {}  # of what, how many, and how much is kept
    for site in sites:
        what = "attention weights" if site.target == "attention weights" else unit(site)
        draws = site.draws or 0
        if len({mask[1:] for mask in site.call_masks}) > 1:
            what, draws = f"{what} in {site.calls} calls", site.draws_of_a_forward or 0
        elif site.calls > 1:
            what += f" in each of {site.calls} calls"
        counts.setdefault((what, draws, _kept(site)), []).append(site.name)
    rows = []
    for (what, draws, kept), names in counts.items():
        place = names[0] if len(names) == 1 else f"each of {len(names)} dropouts"
        rows.append(f"{number(kept * draws)} of {draws} {what} at {place}")
    return rows if len(rows) <= SHOWN else [*rows[:SHOWN], f"and {len(rows) - SHOWN} more kinds"]


def _choices(site: Site) -> float | None:
    """How many masks there are for one sample in one forward, as a power of 2; None where that is not known."""
    if not site.share:
        return site.draws_of_a_forward or 0
    return None if site.choices is None else site.calls * site.choices


def _power(bits: float) -> str:
    """A power of 2, with its value where that is small.

    >>> _power(4), _power(3.3219281), _power(40.5)
    ('2^4 = 16', '10', '2^40.5')
    """
    whole = float(bits).is_integer()
    if bits <= 20 and not whole:
        return f"{round(2**bits):,}"
    return f"2^{bits:.0f}{f' = {2 ** int(bits):,}' if bits <= 20 else ''}" if whole else f"2^{bits:.1f}"


def _kept(site: Site) -> float:
    return 1 - (site.p or 0) if site.kept is None else site.kept


def number(value: float) -> str:
    """A number with one decimal, where it has any.

    >>> number(14.4), number(512.0)
    ('14.4', '512')
    """
    return f"{value:.1f}".removesuffix(".0")


def batch_of(explanation: Facts) -> int | None:
    """How many samples the model was run with."""
    return explanation.inputs[0][0] if explanation.inputs and explanation.inputs[0] else None
