"""What the page of a network says in words: masks, shapes, modes, and how far a dropout reaches."""

from dataclasses import replace
from typing import Any

from ...language import COMMA, SPACE, Catalogue, catalogue, counted, joined, say, swapped, template
from ..facts import Facts, Layer, Shape, Site
from ..masks import mask_words
from ..names import by, listed, target
from ..sentences import passed_on, sentences

# What a box is marked with, beside colour and sign; "none" and "" have no mark.
MARKS = {
    "here": say("drops here"),
    "zeroed": say("output zeroed"),
    "changed": say("output changed"),
    "untouched": say("untouched"),
    "gradient-changed": say("gradient changed"),
    "gradient-zero": say("gradient zero"),
    "gradient-unchanged": say("gradient unchanged"),
    "gradient-frozen": say("no gradient: frozen"),
    "gradient-unused": say("no gradient: unused"),
}


# What the page's script says, by the names that it has there; a list has a form for each number.
SCRIPT = {
    "inside": ("{n} layer inside: {what}", template("{n} layers inside: {what}")),
    "here": ("{n} drops", template("{n} drop")),
    "zeroed": ("{n} output zeroed", template("{n} outputs zeroed")),
    "changed": ("{n} output changed", template("{n} outputs changed")),
    "gradient-changed": ("{n} gradient changed", template("{n} gradients changed")),
    "comma": (COMMA,),
    "untouched": (template("untouched"),),
    "unreached": (template("none reached"),),
    "found": (template("{n} found"),),
    "place": (template("{current} of {n}"),),
    "all": (template("All dropouts"),),
    "light": (template("Light theme"),),
    "dark": (template("Dark theme"),),
}
GRADIENTS = {
    "changed": say("changed"),
    "zero": say("zero"),
    "unchanged": say("unchanged"),
    "frozen": say("frozen"),
    "unused": say("unused"),
    "none": say("none"),
}
SAME = 0.02  # how far a ratio of variances may be off 1 and say nothing


def shape_words(shape: Shape | None) -> str:
    """A shape as it is read aloud.

    >>> shape_words((2, 3, 150, 150))
    '2 × 3 × 150 × 150'
    """
    if shape is None:
        return say("did not run")
    return swapped(by(shape), " x ", " × ") if shape else say("one number")


def mask(site: Site, batch: int | None) -> str:
    """What is dropped at once, and for whom."""
    what = swapped(mask_words(site, batch), " x ", " × ")
    if site.target in ("output", "attention weights"):
        return what
    return say("{target}: {what}", target=target(site), what=what)


def rate_words(p: float | None) -> str:
    """A drop probability.

    >>> rate_words(0.2), rate_words(None)
    ('p 0.2', 'no p')
    """
    return say("no p") if p is None else f"p {p:g}"


def when_words(site: Site) -> str:
    """In which modes a site drops."""
    if site.idle:
        return say("never: {why}", why=site.idle)
    words = {True: say("on"), False: say("off"), None: say("not told")}
    told = {"train": words[site.train], "eval": words[site.eval]}
    if site.deliberate:
        return say("{train} in training, {eval} in evaluation, as asked for by name", **told)
    return say("{train} in training, {eval} in evaluation", **told)


def layer_facts(layer: Layer, block: bool = False, usual: bool | None = None) -> list[str]:
    """The second line of a box: shape, parameters, and what is not as in most layers.

    Args:
        layer: what is drawn.
        block: it holds others.
        usual: the mode of the block around it, of which nothing is said; None for the model itself.
    """
    # A block that only holds others, such as a list, need not run.
    facts = [] if block and layer.output_shape is None else [shape_words(layer.output_shape)]
    if layer.used_by:
        facts = [say("runs inside {names}", names=listed(name or say("the model") for name in layer.used_by))]
    if layer.parameters:
        facts.append(counted(layer.parameters, "{n} parameter", "{n:,} parameters"))
        if layer.trainable < layer.parameters:
            trainable = layer.trainable
            facts.append(say("{trainable:,} trainable", trainable=trainable) if trainable else say("frozen"))
    if layer.training != usual:
        facts.append(say("in train mode") if layer.training else say("in eval mode"))
    if layer.calls > 1:
        facts.append(say("runs {calls} times", calls=layer.calls))
    if layer.variance_ratio is not None and abs(layer.variance_ratio - 1) >= SAME:
        facts.append(say("variance × {ratio:.3g}", ratio=layer.variance_ratio))
    if layer.input_variance_ratio is not None and (layer.changed_by or layer.zeroed_by):
        facts.append(say("variance of its input in training × {ratio:.3g}", ratio=layer.input_variance_ratio))
    if layer.random:
        facts.append(say("random without dropout"))
    return facts


def site_facts(site: Site, batch: int | None, changed: int) -> list[tuple[str, str]]:
    """What the panel lists of a dropout that changes some layers' output; what is empty or unknown is left out."""
    gradient = "" if site.gradient_check.startswith("not checked") else site.gradient_check
    facts = (
        (say("Kind"), site.kind),
        (say("Drop probability"), say("none") if site.p is None else f"{site.p:g}"),
        (say("Mask"), mask(site, batch)),
        (say("Drops"), "" if site.target == "output" else target(site)),
        (say("When"), when_words(site)),
        (say("Now"), {True: say("drops"), False: say("does not drop"), None: ""}[site.now]),
        (say("Output zeroed"), listed(site.zeroes) or say("no layer's")),
        (say("Output changed"), counted(changed, "{n} layer", "{n:,} layers")),
        (say("Gradient changed"), counted(len(site.gradients), "{n} layer", "{n:,} layers")),
        (say("After"), site.follows or ""),
        (say("On the prediction"), say("yes") if site.on_prediction else ""),
        (say("Same mask as"), listed(site.twins)),
        (say("Same in backward"), say("ok") if gradient == "ok" else gradient),
        (say("Fast path"), say("skips it, without gradient") if site.fast_path else ""),
        (say("Note"), site.note),
        (say("Source"), site.source),
    )
    return [(name, value) for name, value in facts if value]


def alone(explanation: Facts, site: Site) -> Facts:
    """An explanation as if a site were the only one.

    >>> from dropkit.probe import Explanation
    >>> layers = (Layer(name="", parent=None, kind="Net", changed_by=("a", "b")),)
    >>> sites = tuple(Site(name=name, kind="Dropout", layer="", p=0.5) for name in "ab")
    >>> net = Explanation(model="Net", framework="torch", inputs=(), layers=layers, sites=sites)
    >>> alone(net, sites[1]).layers[0].changed_by
    ('b',)
    """

    def only(names: tuple[str, ...]) -> tuple[str, ...]:
        return (site.name,) if site.name in names else ()

    layers = tuple(
        replace(
            layer,
            zeroed_by=only(layer.zeroed_by),
            changed_by=only(layer.changed_by),
            gradient_by=only(layer.gradient_by),
        )
        for layer in explanation.layers
    )
    return replace(explanation, layers=layers, sites=(site,))


def reach(explanation: Facts, site: Site) -> tuple[tuple[str, ...], str]:
    """How far a site reaches: layers whose output it zeroes, and sentences.

    Layers without parameters between those that the site zeroes and itself, such as an activation, are among them.
    """
    only = alone(explanation, site)
    found = {*site.zeroes, *passed_on(only)}
    zeroed = tuple(layer.name for layer in explanation.layers if layer.name in found)
    return zeroed, joined(sentences(only)[:3], SPACE)


def overview_sentence(explanation: Facts) -> str:
    """What all dropouts do together."""
    number = len(explanation.sites)
    if not number:
        return say("No dropout was found in this model.")
    blocks = {layer.parent for layer in explanation.layers}
    places = {site.layer for site in explanation.sites} | passed_on(explanation)
    layers = [layer for layer in explanation.layers if layer.name not in blocks]
    zeroed = sum(bool(layer.zeroed_by) for layer in layers)
    changed = sum(bool(layer.changed_by) for layer in layers)
    gradients = sum(bool(layer.gradient_by) for layer in explanation.layers)
    ran = [layer for layer in layers if layer.output_shape is not None]
    untouched = sum(not layer.touched and layer.name not in places for layer in ran)
    one = (
        "{dropouts} zeroes a part of the output of {zeroed}, and changes that of {changed} and the gradients of "
        "{gradients:,}."
    )
    many = template(
        "{dropouts} zero a part of the output of {zeroed}, and change that of {changed} and the gradients of "
        "{gradients:,}."
    )
    sentence = counted(
        number,
        one,
        many,
        dropouts=counted(number, "{n} dropout", "{n:,} dropouts"),
        zeroed=counted(zeroed, "{n} layer", "{n:,} layers"),
        changed=counted(changed, "{n} later layer", "{n:,} later layers"),
        gradients=gradients,
    )
    if not untouched:
        return sentence
    one = "{sentence} {n} layer is untouched."
    return counted(untouched, one, "{sentence} {n:,} layers are untouched.", sentence=sentence)


def script_words(lang: str | Catalogue) -> dict[str, Any]:
    """`SCRIPT` in a language, and which form each number below 200 takes; from there on they repeat by the hundred."""
    found = catalogue(lang)
    if found is None:
        return {"form": [int(n != 1) for n in range(200)], **{name: list(forms) for name, forms in SCRIPT.items()}}
    return {
        "form": [found.form(n) for n in range(200)],
        **{name: found.forms(forms[-1]) for name, forms in SCRIPT.items()},
    }
