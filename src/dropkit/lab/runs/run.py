"""One run, whatever engine trains it. Its numbers follow from its config: no generator of torch is used."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, runtime_checkable

import torch

from ...errors import DataError, DropkitValueError, OutputError
from ...language import say
from ..engines.checkpoint import Progress
from ..engines.loop import Row
from ..files import AGAIN, read_sealed_json, write_bytes, write_json, write_rows
from ..files.lock import locked
from ..files.sealed import SUM, UNSEALED, digest_of, read_sealed
from ..plan import Choices, Plan
from ..recipes.measures import CLASSIFICATION, Figures
from .events import Events
from .folder import open_folder
from .scores import SCORES, Scores, ScoresSamples, keep_scores, read_scores

OnEpoch = Callable[[Plan, Row], None]
STATE, CHECKPOINT = "state.safetensors", "checkpoint.safetensors"
PICTURES = "pictures"  # the folder of what a run draws


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its plan as plain values, one row an epoch, the epoch of its checkpoint, what a reader of its
    figures has to know, what the figures are, what it drew after each epoch, as PNG files, and its folder.

    >>> import tempfile
    >>> from dropkit.lab import train
    >>> run = train("numpy-mlp", size="tiny", epochs=1, out=tempfile.mkdtemp())
    >>> run.best_epoch, len(run.rows), run.config["seed"]
    (1, 1, 0)
    """

    config: dict[str, Any]
    rows: tuple[Row, ...]
    best_epoch: int
    remarks: tuple[str, ...] = ()
    figures: Figures = CLASSIFICATION
    pictures: tuple[Path, ...] = ()
    folder: Path | None = None

    def scores(self) -> Scores | None:
        """The compared figure of each test sample, mean of the last three epochs, read from the run's folder: what the
        table's figure is the mean of. None where that is no mean over samples, or an older version trained the run.
        """
        return None if self.folder is None else read_scores(self.folder)


class Trains(Protocol):
    """What an engine makes of a plan: it trains an epoch at a time."""

    def epoch(self, number: int, step: int) -> Row:
        """Train epoch `number`, which begins at an optimizer step; then score all parts."""

    def load(self, state: Path) -> Progress:
        """Go on from a saved state."""

    def save(self, state: Path, progress: Progress) -> None:
        """Write everything that the next epoch depends on."""

    def save_weights(self, path: Path, about: dict[str, Any]) -> None:
        """Write the weights."""


@runtime_checkable
class MakesPictures(Protocol):
    """A trainer whose model makes images."""

    remarks: tuple[str, ...]
    """What a reader of the figures has to know."""

    def picture(self) -> bytes:
        """What the model makes now, as a PNG file."""


def run_plan(
    plan: Plan, folder: Path, *, resume: bool, on_epoch: OnEpoch | None = None, tensorboard: bool = False
) -> Run:
    """Train what a plan says, from where its folder stands; no other process may write there meanwhile."""
    with locked(folder):
        return _run(plan, folder, resume, on_epoch, tensorboard)


def _run(plan: Plan, folder: Path, resume: bool, on_epoch: OnEpoch | None, tensorboard: bool) -> Run:
    started = open_folder(folder, plan.record(), resume=resume, may_grow=("epochs",))
    trainer: Trains = plan.choices.recipe.engine.start(plan)
    progress = _resumed(trainer, plan, folder) if started else Progress(run=_identity(plan))
    events = Events(folder / "tensorboard", done=len(progress.rows)) if tensorboard else nullcontext()
    with _threads(plan.choices.settings.threads), events as log:
        for number in range(len(progress.rows) + 1, plan.choices.settings.epochs + 1):
            row = trainer.epoch(number, progress.step)
            progress.rows.append(row)
            progress.step = row["step"]
            if isinstance(trainer, MakesPictures):  # before the state, so that an epoch that counts has its picture
                write_bytes(_pictures(folder) / _picture(number), trainer.picture())
            if isinstance(trainer, ScoresSamples):
                epochs, scores = plan.choices.settings.epochs, trainer.sample_scores()
                keep_scores(folder, progress.run, number, epochs, scores)
            _keep(trainer, plan, progress, folder)
            if log is not None:
                log.add(row)
            if on_epoch is not None:
                on_epoch(plan, row)
    return _finished(trainer, plan, progress, folder)


def _resumed(trainer: Trains, plan: Plan, folder: Path) -> Progress:
    """Where the folder's run stands; the trainer goes on from there."""
    state = folder / STATE
    if not state.exists():
        return Progress(run=_identity(plan))
    progress = trainer.load(state)
    if progress.run != _identity(plan):
        raise DataError(f"cannot resume from {state}: it belongs to another run; {AGAIN}")
    for name in (CHECKPOINT, SCORES):
        _check_tensors(folder / name)
    for row in progress.rows:  # what an older version did not measure cannot be measured any more
        for figure in plan.choices.recipe.figures.rows:
            row.setdefault(figure, math.nan)
    return progress


def _finished(trainer: Trains, plan: Plan, progress: Progress, folder: Path) -> Run:
    # Also after a resume that had nothing left to train: the run may have died between its state and these.
    write_rows(folder / "metrics.csv", progress.rows)
    run = Run(
        plan.record(),
        tuple(progress.rows),
        progress.best_epoch,
        (*_remarks(plan.choices, progress.rows), *(trainer.remarks if isinstance(trainer, MakesPictures) else ())),
        plan.choices.recipe.figures,
        _drawn(folder, len(progress.rows)),
        folder,
    )
    write_json(folder / "result.json", _result(run))
    return run


def _pictures(folder: Path) -> Path:
    place = folder / PICTURES
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {place}: {error.strerror or error}; {AGAIN}") from error
    return place


def _drawn(folder: Path, epochs: int) -> tuple[Path, ...]:
    paths = (folder / PICTURES / _picture(number) for number in range(1, epochs + 1))
    return tuple(path for path in paths if path.is_file())


def _picture(epoch: int) -> str:
    return f"epoch-{epoch:04d}.png"


def _identity(plan: Plan) -> str:
    """What a state must have been written for: everything but how long it is trained."""
    return digest_of({name: value for name, value in plan.record().items() if name != "epochs"})


def check_files(folder: Path) -> None:
    """Check that what a run would be resumed from is as it was written, before anything else is trained.

    Raises:
        DataError: a file is damaged; the message names it.
    """
    if (folder / "config.json").exists():
        read_sealed_json(folder / "config.json")
    for name in (STATE, CHECKPOINT, SCORES):
        _check_tensors(folder / name)


def _check_tensors(path: Path) -> None:
    if not path.exists():
        return
    try:
        if SUM not in read_sealed(path)[1]:
            raise DropkitValueError(UNSEALED)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot resume from {path}: {error}; {AGAIN}") from error


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def epochs_done(folder: Path) -> int:
    """How many epochs a folder's run has behind it, by its table: good enough for a bar, and nothing else is read."""
    table = folder / "metrics.csv"
    try:
        return max(0, table.read_bytes().count(b"\n") - 1) if table.is_file() else 0
    except OSError:
        return 0


def _remarks(choices: Choices, rows: list[Row]) -> tuple[str, ...]:
    """What was prepared before training, and what that saves: each sample that an epoch looks at, each time."""
    prepared = choices.prepared
    if prepared is None:
        return ()
    seconds = median(row["seconds"] for row in rows)
    seen = sum(len(index) for _, _, index in choices.parts().values())
    without = seconds + seen * prepared.seconds
    saved = say(
        "An epoch takes {seconds:.1f} s on them; they took {each:.0f} ms an image, and an epoch looks at {seen}, so "
        "that without them it would take about {without:.0f} s, {times:.0f} times as long.",
        seconds=seconds,
        each=1000 * prepared.seconds,
        seen=seen,
        without=without,
        times=without / seconds,
    )
    return (*prepared.remarks, saved)


def _keep(trainer: Trains, plan: Plan, progress: Progress, folder: Path) -> None:
    """Write the checkpoint where this epoch is the best, then the state, then the rows for reading."""
    row = progress.rows[-1]
    loss = row.get("validation_loss")
    best = progress.best_loss
    # A first loss that is not a number must not stay the best.
    if loss is None or best is None or math.isnan(best) or loss < best:
        progress.best_epoch, progress.best_loss = row["epoch"], loss
        trainer.save_weights(folder / CHECKPOINT, {"config": plan.record(), "epoch": row["epoch"]})
    trainer.save(folder / STATE, progress)
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
