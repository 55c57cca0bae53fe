"""The one training loop, on Lightning Fabric. A run's numbers follow from its config: no generator of torch is used."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassAccuracy

from ..torch import bind
from .checkpoint import Progress, load_state, save_state, save_weights
from .files import write_json, write_rows
from .order import epoch_order, held_out
from .plan import Choices, Plan, open_folder

Row = dict[str, Any]
"""One epoch: epoch, step, losses and accuracies, the rate of each site at the epoch's end, seconds."""

OnEpoch = Callable[[Plan, Row], None]
EVALUATED = 10_000  # training samples scored with dropout off after each epoch: the first ones, always the same
CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its plan as plain values, one row an epoch, and the epoch of its checkpoint."""

    config: dict[str, Any]
    rows: tuple[Row, ...]
    best_epoch: int


@dataclass(frozen=True, slots=True)
class Part:
    """Images and labels of one part of the data, on the device."""

    x: Tensor
    y: Tensor

    def chunks(self) -> Iterator["Part"]:
        for start in range(0, len(self.x), CHUNK):
            yield Part(self.x[start : start + CHUNK], self.y[start : start + CHUNK])


class Score:
    """Mean loss and accuracy over samples."""

    def __init__(self, name: str, classes: int, device: torch.device) -> None:
        self.name = name
        # torchmetrics leaves NaN out of a mean unless told not to, and a run that diverges must show; but told so, its
        # MeanMetric forgets the weights (1.9). So the sum, and the count beside it.
        self.loss = SumMetric(nan_strategy="disable").to(device)
        self.samples = 0
        self.accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False).to(device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: its mean loss counts once for each sample."""
        self.loss.update(loss.detach().float() * len(labels))
        self.samples += len(labels)
        self.accuracy.update(logits.detach(), labels)

    def row(self) -> Row:
        """The two figures, under the names of a row."""
        return {
            f"{self.name}_loss": float(self.loss.compute()) / self.samples,
            f"{self.name}_accuracy": float(self.accuracy.compute()),
        }


class Trainer:
    """A model and its data on a device, trained an epoch at a time."""

    def __init__(self, plan: Plan) -> None:
        choices, settings = plan.choices, plan.choices.settings
        self.plan = plan
        self.fabric = Fabric(accelerator=choices.device, devices=1, precision=choices.precision)
        self.fabric.launch()
        self.parts = _parts(choices, self.fabric)
        model = choices.recipe.build(settings, choices.data.shape, choices.data.classes, plan.seed)
        bind(model, seed=plan.seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=settings.learning_rate)
        self.module = model
        self.model, self.optimizer = self.fabric.setup(model, optimizer)
        self.sites = {name: module for name, module in model.named_modules() if name in plan.rates}

    def epoch(self, number: int, step: int) -> Row:
        """Train one epoch, counted from 1, that begins at an optimizer step counted from 0; then score all parts."""
        start = time.perf_counter()
        train = self.parts["train"]
        order = torch.from_numpy(epoch_order(len(train.x), self.plan.seed, number)).to(self.fabric.device)
        score = self._score("train")
        self.model.train()
        for batch in order.split(self.plan.choices.settings.batch_size):
            self._set_rates(step)
            x, y = train.x[batch], train.y[batch]
            self.optimizer.zero_grad()
            logits = self.model(x)
            loss = functional.cross_entropy(logits, y)
            self.fabric.backward(loss)
            self.optimizer.step()
            score.add(loss, logits, y)
            step += 1
        row: Row = {"epoch": number, "step": step, **score.row()}
        for name, part in self.parts.items():
            if name != "train":
                row |= self._evaluate(name, part)
        rates = {f"rate_{site}": rate.at(step - 1) for site, rate in self.plan.rates.items()}
        return row | rates | {"seconds": round(time.perf_counter() - start, 4)}

    def _set_rates(self, step: int) -> None:
        for site, rate in self.plan.rates.items():
            self.sites[site].p = rate.at(step)

    @torch.no_grad()
    def _evaluate(self, name: str, part: Part) -> Row:
        self.model.eval()
        score = self._score(name)
        for chunk in part.chunks():
            logits = self.model(chunk.x)
            score.add(functional.cross_entropy(logits, chunk.y), logits, chunk.y)
        return score.row()

    def _score(self, name: str) -> Score:
        return Score(name, self.plan.choices.data.classes, self.fabric.device)


def _parts(choices: Choices, fabric: Fabric) -> dict[str, Part]:
    data, samples = choices.data, choices.train_samples
    kept, held = held_out(samples, choices.validation)
    parts = {
        "train": (data.train_x[:samples][kept], data.train_y[:samples][kept]),
        "train_eval": (data.train_x[:samples][kept][:EVALUATED], data.train_y[:samples][kept][:EVALUATED]),
        "validation": (data.train_x[:samples][held], data.train_y[:samples][held]),
        "test": (data.test_x[: choices.settings.test_samples], data.test_y[: choices.settings.test_samples]),
    }
    return {
        name: Part(*(fabric.to_device(torch.from_numpy(np.ascontiguousarray(array))) for array in part))
        for name, part in parts.items()
        if len(part[0])
    }


def run_plan(plan: Plan, folder: Path, *, resume: bool, on_epoch: Callable[[Plan, Row], None] | None = None) -> Run:
    """Train what a plan says, from where its folder stands."""
    started = open_folder(folder, plan.record(), resume=resume, may_grow=("epochs",))
    trainer, progress = Trainer(plan), Progress()
    state = folder / "state.safetensors"
    if started and state.exists():
        progress = load_state(state, trainer.module, trainer.optimizer)
    with _threads(plan.choices.settings.threads):
        for number in range(len(progress.rows) + 1, plan.choices.settings.epochs + 1):
            row = trainer.epoch(number, progress.step)
            progress.rows.append(row)
            progress.step = row["step"]
            _keep(trainer, progress, folder)
            if on_epoch is not None:
                on_epoch(plan, row)
    # Also after a resume that had nothing left to train: the run may have died between its state and these.
    write_rows(folder / "metrics.csv", progress.rows)
    run = Run(plan.record(), tuple(progress.rows), progress.best_epoch)
    write_json(folder / "result.json", _result(run))
    return run


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def epochs_done(folder: Path) -> int:
    """How many epochs a folder's run has behind it."""
    table = folder / "metrics.csv"
    return max(0, len(table.read_text().splitlines()) - 1) if table.is_file() else 0


def _keep(trainer: Trainer, progress: Progress, folder: Path) -> None:
    """Write the checkpoint where this epoch is the best, then the state, then the rows for reading."""
    row = progress.rows[-1]
    loss = row.get("validation_loss")
    best = progress.best_loss
    # A first loss that is not a number must not stay the best.
    if loss is None or best is None or math.isnan(best) or loss < best:
        progress.best_epoch, progress.best_loss = row["epoch"], loss
        save_weights(
            folder / "checkpoint.safetensors", trainer.module, {"config": trainer.plan.record(), "epoch": row["epoch"]}
        )
    save_state(folder / "state.safetensors", trainer.module, trainer.optimizer, progress)
    write_rows(folder / "metrics.csv", progress.rows)


def _result(run: Run) -> dict[str, Any]:
    chosen = "lowest validation loss" if run.config["validation"] else "last epoch: no validation part was held out"
    return {
        "strategy": run.config["strategy"],
        "seed": run.config["seed"],
        "checkpoint": {"epoch": run.best_epoch, "chosen_by": chosen, **run.rows[run.best_epoch - 1]},
        "last": run.rows[-1],
        "seconds": round(sum(row["seconds"] for row in run.rows), 4),
    }
