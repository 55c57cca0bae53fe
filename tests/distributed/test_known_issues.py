"""Reports of others, by number: torch's dropout does what they say, ours does not."""

import pytest

from .launch import Report, result


@pytest.mark.parametrize("ranks", [4, 2])
def test_transformers_31412(reports: dict[int, Report], ranks: int) -> None:
    """One seed on all ranks of DistributedDataParallel: the ranks' samples share a mask."""
    found = result(reports[ranks], "transformers_31412")
    assert all(rank["theirs"] == found[0]["theirs"] for rank in found)
    assert len({tuple(rank["ours"]) for rank in found}) == ranks
    assert all(rank["ours"] == rank["slice"] for rank in found)


@pytest.mark.parametrize("ranks", [4, 2])
def test_accelerate_114(reports: dict[int, Report], ranks: int) -> None:
    """A data loader that synchronises generators undoes seeds of their own."""
    found = result(reports[ranks], "accelerate_114")
    assert all(rank["theirs"] == found[0]["theirs"] for rank in found)
    assert len({str(epoch) for rank in found for epoch in rank["ours"]}) == 2 * ranks


@pytest.mark.parametrize("ranks", [4, 2])
def test_pytorch_168058(reports: dict[int, Report], ranks: int) -> None:
    """The mask of a DTensor follows from how it is sharded and over how many ranks."""
    for rank in result(reports[ranks], "pytorch_168058"):
        assert rank["rows"]["theirs"] != rank["replicated"]["theirs"]
        assert rank["rows"]["theirs"] != rank["columns"]["theirs"]
        assert rank["rows"]["ours"] == rank["columns"]["ours"] == rank["replicated"]["ours"]
    one, several = (result(reports[n], "pytorch_168058")[0] for n in (1, ranks))
    assert one["rows"]["theirs"] != several["rows"]["theirs"]
    assert one["rows"]["ours"] == several["rows"]["ours"]


def test_tt_metal_55947(reports: dict[int, Report]) -> None:
    """With data and tensor parallelism, one seed for all shares masks between groups that have different samples."""
    found = result(reports[4], "tt_metal_55947")
    assert all(rank["theirs"] == found[0]["theirs"] for rank in found)
    assert found[0]["ours"] == found[1]["ours"] != found[2]["ours"] == found[3]["ours"]
