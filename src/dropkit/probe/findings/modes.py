"""Findings about modes: dropout on or off at the wrong time. A rule yields site, what was measured, and the remedy."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from ...language import AND, LIST, counted, joined, say, template
from ..facts import Facts, Layer, Site

Row = tuple[str, str, str]

_NO_DEFAULT = template("Call `dropkit.torch.dropout(x, p, training=self.training)`, whose mode has no default.")
ATTENTION = "attention weights"
TOLD = say("its call in the model says `training=True`")  # the note of a site whose recorded call asks for it
_CONTAINERS = {"Sequential", "ModuleList", "ModuleDict"}  # classes that say nothing of what they hold
_LISTED = 3  # names that a sentence lists


def active_in_eval(explanation: Facts) -> Iterator[Row]:
    """Sites that drop in evaluation without having been told so by name; attention has a code of its own."""
    evaluating = not explanation.layers[0].training
    for site in explanation.sites:
        if site.deliberate or site.target == ATTENTION or not site.drops:
            continue
        if site.eval:
            measured = say("{what} drops in evaluation{at}", what=what(site), at=_at(site))
            yield site.name, measured, _gate(site, explanation)
        elif evaluating and site.now and not _singled_out(site, explanation):
            words = template("{what} drops now: the model is in eval mode, {layer} in train mode")
            measured = say(words, what=what(site), layer=_named(site.layer))
            remedy = say("Call `model.eval()` again, after whatever put this part back in train mode.")
            yield site.name, measured, remedy


def attention_in_eval(explanation: Facts) -> Iterator[Row]:
    """Attention weights that are dropped in evaluation: the functions for attention know no mode."""
    for site in explanation.sites:
        if site.eval and not site.deliberate and site.target == ATTENTION and site.drops:
            gate = say("Pass `dropout_p=self.p if self.training else 0.0`, since the function itself knows no mode.")
            remedy = gate if explanation.framework == "torch" else _gate(site, explanation)
            measured = say("{what} drops attention weights in evaluation{at}", what=what(site), at=_at(site))
            yield site.name, measured, remedy


def dead_in_train(explanation: Facts) -> Iterator[Row]:
    """Sites that have a rate and drop nothing in training; those of frozen parts had better not."""
    frozen = _outermost(explanation, lambda layer: layer.frozen)
    resting = {name for part in frozen for name in _subtree(explanation, part)}
    for site in explanation.sites:
        if not site.p or site.train or site.idle or site.layer in resting:
            continue
        if not _ran(site, explanation):
            if not _by_design(site, explanation):
                remedy = say("Call it in the forward pass, or delete it if no other inputs reach it either.")
                yield site.name, say("{what} did not run with these inputs", what=what(site)), remedy
        elif site.train is False:
            measured = say("{what} ran in train mode and dropped nothing{at}", what=what(site), at=_at(site))
            yield site.name, measured, _revive(site, explanation)


def frozen_in_train(explanation: Facts) -> Iterator[Row]:
    """Frozen parts that hold BatchNorm or dropout, both as in training, while something else is trained.

    Dropout behind trained parameters is theirs, as in a network around adapters; BatchNorm's statistics move anywhere.
    """
    if not explanation.layers[0].trainable:
        return
    for part in _outermost(explanation, lambda layer: layer.frozen):
        inside = _subtree(explanation, part)
        norms = [layer.name for layer in explanation.layers if layer.name in inside and _updates(layer)]
        drops = [site.name for site in explanation.sites if site.layer in inside and _on(site) and not site.deliberate]
        found = [_count(norms, "", template("{n} BatchNorm ({names}) in train mode"))]
        if not _behind_training(explanation, inside):
            found.append(_count(drops, "{n} active dropout ({names})", template("{n} active dropouts ({names})")))
        if any(found):
            words = template("{number} parameters, all frozen, with {found}")
            measured = say(words, number=part.parameters, found=joined(found, AND))
            yield part.name, measured, _rest(part, explanation)


def trainable_in_eval(explanation: Facts) -> Iterator[Row]:
    """Trained parts that hold BatchNorm or dropout, both as in evaluation, in a model in train mode."""
    if not explanation.layers[0].training:
        return
    for part in _outermost(explanation, lambda layer: not layer.training):
        inside = _subtree(explanation, part)
        norms = [layer.name for layer in explanation.layers if layer.name in inside and is_batchnorm(layer)]
        drops = [site.name for site in explanation.sites if site.layer in inside and _waits(site)]
        found = joined(
            (
                _count(norms, "", template("{n} BatchNorm ({names}) in eval mode")),
                _count(drops, "{n} dropout ({names}) off", template("{n} dropouts ({names}) off")),
            ),
            AND,
        )
        if part.trainable and found:
            words = template("{number} trainable parameters in eval mode, with {found}")
            measured = say(words, number=part.trainable, found=found)
            remedy = say("Call `{module}.train()` before training goes on.", module=_module(part.name))
            yield part.name, measured, remedy


def one_layer(explanation: Facts) -> Iterator[Row]:
    """Recurrent networks of one layer with a rate: it is for the hidden states between layers."""
    for site in explanation.sites:
        if site.p and site.idle.startswith("one layer"):
            words = template(
                "Pass `num_layers=2`, or leave the rate out and put `dropkit.torch.Dropout({p:g})` on its output."
            )
            yield site.name, say("{what}: {why}", what=what(site), why=site.idle), say(words, p=site.p)


def fast_path(explanation: Facts) -> Iterator[Row]:
    """Sites that are on in a torch encoder layer which without gradient runs fused, and then drops nothing."""
    for site in explanation.sites:
        if site.fast_path:
            words = template("{what} is on, and without gradient torch's fused encoder layer skipped it")
            remedy = say("Run such passes inside `with dropkit.torch.enabled(model):`, which avoids it.")
            yield site.name, say(words, what=what(site)), remedy


def told_in_vain(explanation: Facts) -> Iterator[Row]:
    """Sites that a functional model's recorded call tells to drop always, which the mode of the model overrides."""
    for site in explanation.sites:
        if TOLD in site.note and site.train and site.eval is False:
            words = template(
                "{what}: {told}, and with the model in evaluation, as `predict` runs it, it dropped nothing"
            )
            remedy = say("Predict inside `with dropkit.keras.enabled(model):`, which turns dropout on.")
            if ":" not in site.name and site.target != ATTENTION:
                remedy = say(
                    'Make it as `dropkit.keras.Dropout(p, when="always")`, or predict inside '
                    "`with dropkit.keras.enabled(model):`."
                )
            yield site.name, say(words, what=what(site), told=TOLD), remedy


def what(site: Site) -> str:
    """The kind of a site, and its rate where it has one."""
    return site.kind if site.p is None else say("{kind} with p = {p:g}", kind=site.kind, p=site.p)


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: the first few, and how many more.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = joined(map(_named, names[:_LISTED]), LIST)
    return shown if len(names) <= _LISTED else joined((shown, say("{more} more", more=len(names) - _LISTED)), AND)


def is_batchnorm(layer: Layer) -> bool:
    """Whether a layer normalises by the batch in training; torchvision's FrozenBatchNorm2d never does."""
    return "BatchNorm" in layer.kind and not layer.kind.startswith("Frozen")


def _updates(layer: Layer) -> bool:
    return is_batchnorm(layer) and layer.training


def _singled_out(site: Site, explanation: Facts) -> bool:
    """Whether a dropout layer is in train mode by itself, in a block in eval mode: Monte Carlo dropout, set by hand."""
    layer = explanation.layer(site.layer)
    alone = site.name == site.layer and not layer.parameters and layer.parent is not None
    return alone and not explanation.layer(layer.parent or "").training


def _on(site: Site) -> bool:
    """Whether it drops as handed in; a Keras model has no mode of its own, and is asked about in training."""
    return site.drops and bool(site.train if site.now is None else site.now)


def _waits(site: Site) -> bool:
    """A dropout that would drop, were its part in train mode."""
    return bool(site.p) and bool(site.train) and site.now is False


def _ran(site: Site, explanation: Facts) -> bool:
    return explanation.layer(site.layer).calls > 0


def _by_design(site: Site, explanation: Facts) -> bool:
    """Whether a dropout that did not run seems to be meant so.

    Either a function that its parent calls reads its rate, as in attention modules, or the same one of another block of
    that class ran: what the block does depends on its place.
    """
    layers = {layer.name: layer for layer in explanation.layers}
    block, own = _place(layers[site.layer], layers)
    for other in explanation.sites:
        if other.train and block is not None:
            above, name = _place(layers[other.layer], layers)
            reads = other.layer == block.name and other.p == site.p
            alike = above is not None and (above.kind, name) == (block.kind, own) and block.kind not in _CONTAINERS
            if reads or alike:
                return True
    return False


def _place(layer: Layer, layers: Mapping[str, Layer]) -> tuple[Layer | None, str]:
    """The block that a layer stands in, and its own name there."""
    block = None if layer.parent is None else layers[layer.parent]
    return block, layer.name if block is None else layer.name.removeprefix(block.name)


def _outermost(explanation: Facts, holds: Callable[[Layer], bool]) -> Iterator[Layer]:
    """Layers of which something holds, in blocks of which it does not."""
    inside = {layer.name for layer in explanation.layers if holds(layer)}
    return (layer for layer in explanation.layers if layer.name in inside and layer.parent not in inside)


def _subtree(explanation: Facts, part: Layer) -> set[str]:
    names = {part.name}
    for layer in explanation.layers:  # a block comes before what stands in it
        if layer.parent in names:
            names.add(layer.name)
    return names


def _behind_training(explanation: Facts, inside: set[str]) -> bool:
    """Whether trained parameters come before one of these layers."""
    layers = {layer.name: layer for layer in explanation.layers}
    ahead = [name for part in inside for name in layers[part].inputs]
    seen = set(inside)
    while ahead:
        name = ahead.pop()
        if name in layers and name not in seen:
            seen.add(name)
            ahead += layers[name].inputs
    return any(layers[name].trainable for name in seen - inside)


def _gate(site: Site, explanation: Facts) -> str:
    """How a site is made to follow the mode."""
    if explanation.framework == "keras":
        if site.target == ATTENTION:
            return say("Leave `training=True` out of the call, so that the layer follows the mode.")
        return say(
            "Leave `training=True` out of the call, so that the layer follows the mode, or, if it is meant, say so by "
            '`dropkit.keras.Dropout(p, when="always")`.'
        )
    if "made inside" in site.note:
        words = template(
            "Make it in `__init__`, as `self.drop = dropkit.torch.Dropout({p:g})`, where `eval()` reaches it."
        )
        return say(words, p=site.p)
    if ":" in site.name:
        return say(_NO_DEFAULT)
    return say('Drop only `if self.training`, or, if it is meant, say so by `dropkit.torch.Dropout(p, when="always")`.')


def _revive(site: Site, explanation: Facts) -> str:
    if explanation.framework == "keras":
        return say(
            "Leave `training` out of the call, so that the layer follows the mode: `False` and `None` both turn it off."
        )
    if ":" in site.name:
        return say(_NO_DEFAULT)
    return say("Let `model.train()` reach `{module}`, or delete the dropout.", module=_module(site.layer))


def _rest(part: Layer, explanation: Facts) -> str:
    if explanation.framework == "keras":
        name = part.name.rpartition("/")[2]
        return say(
            "Set `trainable = False` on the part as a whole, and call it from a layer of your own as "
            "`self.{name}(x, training=False)`: a functional model ignores that argument.",
            name=name,
        )
    return say("Call `{module}.eval()` after every `model.train()`.", module=_module(part.name))


def _module(name: str) -> str:
    """The expression for a submodule; a plain attribute path where that is Python."""
    if not name:
        return "model"
    plain = all(part.isidentifier() for part in name.split("."))
    return f"model.{name}" if plain else f'model.get_submodule("{name}")'


def _named(name: str) -> str:
    return name or say("the model itself")


def _count(names: Sequence[str], one: str, many: str) -> str:
    """Layers of a kind, with their names; empty where there are none."""
    return counted(len(names), one or many, many, names=listed(names)) if names else ""


def _at(site: Site) -> str:
    """Where a functional call stands."""
    return say(" ({source})", source=site.source) if site.source else ""
