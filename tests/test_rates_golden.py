"""Golden values of every schedule: against an independent slow reference, and the authors' arrays bit for bit."""

import json
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest

from dropkit.axes import rate
from dropkit.axes.rate import Early, Late, Schedule, linspace_in_depth

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rates.json").read_text())
ULP = 2.0**-52


def cosine(x: Decimal) -> Decimal:
    """cos(x) by its Taylor series at the context's precision."""
    term = total = Decimal(1)
    for n in range(1, 60):
        term *= -x * x / ((2 * n - 1) * (2 * n))
        total += term
    return total


PI = Decimal("3.14159265358979323846264338327950288419716939937510582097")


def reference(kind: str, a: dict[str, Decimal], t: int) -> Decimal:
    """The published formula of each schedule in decimal arithmetic, by keep probabilities where the papers do."""
    one, zero = Decimal(1), Decimal(0)
    match kind:
        case "Constant":
            return a["p"]
        case "Step":
            return max(a["floor"], a["start"] - (t // int(a["every"])) * a["drop"])
        case "Linear":
            return a["end"] if t >= a["steps"] else ((a["steps"] - t) * a["start"] + t * a["end"]) / a["steps"]
        case "Warmup":
            return a["p"] * min(one, t / a["steps"])
        case "Cosine":
            x = PI * min(one, t / a["steps"])
            return a["end"] + (a["start"] - a["end"]) * (1 + cosine(x)) / 2
        case "Exponential":
            return a["end"] + (a["start"] - a["end"]) * (-a["gamma"] * t).exp()
        case "VShape":
            if t < a["turn"]:
                return a["start"] * (1 - t / a["turn"])
            return a["end"] * min(one, (t - a["turn"]) / (a["steps"] - a["turn"]))
        case "Cyclic":
            x = (t % int(a["period"])) / a["period"]
            return a["low"] + (a["high"] - a["low"]) * (1 - abs(2 * x - 1))
        case "Early":
            return a["p"] * (1 - t / (a["steps"] - 1)) if t < a["steps"] else zero
        case "Late":
            return a["p"] if t >= a["start"] else zero
        case "Curriculum":
            kept = 1 - a["p"]
            return 1 - ((1 - kept) * (-a["gamma"] * t).exp() + kept)
        case "AntiCurriculum":
            kept = 1 - a["p"]
            return 1 - (1 - (1 - kept) * (-a["gamma"] * t).exp())
        case "Annealed":
            return a["p"] * max(zero, 1 - t / a["steps"])
        case "ProgressiveLayerDrop":
            return 1 - ((1 - a["theta"]) * (-a["gamma"] * t).exp() + a["theta"])
        case "FlatCos":
            return a["p"] * (1 + cosine(PI * (max(one, 2 * min(one, t / a["steps"])) - 1))) / 2
        case "ExpM4t":
            return a["p"] * (-4 * min(one, t / a["steps"])).exp()
        case "LayerSkip":
            return a["p"] * ((min(one, t / (a["steps"] - 1)) * Decimal(2).ln()).exp() - 1)
    raise AssertionError(kind)


@pytest.mark.parametrize("case", GOLDEN["formulas"], ids=lambda case: case["rate"])
def test_golden_values_are_those_of_the_formula(case: dict) -> None:
    with localcontext(prec=50):
        arguments = {name: Decimal(str(value)) for name, value in case["arguments"].items()}
        exact = {step: float(reference(case["rate"], arguments, int(step))) for step in case["values"]}
    assert case["values"] == exact


@pytest.mark.parametrize("case", GOLDEN["formulas"], ids=lambda case: case["rate"])
def test_schedules_have_the_golden_values(case: dict) -> None:
    schedule = getattr(rate, case["rate"])(**case["arguments"])
    for step, value in case["values"].items():
        assert abs(schedule.at(int(step)) - value) <= ULP, (schedule, step)


def test_every_schedule_has_golden_values() -> None:
    named = {name for name, value in vars(rate).items() if isinstance(value, type) and issubclass(value, Schedule)}
    by_hand = {"Schedule", "From", "Then", "Clip", "Scale", "Piecewise"}
    assert {case["rate"] for case in GOLDEN["formulas"]} == named - by_hand


@pytest.mark.parametrize("case", GOLDEN["liu_2023"], ids=lambda case: case["variant"])
def test_early_and_late_are_the_arrays_of_the_authors(case: dict) -> None:
    """Table T8's schedules: 300 epochs of 1,281,167 // 4096 steps, cut after 50; equal at every step, bit for bit."""
    cut, total, p = 50 * case["steps_per_epoch"], 300 * case["steps_per_epoch"], case["p"]
    if case["mode"] == "late":
        published, schedule = np.r_[np.zeros(cut), np.full(total - cut, p)], Late(p, start=cut)
    else:
        ramp = np.linspace(p, 0, cut) if case["schedule"] == "linear" else np.full(cut, p)
        published, schedule = np.r_[ramp, np.zeros(total - cut)], Early(p, steps=cut, mode=case["schedule"])
    assert case["steps_per_epoch"] == 1_281_167 // 4096
    assert np.array_equal([schedule.at(step) for step in range(total)], published)
    assert {step: schedule.at(int(step)) for step in case["values"]} == case["values"]
    if "depth" in case:
        spread = linspace_in_depth(schedule, case["depth"])
        assert np.allclose([r.at(100) for r in spread], np.linspace(0, published[100], case["depth"]), rtol=0, atol=ULP)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 49, 1000])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.7, 1.0])
def test_early_is_linspace_for_any_length(p: float, steps: int) -> None:
    assert [Early(p, steps).at(t) for t in range(steps)] == np.linspace(p, 0, steps).tolist()


def test_early_and_late_without_early_steps() -> None:
    assert Early(0.5, steps=0).at(0) == 0.0
    assert Late(0.5, start=0).at(0) == 0.5


def write_goldens(path: Path) -> None:
    """Write the golden file again from the reference; cases and steps are those already in it."""
    with localcontext(prec=50):
        for case in GOLDEN["formulas"]:
            arguments = {name: Decimal(str(value)) for name, value in case["arguments"].items()}
            case["values"] = {step: float(reference(case["rate"], arguments, int(step))) for step in case["values"]}
    for case in GOLDEN["liu_2023"]:
        cut = 50 * case["steps_per_epoch"]
        early = np.linspace(case["p"], 0, cut) if case["schedule"] == "linear" else np.full(cut, case["p"])
        first, last = (np.zeros(cut), case["p"]) if case["mode"] == "late" else (early, 0.0)
        case["values"] = {t: float(first[int(t)]) if int(t) < cut else last for t in case["values"]}
    path.write_text(json.dumps(GOLDEN, indent=1) + "\n")


if __name__ == "__main__":
    write_goldens(Path(__file__).parent / "golden" / "rates.json")
