"""What the runs of a torch model showed, before it is put in rows."""

from dataclasses import dataclass

from torch import nn

from ...torch.finding.inventory import Site as Found
from .draws import Made
from .follow import Follower
from .measure import Run


@dataclass
class Seen:
    """What all runs showed."""

    model: nn.Module
    sites: list[Found]
    active: set[int]  # sites that drop in training
    off: Run
    again: Run  # off as well, from another state of the generators
    on: list[Run]  # the first with the backward that `follower` followed
    follower: Follower
    zeroed: list[list[str]]  # per site, the layers whose output it zeroes
    checked: dict[str, str]  # by name of the site
    now: dict[str, bool | None]
    batch: int | None  # samples in the run
    made: dict[int, Made]  # of random operations, by number of the site
    fast: set[str]  # sites that torch's fused encoder layer skips
