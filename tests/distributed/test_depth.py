"""Layers that are left out, on 1, 2 and 4 processes: all decide alike, and reach what one process reaches."""

import pytest

from .conftest import RANKS
from .launch import Report, result


@pytest.mark.parametrize("ranks", RANKS)
def test_ranks_leave_out_the_same_layers(reports: dict[int, Report], ranks: int) -> None:
    found = result(reports[ranks], "layers_left_out")
    assert all(rank["runs"] == found[0]["runs"] for rank in found)
    assert 0 < sum(found[0]["runs"]) < 30
    assert all(rank["worst"] < 1e-5 for rank in found)
