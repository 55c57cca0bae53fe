"""Acquisition functions: by hand, and against sums over every label of every input."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from dropkit.errors import DropkitValueError
from dropkit.uncertainty import bald, batch_bald, epig, max_entropy, variation_ratio
from dropkit.uncertainty.acquiring.joint import Joint

from .drawn import Result, passes


def joint_entropy(p: np.ndarray, batch: list[int]) -> float:
    """Over every configuration of labels, by loops."""
    total = 0.0
    for labels in itertools.product(range(p.shape[2]), repeat=len(batch)):
        likely = np.mean([math.prod(one[i, y] for i, y in zip(batch, labels, strict=True)) for one in p])
        total -= likely * math.log(likely) if likely > 0 else 0.0
    return total


def information(p: np.ndarray, batch: list[int]) -> float:
    return joint_entropy(p, batch) - sum(np.mean([entropy(one[i]) for one in p]) for i in batch)


def test_scores_by_definition() -> None:
    p = passes(7, 5, 4)
    assert max_entropy(p) == pytest.approx([entropy(p[:, i].mean(0)) for i in range(5)], rel=1e-12)
    assert bald(p) == pytest.approx([information(p, [i]) for i in range(5)], abs=1e-12)
    votes = [np.bincount(p[:, i].argmax(1), minlength=4).max() / 7 for i in range(5)]
    assert variation_ratio(p) == pytest.approx([1 - vote for vote in votes], abs=1e-15)


def test_scores_by_hand() -> None:
    p = np.array([[[1.0, 0.0], [0.5, 0.5], [0.9, 0.1]], [[0.0, 1.0], [0.5, 0.5], [0.9, 0.1]]])
    assert max_entropy(p) == pytest.approx([math.log(2), math.log(2), entropy([0.9, 0.1])], abs=1e-15)
    assert bald(p).tolist() == [math.log(2), 0.0, 0.0]
    assert variation_ratio(p).tolist() == [0.5, 0.0, 0.0]


def test_equal_passes_know_nothing_of_each_other_exactly() -> None:
    """As with a rate of 0, whatever the rounding of their mean."""
    p = np.repeat(passes(1, 50, 7), 13, axis=0)
    assert (bald(p) == 0).all()
    assert (variation_ratio(p) == 0).all()


def test_frameworks_and_results_do() -> None:
    p = passes(4, 3, 2)
    for given in (torch.tensor(p, requires_grad=True), Result(p.mean(0), samples=torch.tensor(p))):
        assert bald(given).tolist() == bald(p).tolist()
        assert batch_bald(given, 2).chosen.tolist() == batch_bald(p, 2).chosen.tolist()
        assert epig(given, given).tolist() == epig(p, p).tolist()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_batch_bald_is_greedy_over_the_exact_joint_entropy(classes: int, seed: int) -> None:
    p = passes(4, 6, classes, seed)
    batch: list[int] = []
    found = batch_bald(p, 4)
    for position in range(4):
        scores = {i: information(p, [*batch, i]) for i in range(6) if i not in batch}
        best = max(scores, key=scores.__getitem__)
        assert found.chosen[position] == best
        assert found.scores[position] == pytest.approx(scores[best], abs=1e-12)
        batch.append(best)
    assert found.sampled == 0
    assert found.scores[0] == pytest.approx(bald(p).max(), abs=1e-12)


def test_twins_are_not_both_chosen() -> None:
    base = passes(10, 6, 3, seed=2)
    p = np.concatenate([base, base[:, :1]], axis=1)
    p[:, [0, 6]] = np.eye(3)[np.arange(10) % 3][:, None]  # what pass it is decides
    assert set(np.argsort(-bald(p))[:2]) == {0, 6}
    chosen = batch_bald(p, 2).chosen.tolist()
    assert chosen[0] == 0 and chosen[1] != 6


def test_sampled_information_is_right_on_average() -> None:
    """Independent draws: the mean over 25 seeds within 4.5 of its standard errors, for each input."""
    p = passes(5, 6, 3, seed=3)
    batch = [0, 1, 2, 3]
    exact = [information(p, [*batch, i]) for i in range(6)]
    found = []
    for seed in range(25):
        joint = Joint(p, 60, seed)
        for i in batch:
            joint.add(i)
        assert joint.sampled and joint.posterior.shape == (60, 5)
        found.append(joint.with_each())
    error = np.std(found, axis=0, ddof=1) / math.sqrt(25)
    assert (abs(np.mean(found, axis=0) - exact) < 4.5 * error).all()
    assert (error < 0.05).all()


def test_many_samples_come_near_and_repeat() -> None:
    p = passes(5, 8, 3, seed=4)
    exact, near = batch_bald(p, 5), batch_bald(p, 5, configurations=50)
    assert (exact.sampled, near.sampled) == (0, 1)
    assert near.scores == pytest.approx(exact.scores, abs=0.1)
    assert near.scores.tolist() == batch_bald(p, 5, configurations=50).scores.tolist()
    assert near.scores[-1] != batch_bald(p, 5, configurations=50, seed=1).scores[-1]


def test_long_batches_do_not_underflow() -> None:
    """400 labels have a probability of some 1e-400 together."""
    p = passes(6, 410, 10, seed=5, spread=0.2)
    found = batch_bald(p, 400, configurations=12)
    assert np.isfinite(found.scores).all() and len(set(found.chosen.tolist())) == 400
    assert 0.98 * math.log(6) < found.scores[-1] < math.log(6) + 1e-12  # which pass it is, and no more


def test_zeros_and_what_is_barred() -> None:
    p = np.eye(3)[np.arange(6) % 3][:, None].repeat(4, axis=1)
    found = batch_bald(p, 2, without=[0, 1])
    assert found.chosen.tolist() == [2, 3]
    assert found.scores == pytest.approx([math.log(3)] * 2, abs=1e-12)
    assert batch_bald(p, 3, configurations=6).scores == pytest.approx([math.log(3)] * 3, abs=1e-12)


def test_epig_is_the_mean_information_of_pairs() -> None:
    both = passes(6, 9, 3, seed=6)
    pool, targets = both[:, :5], both[:, 5:]
    expected = [
        np.mean(
            [
                entropy(both[:, i].mean(0)) + entropy(both[:, j].mean(0)) - joint_entropy(both, [i, j])
                for j in range(5, 9)
            ]
        )
        for i in range(5)
    ]
    assert epig(pool, targets) == pytest.approx(expected, abs=1e-12)
    assert (epig(pool, targets) <= bald(pool) + 1e-12).all()


def test_epig_and_joint_entropies_go_through_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    p = passes(6, 20, 3, seed=7)
    whole = epig(p, p), batch_bald(p, 4)
    monkeypatch.setattr("dropkit.uncertainty.acquiring.joint.BLOCK", 200)
    assert epig(p, p) == pytest.approx(whole[0], abs=1e-14)
    assert batch_bald(p, 4).scores == pytest.approx(whole[1].scores, abs=1e-12)


def test_epig_leaves_what_no_target_depends_on() -> None:
    """An input that tells passes apart which say the same of all targets is worth nothing, though BALD wants it."""
    which = np.array([[1.0, 0.0], [0.0, 1.0]] * 2)
    same = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    pool = np.stack([which, same], axis=1)
    assert bald(pool)[0] > bald(pool)[1]
    pair = 2 * entropy([0.5, 0.5]) - joint_entropy(np.stack([same, same], axis=1), [0, 1])
    assert epig(pool, same[:, None]) == pytest.approx([0, pair], abs=1e-12)


REFUSED: list[tuple[Any, str]] = [
    (lambda: bald([[0.5, 0.5]]), r"probabilities must have shape \(passes, inputs, classes\), got \(1, 2\)"),
    (lambda: bald(np.full((2, 2, 2, 2), 0.5)), r"got \(2, 2, 2, 2\)"),
    (lambda: max_entropy([[[0.5, 0.6]]]), "sum to 1.1"),
    (lambda: variation_ratio([[[0.5, np.nan]]]), "probabilities must be finite numbers, got nan"),
    (lambda: bald(Result([[0.5, 0.5]])), "did not keep its samples"),
    (lambda: batch_bald([[[0.5, 0.5]]], 2), "size must be at most the 1 inputs there are, got 2"),
    (lambda: batch_bald([[[0.5, 0.5]]], 0), "size must be a whole number of at least 1, got 0"),
    (lambda: batch_bald([[[0.5, 0.5]]] * 3, 1, configurations=2), "at least the 3 passes, got 2"),
    (lambda: batch_bald([[[0.5, 0.5]]], 1, without=[1]), r"without must name inputs by numbers 0 to 0, got \[1\]"),
    (lambda: batch_bald(Result(0.5, samples=[[[0.5, 0.5]]], share="sample"), 1), "got share='sample'; predict with"),
    (lambda: epig([[[0.5, 0.5]]], [[[0.5, 0.5]]] * 2), "need the same passes, got 1 and 2"),
    (lambda: epig([[[0.5, 0.5]]], [[0.5, 0.5]]), "targets must have shape"),
]


@pytest.mark.parametrize(("call", "says"), REFUSED)
def test_bad_values_are_refused(call: Any, says: str) -> None:
    with pytest.raises(DropkitValueError, match=says):
        call()
