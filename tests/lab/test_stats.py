import math

import numpy as np
import pytest
from scipy import integrate, special

from dropkit.errors import DropkitValueError
from dropkit.lab.statistics.interval import Interval, mean_interval, paired_difference
from dropkit.lab.statistics.needed import sd_range, seeds_needed, seeds_to_show


def t_bound(level: float, df: int) -> float:
    """Student's quantile from the incomplete beta function, not from scipy.stats."""
    x = special.betaincinv(df / 2, 0.5, 1 - level)
    return math.sqrt(df * (1 - x) / x)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_interval_follows_the_formula(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    interval = mean_interval(values)
    sd = math.sqrt(sum((value - sum(values) / n) ** 2 for value in values) / (n - 1))
    assert interval.mean == pytest.approx(sum(values) / n)
    assert interval.half == pytest.approx(t_bound(0.95, n - 1) * sd / math.sqrt(n))
    assert interval.low == pytest.approx(interval.mean - interval.half)
    assert interval.high == pytest.approx(interval.mean + interval.half)


def test_interval_of_a_textbook_row() -> None:
    # n = 10, mean 5, sd 2: t(0.975, 9) = 2.262, so 5 +- 1.431.
    values = 5 + 2 * (np.arange(10) - 4.5) / np.std(np.arange(10), ddof=1)
    assert mean_interval(values).half == pytest.approx(2.262 * 2 / math.sqrt(10), abs=1e-3)


def test_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(1, 3, (2000, 5))
    covered = sum(abs(mean_interval(row).mean - 1) <= mean_interval(row).half for row in draws)
    # Binomial(2000, 0.95): 1900 +- 9.7; five standard deviations.
    assert abs(covered - 1900) < 49


def test_one_seed_has_no_interval() -> None:
    interval = mean_interval([0.5])
    assert (interval.half, interval.low, interval.high, interval.excludes_zero) == (None, None, None, False)
    assert interval.p == 1


def test_pairing_takes_out_what_the_seeds_share() -> None:
    shared = np.array([0.1, 0.5, 0.9, 0.3])
    paired = paired_difference(shared + np.array([0.011, 0.010, 0.009, 0.010]), shared)
    assert paired.mean == pytest.approx(0.01)
    assert paired.excludes_zero
    assert mean_interval(shared).half > 50 * paired.half


def test_equal_runs_do_not_exclude_zero() -> None:
    assert not paired_difference([0.5, 0.6], [0.5, 0.6]).excludes_zero


def test_a_paired_t_test_is_that_of_r() -> None:
    # R: t.test(sleep$extra[1:10], sleep$extra[11:20], paired = TRUE), from its own documentation.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_difference(first, second)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_equal_differences_have_no_spread_whatever_rounding_says() -> None:
    found = paired_difference([0.3, 0.9, 0.8], [0.1, 0.7, 0.6])
    assert (found.sd, found.half, found.p) == (0.0, 0.0, 0.0)
    assert paired_difference([0.3, 0.1], [0.3, 0.1]).p == 1
    assert mean_interval([math.nan, 1.0]).p == 1


def test_seeds_to_show_has_the_power_it_promises() -> None:
    assert seeds_to_show(0.5) == 34  # R: pwr.t.test(d = 0.5, power = 0.8, type = "one.sample"), n = 33.37
    needed = seeds_to_show(1.0)

    def power(n: int) -> float:
        """P(t > bound), integrating the normal over the chi density of the standard deviation."""
        df, bound = n - 1, t_bound(0.95, n - 1)

        def inner(s: float) -> float:
            log_density = (df / 2) * math.log(df / 2) - special.gammaln(df / 2) + math.log(2) + (df - 1) * math.log(s)
            return math.exp(log_density - df * s * s / 2) * special.ndtr(math.sqrt(n) - bound * s)

        return integrate.quad(inner, 0, 10)[0]

    assert power(needed) >= 0.8 > power(needed - 1)


def test_needed_seeds_are_a_range_because_the_spread_is_hardly_known() -> None:
    found = Interval(mean=0.01, half=None, sd=0.01, n=5)
    low, high = seeds_needed(found, 0.01)
    assert low == seeds_to_show(1 / sd_range(1, 5)[0]) < seeds_to_show(1) < high == seeds_to_show(1 / sd_range(1, 5)[1])
    assert seeds_needed(found, 0.001)[1] is None  # more than are counted
    many = seeds_needed(Interval(0.01, None, 0.01, 1000), 0.01)
    assert many[1] - many[0] <= 2
    # 95 % of the intervals of a standard deviation hold it: 2000 draws, five standard deviations of a binomial number.
    draws = np.random.default_rng(3).standard_normal((2000, 5)).std(1, ddof=1)
    held = sum(low <= 1 <= high for low, high in (sd_range(sd, 5) for sd in draws))
    assert abs(held - 1900) < 49


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (1.0, 0.0), (1.0, None), (math.nan, 1.0), (1.0, math.nan)])
def test_needed_seeds_say_nothing_where_nothing_can_be_said(mean: float, sd: float | None) -> None:
    assert seeds_needed(Interval(mean, 1.0, sd, 5), mean) is None


def test_wrong_input() -> None:
    with pytest.raises(DropkitValueError, match="at least one value"):
        mean_interval([])
    with pytest.raises(DropkitValueError, match="got 2 and 1"):
        paired_difference([1, 2], [1])
