"""Ambient draws: an accident is named once, a contradiction refused."""

import pytest

from .conftest import RANKS
from .launch import Report, result


@pytest.mark.parametrize("ranks", [4, 2])
def test_equal_seeds_warn_once(reports: dict[int, Report], ranks: int) -> None:
    found = result(reports[ranks], "same_seed")
    assert any(found)
    for texts in found:
        assert len(texts) <= 1
        for text in texts:
            assert text.startswith("ambient dropout draws the same masks on ranks ")
            assert "Bind the model with dropkit.torch.bind(model, seed)" in text
            assert "torch.manual_seed(seed + rank)" in text


@pytest.mark.parametrize("ranks", RANKS)
def test_seeds_of_their_own_and_one_process_do_not(reports: dict[int, Report], ranks: int) -> None:
    assert result(reports[ranks], "own_seeds") == [[]] * ranks
    assert result(reports[1], "same_seed") == [[]]


def test_two_of_several(reports: dict[int, Report]) -> None:
    found = result(reports[4], "some_alike")
    assert found[2] == found[3] == []
    assert any(found[:2])
    assert all("ranks 0 and 1" in text for texts in found[:2] for text in texts)


@pytest.mark.parametrize("ranks", RANKS)
def test_parts_of_one_tensor_draw_one_mask(reports: dict[int, Report], ranks: int) -> None:
    assert all(result(reports[ranks], "sharded_alike"))


@pytest.mark.parametrize("ranks", [4, 2])
def test_generators_that_contradict_each_other_are_refused(reports: dict[int, Report], ranks: int) -> None:
    last = result(reports[ranks], "sharded_apart")[-1]
    assert last == (
        f"ranks 0 and {ranks - 1} hold parts of one tensor, but their generators differ, and so would their ambient "
        "masks: bind the model with dropkit.torch.bind(model, seed), or call torch.manual_seed with the same seed on "
        "these ranks"
    )
