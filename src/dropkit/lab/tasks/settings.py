"""The settings of a task, as they stand in config.json."""

from dataclasses import dataclass, replace
from typing import Any

from ..recipes.recipe import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings(Settings):
    """The settings of a task.

    Args:
        kind, loss, metric: see `Objective`.
        framework: of the model.
        schedule: of the learning rate.
        sites, insert: what the model's own dropouts are, and which are put into it, as written.
        variant: the kind of dropout that a strategy puts in the place of each, "" for what is there.
        places: the pattern of the sites that a strategy is limited to, "" for all.
        literal: whether dropouts that no rate reaches are "left" or "off".
        model: a sum over the names and the shapes of its weights.
    """

    kind: str
    loss: str
    metric: str
    framework: str
    hidden: tuple[int, ...] = ()
    schedule: str = "constant"
    sites: tuple[str, ...] = ()
    insert: tuple[str, ...] = ()
    variant: str = ""
    places: str = ""
    literal: str = "left"
    model: str = ""

    def limited(self, places: str) -> "TaskSettings":
        """The same for sites that match."""
        return replace(self, places=places)

    def record(self) -> dict[str, Any]:
        """As plain values; a schedule that goes over the whole run says over how many epochs, so that they stay."""
        found = Settings.record(self)
        return found if self.schedule == "constant" else {**found, "schedule_epochs": self.epochs}
