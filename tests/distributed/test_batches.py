"""Which samples a rank has; what is asserted is in `batches`."""

import pytest

from .conftest import RANKS
from .launch import Report, result


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("check", ["wrappers", "said_by_hand", "accumulation"])
def test_the_batch_of_a_rank(reports: dict[int, Report], ranks: int, check: str) -> None:
    assert all(result(reports[ranks], check))


def test_every_wrapper_was_met(reports: dict[int, Report]) -> None:
    assert len(result(reports[2], "wrappers")[0]) == 12


def test_a_mesh_of_two_axes(reports: dict[int, Report]) -> None:
    assert result(reports[4], "on_a_square") == [True] * 4


@pytest.mark.parametrize("ranks", RANKS)
def test_ranks_without_a_wrapper_are_warned_once(reports: dict[int, Report], ranks: int) -> None:
    for texts in result(reports[ranks], "later_wrapper"):
        assert texts == ([] if ranks == 1 else [WARNING.format(ranks=ranks)])


WARNING = (
    "a bound Net runs on {ranks} ranks, and nothing says which samples each has, so all draw the same masks: wrap it "
    "in DistributedDataParallel or fully_shard, pass bind(model, seed, data_parallel=group), or data_parallel=False "
    "where every rank has the whole batch; in a pipeline call dropkit.torch.pipelined(schedule)"
)


DIFFERENT = {  # and the step at which it is
    "the last batch": 2, "from the first": 0, "once": 1, "late": 20, "sharded": 1, "group": 1,
}  # fmt: skip
ALIKE = {"equal", "all smaller at the end of an epoch", "rows", "split", "whole", "replayed"}


@pytest.mark.parametrize("ranks", RANKS)
def test_batches_that_differ_in_size_are_told_of_once(reports: dict[int, Report], ranks: int) -> None:
    """At least one rank says it; nobody does where sizes change on all ranks alike, or where rows are given."""
    for found in result(reports[ranks], "sizes"):
        assert set(found) == set(DIFFERENT) | ALIKE
        for name, texts in found.items():
            said = [text for each in texts for text in each]
            assert bool(said) is (ranks > 1 and name in DIFFERENT), name
            assert all(len(each) <= 1 for each in texts), name
            for text in said:
                assert text.startswith(f"batches of a bound Net differ in size: at step {DIFFERENT[name]} rank "), name
                assert "at(rows=...), or give all ranks equal batches, with a DistributedSampler or drop_last" in text


def test_what_is_no_group_is_refused(reports: dict[int, Report]) -> None:
    first, second = result(reports[2], "refused")
    assert first[0] == "DropkitTypeError: need a ProcessGroup or a DeviceMesh, got 4"
    assert first[1] == "DropkitTypeError: need a ProcessGroup or a DeviceMesh, got 'no group'"
    assert second[1].startswith("Dropkit"), second
