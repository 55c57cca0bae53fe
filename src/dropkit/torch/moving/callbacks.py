"""A `Schedule` inside other people's loops: a Lightning callback and one for the Trainer of Hugging Face.

Both libraries are loaded only when a callback is made.
"""

import importlib
import math
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from ...errors import DropkitTypeError, DropkitValueError
from .rate_log import RateLog
from .schedule import Rates, Schedule, site_rates

_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")  # one library under two names, with two base classes
_NAME = "DropoutRates"


def lightning_callback(
    rates: Schedule | Rates | Mapping[str, Rates],
    *,
    train: str | None = None,
    validation: str | None = None,
    log: RateLog | None = None,
) -> Any:
    """A Lightning callback that moves the rates of the trained module.

    Rates are set before every training batch, for step `trainer.global_step`, Lightning's count of optimizer steps. At
    the end of every validation that belongs to training (never the sanity check) controllers take their metrics from
    `trainer.callback_metrics`. Checkpoints hold the state. At the end of every epoch the rates of all sites that its
    last batch had go to the trainer's loggers, as "dropout/<site>", and to `log`.

    Args:
        rates: what `Schedule` takes, with paths as in the LightningModule ("model.drop*"); or a Schedule.
        train, validation: for controllers: names of metrics that the module logs in validation. Lightning has the mean
            of what `training_step` logs only after the validation of the epoch, and dropout was on in it: validate on a
            part of the training data too, as a second dataloader. With several processes log with sync_dist=True, or
            their rates part.
        log: a `RateLog`.

    Returns:
        A `lightning.pytorch.Callback`; its `schedule` is the `Schedule`, from the start of `fit` on.

    Raises:
        ModuleNotFoundError: Lightning is not installed.
        DropkitValueError: when `fit` starts: as `Schedule`; a controller without names of metrics or without a
            validation. After a validation: a metric was not logged.

    >>> from dropkit.axes.rate import Early
    >>> trainer = lightning.Trainer(callbacks=[lightning_callback({"*": Early(0.1, 1000)})])  # doctest: +SKIP
    """
    loaded = [sys.modules[name] for name in _LIGHTNING if name in sys.modules]
    modules = loaded or [_imported(_LIGHTNING, "lightning_callback", "lightning")]
    bases = tuple(module.Callback for module in modules)
    return type(_NAME, (_Lightning, *bases), {"moving": _Moving(rates, train, validation, log)})()


def huggingface_callback(
    rates: Schedule | Rates | Mapping[str, Rates],
    *,
    train: str | None = None,
    validation: str | None = None,
    log: RateLog | None = None,
) -> Any:
    """A callback for `transformers.Trainer` that moves the rates of the trained model.

    Rates are set before every step, for step `state.global_step`. Controllers take their metrics from the evaluations
    within training. Checkpoints (`trainer_state.json`) hold the state, and `resume_from_checkpoint` goes on from it. At
    the end of every epoch the rates of all sites that its last step had go to `log`.

    Args:
        rates: what `Schedule` takes; or a Schedule.
        train, validation: for controllers: names of metrics in the evaluations. With
            `eval_dataset={"train": part, "validation": held_out}` they are "eval_train_loss" and
            "eval_validation_loss".
        log: a `RateLog`.

    Returns:
        A `transformers.TrainerCallback`; its `schedule` is the `Schedule`, from the start of `train` on.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        DropkitValueError: when training starts: as `Schedule`; a controller without names of metrics or without an
            evaluation. After an evaluation: a metric was not among the results.

    >>> from dropkit.axes.rate import Early
    >>> trainer.add_callback(huggingface_callback({"*attn*": Early(0.1, 1000)}))  # doctest: +SKIP
    """
    module = _imported(("transformers.trainer_callback",), "huggingface_callback", "transformers")
    moving = _Moving(rates, train, validation, log)
    return type(_NAME, (_HuggingFace, module.TrainerCallback, module.ExportableState), {"moving": moving})()


class _Moving:
    """What both callbacks do, in words of neither library."""

    def __init__(
        self,
        rates: Schedule | Rates | Mapping[str, Rates],
        train: str | None,
        validation: str | None,
        log: RateLog | None,
    ) -> None:
        for name, metric in (("train", train), ("validation", validation)):
            if metric is not None and not isinstance(metric, str):
                raise DropkitTypeError(f"{name} must be the name of a metric, got {metric!r}")
        self.rates, self.train, self.validation, self.log = rates, train, validation, log
        self.schedule = rates if isinstance(rates, Schedule) else None
        self.model: nn.Module | None = None  # whose dropouts the schedule moves
        self.saved: Mapping[str, Any] | None = None  # a state that came before the schedule
        self.used: dict[str, float] = {}  # the rates of the last step
        self.seen: dict[str, Any] = {}  # metrics since the last update
        self._check_names()

    def begin(self, model: nn.Module, validates: bool, remedy: str) -> None:
        if not isinstance(self.rates, Schedule) and model is not self.model:
            self.schedule, self.model = Schedule(model, self.rates), model
            self._check_names()
        assert self.schedule is not None
        if self.schedule.controllers and not validates:
            raise DropkitValueError(f"a controller among the rates has no validation to learn from: {remedy}")
        if self.saved is not None:
            saved, self.saved = self.saved, None
            self.load(saved)

    def step(self, to: int) -> None:
        assert self.schedule is not None
        self.schedule.step(to=to)
        self.used = self.schedule.rates()

    def state(self) -> dict[str, Any] | None:
        # With the rates of the last step: Lightning ends the epoch of a checkpoint once more when it resumes.
        return {"schedule": self.schedule.state_dict(), "used": self.used} if self.schedule is not None else None

    def load(self, state: Mapping[str, Any] | None) -> None:
        if self.schedule is None:
            self.saved = state
        elif state is not None:
            self.schedule.load_state_dict(state["schedule"])
            self.used = dict(state["used"])

    def take(self, metrics: Mapping[str, Any], *, complete: bool) -> None:
        """Update the controllers once both metrics are there, which may take several evaluations."""
        if self.schedule is None or not self.schedule.controllers:
            return
        assert self.train is not None and self.validation is not None
        again = (set(metrics) & set(self.seen)) - {"epoch"}
        self.seen.update(metrics)
        missing = [name for name in (self.train, self.validation) if name not in self.seen]
        if not missing:
            self.schedule.update(train=self.seen[self.train], validation=self.seen[self.validation])
            self.seen = {}
        elif complete or again:
            raise DropkitValueError(
                f"a controller among the rates waits for the metric {' and '.join(map(repr, missing))}, which no "
                f"validation gave; there are {', '.join(sorted(self.seen)) or 'none'}"
            )

    def all_rates(self, model: nn.Module) -> dict[str, float]:
        """Those of the last step where they are scheduled, the present ones elsewhere."""
        return {site: self.used.get(site, p) for site, p in site_rates(model).items()}

    def _check_names(self) -> None:
        if self.schedule is not None and self.schedule.controllers and None in (self.train, self.validation):
            raise DropkitValueError(
                "a controller among the rates needs two metrics, but got "
                f"train={self.train!r} and validation={self.validation!r}: pass the names under which they are logged"
            )


class _Lightning:
    """The hooks of a Lightning callback."""

    moving: _Moving

    @property
    def schedule(self) -> Schedule | None:
        return self.moving.schedule

    @property
    def state_key(self) -> str:
        return "dropkit.rates"

    def on_fit_start(self, trainer: Any, pl_module: nn.Module) -> None:
        remedy = "give the module a validation_step and fit a validation dataloader, or use a schedule"
        self.moving.begin(pl_module, trainer.enable_validation, remedy)

    def on_train_batch_start(self, trainer: Any, pl_module: nn.Module, batch: Any, batch_idx: int) -> None:
        self.moving.step(trainer.global_step)

    # Not on_validation_epoch_end: the means over the epoch are there only after it. Callbacks that save come later.
    def on_validation_end(self, trainer: Any, pl_module: nn.Module) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.moving.take(trainer.callback_metrics, complete=True)

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        rates = self.moving.all_rates(pl_module)
        for logger in trainer.loggers:
            curves = {f"dropout/{site}": p for site, p in rates.items()}
            logger.log_metrics({**curves, "epoch": trainer.current_epoch}, step=trainer.global_step)
        if self.moving.log is not None and trainer.is_global_zero:
            self.moving.log.add(trainer.current_epoch, rates)

    def state_dict(self) -> dict[str, Any]:
        return self.moving.state() or {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.moving.load(state_dict or None)


class _HuggingFace:
    """The hooks of a callback of `transformers.Trainer`.

    The Trainer may make a new instance, without arguments, when it restores a state: what lasts is in the class.
    """

    moving: _Moving
    training = False

    @property
    def schedule(self) -> Schedule | None:
        return self.moving.schedule

    def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
        if state.global_step > 0:  # resumed; the Trainer itself restores callbacks only if a flag says so
            stored = state.stateful_callbacks.get(_NAME) or {}
            stored = stored[0] if isinstance(stored, list) else stored
            self.moving.load(stored.get("attributes", {}).get("saved"))
        remedy = 'set eval_strategy="epoch" or "steps", or use a schedule'
        self.moving.begin(model, args.eval_strategy != "no", remedy)
        self.training = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.moving.step(state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **kwargs: Any) -> None:
        if self.training:
            self.moving.take(metrics, complete=False)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
        if self.moving.log is not None and state.is_world_process_zero:
            # Epochs are counted in fractions, and the last one may be cut short.
            self.moving.log.add(math.ceil(state.epoch - 1e-6) - 1, self.moving.all_rates(model))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.training = False

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"saved": self.moving.state()}}


def _imported(names: tuple[str, ...], what: str, package: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in {one.partition(".")[0] for one in names}:
                raise  # it is there, and something that it needs is not
    raise ModuleNotFoundError(f"dropkit.torch.callbacks.{what} needs {package}: pip install {package}", name=package)
