"""ECE: by its definition, whatever the order of the samples, and in the rows of a torch classifier."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dropkit.lab import train
from dropkit.lab.engines.calibration import Calibration
from dropkit.uncertainty.judging.calibration import BINS, calibration_error


def by_definition(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    order = np.argsort(confidence)
    return sum(
        len(part) / len(order) * abs(right[part].mean() - confidence[part].mean())
        for part in np.array_split(order, bins)
    )


def test_it_is_the_sum_over_bins_of_equal_mass() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.1, 1, 1000)
    right = random.uniform(size=1000) < confidence**2
    found = calibration_error(confidence, right)
    assert found == pytest.approx(by_definition(confidence, right, BINS), abs=1e-12)
    assert 0.1 < found < 0.3
    assert found != pytest.approx(by_definition(confidence, right, 5), abs=1e-6)


def test_calibrated_confidences_have_a_small_error() -> None:
    """With n samples in a bin, |mean - p| is about sqrt(2 p (1 - p) / (pi n)), whose mean here is 0.009."""
    random = np.random.default_rng(1)
    confidence = random.uniform(0.1, 1, 30_000)
    assert calibration_error(confidence, random.uniform(size=30_000) < confidence) < 0.018


def test_the_order_of_samples_does_not_matter_not_even_among_equal_confidences() -> None:
    confidence = np.repeat([0.6, 0.9], 50)
    right = np.arange(100) % 3 > 0
    found = calibration_error(confidence, right)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(100)
        assert calibration_error(confidence[order], right[order]) == pytest.approx(found, abs=1e-12)


def test_few_samples_none_and_what_is_not_a_number() -> None:
    assert calibration_error([0.75], [True]) == 0.25
    assert math.isnan(calibration_error([], []))
    assert math.isnan(calibration_error([0.5, float("nan")], [True, True]))
    assert math.isnan(Calibration().error())


def test_batches_count_as_one_whole() -> None:
    logits = torch.randn(70, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(70) % 4
    whole, batches = Calibration(), Calibration()
    whole.add(logits, labels)
    for start in range(0, 70, 16):
        batches.add(logits[start : start + 16], labels[start : start + 16])
    assert batches.error() == whole.error()
    sure, found = logits.softmax(1).max(1)
    assert whole.error() == pytest.approx(
        by_definition(sure.double().numpy(), (found == labels).numpy(), BINS), abs=1e-9
    )


def test_a_torch_classifier_has_it_in_each_row(tmp_path: Path) -> None:
    run = train("mlp", size="tiny", epochs=1, device="cpu", out=tmp_path / "run")
    assert 0 < run.rows[0]["test_ece"] < 1
    assert "validation_ece" not in run.rows[0]
    assert "test_ece" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert ">Calibration<" in (tmp_path / "run" / "report.html").read_text()


def test_it_is_that_of_the_logits_of_the_whole_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    add = Calibration.add

    def spied(self: Calibration, logits: torch.Tensor, labels: torch.Tensor) -> None:
        seen.append((logits, labels))
        add(self, logits, labels)

    monkeypatch.setattr(Calibration, "add", spied)
    run = train("mlp", size="tiny", epochs=1, device="cpu", out=tmp_path / "run")
    logits, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    accuracy = float((logits.argmax(1) == labels).double().mean())
    assert accuracy == pytest.approx(run.rows[0]["test_accuracy"], abs=1e-6)
    whole = Calibration()
    add(whole, logits, labels)
    assert run.rows[0]["test_ece"] == whole.error()
