"""What the page of a network says in words: masks, shapes, modes, and how far a dropout reaches."""

from dataclasses import replace

from ..facts import Facts, Layer, Shape, Site
from ..masks import mask_words
from ..names import count_words as count_words
from ..names import listed
from ..sentences import passed_on, sentences

# What a box is marked with, beside colour and sign; "none" and "" have no mark.
MARKS = {
    "here": "drops here",
    "zeroed": "output zeroed",
    "changed": "output changed",
    "untouched": "untouched",
    "gradient-changed": "gradient changed",
    "gradient-zero": "gradient zero",
    "gradient-unchanged": "gradient unchanged",
    "gradient-frozen": "no gradient: frozen",
    "gradient-unused": "no gradient: unused",
}


SAME = 0.02  # how far a ratio of variances may be off 1 and say nothing


def shape_words(shape: Shape | None) -> str:
    """A shape as it is read aloud.

    >>> shape_words((2, 3, 150, 150))
    '2 × 3 × 150 × 150'
    """
    return " × ".join(map(str, shape)) if shape else ("did not run" if shape is None else "one number")


def mask(site: Site, batch: int | None) -> str:
    """What is dropped at once, and for whom."""
    what = mask_words(site, batch).replace(" x ", " × ")
    return what if site.target in ("output", "attention weights") else f"{site.target}: {what}"


def rate_words(p: float | None) -> str:
    """A drop probability.

    >>> rate_words(0.2), rate_words(None)
    ('p 0.2', 'no p')
    """
    return "no p" if p is None else f"p {p:g}"


def when_words(site: Site) -> str:
    """In which modes a site drops."""
    if site.idle:
        return f"never: {site.idle}"
    words = {True: "on", False: "off", None: "not told"}
    told = f"{words[site.train]} in training, {words[site.eval]} in evaluation"
    return f"{told}, as asked for by name" if site.deliberate else told


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
        facts = [f"runs inside {listed(name or 'the model' for name in layer.used_by)}"]
    if layer.parameters:
        facts.append(count_words(layer.parameters, "parameter"))
        if layer.trainable < layer.parameters:
            facts.append(f"{layer.trainable:,} trainable" if layer.trainable else "frozen")
    if layer.training != usual:
        facts.append(f"in {'train' if layer.training else 'eval'} mode")
    if layer.calls > 1:
        facts.append(f"runs {layer.calls} times")
    if layer.variance_ratio is not None and abs(layer.variance_ratio - 1) >= SAME:
        facts.append(f"variance × {layer.variance_ratio:.3g}")
    if layer.input_variance_ratio is not None and (layer.changed_by or layer.zeroed_by):
        facts.append(f"variance of its input in training × {layer.input_variance_ratio:.3g}")
    if layer.random:
        facts.append("random without dropout")
    return facts


def site_facts(site: Site, batch: int | None, changed: int) -> list[tuple[str, str]]:
    """What the panel lists of a dropout that changes some layers' output; what is empty or unknown is left out."""
    gradient = "" if site.gradient_check.startswith("not checked") else site.gradient_check
    now = {True: "drops", False: "does not drop", None: ""}[site.now]
    facts = (
        ("Kind", site.kind),
        ("Drop probability", "none" if site.p is None else f"{site.p:g}"),
        ("Mask", mask(site, batch)),
        ("Drops", "" if site.target == "output" else site.target),
        ("When", when_words(site)),
        ("Now", now),
        ("Output zeroed", listed(site.zeroes) or "no layer's"),
        ("Output changed", count_words(changed, "layer")),
        ("Gradient changed", count_words(len(site.gradients), "layer")),
        ("After", site.follows or ""),
        ("On the prediction", "yes" if site.on_prediction else ""),
        ("Same mask as", listed(site.twins)),
        ("Same in backward", gradient),
        ("Fast path", "skips it, without gradient" if site.fast_path else ""),
        ("Note", site.note),
        ("Source", site.source),
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
    return zeroed, " ".join(sentences(only)[:3])


def overview_sentence(explanation: Facts) -> str:
    """What all dropouts do together."""
    number = len(explanation.sites)
    if not number:
        return "No dropout was found in this model."
    blocks = {layer.parent for layer in explanation.layers}
    places = {site.layer for site in explanation.sites} | passed_on(explanation)
    layers = [layer for layer in explanation.layers if layer.name not in blocks]
    zeroed = sum(bool(layer.zeroed_by) for layer in layers)
    changed = sum(bool(layer.changed_by) for layer in layers)
    gradients = sum(bool(layer.gradient_by) for layer in explanation.layers)
    ran = [layer for layer in layers if layer.output_shape is not None]
    untouched = sum(not layer.touched and layer.name not in places for layer in ran)
    zero, change = ("zero", "change") if number > 1 else ("zeroes", "changes")
    sentence = (
        f"{count_words(number, 'dropout')} {zero} a part of the output of {count_words(zeroed, 'layer')}, and {change} "
        f"that of {count_words(changed, 'later layer')} and the gradients of {gradients:,}."
    )
    return f"{sentence} {count_words(untouched, 'layer is', 'layers are')} untouched." if untouched else sentence
