"""Rates that are learned on several processes move as those of one process with the whole batch."""

import pytest

from .conftest import RANKS
from .launch import Report, result


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("check", ["antithetic_ddp", "antithetic_group", "antithetic_sharded", "hypergradient"])
def test_rate_gradients_made_outside_backward_are_the_mean_of_all_ranks(
    reports: dict[int, Report], ranks: int, check: str
) -> None:
    """What was compared with one process on each rank; the numbers come out alike on all of them (G2)."""
    found = result(reports[ranks], check)
    assert found == [found[0]] * ranks
    if check == "antithetic_ddp" and ranks == 2:
        assert found[0][0] == pytest.approx(0.031109, abs=1e-6)


@pytest.mark.parametrize("ranks", [2, 4])
def test_no_sync_keeps_the_rate_gradient_of_each_rank(reports: dict[int, Report], ranks: int) -> None:
    assert len(set(result(reports[ranks], "antithetic_no_sync"))) == ranks


@pytest.mark.parametrize("ranks", [2, 4])
def test_wrappers_whose_reduction_cannot_be_joined_are_refused(reports: dict[int, Report], ranks: int) -> None:
    for texts in result(reports[ranks], "refused_wrappers"):
        assert "hypergradient_backward cannot differentiate through the updates of sharded parameters" in texts[0]
        assert "under FullyShardedDataParallel, the older class: use fully_shard or" in texts[1]


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("check", ["sharded_regularizer", "sharded_steps"])
def test_rates_of_any_shape_learn_under_fully_shard(reports: dict[int, Report], ranks: int, check: str) -> None:
    """One rate for a site or one for each unit; the layer that it weighs in another shard; mixed precision (G10)."""
    assert result(reports[ranks], check) == [True] * ranks
