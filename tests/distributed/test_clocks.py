"""Which step a rank is at; what is done to its clock is in `clocks`."""

import pytest

from .conftest import RANKS
from .launch import Report, result


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize(
    ("check", "steps"),
    [
        ("follows_a_broadcast", [[2, 3], [3, 4]]),
        ("follows_any_writer", [3, 6, 9]),
        ("a_redirected_forward_counts_once", [0, 1, 2]),
        ("bound_before_it_has_memory", [0, 1]),
    ],
)
def test_all_ranks_draw_one_step(reports: dict[int, Report], ranks: int, check: str, steps: list) -> None:
    assert result(reports[ranks], check) == [steps] * ranks
