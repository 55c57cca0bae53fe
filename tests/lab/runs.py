"""What tests of runs share: their figures without the clock's, and a way to interrupt them."""

from collections.abc import Callable
from typing import Any

from dropkit.lab import Run


def numbers(run: Run) -> list[dict[str, Any]]:
    """The rows without the one column that may differ."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.rows]


def stop_after(epochs: int) -> Callable[..., None]:
    """For `on_epoch`: Ctrl-C once that many epochs are done."""

    def stop(plan: Any, row: dict[str, Any]) -> None:
        if row["epoch"] == epochs:
            raise KeyboardInterrupt

    return stop


def run_of(*accuracies: float, loss: float = 0.5, train: float = 0.9, on: float = 0.8) -> Run:
    """A run of a classifier with these test accuracies, an epoch each."""
    rows = tuple(
        {
            "test_accuracy": accuracy,
            "test_loss": loss,
            "train_eval_accuracy": train,
            "train_eval_loss": 0.4,
            "train_accuracy": on,
            "train_loss": 0.6,
            "seconds": 2.0,
        }
        for accuracy in accuracies
    )
    return Run({}, rows, len(rows))
