"""What models of several frameworks have in common when they are looked at: samples, outputs, sites, kinds."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import DropkitError, DropkitValueError
from ...patterns import listed, matches, unmatched
from ..data.sets import Data
from ..engines.losses import check_output, outputs_of
from ..imported import failed
from ..recipes.objective import BINARY, CLASSES, Objective
from .examined import Place
from .settings import TaskSettings
from .spec import Rule
from .task import Task
from .variants import check_shape

LOOKED_AT = 4  # samples that a model is run on to look at it
LAST, WHOLE = "with channels last", ""
Outputs = Callable[[NDArray[Any]], NDArray[Any]]
"""What a model makes of a batch, dropout off."""

ENTERING: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    WHOLE: lambda x: x,
    LAST: lambda x: np.moveaxis(x, 1, -1),
    "with an axis for channels": lambda x: np.asarray(x[..., None], np.float32),
    "as numbers": lambda x: np.asarray(x, np.float32),
    "flattened": lambda x: np.asarray(x, np.float32).reshape(len(x), -1),
}
"""How samples may enter a model whose channels are the last axis, where it does not take them as they are."""


def forms(x: NDArray[Any]) -> list[str]:
    """The ways in which samples may enter, in the order in which they are tried."""
    channels_first = x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[-1] not in (1, 3)
    found = [LAST, WHOLE] if channels_first else [WHOLE]
    found += ["with an axis for channels"] if x.ndim == 3 else []
    found += [] if np.issubdtype(x.dtype, np.floating) else ["as numbers"]
    return found + (["flattened"] if x.ndim > 2 else [])


def entering(task: Task, run: Outputs, data: Data, objective: Objective) -> tuple[str, Objective, NDArray[Any]]:
    """How samples enter so that the outputs fit, what the model then is trained for, and what it gave.

    Raises:
        DropkitValueError: in no way.
    """
    x, y = np.asarray(data.train_x[:LOOKED_AT]), np.asarray(data.train_y[:LOOKED_AT])
    problems: list[DropkitError] = []
    failures: list[DropkitError] = []
    for form in forms(x):
        try:
            outputs = run(ENTERING[form](x))
        except DropkitError:
            raise
        except Exception as error:
            text = failed(f"{task.name} on a batch of shape {tuple(x.shape)}", error)
            failures.append(DropkitValueError(" ".join(text.split())))
            continue
        try:
            given = torch.from_numpy(np.array(outputs))
            return form, fitting(task, given, torch.from_numpy(np.array(y)), data, objective), outputs
        except DropkitError as error:
            problems.append(error)
    raise (problems or failures)[0]


def fitting(task: Task, given: Any, targets: Tensor, data: Data, objective: Objective) -> Objective:
    """The objective that the outputs fit.

    Args:
        given: a tensor, or what a model of torch gives.
        targets: of the same samples.

    Raises:
        DropkitValueError: they fit none.
    """
    if objective.kind == CLASSES and data.classes == 2 and outputs_of(given, BINARY).shape == targets.shape:
        objective = Objective.of(BINARY, task.options.loss, task.options.metric)
    check_output(outputs_of(given, objective.kind), targets, objective, data.classes)
    return objective


def ruled(task: Task, places: Mapping[str, Place]) -> dict[str, Place]:
    """The sites as --sites says that the model's own are."""
    found = dict(places)
    for rule in task.options.sites:
        meant = [site for site in found if rule.means(site)]
        if not meant:
            raise unmatched(f"--sites {str(rule)!r}", "no site", task.name, listed(found))
        for site in meant:
            if rule.spec.variant and found[site].number:
                raise DropkitValueError(
                    f"--sites {str(rule)!r}: {site} is a number that a module hands over, so that its kind cannot be "
                    f"changed; write a rate alone, such as {rule.pattern}=0.1"
                )
            if rule.spec.variant:
                check_shape(rule.spec.variant, site, found[site].shape)
            variant = rule.spec.variant or found[site].variant
            found[site] = replace(found[site], p=rule.spec.p, variant=variant)
    return found


def check_kind(settings: TaskSettings, places: Mapping[str, Place]) -> None:
    """Refuse a kind that does not fit where a strategy puts it."""
    if not settings.variant:
        return
    meant = {site: place for site, place in places.items() if matches([site], settings.places or "*")}
    changed = {site: place for site, place in meant.items() if not place.number}
    if meant and not changed:
        raise DropkitValueError(
            f"strategy {settings.variant!r} puts another dropout in, and {listed(meant)} are numbers that modules "
            "hand over: their kind cannot be changed; limit it to other sites with an @PATTERN, or --insert some"
        )
    for site, place in changed.items():
        check_shape(settings.variant, site, place.shape)


def kinds(settings: TaskSettings, places: Mapping[str, Place]) -> dict[str, str]:
    """The kind that is to stand at each site where it is another than the model's own."""
    found = {
        site: (settings.variant if matches([site], settings.places or "*") else "") or place.variant
        for site, place in places.items()
        if not place.number
    }
    return {site: kind for site, kind in found.items() if kind}


def put_in(
    wanted: Iterable[Rule], known: Mapping[str, str], owner: str, insert: Callable[[Any, Rule], list[str]]
) -> Any:
    """Put dropouts in; site -> the rule that put it there. A pattern is of paths, or the name of a class.

    Args:
        wanted: what --insert says.
        known: the paths behind which one can stand, and the class that is there.
        owner: the model's name, for errors.
        insert: (paths, rule) -> the sites that came.
    """
    found: dict[str, Rule] = {}
    for rule in wanted:
        paths = {path for path in known if matches([path], rule.pattern)}
        paths = paths or {path for path, kind in known.items() if kind == rule.pattern}
        if not paths:
            names = listed(f"{path} ({kind})" for path, kind in known.items())
            raise unmatched(f"--insert {str(rule)!r}", "no module", owner, names)
        found |= dict.fromkeys(insert(paths, rule), rule)
    return found


def nowhere(task: Task, known: Mapping[str, str]) -> DropkitValueError:
    """The error for a model without dropouts into which none is put."""
    first = next(iter(known), "*")
    return DropkitValueError(
        f"{task.name} makes a model that drops nowhere: put dropouts in with --insert PATTERN=RATE, such as --insert "
        f"{first}=0.2; its layers are {listed(f'{path} ({kind})' for path, kind in known.items())}"
    )


def sum_of(weights: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """A sum over names and shapes."""
    return hashlib.sha256(repr(list(weights)).encode()).hexdigest()[:16]
