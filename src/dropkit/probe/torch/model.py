"""Explains a torch model: plans the runs, and puts together what they showed."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import nn

from ...errors import DropkitTypeError
from ...language import LIST, joined, say
from ...torch.finding.inventory import Site as Found
from ...torch.finding.inventory import sites
from ...torch.finding.trace import FastPaths, copied, failures_named, undisturbed
from ...torch.finding.trials import Trial, Trying
from ..explanation import Explanation
from ..findings.places import undecided
from .draws import Made, as_sites, by_hand, evaluated_by, listening, made_by_hand, scaled_in_evaluation
from .follow import Follower
from .measure import Run
from .passes import Loss, Passes, seed_all
from .rows import Seen, channel_ratio, is_changed, layer_rows, site_rows, zeroed
from .watch import Listener, tensors

_MASKS = 3  # runs with dropout on, each with other masks
_MORE = 13  # and so many more where these do not decide
_UNSEEN = "not reached"  # in the inventory's note on what did not run
_TRIALS = 4  # forwards, at most, until the masks drawn are enough to compare with their gradients


def explain_torch(model: nn.Module, *inputs: Any, loss: Loss | None = None, **kwargs: Any) -> Explanation:
    """`dropkit.explain` of a torch module."""
    if not inputs and not kwargs:
        raise DropkitTypeError(
            f"explain runs the model and needs what its forward takes: explain(model, x), where {type(model).__name__} "
            "got nothing"
        )
    if loss is not None and not callable(loss):
        raise DropkitTypeError(f"loss must be a function of the model's output, got {loss!r}")
    found = sites(model, *inputs, **kwargs)
    unread = [site for site in found if site.kind == "number" or _read_by_a_function(site, found)]
    passes = Passes(model, inputs, kwargs, loss)
    passes.sites = [site for site in found if site not in unread]
    passes.forwards = 2 + any(isinstance(module, nn.TransformerEncoderLayer) for module in model.modules())
    seen = _runs(passes)
    layers = layer_rows(seen)
    return Explanation(
        model=type(model).__name__,
        framework="torch",
        inputs=tuple(tuple(x.shape) for x in tensors([inputs, kwargs])),
        layers=layers,
        sites=site_rows(seen, layers),
        forwards=passes.forwards,
        backwards=passes.backwards,
        notes=_notes(seen, unread),
    )


def _runs(passes: Passes) -> Seen:
    model = passes.model
    off = passes.run(0, off=True, backward=True)
    heard = listening(passes)
    again = passes.run(_MASKS, off=True, listener=heard, mode=heard)
    evaluated = evaluated_by(passes, heard)
    scaled = scaled_in_evaluation(passes, heard, evaluated)
    made = _made(passes, made_by_hand(passes, off, again, heard, evaluated))
    found = list(passes.sites)
    active = {number for number, site in enumerate(found) if site.train}
    if any(map(by_hand, found)):
        again = passes.run(_MASKS, off=True, backward=True)  # its gradients show what other random numbers change
    leaves = {path for path in off.order if path not in off.inside and "parametrizations" not in path.split(".")}
    places = {each.draw: number for number, each in made.items() if by_hand(found[number])}
    follower = Follower(model, found, active, leaves, places)
    on = [passes.run(0, backward=True, listener=follower, mode=follower.origins)]
    on += [passes.run(seed) for seed in range(1, _MASKS if active else 1)]
    on += _more_masks(passes, off, on)
    now = _now(passes)
    zeroes = [zeroed(number, follower) for number in range(len(found))]
    checked, fast = _checked(passes), _skipped(passes, now)
    seen = Seen(model, found, active, off, again, on, follower, zeroes, checked, now, _batch(passes), made, fast)
    seen.scaled, seen.applied = scaled, heard.applied
    return seen


def _more_masks(passes: Passes, off: Run, on: Sequence[Run]) -> list[Run]:
    """Further runs with dropout on, where a few masks do not tell whether a BatchNorm's input is shifted."""
    found: list[Run] = []
    for seed in range(_MASKS + 1, _MASKS + _MORE):
        measured = [(path, channel_ratio(path, off, [*on, *found])) for path in off.channels]
        close = [
            ratio for path, ratio in measured if ratio is not None and undecided(*ratio, off.shapes.get(path, (1,)))
        ]
        if not close:
            break
        found.append(passes.run(seed))
    return found


def _made(passes: Passes, made: Sequence[Made]) -> dict[int, Made]:
    """Random operations by number of their site; those that are at no site that is known become sites."""
    known = len(passes.sites)
    passes.sites = [*passes.sites, *as_sites(made, passes.sites)]
    new = [each for each in made if each.site is None and each.effect]
    placed = {each.site: each for each in made if each.site is not None}
    return placed | {known + number: each for number, each in enumerate(new)}


def _batch(passes: Passes) -> int | None:
    """The length of the first axis of the first input."""
    shape = next((x.shape for x in tensors([passes.inputs, passes.kwargs])), ())
    return shape[0] if shape else None


def _read_by_a_function(site: Found, found: Sequence[Found]) -> bool:
    """Whether a layer did not run because its module hands the rate to a function: Hugging Face's attention does."""
    return (
        site.place is None
        and _UNSEEN in site.note
        and any(
            other.place is not None
            and other.p == site.p
            and other.name.partition(":")[0] == site.name.rpartition(".")[0]
            for other in found
        )
    )


def _checked(passes: Passes) -> dict[str, str]:
    """For each site, whether the backward drops what the forward drops."""
    checkable = [site for site in passes.sites if site.train and "learned" not in site.note and not by_hand(site)]
    trials = [Trial(site) for site in checkable]
    for seed in range(_TRIALS):
        waiting = [trial for trial in trials if not trial.gradient.enough and (seed == 0 or trial.gradient.calls)]
        if not waiting:
            break
        with undisturbed(passes.model, passes.inputs, passes.kwargs), failures_named("training"), torch.enable_grad():
            passes.model.train()
            seed_all(seed, passes.model)
            passes.forwards += 1
            with Trying(passes.model, trials, "gradient"):
                passes.model(*copied(tuple(passes.inputs)), **copied(dict(passes.kwargs)))
    return {trial.site.name: trial.gradient.verdict(trial.site) for trial in trials}


class _Noticing(Listener):
    """Notes which functional calls drop."""

    def __init__(self) -> None:
        self.dropped: set[int] = set()

    def begun(self, site: int, dropped: Any, other: Any = None) -> None:
        self.dropped.add(site)

    def drew(self, site: int, drawn: torch.Tensor) -> None:
        self.dropped.add(site)


def _now(passes: Passes) -> dict[str, bool | None]:
    """Which sites drop in the modes in which the model was handed in."""
    modes = {module.training for module in passes.model.modules()}
    if len(modes) == 1:
        return {site.name: site.train if modes == {True} else site.eval for site in passes.sites}
    noticing = _Noticing()
    passes.run(0, training=False, listener=noticing)
    now: dict[str, bool | None] = {}
    for number, site in enumerate(passes.sites):
        if site.place is None or by_hand(site):
            owner = site.name.partition(":")[0]
            now[site.name] = site.train if passes.model.get_submodule(owner).training else site.eval
        else:
            now[site.name] = number in noticing.dropped
    return now


def _skipped(passes: Passes, now: Mapping[str, bool | None]) -> set[str]:
    """Sites that are on and that torch's fused encoder layer skips all the same, where no gradient is kept."""
    model = passes.model
    inside = {
        site.name: path
        for path, module in model.named_modules()
        if isinstance(module, nn.TransformerEncoderLayer)
        for site in passes.sites
        if now[site.name] and f"{site.name}.".startswith(f"{path}." if path else "")
    }
    if not inside:
        return set()
    with undisturbed(model, passes.inputs, passes.kwargs), failures_named("present"), torch.no_grad():
        passes.forwards += 1
        fast = FastPaths(model)
        with fast:
            model(*copied(tuple(passes.inputs)), **copied(dict(passes.kwargs)))
    return {name for name, path in inside.items() if path in fast.paths}


def _notes(seen: Seen, unread: Sequence[Found]) -> tuple[str, ...]:
    notes = [
        say("{name} = {p:g}: {note}.", name=site.name, p=site.p, note=site.note)
        if site.kind == "number"
        else say("{name} does not run: its module hands p = {p:g} to a function.", name=site.name, p=site.p)
        for site in unread
    ]
    if not isfinite(seen.off.variances.get("", 0.0)):
        notes.append(
            say("The model's output holds NaN or infinity; what dropout changes in such numbers cannot be seen.")
        )
    changed = [path for path in seen.off.outputs if is_changed(path, seen)]
    calm = [path for path in changed if seen.again.outputs.get(path) == seen.off.outputs[path]]
    lost = [path or say("the model") for path in calm if not seen.follower.reach.get(path)]
    if lost:
        names = joined(lost[:5], LIST)
        why = say("no site could be followed there: a number drawn at random decides in Python what runs.")
        if len(lost) > 5:
            notes.append(say("The output of {names} and others changes with dropout, but {why}", names=names, why=why))
        else:
            notes.append(say("The output of {names} changes with dropout, but {why}", names=names, why=why))
    if not seen.on[0].gradients and not seen.off.gradients:
        notes.append(say("No gradient was computed: no floating output of the model requires grad."))
    return tuple(notes)
