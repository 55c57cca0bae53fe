"""DTensors and tensor-parallel plans; what is asserted is in `slices`."""

import pytest

from . import slices
from .conftest import RANKS
from .launch import Report, result


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("check", slices.CHECKS, ids=lambda check: check.__name__)
def test_slices_of_the_whole_mask(reports: dict[int, Report], ranks: int, check: object) -> None:
    found = result(reports[ranks], check.__name__)  # type: ignore[attr-defined]
    only_on_two = check is slices.compiled and ranks != 2
    assert len(found) == ranks
    assert all(found) or only_on_two


def test_every_layout_was_met(reports: dict[int, Report]) -> None:
    assert {ranks: result(reports[ranks], "placements")[0] for ranks in RANKS} == {4: 40, 2: 20, 1: 20}
    assert {ranks: result(reports[ranks], "coordinates")[0] for ranks in RANKS} == {4: 8, 2: 4, 1: 4}
