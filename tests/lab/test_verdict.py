"""What a verdict says, and what it must not: the answer in one line, its interval, all pairs, outlying seeds."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dropkit.lab.recipes import get
from dropkit.lab.recipes.measures import CLASSIFICATION
from dropkit.lab.telling.pairs import Status, judged
from dropkit.lab.telling.table import Line, lines, table_rows
from dropkit.lab.telling.verdict import verdict

from .runs import run_of as run

NONE = [0.50, 0.60, 0.55, 0.52, 0.58]
CLEAR = [0.70, 0.81, 0.74, 0.73, 0.78]
CLOSE = [0.51, 0.59, 0.57, 0.51, 0.59]


def of(accuracies: dict[str, Sequence[float]], looked: bool = False) -> tuple[Line, ...]:
    return lines({name: [run(a) for a in seeds] for name, seeds in accuracies.items()}, looked)


def words(margin: float | None = None, looked: bool = False, **accuracies: Sequence[float]) -> str:
    return "\n".join(verdict(of(accuracies, looked), "toys", margin))


def scored(accuracy: NDArray, seeds: int, rng: np.random.Generator, **more: NDArray) -> tuple[Line, ...]:
    """Lines whose samples score 0 or 1 with these probabilities under each strategy."""
    found = []
    for name, chance in {"none": accuracy, **more}.items():
        tables = [(rng.random(len(chance)) < chance).astype(np.float32) for _ in range(seeds)]
        reads: list[Callable[[], NDArray]] = [lambda table=table: table for table in tables]
        (line,) = lines({name: [run(float(table.mean())) for table in tables]})
        found.append(replace(line, scores=tuple(reads)))
    return tuple(found)


def test_the_answer_is_one_line_in_percent_points() -> None:
    text = words(none=NONE, **{"fixed:0.3": CLEAR})
    assert text.splitlines()[0] == (
        "Dropout 0.3 helps on toys: +20.2 points of test accuracy (19.2 to 21.2, 95 %), over 5 seeds."
    )
    assert "One pair is compared" in text and "too few" not in text


def test_what_hurts_is_said_to_hurt() -> None:
    assert words(none=CLEAR, fixed=NONE).startswith("Dropout (fixed) hurts on toys: -20.2 points of test accuracy (")
    text = words(none=CLEAR, fixed=NONE, step=[0.3, 0.41, 0.34, 0.33, 0.38])
    assert text.startswith("Nothing helps on toys: even the best, dropout (fixed), hurts, -20.2 points")
    assert "\nstep hurts: -40.0 points (" in text


def test_what_is_not_settled_says_what_would_settle_it_and_never_to_look_again() -> None:
    text = words(none=NONE, fixed=CLOSE)
    assert text.startswith(
        "Not settled on toys: dropout (fixed) against no dropout, +0.4 points of test accuracy (-1.3"
    )
    assert "--until-settled with --resume adds seeds until it is." in text.splitlines()[0]
    assert "helps" not in text and "hurts" not in text
    low, high = map(int, re.search(r"A new comparison with (\d+) to (\d+) seeds would show", text).groups())
    assert 5 < low < high
    assert "--seeds" not in text


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_below_five_seeds_nothing_is_a_difference(seeds: int) -> None:
    text = words(none=NONE[:seeds], fixed=CLEAR[:seeds], step=CLOSE[:seeds], margin=0.5)
    assert text.startswith(f"{seeds} seeds are too few to say on toys: dropout (fixed) against no dropout, +2")
    assert "So far: step against no dropout " in text and "helps" not in text and "Nothing is called" in text
    statuses = {pair.status for pair in judged(of({"none": NONE[:seeds], "fixed": CLEAR[:seeds]}), 0.5).told}
    assert statuses == {Status.OPEN}


def test_one_seed_and_one_strategy_claim_nothing() -> None:
    text = words(none=[0.5], fixed=[0.6])
    assert text.startswith("One seed is too few to say on toys: dropout (fixed) against no dropout, +10.0 points")
    assert "One strategy alone says nothing" in words(fixed=[0.5, 0.6])
    assert "with one seed, so without an interval" in words(fixed=[0.5])


def test_a_difference_within_the_margin_counts_as_none() -> None:
    near = [value + tiny for value, tiny in zip(NONE, (0.001, -0.001, 0.002, 0.0, 0.001), strict=True)]
    text = words(0.005, none=NONE, fixed=near)
    start = "No difference larger than 0.5 points of test accuracy on toys: dropout (fixed) against no dropout, +0.1"
    assert text.startswith(start)
    assert "is held to the same, by itself" in text
    assert words(0.001, none=NONE, fixed=near).startswith("Not settled")
    assert words(0.005, none=NONE, fixed=near, step=near).startswith(
        "Nothing helps by more than 0.5 points of test acc"
    )
    better = [value + 0.004 + tiny for value, tiny in zip(NONE, (1e-4, 0, -1e-4, 0, 1e-4), strict=True)]
    assert words(0.01, none=NONE, fixed=better).startswith("No difference larger than 1.0 points")
    assert words(none=NONE, fixed=better).startswith("Dropout (fixed) helps")


def test_all_pairs_count() -> None:
    # p is 0.03 or so: a find by itself, none among three pairs.
    weak = [value + d for value, d in zip(NONE, (0.02, 0.01, 0.05, 0.03, 0.01), strict=True)]
    assert words(none=NONE, fixed=weak).startswith("Dropout (fixed) helps")
    text = words(none=NONE, fixed=weak, step=CLOSE)
    assert text.startswith("Not settled on toys: dropout (fixed)") and "All 3 pairs count" in text
    pairs = judged(of({"none": NONE, "fixed": weak, "step": CLOSE}))
    assert [pair.p for pair in pairs.told] == pytest.approx(
        [3 * pairs.told[0].difference.p, *(p.p for p in pairs.told[1:])]
    )


def test_what_excludes_zero_by_itself_alone_is_told_as_such() -> None:
    weak = [value + d for value, d in zip(NONE, (0.02, 0.01, 0.05, 0.03, 0.01), strict=True)]
    text = words(
        none=NONE, step=[value + 0.03 + d for value, d in zip(NONE, (0, 1e-3, 2e-3, 0, 0), strict=True)], fixed=weak
    )
    assert text.startswith("Dropout (step) helps on toys")
    assert "excludes 0 by itself, but among all pairs that may be chance." in text or "Dropout (fixed) helps" in text


def test_the_best_that_helps_is_named_even_if_another_has_the_better_mean() -> None:
    wild = [value + d for value, d in zip(NONE, (0.6, -0.3, 0.5, -0.2, 0.5), strict=True)]
    text = words(none=NONE, fixed=CLEAR, step=wild)
    assert text.startswith("Dropout (fixed) helps on toys")
    assert "step against no dropout is not settled: +22.0 points (" in text


def test_without_no_dropout_the_best_is_held_against_the_others() -> None:
    assert words(fixed=NONE, step=CLEAR).startswith(
        "Dropout (step) is best on toys: against dropout (fixed), the next, +20.2 points"
    )
    assert words(fixed=NONE, step=CLOSE).startswith(
        "Not settled on toys: dropout (step) against dropout (fixed), +0.4 points"
    )
    assert words(fixed=NONE, step=NONE).startswith("No difference at all on toys: ")


def test_what_does_not_vary_is_said_to_be_the_same_in_every_seed() -> None:
    assert words(none=NONE, fixed=NONE).startswith(
        "No difference at all on toys: dropout (fixed) scores as no dropout in every seed, over 5 seeds."
    )
    text = words(none=[0.3, 0.9, 0.8, 0.1, 0.2], fixed=[0.4, 1.0, 0.9, 0.2, 0.3])
    assert text.startswith(
        "Dropout (fixed) helps on toys: +10.0 points of test accuracy, the same in every seed, over 5"
    )


def test_lower_figures_without_proportions_are_told_as_they_are() -> None:
    kind = replace(CLASSIFICATION, compared="test_loss", title="test loss", lower_is_better=True, proportion=False)
    losses = {"none": [0.50, 0.60, 0.55, 0.52, 0.58], "fixed": [0.40, 0.51, 0.44, 0.43, 0.48]}
    found = lines({name: [replace(run(0.5, loss=x), figures=kind) for x in every] for name, every in losses.items()})
    assert (
        verdict(found, "toys")[0]
        == "Dropout (fixed) helps on toys: test loss -0.098 (-0.108 to -0.088, 95 %), over 5 seeds."
    )
    assert verdict(found, "toys", 0.2)[0].startswith("No difference larger than 0.2 of test loss on toys")
    assert not get("gan").figures.proportion


def test_an_end_near_zero_keeps_its_side() -> None:
    by = np.array([0.004, 0.012, 0.002, 0.009, 0.003])
    text = words(none=NONE, fixed=(np.array(NONE) + by * 0.9).tolist())
    low, high = map(float, re.search(r"\((-?[\d.]+) to (-?[\d.]+), 95 %\)", text).groups())
    assert low != 0 and high != 0


def test_a_seed_that_stands_apart_is_named_with_the_answer_without_it() -> None:
    by = [0.020, 0.022, 0.021, -0.30, 0.019, 0.020]
    text = words(none=[*NONE, 0.5], fixed=[value + d for value, d in zip([*NONE, 0.5], by, strict=True)])
    assert text.startswith("Not settled")
    assert (
        "Seed 3 stands apart from the others in dropout (fixed) against no dropout; without it the difference is "
        "+2.0 points (1.9 to 2.2). It is left in."
    ) in text
    assert "stands apart" not in words(none=NONE, fixed=CLEAR)


def test_the_interval_says_what_it_is_about() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(500)
    found = scored(hard, 8, rng, fixed=np.clip(hard + 0.1, 0, 1))
    text = verdict(found, "toys")
    assert text[0].endswith("over 8 seeds and these 500 test samples.")
    assert "The interval is about these test samples, for other seeds. For new test samples too it is " in text[1]
    table = judged(found).main.table
    assert table.samples == 500 and table.mean == pytest.approx(judged(found).main.difference.mean, abs=1e-6)
    assert "There is no score for each test sample" in words(none=NONE, fixed=CLEAR)


def test_a_few_hard_samples_dominate_and_are_said_to() -> None:
    rng = np.random.default_rng(1)
    one, other = (rng.random(60) < 0.5).astype(float), (rng.random(60) < 0.9).astype(float)
    text = "\n".join(verdict(scored(one, 6, rng, fixed=other * 0.98), "toys"))
    assert re.search(r"\d\d % of its variance comes from the samples, so a larger test set would narrow it", text)
    assert "which excludes 0" in text or "which includes 0" in text


def test_without_the_scores_of_every_run_nothing_is_said_of_new_samples() -> None:
    found = scored(np.full(50, 0.5), 5, np.random.default_rng(3), fixed=np.full(50, 0.6))
    for lacking in (
        (),
        (lambda: None,) * 5,
        (lambda: np.zeros(49, np.float32),) * 5,
        (lambda: np.full(50, np.nan),) * 5,
    ):
        text = verdict((found[0], replace(found[1], scores=lacking)), "toys")
        assert "There is no score for each test sample" in text[1]


def test_scores_of_pairs_that_are_not_told_are_not_read() -> None:
    rng = np.random.default_rng(4)
    reads = []

    def read() -> NDArray:
        reads.append(1)
        return rng.random(9).astype(np.float32)

    names = ("none", "fixed", "step", "gap", "concrete", "disarm")
    found = of({name: [0.5 + rng.random() / 9 for _ in range(5)] for name in names})
    pairs = judged([replace(line, scores=(read,) * 5) for line in found])
    assert len(pairs.found) == 15 and len(reads) == 2 * 5 * len(pairs.told) <= 2 * 5 * 9
    assert all(pair.table is not None for pair in pairs.told)


def test_pairs_turn_around() -> None:
    rng = np.random.default_rng(2)
    found = scored(rng.random(50), 5, rng, fixed=rng.random(50))
    pairs = judged(found)
    one, other = pairs.of(*found), pairs.of(*reversed(found))
    assert other.difference.mean == -one.difference.mean and other.table.mean == -one.table.mean
    assert other.values == tuple(-value for value in one.values) and other.p == one.p


def test_seeds_added_until_settled_have_intervals_for_every_look() -> None:
    text = words(0.005, looked=True, none=NONE, fixed=CLEAR)
    assert text.startswith(
        "Dropout (fixed) helps on toys: +20.2 points of test accuracy (18.2 to 22.2, 95 % at every look)"
    )
    assert "the interval holds at every look on the way" in text and "A new comparison" not in text
    text = words(0.005, looked=True, none=NONE, fixed=CLOSE)
    assert "the most that were allowed; a larger --max-seeds with --resume goes on." in text.splitlines()[0]
    assert not judged(of({"none": NONE, "fixed": CLOSE}, looked=True), 0.005).settled
    assert judged(of({"none": NONE, "fixed": CLEAR}, looked=True), 0.005).settled


def test_seeds_added_after_a_look_are_owned_up_to() -> None:
    text = verdict(of({"none": NONE, "fixed": CLEAR}), "toys", looks=[3])[-2]
    assert text.startswith("These runs were told before, with 3 seeds, and seeds were added since")


def test_runs_that_diverged_are_no_comparison() -> None:
    runs = {"none": [run(0.5), run(0.6)], "fixed": [run(0.1, loss=math.nan), run(0.6)]}
    assert "dropout (fixed) diverged (loss not finite) in 1 of 2 seeds." in verdict(lines(runs), "toys")
    for bad in (math.nan, math.inf):
        text = words(none=NONE, fixed=[*CLEAR[:4], bad], step=CLEAR)
        assert text.startswith("Dropout (step) helps on toys")
        assert words(none=NONE, fixed=[*CLEAR[:4], bad]).startswith(
            "Nothing to compare on toys: test accuracy is no finite number for dropout (fixed) or no dropout."
        )
        assert judged(of({"none": NONE, "fixed": [*CLEAR[:4], bad]}, looked=True), 0.005).settled


def test_the_table_for_programs() -> None:
    rows = {(row["strategy"], row["metric"]): row for row in table_rows(of({"none": NONE, "fixed": CLEAR}))}
    row = rows["fixed", "test_accuracy"]
    assert list(row) == [
        *("strategy", "metric", "mean", "low", "high", "difference", "difference_low", "difference_high", "seeds"),
    ]
    assert row["difference"] == pytest.approx(0.202) and row["seeds"] == 5
    assert row["difference_low"] < 0.202 < row["difference_high"]
    assert rows["none", "test_loss"]["difference"] is None and rows["fixed", "test_loss"]["difference"] == 0
    alone = next(iter(table_rows(of({"fixed": [0.5]}))))
    assert (alone["low"], alone["difference"], alone["seeds"]) == (None, None, 1)


def test_whether_adapting_helped_is_told_against_fixed_and_none() -> None:
    text = words(
        none=[0.50, 0.51, 0.52, 0.50, 0.51],
        fixed=[0.60, 0.61, 0.62, 0.60, 0.61],
        concrete=[0.701, 0.711, 0.720, 0.70, 0.711],
        gap=[0.40, 0.41, 0.421, 0.40, 0.411],
        disarm=[0.60, 0.62, 0.61, 0.59, 0.63],
    )
    assert text.startswith("Dropout (concrete) helps on toys: +20.06 points")
    assert (
        "Adapting the rate helped against dropout (fixed): concrete did better, gap did worse, "
        "disarm cannot be told apart from it."
    ) in text
    assert "Adapting the rate helped against no dropout: concrete and disarm did better, gap did worse." in text
    details = text[text.index("Paired differences: ") :].splitlines()[0]
    assert details.startswith("Paired differences: concrete +10.06 points (")
    assert " against dropout (fixed) and +20.06 points (" in details
    # Said once, not again among those that are compared with "none" alone.
    assert "gap hurts" not in text


def test_adapting_that_loses_is_said_to_lose() -> None:
    text = words(
        none=NONE, fixed=CLEAR, gap=[value - 0.1 + d for value, d in zip(NONE, (0, 1e-3, 0, 2e-3, 0), strict=True)]
    )
    assert "Adapting the rate did not visibly help against dropout (fixed): gap did worse." in text
    assert "Adapting the rate did not visibly help against no dropout: gap did worse." in text
    assert "Adapting" not in words(none=[0.5], gap=[0.6])
    assert "Adapting" not in words(none=NONE, step=CLEAR)
