"""Two-way random effects, families, equivalence, sequences and outlying seeds: known answers and small simulations."""

import math
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from dropkit.errors import DropkitValueError
from dropkit.lab.statistics import sequence
from dropkit.lab.statistics.crossed import crossed, intervals, mean_squares
from dropkit.lab.statistics.families import equivalence, holm
from dropkit.lab.statistics.interval import Interval, mean_interval
from dropkit.lab.statistics.outlying import outlying


def made(seed: float, sample: float, rest: float, *size: int, key: int = 0) -> tuple[NDArray, NDArray]:
    """Tables (comparisons, seeds, samples) of parts with these standard deviations; the means of the samples' parts."""
    rng = np.random.default_rng(key)
    each = sample * rng.standard_normal((size[0], 1, size[2]))
    table = seed * rng.standard_normal((*size[:2], 1)) + each + rest * rng.standard_normal(size)
    return table, each.mean((1, 2))


def binomial(found: float, n: int, p: float) -> bool:
    """Whether a count is within five standard deviations of what it should be."""
    return abs(found - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_mean_squares_of_a_table_by_hand() -> None:
    # Rows have means 1 and 3, columns 0.5, 1.5 and 4; residuals are 0.5, 0.5, -1 and their opposites.
    found = crossed([[0, 1, 2], [1, 2, 6]])
    assert (found.mean, found.squares) == (2, (6, 6.5, 1.5))
    assert found.components == pytest.approx({"seed": 1.5, "sample": 2.5, "rest": 1.5})
    variance = {"seed": 1.5 / 2, "sample": 2.5 / 3, "rest": 1.5 / 6}
    assert found.shares == pytest.approx({name: part / sum(variance.values()) for name, part in variance.items()})


def test_both_intervals_by_the_formula() -> None:
    table = made(0.1, 0.5, 1.0, 1, 8, 50)[0][0]
    found = crossed(table)
    seed, sample, rest = found.squares
    total = seed + sample - rest
    df = total**2 / (seed**2 / 7 + sample**2 / 49 + rest**2 / (7 * 49))  # Satterthwaite 1946
    assert found.new_samples().half == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(total / 400))
    over_seeds = mean_interval(table.mean(1))
    assert found.interval().half == pytest.approx(over_seeds.half)
    assert (found.interval().mean, found.interval().sd) == pytest.approx((over_seeds.mean, over_seeds.sd))


def test_rows_one_by_one_give_what_the_whole_table_gives() -> None:
    tables = made(0.3, 0.5, 1.0, 3, 6, 40)[0]
    mean, *squares = mean_squares(tables)
    for place, table in enumerate(tables):
        found = crossed(iter(table))
        assert found.mean == pytest.approx(mean[place])
        assert found.squares == pytest.approx([one[place] for one in squares])


def test_memory_grows_with_the_samples_alone() -> None:
    samples = 200_000

    def rows() -> Iterator[NDArray]:
        for seed in range(12):
            yield np.random.default_rng(seed).standard_normal(samples)

    tracemalloc.start()
    crossed(rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 8 * samples  # the table itself has 12 x 8 bytes a sample


def test_an_offset_costs_no_digits() -> None:
    table = made(0.1, 0.5, 1.0, 1, 5, 30)[0][0]
    assert crossed(table + 1e6).squares == pytest.approx(crossed(table).squares, rel=1e-6)


@pytest.mark.parametrize(
    ("table", "half"),
    [([[0.0, 0.0], [0.0, 0.0]], 0.0), ([[1.0, 1.0], [1.0, 1.0]], 0.0), ([[1.0, -1.0], [1.0, -1.0]], 0.0)],
)
def test_ties_and_zero_variance_over_seeds(table: list[list[float]], half: float) -> None:
    found = crossed(table)
    assert found.interval().half == half
    assert math.isfinite(found.new_samples().half)
    assert found.new_samples().half >= half


def test_seeds_that_agree_leave_the_spread_of_samples() -> None:
    found = crossed([[1.0, -1.0, 0.0, 0.5]] * 3)
    assert found.interval().half == 0
    assert found.new_samples().half > 0.5
    assert found.shares == {"seed": 0, "sample": 1, "rest": 0}


def test_tables_that_are_none() -> None:
    with pytest.raises(DropkitValueError, match="two seeds and two samples or more, got 1 and 3"):
        crossed([[1, 2, 3]])
    with pytest.raises(DropkitValueError, match="the same samples, got 2 and 3 of them"):
        crossed([[1, 2], [1, 2, 3]])


@pytest.mark.parametrize("mix", [(0.2, 0.2, 0.5), (0.1, 0.7, 1.0), (0.01, 0.5, 1.0)])
def test_intervals_cover_as_often_as_they_say(mix: tuple[float, float, float]) -> None:
    table, these = made(*mix, 600, 6, 100, key=1)
    mean, *squares = mean_squares(table)
    narrow, wide = intervals(6, 100, squares)
    assert binomial((abs(mean - these) <= narrow).sum(), 600, 0.95)
    assert binomial((abs(mean) <= wide).sum(), 600, 0.95)
    assert (wide >= narrow).all()


def test_the_narrow_interval_misses_new_samples() -> None:
    """The interval for these samples is none for new ones."""
    table, _ = made(0.01, 0.5, 1.0, 400, 6, 100, key=2)
    mean, *squares = mean_squares(table)
    assert (abs(mean) <= intervals(6, 100, squares)[0]).mean() < 0.9


def test_holm_is_that_of_r() -> None:
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm"), and in another order.
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.05, 0.01, 0.04]) == pytest.approx([0.08, 0.03, 0.08])
    assert holm([]) == () and holm([0.2]) == (0.2,) and holm([0.9, 1.0]) == (1, 1)
    with pytest.raises(DropkitValueError, match=r"lie in \[0, 1\], got \[1.5\]"):
        holm([1.5])


def test_holm_finds_falsely_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(4)
    scores = rng.standard_normal((500, 4, 8))
    scores[:, 0] += 10  # a true difference must not buy room for a false one
    pairs = [(a, b) for a in range(4) for b in range(a)]
    false = 0
    for one in scores:
        adjusted = holm([mean_interval(one[a] - one[b]).p for a, b in pairs])
        false += any(p <= 0.05 for (_, b), p in zip(pairs, adjusted, strict=True) if b != 0)
    assert false < 25 + 5 * math.sqrt(500 * 0.05 * 0.95)


def test_equivalence_is_an_interval_of_90_percent_inside_the_margin() -> None:
    for mean in (-0.3, 0.0, 0.2):
        found = mean_interval(mean + np.linspace(-1, 1, 12), level=0.9)
        edge = max(abs(found.low), abs(found.high))
        assert equivalence(found, edge) == pytest.approx(0.05)
        assert equivalence(found, edge * 1.01) < 0.05 < equivalence(found, edge * 0.99)
    assert equivalence(Interval(2.0, 1.0, 1.0, 5), 1.0) == 1
    assert equivalence(Interval(0.0, 0.0, 0.0, 5), 1.0) == 0
    assert equivalence(Interval(0.0, None, None, 1), 1.0) > 0.05
    with pytest.raises(DropkitValueError, match="a margin is a difference above 0, got 0"):
        equivalence(Interval(0.0, 1.0, 1.0, 5), 0)


def test_equivalence_at_the_margin_is_claimed_as_rarely_as_promised() -> None:
    draws = np.random.default_rng(5).normal(1.0, 1.0, (1000, 10))
    false = sum(equivalence(mean_interval(row), 1.0) <= 0.05 for row in draws)
    assert binomial(false, 1000, 0.05)


@pytest.mark.parametrize("n", [5, 12])
def test_the_evidence_is_the_likelihood_ratio_of_students_t(n: int) -> None:
    distance, sd = 0.7, 1.3
    t = math.sqrt(n) * distance / sd

    def mixed(effect: float) -> float:
        return stats.nct.pdf(t, n - 1, math.sqrt(n) * effect) * stats.norm.pdf(effect, 0, math.sqrt(sequence.MIXTURE))

    ratio = integrate.quad(mixed, -12, 12, limit=200)[0] / stats.t.pdf(t, n - 1)
    assert float(np.exp(sequence.log_evidence(distance, sd, n))) == pytest.approx(ratio, rel=1e-6)


def test_the_evidence_mixed_over_g_is_a_published_bayes_factor() -> None:
    # R, package BayesFactor: ttestBF(sleep$extra[1:10], sleep$extra[11:20], paired = TRUE), r = 0.707: 17.25888.
    d = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    d -= [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

    def mixed(g: float) -> float:
        prior = stats.invgamma.pdf(g, 0.5, scale=0.25)
        return prior * float(np.exp(sequence.log_evidence(d.mean(), d.std(ddof=1), 10, mixture=g)))

    assert integrate.quad(mixed, 0, np.inf, limit=500)[0] == pytest.approx(17.25888, rel=1e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_the_sequence_is_where_the_evidence_stays_below_its_bound(alpha: float) -> None:
    for n in (5, 9, 40):
        half = float(sequence.half_width(1.3, n, alpha))
        assert float(sequence.log_evidence(half, 1.3, n)) == pytest.approx(math.log(1 / alpha))
    assert math.isinf(sequence.half_width(1.3, 2, alpha))
    assert math.isinf(sequence.half_width(0.0, 2, alpha))
    assert float(sequence.half_width(0.0, 9, alpha)) == 0


def test_the_sequence_holds_at_all_looks_together_and_a_t_interval_does_not() -> None:
    draws = np.random.default_rng(6).standard_normal((400, 60))
    n = np.arange(5, 61)
    means = (draws.cumsum(1) / np.arange(1, 61))[:, 4:]
    spreads = np.stack([draws[:, :k].std(1, ddof=1) for k in n], 1)
    missed = (abs(means) > sequence.half_width(spreads, n)).any(1).sum()
    assert missed < 20 + 5 * math.sqrt(400 * 0.05 * 0.95)
    peeked = (abs(means) > stats.t.ppf(0.975, n - 1) / np.sqrt(n) * spreads).any(1).sum()
    assert peeked > 3 * 20


def test_p_values_at_every_look_are_those_of_the_intervals_and_never_grow() -> None:
    values = np.random.default_rng(7).normal(0.8, 1.0, 30)
    found = [sequence.p_values(values[:n], margin=2.0) for n in range(1, 31)]
    assert found[3] == (1, 1)  # below five seeds nothing is settled
    for before, later in pairwise(found):
        assert later[0] <= before[0] and later[1] <= before[1]
    for n in range(5, 31):
        seen = [sequence.interval(values[:k]) for k in range(5, n + 1)]
        assert (found[n - 1][0] <= 0.05) == any(one.excludes_zero for one in seen)
        assert (found[n - 1][1] <= 0.05) == any(one.low > -2 and one.high < 2 for one in seen)


def test_what_is_no_number_settles_nothing() -> None:
    assert sequence.p_values([0.1, math.nan, 0.1, 0.1, 0.1, 0.1], 1.0) == (1, 1)
    assert sequence.p_values([0.1] * 8, margin=0.05) == (pytest.approx(0, abs=1e-3), 1)
    settled = sequence.p_values([0.0] * 8, margin=0.05)
    assert settled[0] == 1 and settled[1] < 0.01
    assert sequence.interval([0.1, 0.2]).half is None


def test_an_outlying_seed_is_named_as_grubbs_would() -> None:
    values = [0.010, 0.012, 0.011, -0.2, 0.009, 0.010]
    assert outlying(values) == 3
    n, g = 6, abs(values[3] - np.mean(values)) / np.std(values, ddof=1)
    t = stats.t.ppf(1 - 0.01 / (2 * n), n - 2)
    assert g > (n - 1) / math.sqrt(n) * math.sqrt(t**2 / (n - 2 + t**2))  # Grubbs 1950
    assert outlying(values[2:]) is None  # four seeds are too few
    assert outlying([0.1] * 8) is None and outlying([0.1] * 7 + [0.2]) == 7
    assert outlying([0.1, 0.2, math.nan, 0.1, 0.2, 0.1]) is None


def test_one_normal_comparison_in_a_hundred_has_an_outlying_seed() -> None:
    draws = np.random.default_rng(8).standard_normal((1500, 7))
    assert binomial(sum(outlying(row) is not None for row in draws), 1500, 0.01)
