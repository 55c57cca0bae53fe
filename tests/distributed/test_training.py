"""A transformer trained on 1, 2 and 4 processes draws the masks of one process and reaches its losses."""

import pytest

from .conftest import RANKS
from .launch import Report, result
from .transformer import BATCH, HEADS, TIME, TOLERANCE, WIDTH

PER_STEP = BATCH * (TIME * WIDTH + 2 * (HEADS * TIME * TIME + 2 * TIME * WIDTH + TIME * 4 * WIDTH))  # keep bits


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(
    "how", ["ddp", "ddp_bound_outside", "fsdp", "fsdp_bound_after", "tp", "tp_bound_after", "sp", "fsdp_and_tp"]
)
def test_masks_and_losses_are_those_of_one_process(reports: dict[int, Report], ranks: int, how: str) -> None:
    found = result(reports[ranks], how)
    assert len(found) == ranks
    steps = 4 if "bound" in how else 20
    assert all(rank["sites"] == 9 * steps for rank in found)
    assert all(rank["worst"] < TOLERANCE for rank in found)
    if "tp" not in how:  # every bit is on one rank; tensor parallelism alone has the residual stream on all
        assert sum(rank["bits"] for rank in found) == steps * PER_STEP


def test_resumed_on_other_numbers_of_ranks(reports: dict[int, Report]) -> None:
    for ranks, (first, last) in {4: (0, 10), 2: (10, 15), 1: (15, 20)}.items():
        found = result(reports[ranks], "resumed")
        assert all(rank["clock"] == [11, last] for rank in found)
        assert all(rank["worst"] < TOLERANCE for rank in found)
        assert sum(rank["bits"] for rank in found) == (last - first) * PER_STEP


@pytest.mark.parametrize("ranks", RANKS)
def test_the_comparison_can_fail(reports: dict[int, Report], ranks: int) -> None:
    assert result(reports[ranks], "told_wrongly") == ["agree"] + ["differ"] * (ranks - 1)
