"""What the runs of a torch model showed, and the rows of its explanation made of it: layers and sites."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import comb, isfinite, log2, sqrt
from statistics import mean, stdev
from typing import Any

from torch import nn

from ...language import SEMICOLON, joined, say, template
from ...torch.finding.inventory import Site as Found
from ...torch.layers import Drawn
from ..facts import Gradient, Layer, Shape, Site, draws_for_one
from ..laws import told
from .draws import Made, by_hand
from .follow import RECURRENT, Follower
from .handmade import Key
from .measure import Run
from .sample import Sample

_FAST = "fast path"  # in the inventory's note on what torch's fused encoder layer skips in evaluation
_ONE_LAYER = "one layer"  # how the inventory begins its note on a recurrent network that has one


@dataclass
class Seen:
    """What all runs showed."""

    model: nn.Module
    sites: list[Found]
    active: set[int]  # sites that drop in training
    off: Run
    again: Run  # off as well, from another state of the generators
    on: list[Run]  # the first with the backward that `follower` followed
    follower: Follower
    zeroed: list[list[str]]  # per site, the layers whose output it zeroes
    checked: dict[str, str]  # by name of the site
    now: dict[str, bool | None]
    batch: int | None  # samples in the run
    made: dict[int, Made]  # of random operations, by number of the site
    fast: set[str]  # sites that torch's fused encoder layer skips
    scaled: dict[int, float] = field(default_factory=dict)  # sites behind which evaluation scales, and by how much
    applied: dict[Key, float] = field(default_factory=dict)  # with dropout off, means of functions with f(0) != 0


def layer_rows(seen: Seen) -> tuple[Layer, ...]:
    """Every module, each block before what stands in it, otherwise in order of execution."""
    modules = dict(seen.model.named_modules())
    known = {id(parameter): name for name, parameter in seen.model.named_parameters()}
    return tuple(_layer(path, modules[path], known, seen) for path in _ordered(list(modules), seen))


def _ordered(paths: Sequence[str], seen: Seen) -> Iterator[str]:
    first = {path: number for number, path in enumerate(seen.off.order)}
    inside: dict[str | None, list[str]] = {}
    earliest = {path: first.get(path, len(first)) for path in paths}
    for path in reversed(paths):  # what stands in a block comes after it
        parent = _parent(path)
        inside.setdefault(parent, []).insert(0, path)
        if parent is not None:
            earliest[parent] = min(earliest[parent], earliest[path])
    waiting = [""]
    while waiting:
        path = waiting.pop()
        yield path
        waiting += reversed(sorted(inside.get(path, []), key=lambda child: earliest[child]))  # noqa: C413


def _parent(path: str) -> str | None:
    return path.rpartition(".")[0] if path else None


def _layer(path: str, module: nn.Module, known: dict[int, str], seen: Seen) -> Layer:
    off, follower = seen.off, seen.follower
    own = [known[id(parameter)] for parameter in module.parameters(recurse=False)]
    changed = is_changed(path, seen)
    reach = follower.reach.get(path, 0) if changed else 0
    # What is random by hand cannot be switched off: the runs without dropout have it too.
    handmade = {made.effect for n, made in seen.made.items() if reach >> n & 1 and by_hand(seen.sites[n])}
    itself = {n for n, site in enumerate(seen.sites) if site.place is None and site.name == path}
    by = _changing(own, seen)
    compared = bool(reach) and not handmade
    ratio = _ratio([run.variances.get(path) for run in seen.on], off.variances.get(path)) if compared else None
    shift = channel_ratio(path, off, seen.on)
    return Layer(
        name=path,
        parent=_parent(path),
        kind=type(module).__name__,
        output_shape=off.shapes.get(path),
        used_by=() if off.calls[path] else tuple(follower.used_by.get(path, ())),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        trainable=sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
        training=module.training,
        calls=off.calls[path],
        inputs=tuple(follower.named(follower.sources.get(path, 0))) if path in follower.leaves else (),
        zeroed_by=tuple(site.name for n, site in enumerate(seen.sites) if path in seen.zeroed[n]),
        changed_by=tuple(site.name for n, site in enumerate(seen.sites) if reach >> n & 1 and n not in itself),
        gradient=_gradient(module, own, by, seen),
        gradient_by=tuple(site.name for n, site in enumerate(seen.sites) if by >> n & 1),
        variance_ratio=ratio,
        input_variance_ratio=None if shift is None else shift[0],
        input_variance_error=None if shift is None else shift[1],
        random="drops" not in handmade and seen.again.outputs.get(path) != off.outputs.get(path),
        activation=follower.activations.get(path),
    )


def is_changed(path: str, seen: Seen) -> bool:
    """Whether a module's output really is another with dropout on."""
    return any(run.outputs.get(path) != seen.off.outputs.get(path) for run in seen.on)


def _changing(own: Sequence[str], seen: Seen) -> int:
    """The sites that change the gradient of one of these parameters, as bits."""
    on, off = seen.on[0].gradients, seen.off.gradients
    again = seen.again.gradients or off  # of other random numbers by hand
    sites = 0
    for name in own:
        if on.get(name) != off.get(name) or again.get(name) != off.get(name):
            sites |= seen.follower.gradients.get(name, 0)
    return sites


def _gradient(module: nn.Module, own: Sequence[str], by: int, seen: Seen) -> Gradient:
    if not own:
        return "none"
    if not any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        return "frozen"
    if not any(name in run.gradients for name in own for run in (seen.off, seen.on[0])):
        return "unused"
    if not by:
        return "unchanged"
    everything = any(by >> n & 1 and site.p == 1 for n, site in enumerate(seen.sites))
    given = [name for name in own if name in seen.on[0].gradients]
    return "zero" if everything and given and seen.on[0].still.issuperset(given) else "changed"


def _ratio(on: Sequence[float | None], off: float | None) -> float | None:
    values = [value for value in on if value is not None and isfinite(value)]
    return sum(values) / len(values) / off if values and off and isfinite(off) else None


def channel_ratio(path: str, off: Run, on: Sequence[Run]) -> tuple[float, float | None] | None:
    """Variance of a BatchNorm's input, mean over channels and masks, over that with dropout off; and its error."""
    before = off.channels.get(path)
    if before is None or not bool((before > 0).any()):
        return None
    varied = before > 0
    found = [(run.channels[path][varied] / before[varied]).mean().item() for run in on if path in run.channels]
    found = [ratio for ratio in found if isfinite(ratio)]
    if not found:
        return None
    return mean(found), stdev(found) / sqrt(len(found)) if len(found) > 1 else None


# Sites


def site_rows(seen: Seen, layers: Sequence[Layer]) -> tuple[Site, ...]:
    """Every site, in the order in which they run; those that do not run come last."""
    numbers = sorted(range(len(seen.sites)), key=lambda n: n not in seen.follower.order)
    ran = list(seen.follower.order)
    return tuple(_site(n, seen, layers) for n in [*ran, *numbers[len(ran) :]])


def _layer_of(site: Found) -> str:
    return site.name.partition(":")[0]


def _site(number: int, seen: Seen, layers: Sequence[Layer]) -> Site:
    found, follower = seen.sites[number], seen.follower
    dropped, name = follower.dropped[number], found.name
    module = seen.model.get_submodule(_layer_of(found))
    idle = _ONE_LAYER in found.note
    notes = [] if idle or not found.note else [found.note]
    mask = found.mask_shape or _shape_of_noise(module, dropped.shape)
    drawn = _drawn(number, mask, seen)
    if target_of(number, follower) == "output" and number in seen.active and not seen.zeroed[number]:
        if dropped.weights:
            notes.append(say("it drops weights"))
        elif dropped.inside:
            notes.append(say("what it drops stays inside its layer"))
    return Site(
        name=name,
        kind=found.kind,
        layer=_layer_of(found),
        p=None if by_hand(found) else found.p,
        mask_shape=mask,
        calls=max(1, len(drawn)),
        **_calls(number, mask, drawn, seen),
        all_draws=sum(drawn) if drawn else None,
        train=found.train,
        eval=found.eval,
        now=bool(seen.now[name]),
        deliberate=found.place is None and isinstance(module, Drawn) and module.when == "always",
        target=target_of(number, follower),
        zeroes=tuple(layer.name for layer in layers if layer.name in seen.zeroed[number]),
        behind=dropped.through if seen.zeroed[number] else (),
        changes=tuple(layer.name for layer in layers if name in layer.changed_by),
        gradients=tuple(layer.name for layer in layers if name in layer.gradient_by),
        input_rank=dropped.rank,
        follows=dropped.follows,
        on_prediction=bool(follower.predicted >> number & 1),
        twins=tuple(seen.sites[n].name for n in _twins(number, seen)),
        passes=len(dropped.turns),
        views=_views(number, seen),
        gradient_check=_gradient_check(number, seen),
        **told(found.noise, found.share, found.p, dropped.shape or mask, seen.batch)
        | _effect(module)
        | _taken_out(module, mask),
        **_measured(number, seen),
        **_shifted(number, seen),
        fast_path=name in seen.fast or (found.eval is True and _FAST in found.note),
        idle=found.note if idle else _told_never(module) if found.place is None else "",
        note=joined(notes, SEMICOLON),
        source=found.source,
    )


def _effect(module: nn.Module) -> dict[str, Any]:
    """What a layer does that puts no mask on its input: it says what runs, or uses random numbers in another way."""
    if isinstance(module, Drawn) and module.effect:
        return {"effect": module.effect, "drawn": "values"}
    return {"effect": "decides"} if isinstance(module, Drawn) and module.decides else {}


_TAKEN_OUT = {
    ("token", True): template("exactly {k} of {n} tokens, per sample"),
    ("edge", True): template("exactly {k} of {n} edges"),
    ("edge", False): template("each of {n} edges"),
    ("square", False): template("squares of some images, for all channels"),
}


def _taken_out(module: nn.Module, mask: Shape | None) -> dict[str, Any]:
    """How much a layer takes out that takes tokens, edges or squares out whole."""
    if not isinstance(module, Drawn) or not module.takes_out or not mask:
        return {}
    k, n = module.count(mask), mask[-1]
    found: dict[str, Any] = {"share": say(_TAKEN_OUT[module.takes_out, k is not None], k=k, n=n)}
    if k is not None:
        return found | {"choices": log2(comb(n, k)), "kept": k / n}
    alone = module.takes_out == "edge" and getattr(module, "by", "") == "place"  # not with other edges of its nodes
    return found | {"choices": float(n) if alone else None}


def _calls(number: int, mask: Shape | None, drawn: Sequence[int], seen: Seen) -> dict[str, Any]:
    """Mask and zeroed layers of each call, of a site that drops several times in one forward."""
    dropped = seen.follower.dropped[number]
    if mask is None or not 1 < len(drawn) == len(dropped.shapes) == len(dropped.producers):
        return {}
    output = target_of(number, seen.follower) == "output"
    return {
        "call_masks": tuple(_like(mask, dropped.shape, shape) for shape in dropped.shapes),
        "call_zeroes": tuple(tuple(seen.follower.named(bits if output else 0)) for bits in dropped.producers),
    }


def _drawn(number: int, mask: Shape | None, seen: Seen) -> list[int]:
    """Independent draws for one sample, call by call of a forward; a mask that was drawn before counts no more.

    A network of n recurrent layers draws n - 1 masks in a call: one between each two of them.
    """
    site, dropped = seen.sites[number], seen.follower.dropped[number]
    if mask is None:
        return []
    if by_hand(site) and len(dropped.shapes) != len(dropped.draws):
        return []  # one draw for several values, or several for one
    module = seen.model.get_submodule(_layer_of(site))
    times = max(1, module.num_layers - 1) if site.place is None and isinstance(module, nn.RNNBase) else 1
    masks = dropped.masks if len(dropped.masks) == len(dropped.shapes) else []
    found = []
    for call, shape in enumerate(dropped.shapes or [None]):
        again = masks and any(masks[call].twin(before, site.p) for before in masks[:call])
        if not again:
            found += [draws_for_one(_like(mask, dropped.shape, shape), seen.batch)] * times
    return found


def _like(mask: Shape, first: Shape | None, now: Shape | None) -> Shape:
    """The shape of the mask of another call, from that of the first and the shapes of what the two dropped."""
    if now is None or first is None or len(mask) != len(first) or len(now) != len(first):
        return mask
    if any(drawn not in (1, size) for drawn, size in zip(mask, first, strict=True)):  # no mask of its input
        return mask
    return tuple(1 if drawn == 1 and size != 1 else other for drawn, size, other in zip(mask, first, now, strict=True))


def _measured(number: int, seen: Seen) -> dict[str, Any]:
    """What a random operation does, where a site is one."""
    made = seen.made.get(number)
    if made is None:
        c = seen.scaled.get(number)  # its law keeps the mean in training
        return {} if c is None else {"train_mean": 1.0, "eval_mean": c, "mean_ratio": 1 / c, "mean_error": 0.0}
    measured = {"mean_ratio": made.ratio, "mean_error": made.error}
    if made.means is not None:
        measured |= {"train_mean": made.means[0], "eval_mean": made.means[1]}
    if not by_hand(seen.sites[number]):
        return measured
    share = made.zeros if made.effect == "drops" else None
    return {"by_hand": True, "effect": made.effect, "zero_share": share, **measured}


def _shifted(number: int, seen: Seen) -> dict[str, Any]:
    """The function with f(0) != 0 that takes what a site dropped to zero, and how far the mean of its output moves."""
    into = seen.follower.dropped[number].into
    if into is None:
        return {}
    name, key, mean = into
    shift = mean - seen.applied[key] if key in seen.applied else None
    return {"into": name, "shift": shift if shift is not None and isfinite(shift) else None}


def _told_never(module: nn.Module) -> str:
    return say("off by name: when='never'") if isinstance(module, Drawn) and module.when == "never" else ""


def _shape_of_noise(module: nn.Module, shape: Shape | None) -> Shape | None:
    """Of a dropout whose rate is learned, from the shape of its input."""
    if shape is None or not isinstance(module, Drawn):
        return None
    shared = {axis % len(shape) for axis in getattr(module.share, "axes", module.share)}
    return tuple(1 if axis in shared else size for axis, size in enumerate(shape))


def target_of(number: int, follower: Follower) -> str:
    """What a site drops, in the words of `Site.target`."""
    seen, site = follower.dropped[number], follower.sites[number]
    module = follower.model.get_submodule(_layer_of(site))
    if site.place is None and isinstance(module, Drawn) and module.of_weights:
        return "weights"
    if follower.hidden[number]:
        recurrent = isinstance(module, nn.RNNBase) or site.kind in RECURRENT
        return "hidden states" if recurrent else "attention weights"
    if seen.follows == "softmax" and (seen.rank or 0) > 2 and not follower.predicted >> number & 1:
        return "attention weights"
    return "input" if seen.input and not seen.zeroes else "output"


def zeroed(number: int, follower: Follower) -> list[str]:
    """Layers whose output a site zeroes."""
    if target_of(number, follower) != "output":
        return []
    return follower.named(follower.dropped[number].zeroes)


def _twins(number: int, seen: Seen) -> list[int]:
    """Other sites that drew the very same mask."""
    site, dropped = seen.sites[number], seen.follower.dropped
    masks = dropped[number].masks or dropped[number].draws
    if not masks:
        return []
    return [
        n
        for n, other in enumerate(seen.sites)
        if n != number
        and (other.p, other.mask_shape) == (site.p, site.mask_shape)
        and (others := dropped[n].masks or dropped[n].draws)
        and masks[0].twin(others[0], site.p)
    ]


def _views(number: int, seen: Seen) -> int:
    """Calls that got the input of another one, and its mask: their results are equal."""
    dropped, p = seen.follower.dropped[number], seen.sites[number].p
    alike: dict[bytes, list[Sample]] = {}
    for x, mask in zip(dropped.taken, dropped.masks, strict=True):
        alike.setdefault(x.double().numpy().tobytes(), []).append(mask)
    return sum(
        any(mask is not other and mask.twin(other, p) for other in masks) for masks in alike.values() for mask in masks
    )


def _gradient_check(number: int, seen: Seen) -> str:
    site, dropped = seen.sites[number], seen.follower.dropped[number]
    if dropped.unlike:
        words = template("recomputed in the backward pass with another mask, unlike in {number} elements")
        return say("FAILED: {why}", why=say(words, number=dropped.unlike))
    if "learned" in site.note:
        return "not checked: its noise is not a mask"
    why = "it never drops in training" if site.p else "p is 0"
    return seen.checked.get(site.name, f"not checked: {site.note or why}")
