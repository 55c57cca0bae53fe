"""Attention over a context that several processes hold; what is asserted is in `rings`."""

import pytest

from . import rings
from .conftest import RANKS
from .launch import Report, result


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("check", rings.CHECKS, ids=lambda check: check.__name__)
def test_parts_of_a_context_are_the_whole(reports: dict[int, Report], ranks: int, check: object) -> None:
    assert result(reports[ranks], check.__name__) == [len(rings.CASES)] * ranks  # type: ignore[attr-defined]
