"""Does dropout in a model do what it is taken to do?"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd

from ...errors import DropkitRuntimeError, DropkitTypeError
from ..drawing import ranks
from .inventory import Site, sites
from .trace import copied, failures_named, undisturbed
from .trials import Drawing, Trial, Trying

_FORWARDS = 16  # at most, until the masks drawn are enough to tell


@dataclass(frozen=True)
class Checked:
    """What was found at one site, check by check.

    Each is "ok", "FAILED: why and what to do", "conditional: while what holds" or "not checked: why".

    name, kind, p: as in `Site`.
    gradient: what the forward drops is what the backward drops.
    recomputation: recomputed, the site draws the mask that it drew. "ok" if it does so by itself; conditional if it
        does only where the checkpoint puts the generator's state back, as torch and Hugging Face do by default.
    ranks: processes that hold the same part of a tensor draw the same mask for it.
    off_in_eval: nothing is dropped in evaluation.
    on_in_train: something is dropped in training.
    """

    name: str
    kind: str
    p: float
    gradient: str
    recomputation: str
    ranks: str
    off_in_eval: str
    on_in_train: str

    @property
    def checks(self) -> dict[str, str]:
        """The five results by name."""
        return dict(zip(_CHECKS, astuple(self)[3:], strict=True))


_CONDITION = "right while checkpoints restore the generator, as they do by default"
_CELLS = {"ok": "ok", "not checked": "-", "conditional": "if"}
_CHECKS = ("gradient", "recomputation", "ranks", "off_in_eval", "on_in_train")


@dataclass(frozen=True)
class Report:
    """What `check` found, site by site.

    >>> print(Report((Checked("drop", "Dropout", 0.1, "ok", "ok", "not checked: one process", "ok", "ok"),)))
    site  kind     p    gradient  recomputation  ranks  off_in_eval  on_in_train
    drop  Dropout  0.1  ok        ok             -      ok           ok
    ranks not checked: one process (drop)
    1 site, nothing failed
    """

    sites: tuple[Checked, ...]

    @property
    def failures(self) -> list[str]:
        """Site, check and cause of everything that failed."""
        return [
            f"{site.name or '(the model)'}, {name}: {result.removeprefix('FAILED: ')}"
            for site in self.sites
            for name, result in site.checks.items()
            if result.startswith("FAILED")
        ]

    @property
    def conditions(self) -> list[str]:
        """Site, check and condition of all that is right only while something holds."""
        return [
            f"{site.name or '(the model)'}, {name}: {result.removeprefix('conditional: ')}"
            for site in self.sites
            for name, result in site.checks.items()
            if result.startswith("conditional")
        ]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def raise_for_failures(self) -> None:
        """Do nothing, if nothing failed.

        Raises:
            DropkitRuntimeError: something did; the message names sites, checks and remedies.
        """
        if failures := self.failures:
            raise DropkitRuntimeError("dropout that is not what it is taken to be:\n  " + "\n  ".join(failures))

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("site", "kind", "p", *_CHECKS)]
        left_out: dict[str, list[str]] = {}
        for site in self.sites:
            name = site.name or "(the model)"
            cells = [_CELLS.get(result.partition(":")[0], "FAILED") for result in site.checks.values()]
            rows.append((name, site.kind, f"{site.p:g}", *cells))
            for check, result in site.checks.items():
                if result.startswith(("not", "conditional")):
                    left_out.setdefault(f"{check} {result}", []).append(name)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines += [f"{what} ({', '.join(names)})" for what, names in left_out.items()]
        lines += [f"FAILED {failure}" for failure in self.failures]
        if not self.sites:
            return "no dropout was found"
        failed = sum(any(result.startswith("FAILED") for result in site.checks.values()) for site in self.sites)
        total = f"{len(self.sites)} site{'' if len(self.sites) == 1 else 's'}"
        return "\n".join([*lines, f"{total}, {f'{failed} failed' if failed else 'nothing failed'}"])


def check(model: nn.Module, *inputs: Any, **kwargs: Any) -> Report:
    """Run a model and tell, for every place where dropout happens, whether it does what it is taken to do.

    Forward and backward drop the same; activation checkpointing repeats the mask; processes that hold the same part of
    a tensor draw alike; nothing drops in evaluation and everything does in training, as the model stands and after
    `train()` and `eval()`. A site that repeats its mask only while the checkpoint puts the generator's state back
    (`preserve_rng_state=True`, the default of torch and Hugging Face) is "conditional"; it fails where the model
    checkpoints it without. Masks too small to tell are drawn again, in up to 16 forwards. The model, its modes,
    buffers, gradients and the random generators are as before, whatever happens.

    Args:
        model: any module, bound by `dropkit.torch.bind` or not. Among several processes, call it on all of them.
        inputs, kwargs: what its forward takes; tensors are copied.

    Returns:
        A `Report`: print it, or call its `raise_for_failures()`. What cannot be seen is "not checked", never "ok".

    Raises:
        DropkitTypeError: not a module.
        DropkitRuntimeError, DropkitValueError: as `sites`: the model fails with these inputs, or is lazy.

    Source: the method of pytorch#198333.

    >>> from dropkit.torch import Dropout
    >>> report = check(nn.Sequential(nn.Linear(4, 64), Dropout(0.5)), torch.randn(8, 4))
    >>> report.ok, report.sites[0].recomputation
    (True, 'ok')
    >>> report = check(nn.Sequential(nn.Dropout(0.5)), torch.randn(8, 64))  # no seed of its own to draw again from
    >>> report.ok, report.sites[0].recomputation.partition(";")[0]
    (True, 'conditional: right while checkpoints restore the generator, as they do by default')
    """
    if not isinstance(model, nn.Module):
        raise DropkitTypeError(f"check needs a torch.nn.Module, got {type(model).__name__}")
    stands = {path: module.training for path, module in model.named_modules()}
    trials = [Trial(site) for site in sites(model, *inputs, **kwargs)]
    with undisturbed(model, inputs, kwargs), failures_named("training"), torch.enable_grad():
        _try_all(model, inputs, kwargs, [trial for trial in trials if trial.site.train])
    for trial in trials:
        _judge_recomputation(trial, model)
    rows = [
        Checked(
            trial.site.name,
            trial.site.kind,
            trial.site.p,
            trial.gradient.verdict(trial.site),
            trial.recomputation.verdict(trial.site),
            same,
            _off_in_eval(trial.site, model, stands),
            _on_in_train(trial.site, model, stands),
        )
        for trial, same in zip(trials, _on_ranks(trials), strict=True)
    ]
    return Report(tuple(rows))


def _try_all(model: nn.Module, inputs: Sequence[Any], kwargs: Mapping[str, Any], trials: list[Trial]) -> None:
    model.train()

    def forward(how: str) -> None:
        with Trying(model, trials, how):
            model(*copied(inputs), **copied(dict(kwargs)))

    # Every rank must run as often as the others, and what one has seen may differ.
    for _ in range(1 if ranks.several() else _FORWARDS):
        for how in ("gradient", "recomputation"):
            if not all(getattr(trial, how).enough for trial in trials):
                forward(how)
    for _ in range(1 if ranks.several() else _FORWARDS):  # a model may skip layers
        if ranks.several() or any(t.recomputation.failure and not t.preserved.calls for t in trials):
            forward("preserved")


def _judge_recomputation(trial: Trial, model: nn.Module) -> None:
    """What does not repeat its mask by itself may do so where the generator's state is put back."""
    found = trial.recomputation
    if not found.failure:
        return
    remedy = _remedy(trial.site, model)
    if not trial.preserved.calls or trial.preserved.failure:
        found.failure += f"; {remedy}"
    elif trial.unpreserved:
        found.failure += f", and the model checkpoints it with preserve_rng_state=False; {remedy}, or leave that out"
    else:
        found.failure = ""
        found.condition = f"{_CONDITION}; {remedy}"


def _remedy(site: Site, model: nn.Module) -> str:
    if site.place is None and site.kind != "number" and isinstance(model.get_submodule(site.name), _DropoutNd):
        return "dropkit.torch.swap(model) puts dropouts there that draw the same again"
    if site.kind.startswith(("F.", "torch.")):
        return "call the function of the same name in dropkit.torch.functional"
    return "keep preserve_rng_state=True in checkpoints around it"


def _on_ranks(trials: Sequence[Trial]) -> list[str]:
    """For each site, whether the masks of those who hold the same part are the same."""
    if not ranks.several() or torch.distributed.get_world_size() == 1:
        return ["not checked: one process"] * len(trials)
    everyones: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyones, {trial.site.name: trial.drawings for trial in trials})
    return [_same([drawings.get(trial.site.name, []) for drawings in everyones]) for trial in trials]


def _same(everyones: Sequence[Sequence[Drawing]]) -> str:
    drawn: dict[Any, dict[int, str]] = {}
    for rank, drawings in enumerate(everyones):
        for number, drawing in enumerate(drawings):
            if drawing.part is not None:
                drawn.setdefault((number, drawing.part), {})[rank] = drawing.mask
    shared = [masks for masks in drawn.values() if len(masks) > 1]
    for masks in shared:
        first, *others = masks
        for other in others:
            if masks[other] != masks[first]:
                return (
                    f"FAILED: ranks {first} and {other} hold the same part of a tensor and draw other masks for it; "
                    "bind the model with dropkit.torch.bind(model, seed), with one seed on all of them"
                )
    if shared:
        return "ok"
    if not any(everyones):
        return "not checked: no mask of it was seen"
    return f"not checked: {'no two ranks hold the same part' if drawn else 'its masks are not keyed'}"


# Modes


def _owner(site: Site, model: nn.Module) -> tuple[str, nn.Module | None]:
    path = site.attribute[0] if site.kind == "number" and site.attribute else site.name.partition(":")[0]
    try:
        return path, model.get_submodule(path)
    except AttributeError:  # a config object
        return path, None


def _off_in_eval(site: Site, model: nn.Module, stands: Mapping[str, bool]) -> str:
    path, owner = _owner(site, model)
    if site.eval is None:
        return f"not checked: {site.note}"
    if getattr(owner, "when", None) == "always" and ":" not in site.name:
        return "not checked: when='always' has it drop in any mode"
    if site.eval and site.note and ":" in site.name:
        return f"FAILED: it drops in evaluation: {site.note}; make it in __init__"
    if site.eval and site.kind == F.scaled_dot_product_attention.__name__:
        return "FAILED: it drops in evaluation; pass dropout_p=p if self.training else 0.0"
    if site.eval:
        return "FAILED: it drops in evaluation; pass training=self.training, and let eval() reach the module"
    if site.train and not stands[""] and stands.get(path):
        return "FAILED: its module is in training mode, the model in evaluation; call model.eval()"
    return "ok"


def _on_in_train(site: Site, model: nn.Module, stands: Mapping[str, bool]) -> str:
    path, owner = _owner(site, model)
    if site.p == 0 or site.train is None:
        return f"not checked: {site.note or 'p is 0'}"
    if getattr(owner, "when", None) == "never" and ":" not in site.name:
        return "not checked: when='never' has it drop in no mode"
    if "not reached" in site.note:
        return f"not checked: {site.note}"
    if not site.train:
        return f"FAILED: it never drops in training, p={site.p:g}; {site.note or 'let train() reach the module'}"
    if stands[""] and not site.eval and not stands.get(path, True):
        return "FAILED: its module is in evaluation mode, the model in training; call model.train()"
    if stands[""] and any(not stands[layer] for layer in _encoder_layers(path, model)):
        return f"FAILED: {site.note or 'its encoder layer is in evaluation mode'}; call model.train()"
    return "ok"


def _encoder_layers(path: str, model: nn.Module) -> list[str]:
    parts = path.split(".")
    above = [".".join(parts[:count]) for count in range(len(parts))]
    return [name for name in above if isinstance(model.get_submodule(name), nn.TransformerEncoderLayer)]
