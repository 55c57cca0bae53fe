"""Memory does not grow with the number of runs: scores lie on disk, and are read a seed at a time."""

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from dropkit.lab import compare
from dropkit.lab.own.chosen import Chosen

SAMPLES = 50_000  # of each run: 200 kB of scores on disk


def score(strategy: Chosen, seed: int) -> dict[str, np.ndarray]:
    return {"accuracy": np.random.default_rng(seed).random(SAMPLES) < 0.8 + strategy.p() / 100}


def peak(folder: Path, seeds: int) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        found = compare(run=score, strategies=["none", "fixed:0.5"], seeds=seeds, out=folder, resume=True)
        assert "test samples" in found.verdict[0]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_comparison_of_many_finished_runs_holds_the_scores_of_few(tmp_path: Path) -> None:
    compare(run=score, strategies=["none", "fixed:0.5"], seeds=20, out=tmp_path / "many")
    compare(run=score, strategies=["none", "fixed:0.5"], seeds=6, out=tmp_path / "few")
    few, many = peak(tmp_path / "few", 6), peak(tmp_path / "many", 20)
    # 28 runs more, whose scores would be 5.6 MB; a tenth of that is for their figures.
    assert many - few < 0.1 * 28 * 4 * SAMPLES, (few, many)
