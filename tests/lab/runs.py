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
