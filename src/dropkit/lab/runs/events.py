"""TensorBoard event files, for those who watch there; `metrics.csv` holds the same numbers."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...errors import DropkitValueError

MODULE = "torch.utils.tensorboard"


def require() -> Any:
    """The module that writes event files.

    Raises:
        DropkitValueError: the package tensorboard is not installed.
    """
    try:
        return import_module(MODULE)
    except ImportError as error:
        raise DropkitValueError(
            f"--tensorboard needs the package tensorboard ({error}): pip install tensorboard, or leave it out; "
            "metrics.csv holds the same numbers"
        ) from None


class Events:
    """A run's rows as event files: each figure a scalar over epochs, rates under `rate/`.

    Args:
        folder: for the event files.
        done: epochs behind the run; what an earlier, killed process wrote after them is not shown any more.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self.folder, self.done = folder, done

    def __enter__(self) -> Self:
        self.writer = require().SummaryWriter(str(self.folder), purge_step=self.done + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write an epoch's row."""
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(_tag(name), value, row["epoch"])
        self.writer.flush()


def _tag(name: str) -> str:
    """TensorBoard draws what shares a first part side by side.

    >>> _tag("rate_drop6"), _tag("train_eval_loss"), _tag("seconds")
    ('rate/drop6', 'loss/train_eval', 'seconds')
    """
    if name.startswith("rate_"):
        return name.replace("rate_", "rate/", 1)
    part, _, figure = name.rpartition("_")
    return f"{figure}/{part}" if part else name
