"""Findings about modes: dropout on or off at the wrong time. A rule yields site, what was measured, and the remedy."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from ..facts import Facts, Layer, Site

Row = tuple[str, str, str]

ATTENTION = "attention weights"
TOLD = "its call in the model says `training=True`"  # the note of a site whose recorded call asks for it
_CONTAINERS = {"Sequential", "ModuleList", "ModuleDict"}  # classes that say nothing of what they hold
_LISTED = 3  # names that a sentence lists


def active_in_eval(explanation: Facts) -> Iterator[Row]:
    """Sites that drop in evaluation without having been told so by name; attention has a code of its own."""
    evaluating = not explanation.layers[0].training
    for site in explanation.sites:
        if site.deliberate or site.target == ATTENTION or not site.drops:
            continue
        if site.eval:
            yield site.name, f"{what(site)} drops in evaluation{_at(site)}", _gate(site, explanation)
        elif evaluating and site.now and not _singled_out(site, explanation):
            measured = f"{what(site)} drops now: the model is in eval mode, {_named(site.layer)} in train mode"
            yield site.name, measured, "Call `model.eval()` again, after whatever put this part back in train mode."


def attention_in_eval(explanation: Facts) -> Iterator[Row]:
    """Attention weights that are dropped in evaluation: the functions for attention know no mode."""
    for site in explanation.sites:
        if site.eval and not site.deliberate and site.target == ATTENTION and site.drops:
            gate = "Pass `dropout_p=self.p if self.training else 0.0`, since the function itself knows no mode."
            remedy = gate if explanation.framework == "torch" else _gate(site, explanation)
            yield site.name, f"{what(site)} drops attention weights in evaluation{_at(site)}", remedy


def dead_in_train(explanation: Facts) -> Iterator[Row]:
    """Sites that have a rate and drop nothing in training; those of frozen parts had better not."""
    frozen = _outermost(explanation, lambda layer: layer.frozen)
    resting = {name for part in frozen for name in _subtree(explanation, part)}
    for site in explanation.sites:
        if not site.p or site.train or site.idle or site.layer in resting:
            continue
        if not _ran(site, explanation):
            if not _by_design(site, explanation):
                remedy = "Call it in the forward pass, or delete it if no other inputs reach it either."
                yield site.name, f"{what(site)} did not run with these inputs", remedy
        elif site.train is False:
            measured = f"{what(site)} ran in train mode and dropped nothing{_at(site)}"
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
        found = [f"{_count(norms, 'BatchNorm')} in train mode"] if norms else []
        found += [_count(drops, "active dropout")] if drops and not _behind_training(explanation, inside) else []
        if found:
            measured = f"{part.parameters} parameters, all frozen, with {' and '.join(found)}"
            yield part.name, measured, _rest(part, explanation)


def trainable_in_eval(explanation: Facts) -> Iterator[Row]:
    """Trained parts that hold BatchNorm or dropout, both as in evaluation, in a model in train mode."""
    if not explanation.layers[0].training:
        return
    for part in _outermost(explanation, lambda layer: not layer.training):
        inside = _subtree(explanation, part)
        norms = [layer.name for layer in explanation.layers if layer.name in inside and is_batchnorm(layer)]
        drops = [site.name for site in explanation.sites if site.layer in inside and _waits(site)]
        found = [f"{_count(norms, 'BatchNorm')} in eval mode"] if norms else []
        found += [f"{_count(drops, 'dropout')} off"] if drops else []
        if part.trainable and found:
            measured = f"{part.trainable} trainable parameters in eval mode, with {' and '.join(found)}"
            remedy = f"Call `{_module(part.name)}.train()` before training goes on."
            yield part.name, measured, remedy


def one_layer(explanation: Facts) -> Iterator[Row]:
    """Recurrent networks of one layer with a rate: it is for the hidden states between layers."""
    for site in explanation.sites:
        if site.p and site.idle.startswith("one layer"):
            output = f"put `dropkit.torch.Dropout({site.p:g})` on its output"
            yield site.name, f"{what(site)}: {site.idle}", f"Pass `num_layers=2`, or leave the rate out and {output}."


def fast_path(explanation: Facts) -> Iterator[Row]:
    """Sites that are on in a torch encoder layer which without gradient runs fused, and then drops nothing."""
    for site in explanation.sites:
        if site.fast_path:
            measured = f"{what(site)} is on, and without gradient torch's fused encoder layer skipped it"
            yield site.name, measured, "Run such passes inside `with dropkit.torch.enabled(model):`, which avoids it."


def told_in_vain(explanation: Facts) -> Iterator[Row]:
    """Sites that a functional model's recorded call tells to drop always, which the mode of the model overrides."""
    for site in explanation.sites:
        if TOLD in site.note and site.train and site.eval is False:
            measured = (
                f"{what(site)}: {TOLD}, and with the model in evaluation, as `predict` runs it, it dropped nothing"
            )
            if ":" in site.name or site.target == ATTENTION:
                yield (
                    site.name,
                    measured,
                    "Predict inside `with dropkit.keras.enabled(model):`, which turns dropout on.",
                )
            else:
                always = 'Make it as `dropkit.keras.Dropout(p, when="always")`'
                yield site.name, measured, f"{always}, or predict inside `with dropkit.keras.enabled(model):`."


def what(site: Site) -> str:
    """The kind of a site, and its rate where it has one."""
    return site.kind if site.p is None else f"{site.kind} with p = {site.p:g}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: the first few, and how many more.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    shown = ", ".join(map(_named, names[:_LISTED]))
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


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
        follow = "Leave `training=True` out of the call, so that the layer follows the mode"
        meant = ', or, if it is meant, say so by `dropkit.keras.Dropout(p, when="always")`'
        return f"{follow}{'' if site.target == ATTENTION else meant}."
    if "made inside" in site.note:
        return f"Make it in `__init__`, as `self.drop = dropkit.torch.Dropout({site.p:g})`, where `eval()` reaches it."
    if ":" in site.name:
        return "Call `dropkit.torch.dropout(x, p, training=self.training)`, whose mode has no default."
    return 'Drop only `if self.training`, or, if it is meant, say so by `dropkit.torch.Dropout(p, when="always")`.'


def _revive(site: Site, explanation: Facts) -> str:
    if explanation.framework == "keras":
        return (
            "Leave `training` out of the call, so that the layer follows the mode: `False` and `None` both turn it off."
        )
    if ":" in site.name:
        return "Call `dropkit.torch.dropout(x, p, training=self.training)`, whose mode has no default."
    return f"Let `model.train()` reach `{_module(site.layer)}`, or delete the dropout."


def _rest(part: Layer, explanation: Facts) -> str:
    if explanation.framework == "keras":
        name = part.name.rpartition("/")[2]
        call = f"call it from a layer of your own as `self.{name}(x, training=False)`"
        return f"Set `trainable = False` on the part as a whole, and {call}: a functional model ignores that argument."
    return f"Call `{_module(part.name)}.eval()` after every `model.train()`."


def _module(name: str) -> str:
    """The expression for a submodule; a plain attribute path where that is Python."""
    if not name:
        return "model"
    plain = all(part.isidentifier() for part in name.split("."))
    return f"model.{name}" if plain else f'model.get_submodule("{name}")'


def _named(name: str) -> str:
    return name or "the model itself"


def _count(names: Sequence[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 or noun.endswith('Norm') else 's'} ({listed(names)})"


def _at(site: Site) -> str:
    """Where a functional call stands."""
    return f" ({site.source})" if site.source else ""
