"""Dropouts that a tensor-parallel plan leaves without a place; the plans are in `plans`."""

import re

import pytest

from .conftest import RANKS
from .launch import Report, result

TOLD = {
    "none named": ["attention.drop", "mlp.drop"],
    "one named": ["attention.drop"],
    "time": ["drop1", "drop2"],
    "a part": ["drop"],
    "by hand, local": ["drop"],
}
SILENT = {
    "all named", "time named", "by at", "no plan", "sharded parameters", "dtensors", "by hand, whole", "samples",
}  # fmt: skip


@pytest.mark.parametrize("ranks", [ranks for ranks in RANKS if ranks > 1])
def test_dropouts_of_parts_that_a_plan_does_not_name_are_told_of_once(reports: dict[int, Report], ranks: int) -> None:
    for found in result(reports[ranks], "unplaced"):
        assert set(found) == set(TOLD) | SILENT
        for name, texts in found.items():
            assert len(texts) == (name in TOLD), name
            for text in texts:
                assert re.findall(r"'([\w.]+)'", text) == TOLD[name]
                assert "ShardedDropout(dim) for the axis that is split, or SequenceParallel()" in text
