"""What a probe found, in words: a summary in sentences, and what to expect."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from ..language import Said, counted, say, template
from .expected import expected
from .facts import Facts, Layer, Site
from .masks import call_sentences, element_sentences, mask_words
from .names import SHOWN, Places, called, label, listed, of_several

_FOLDER = re.compile(r"[/\\]")
_TARGETS = {
    "input": template("the model's input"),
    "attention weights": template("the attention weights in {layers}"),
    "hidden states": template("what {layers} hands from one of its layers to the next"),
    "weights": template("the weights of {layers}"),
    "state": template("the state that {layers} carries from step to step"),
}
# What a site does with what it drops, of one site and of several.
_ZEROES = "{who} zeroes a part of {what}", template("{who} zero a part of {what}")
_BY_HAND = {
    "drops": _ZEROES,
    "adds": ("{who} adds random numbers to data in {there}",
             template("{who} add random numbers to data in {there}")),
    "fills": ("{who} replaces a part of the data in {there}",
              template("{who} replace a part of the data in {there}")),
    "decides": ("{who} decides what runs", template("{who} decide what runs")),
    "multiplies": ("{who} multiplies by random numbers data in {there}",
                   template("{who} multiply by random numbers data in {there}")),
}  # fmt: skip
# What a layer does that puts no mask on its input.
_OTHERWISE = {
    "mixes": ("{who} mixes branches by random numbers, and their gradients by others",
              template("{who} mix branches by random numbers, and their gradients by others")),
    "joins": ("{who} gives the mean of the branches that are kept, one at least",
              template("{who} give the mean of the branches that are kept, one at least")),
    "replaces": ("{who} replaces words by the one that stands for unknown words",
                 template("{who} replace words by the one that stands for unknown words")),
    "takes": ("{who} takes one unit of each window of {what} at random",
              template("{who} take one unit of each window of {what} at random")),
}  # fmt: skip
_NONE = template("No dropout was found in this model.")


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
        return (say(_NONE),) if not _random(explanation) else _unknown(explanation)
    active = [site for site in explanation.sites if drops(site)]
    return (
        *(_one_by_one if len(active) <= SHOWN else _together)(active, explanation),
        *element_sentences(active, explanation),
        *_unaffected(explanation),
        *_at_odds(explanation),
        *_otherwise_random(explanation),
        *expected(active, batch_of(explanation)),
    )


def _random(explanation: Facts) -> list[str]:
    """Layers whose outputs change from run to run without any dropout that is known."""
    places = Places(explanation)
    return places.blocks((layer.name for layer in explanation.layers if layer.random), places.leaf)


def _unknown(explanation: Facts) -> tuple[str, ...]:
    names = listed(_random(explanation))
    return (
        say("No dropout that is known was found in this model, but it is random in training."),
        say("With the same inputs, another output in every run: {names}.", names=names),
    )


def _otherwise_random(explanation: Facts) -> Iterator[str]:
    names = _random(explanation)
    if names and not any(site.by_hand for site in explanation.sites):
        yield say("Random in training without any dropout that is known: {names}.", names=listed(names))


def _one_by_one(sites: Sequence[Site], explanation: Facts) -> Iterator[str]:
    places = Places(explanation)
    for site in sites:
        dropped = _drop([site], places)
        if site.mask_shape is None or site.effect == "joins":
            yield say("{dropped}.", dropped=dropped)
        else:
            yield say("{dropped}: {mask}.", dropped=dropped, mask=mask_words(site, batch_of(explanation)))
        yield from call_sentences(site)
        yield _outputs(called(site), 1, site.changes, places)
    # Often all of them change the same gradients, and one sentence says so.
    for gradients in dict.fromkeys(site.gradients for site in sites):
        names = [called(site) for site in sites if site.gradients == gradients]
        yield from _gradients(listed(names), len(names), gradients, places)


def _together(sites: Sequence[Site], explanation: Facts) -> Iterator[str]:
    places = Places(explanation)
    ordered = sorted(sites, key=lambda site: (site.target, site.kind, site.effect, site.p or 0))
    for _, group in groupby(ordered, key=lambda site: (site.target, site.kind, site.effect, site.p)):
        yield say("{dropped}.", dropped=_drop(list(group), places))
    every = say("All {number} dropouts together", number=len(sites))
    yield _outputs(every, len(sites), {name for site in sites for name in site.changes}, places)
    yield from _gradients(every, len(sites), {name for site in sites for name in site.gradients}, places)


def _drop(sites: Sequence[Site], places: Places) -> str:
    """What sites of one kind, p and target do where they are."""
    first = sites[0]
    who = _who(sites)
    if first.effect == "decides" and not first.by_hand:
        return counted(len(sites), *_BY_HAND["decides"], who=who)
    if first.by_hand:
        who = _who_by_hand(sites, who)
        if first.effect != "drops":
            there = listed(dict.fromkeys(site.layer or say("the model") for site in sites))
            words = _BY_HAND.get(first.effect, _BY_HAND["multiplies"])
            return counted(len(sites), *words, who=who, there=there)
    if first.target in _TARGETS:
        layers = listed(dict.fromkeys(site.layer or say("the model") for site in sites))
        what: str = say(_TARGETS[first.target], layers=layers)
    else:
        names = places.blocks({name for site in sites for name in site.zeroes}, places.leaf)
        what = _output(names, {site.behind for site in sites}, _blocks(sites))
    return _does(sites, who, what)


def _who(sites: Sequence[Site]) -> str:
    """The sites, with what they are."""
    first = sites[0]
    kind: str = first.kind if first.p is None else say("{kind}, p {p:g}", kind=first.kind, p=first.p)
    if _unusual(first):
        kind = say("{kind}, noise {law}", kind=kind, law=first.law)
    if len(sites) == 1:
        return say("{name} ({kind})", name=first.name, kind=kind)
    return say("{number} dropouts ({kind})", number=len(sites), kind=kind)


def _unusual(site: Site) -> bool:
    """Whether it has a law that its kind does not name."""
    return site.law not in ("", "Bernoulli()") and site.law.partition("(")[0].lower() not in site.kind.lower()


def _does(sites: Sequence[Site], who: str, what: str) -> str:
    """What a law does, as it says itself."""
    first, n = sites[0], len(sites)
    given: dict[str, Any] = {"who": who, "what": what}
    if first.effect in _OTHERWISE and not first.by_hand:
        return counted(n, *_OTHERWISE[first.effect], **given)
    if first.by_hand and first.zero_share and n == 1:
        percent = f"{100 * first.zero_share:.0f}"
        return say("{who} zeroes a part ({percent} %) of {what}", percent=percent, **given)
    if first.by_hand and first.zero_share:
        return counted(n, *_ZEROES, **given)
    if first.drawn == "values" and first.effect == "adds":
        return counted(n, "{who} adds noise to {what}", "{who} add noise to {what}", **given)
    if first.drawn == "values" or first.by_hand:
        return counted(n, "{who} multiplies by noise {what}", "{who} multiply by noise {what}", **given)
    if first.law == "Alpha()":
        return counted(n, "{who} saturates a part of {what}", "{who} saturate a part of {what}", **given)
    if first.becomes == "zero" and first.p == 1:
        return counted(n, "{who} zeroes all of {what}", "{who} zero all of {what}", **given)
    if first.becomes == "zero":
        return counted(n, *_ZEROES, **given)
    given["becomes"] = first.becomes
    if first.becomes.endswith("tensor"):
        one, many = (
            "{who} replaces a part of {what} by {becomes}",
            template("{who} replace a part of {what} by {becomes}"),
        )
    else:
        one, many = (
            "{who} sets a part of {what} to {becomes}",
            template("{who} set a part of {what} to {becomes}"),
        )
    return counted(n, one, many, **given)


def _blocks(sites: Sequence[Site]) -> Sequence[str]:
    """The blocks in which dropouts stand."""
    inside = (site.layer if ":" in site.name else re.split("[./]", site.layer)[:-1] for site in sites)
    return list(dict.fromkeys(name if isinstance(name, str) else ".".join(name) for name in inside))


def _output(names: Sequence[str], behind: set[tuple[str, ...]], blocks: Sequence[str]) -> str:
    """What is dropped: the output of layers, what functions make of it, or what is computed between layers."""
    if not names:
        return say("a value computed in {blocks}", blocks=listed(block or say("the model") for block in blocks))
    functions = ", ".join(next(iter(behind))) if len(behind) == 1 else ""
    shown = listed(names)
    if not functions:
        return say("the output of {names}", names=shown)
    found = say("what is behind {names} ({functions})", names=shown, functions=functions)
    if shown.endswith(")"):  # one pair of brackets for both
        return Said(f"what is behind {shown[:-1]}; {functions})", found.template, found.arguments)
    return found


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
    return say("zeroed behind it ({functions})", functions=functions) if functions else say("zeroed")


def _who_by_hand(sites: Sequence[Site], who: str) -> str:
    """Random operations that are no known dropout, with their place."""
    if len(sites) > 1:
        return say("{who}, random operations by hand,", who=who)
    return say("{who}, a random operation by hand at {place},", who=who, place=_FOLDER.split(sites[0].source)[-1])


def _outputs(who: str, n: int, names: Iterable[str], places: Places) -> str:
    names = set(names)
    changed = places.blocks(names, places.leaf)
    given = {"who": who, "names": listed(changed)}
    if not changed and "" in names:
        one = "{who} changes only the output of the model."
        return counted(n, one, "{who} change only the output of the model.", **given)
    if not changed:
        one = "{who} changes no output of a later layer."
        return counted(n, one, "{who} change no output of a later layer.", **given)
    if changed == ["every layer"]:
        one = "{who} changes the output of every layer."
        return counted(n, one, "{who} change the output of every layer.", **given)
    if len(changed) == 1 and not of_several(changed[0]):
        one = "{who} changes the output of a later layer: {names}."
        return counted(n, one, "{who} change the output of a later layer: {names}.", **given)
    one = "{who} changes the outputs of later layers: {names}."
    return counted(n, one, "{who} change the outputs of later layers: {names}.", **given)


def _gradients(who: str, n: int, names: Iterable[str], places: Places) -> Iterator[str]:
    """Whose gradients change, and of whom nothing is left of them."""
    every = {layer.name: label(layer) for layer in places.layers if places.trains(layer)}
    zero = {layer.name for layer in places.layers if layer.gradient == "zero"} & set(every) & set(names)
    changed = set(names) & set(every) - zero
    if zero:
        still = listed(places.blocks(zero, places.trains))
        one = "{who} makes the gradient of {still} zero: nothing is learned there."
        many = template("{who} make the gradient of {still} zero: nothing is learned there.")
        yield counted(n, one, many, who=who, still=still)
    shown: str = listed(places.blocks(changed, places.trains))
    if len(changed) == len(every) > SHOWN:
        shown = say("every trainable layer")
    elif len(changed) == len(every) > 0:
        shown = say("every trainable layer: {names}", names=listed(every.values()))
    if changed:
        one = "{who} changes the gradient of {shown}."
        yield counted(n, one, "{who} change the gradient of {shown}.", who=who, shown=shown)
    elif not zero:
        yield counted(n, "{who} changes no gradient.", "{who} change no gradient.", who=who)


def _unaffected(explanation: Facts) -> Iterator[str]:
    places = Places(explanation)
    layers = explanation.layers
    sites = {site.layer for site in explanation.sites}
    frozen = places.blocks((layer.name for layer in layers if layer.frozen), places.owns)
    if frozen:
        yield say("Frozen, and so without gradient: {names}.", names=listed(frozen))
    unused = [label(layer) for layer in layers if layer.gradient == "unused" and places.owns(layer)]
    if unused:
        yield say("No output depends on {names}, so there is no gradient.", names=listed(unused))
    same = [layer.name for layer in layers if layer.gradient == "unchanged" and layer.touched]
    if same:
        names = places.blocks(same, places.trains)
        yield say("The gradient is the same with and without dropout in {names}.", names=listed(names))
    passing = passed_on(explanation)
    spared = {layer.name for layer in layers if not layer.touched and layer.name not in sites | passing}
    names = places.blocks(spared, places.leaf)
    yield (
        say("Not affected by any dropout: {names}.", names=listed(names)) if names else say("No layer is unaffected.")
    )


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
            yield say("{name} never drops: {why}.", name=site.name, why=site.idle)
    told = [site for site in sites if not site.idle]
    if off := [site.name for site in told if site.p == 0]:
        yield say("Of p 0, and so without effect: {names}.", names=listed(off))
    told = [site for site in told if site.p != 0]
    scaling = [site for site in told if site.off and not site.deliberate]
    for result in dict.fromkeys(site.off for site in scaling):
        names = [site.name for site in scaling if site.off == result]
        one = "By design of its law, {names} gives {result} in evaluation."
        many = template("By design of their law, {names} give {result} in evaluation.")
        if result.endswith("o"):
            one = "By design of its law, {names} gives {result} in evaluation, o being the other tensor."
            many = template("By design of their law, {names} give {result} in evaluation, o being the other tensor.")
        yield counted(len(names), one, many, names=listed(names), result=result)
    if dead := [site.name for site in told if site.train is False]:
        yield say("Not active in training: {names}.", names=listed(dead))
    if on := [site.name for site in told if site.eval]:
        yield say("Active in evaluation too: {names}.", names=listed(on))
    now = [site for site in told if site.train and site.now is False]
    if now and len(now) == len(told):
        if explanation.layers[0].training:
            yield say("As the model was handed in, no dropout is active.")
        else:
            yield say("As the model was handed in, in evaluation mode, no dropout is active.")
    elif now:
        names = [site.name for site in now]
        yield say("As the model was handed in, not active: {names}.", names=listed(names))


def batch_of(explanation: Facts) -> int | None:
    """How many samples the model was run with."""
    return explanation.inputs[0][0] if explanation.inputs and explanation.inputs[0] else None
