"""Models of torch as tasks: where they drop, how samples enter, and dropkit's dropouts in the places of theirs."""

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import DropkitError, DropkitTypeError, DropkitValueError
from ...patterns import listed, matches, unmatched
from ...torch import Dropout, insert, sites, swap
from ...torch.changing.receipt import INSERTED
from ...torch.changing.surgery import SWAPS
from ...torch.finding.inventory import Site
from ...torch.finding.rates import NUMBER, FoundRate, rates
from ...torch.layers import Drawn
from ...visible import a_type
from ..data.sets import Data
from ..engines.losses import check_loss, outputs_of
from ..engines.moves import put
from ..engines.optimizing import family
from ..imported import failed
from ..recipes.engine import TORCH
from ..recipes.objective import Objective
from ..recipes.recipe import LEARNING
from .found import LOOKED_AT, check_kind, fitting, nowhere, ruled
from .spec import Rule, rules
from .task import Examined, Place, Task, TaskSettings
from .variants import check_shape, variant_of

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHANNELS = 1  # the axis that has them

Enter = Callable[[Tensor], Tensor]


def _numbers(x: Tensor) -> Tensor:
    return x.float() if not x.is_floating_point() else x


def _whole(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.long()


ENTERING: Mapping[str, Enter] = {
    "": _whole,
    "with an axis for channels": lambda x: _numbers(x).unsqueeze(1),
    "as numbers": _numbers,
    "flattened": lambda x: _numbers(x).flatten(1),
}
"""How samples may enter a model that does not take them as they are, in the order in which it is tried."""


class TorchModels:
    """What knows the models of torch; see `dropkit.lab.tasks.task.Framework`."""

    engine = TORCH
    learned = LEARNING

    def examine(self, task: Task, model: Any, data: Data, objective: Objective) -> Examined:
        """Look at a model: its sites, how samples enter, and whether its outputs fit."""
        if not isinstance(model, nn.Module):
            raise DropkitTypeError(f"{task.name} makes {a_type(model)}, and not a torch.nn.Module")
        if not any(p.requires_grad for p in model.parameters()):
            raise DropkitValueError(f"{task.name} makes a model without weights that can be trained")
        put_in = _insert(model, task.options.insert)
        x, y = (torch.from_numpy(np.array(array[:LOOKED_AT])) for array in (data.train_x, data.train_y))
        entering, objective, model = _entering(task, model, x, y, data, objective)
        taken = ENTERING[entering](x)
        seen = _Seen(model, taken)
        found = _sites(model, taken)
        places = _places(model, found, seen, put_in)
        places = ruled(task, places)
        left = tuple(
            f"{site.name.removeprefix(':') or site.kind} {site.p:g}"
            for site in found
            if site.attribute is None and site.source and (site.train or site.eval)
        )
        if not places and not left:
            raise _nowhere(task, model)
        return Examined(
            places=places,
            objective=objective,
            entering=entering,
            left=left,
            drawn=tuple(site for site, place in places.items() if place.number),
            sum=_sum(model),
            takes=(tuple(taken.shape), taken.is_floating_point()),
        )

    def build(self, model: nn.Module, settings: TaskSettings, examined: Examined) -> nn.Module:
        """The model with a dropout of dropkit's at each site, as settings say."""
        with quiet():
            if any(type(module) in SWAPS for module in model.modules()):
                swap(model)  # first: a dropout behind which another is put could not be replaced
        _insert(model, rules(settings.insert, "--insert"))
        if _is_lazy(model):
            shape, floating = examined.takes
            _run(model, torch.zeros(shape, dtype=torch.float32 if floating else torch.int64))
            model.train()
        for site, place in examined.places.items():
            strategy = settings.variant if matches([site], settings.places or "*") else ""
            kind = strategy or place.variant
            if kind and not place.number:
                put(model, site, dropout_of(kind, place))
        if examined.entering or not _floating(settings):
            model.register_forward_pre_hook(Entering(examined.entering))
        return model

    def check_optimizer(self, name: str) -> None:
        """Refuse an optimizer that there is not."""
        family(name)

    def check(self, settings: TaskSettings, examined: Examined) -> None:
        """Refuse a kind that does not fit where a strategy puts it."""
        check_kind(settings, examined.places)


def _floating(settings: TaskSettings) -> bool:
    return settings.kind != "next-token"


@dataclass(frozen=True, slots=True)
class Entering:
    """A hook that changes a batch before the model gets it."""

    form: str

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The inputs as the model takes them."""
        return (ENTERING[self.form](inputs[0]), *inputs[1:])


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings on dropouts that torch draws, which are told in another way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def dropout_of(kind: str, place: Place) -> Dropout:
    """A dropout of a kind for a place."""
    check_shape(kind, "the site", place.shape)
    variant, shape = variant_of(kind), place.shape or (1,) * variant_of(kind).axes
    return Dropout(place.p, share=variant.share(shape, CHANNELS), noise=variant.noise)


def _insert(model: nn.Module, wanted: tuple[Rule, ...]) -> dict[str, Rule]:
    """Put dropouts in; site -> the rule that put it there. A pattern is of paths, or the name of a class."""
    found: dict[str, Rule] = {}
    for rule in wanted:
        paths = [path for path, _ in model.named_modules() if path and matches([path], rule.pattern)]
        before = set(_inserted(model))
        # Paths first: a pattern such as * is not about classes.
        after: Any = rule.pattern if paths else lambda _, module, name=rule.pattern: type(module).__name__ == name
        if not paths and not any(type(module).__name__ == rule.pattern for module in model.modules()):
            known = listed(f"{path} ({type(module).__name__})" for path, module in model.named_modules() if path)
            raise unmatched(f"--insert {str(rule)!r}", "no module", type(model).__name__, known)
        insert(model, after, Dropout(rule.spec.p))
        found |= {site: rule for site in _inserted(model) if site not in before}
    return found


def _inserted(model: nn.Module) -> list[str]:
    return [path for path, _ in model.named_modules() if path.rpartition(".")[2] == INSERTED]


def _entering(
    task: Task, model: nn.Module, x: Tensor, y: Tensor, data: Data, objective: Objective
) -> tuple[str, Objective, nn.Module]:
    """How samples enter so that the outputs fit, what the model then is trained for, and the model with all weights.

    Raises:
        DropkitValueError: in no way.
    """
    problems: list[DropkitError] = []
    failures: list[DropkitError] = []
    for form in _forms(x):
        try:
            # A lazy layer takes the shape of what it sees first.
            tried = copy.deepcopy(model) if _is_lazy(model) else model
            outputs = _run(tried, ENTERING[form](x))
        except Exception as error:
            what = f"{task.name} on a batch of shape {tuple(x.shape)}"
            failures.append(DropkitValueError(failed(what, error)))
            continue
        try:
            found = fitting(task, outputs, y, data, objective)
            check_loss(outputs_of(outputs, found.kind), y, found)
        except DropkitError as error:
            problems.append(error)
            continue
        return form, found, tried
    raise (problems or failures)[0]


def _forms(x: Tensor) -> list[str]:
    forms = ["", *(["with an axis for channels"] if x.dim() == 3 else [])]
    return [*forms, *([] if x.is_floating_point() else ["as numbers"]), *(["flattened"] if x.dim() > 2 else [])]


@torch.no_grad()
def _run(model: nn.Module, x: Tensor) -> Any:
    model.eval()
    return model(x)


class _Seen:
    """What a forward called, in order: of each dropout the shape of its input and the next layer with weights.

    Args:
        model: as samples find it.
        x: a batch.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.called: list[tuple[str, nn.Module, tuple[int, ...] | None]] = []
        handles = [module.register_forward_pre_hook(self._hook(path)) for path, module in model.named_modules() if path]
        try:
            _run(model, x)
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, path: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            first = inputs[0] if inputs else None
            self.called.append((path, module, tuple(first.shape) if isinstance(first, Tensor) else None))

        return note

    def shape(self, path: str) -> tuple[int, ...] | None:
        """Of what a module gets."""
        return next((shape for place, _, shape in self.called if place == path), None)

    def reached(self, path: str) -> bool:
        """Whether a module was called."""
        return any(place == path for place, _, _ in self.called)

    def behind(self, path: str) -> str:
        """The path of the next layer with weights that is called after a module."""
        places = [place for place, _, _ in self.called]
        if path not in places:
            return ""
        later = self.called[places.index(path) + 1 :]
        return next((place for place, module, _ in later if isinstance(module, WEIGHTED)), "")


def _sites(model: nn.Module, x: Tensor) -> list[Site]:
    with quiet():
        return sites(model, x)


def _places(model: nn.Module, found: list[Site], seen: _Seen, put_in: Mapping[str, Rule]) -> dict[str, Place]:
    """The sites whose rate can be set, by name."""
    handed = {site.attribute for site in found if site.attribute is not None}
    idle = {site.name for site in found if site.train is False and site.p > 0}
    places: dict[str, Place] = {}
    for rate in rates(model):
        if rate.learned:
            continue
        path = rate.name
        if _is_module(rate):
            if not seen.reached(path):
                continue
            spec = put_in[path].spec if path in put_in else None
            places[path] = Place(
                p=rate.p,
                inserted=spec is not None,
                shape=seen.shape(path),
                variant=spec.variant if spec is not None else "",
                feeds=seen.behind(path),
            )
            if places[path].variant:
                check_shape(places[path].variant, path, places[path].shape)
        elif path not in idle and (rate.kind != NUMBER or (rate.owner, rate.attribute) in handed):
            places[path] = Place(p=rate.p, number=True)
    return places


def _is_module(rate: FoundRate) -> bool:
    """Whether it is a layer whose work is dropping, which another can replace."""
    return isinstance(rate.module, Drawn) or type(rate.module) in SWAPS


def _nowhere(task: Task, model: nn.Module) -> DropkitValueError:
    parts = {path: type(m).__name__ for path, m in model.named_modules() if path and not list(m.children())}
    return nowhere(task, parts)


def _is_lazy(model: nn.Module) -> bool:
    return any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters())


def _sum(model: nn.Module) -> str:
    named = [(name.replace(f".{INSERTED}", ""), tuple(p.shape)) for name, p in model.named_parameters()]
    return hashlib.sha256(repr(named).encode()).hexdigest()[:16]
