"""Simulations behind docs/statistics.md: how often intervals, sequences, families and equivalence keep their promise.

    python benchmarks/coverage.py                        # every table, as Markdown; some minutes on one core
    python benchmarks/coverage.py --only intervals --comparisons 500

A comparison is drawn with a known true difference; its interval is right where it holds that, and its verdict where
no difference is called that is none. Differences are d[s, i] = seed[s] + sample[i] + rest[s, i], each part with mean 0,
so that the true difference on this test set is the mean of the sample parts, and 0 for new samples. Scores of 0 and 1
are drawn for two strategies: a score is 1 with probability Phi(level + sample[i] + seed[s]).
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from dropkit.lab.statistics import sequence
from dropkit.lab.statistics.crossed import intervals, mean_squares
from dropkit.lab.statistics.families import holm

COMPARISONS = 5_000
SEEDS, SAMPLES = (5, 10, 20), (200, 2000)
# Standard deviations of seed, sample and rest; of the variance of a mean over 10 seeds and 500 samples, the seeds make
# 98, 50 and 2 %.
MIXES = {"seeds": (0.1, 0.1, 0.3), "both": (0.1, 0.7, 1.0), "samples": (0.01, 0.5, 1.0)}
BINARY = "0/1 scores"
LEVELS = (0.8, 0.9)  # of two strategies that score 0 or 1: right in 79 and 82 % of new samples
BATCH = 2_000_000  # differences drawn at a time
LOOKS = np.arange(sequence.FIRST, 101)


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray:
    """Normal numbers."""
    return rng.standard_normal(size, dtype=np.float32)


def exponential(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray:
    """Exponential numbers, skewness 2."""
    return rng.standard_exponential(size, dtype=np.float32) - 1


def lognormal(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray:
    """exp of normal numbers, skewness 6.2."""
    return (np.exp(normal(rng, size)) - np.float32(np.exp(0.5))) / np.float32(np.sqrt((np.e - 1) * np.e))


def gamma(rng: np.random.Generator, size: tuple[int, ...]) -> NDArray:
    """Gamma numbers of shape 16, skewness 0.5."""
    return (rng.standard_gamma(16, size, dtype=np.float32) - 16) / 4


def both(draw: Callable[..., NDArray]) -> Callable[..., NDArray]:
    """The difference of two such numbers, a strategy each."""
    return lambda rng, size: (draw(rng, size) - draw(rng, size)) / np.float32(np.sqrt(2))


# All with mean 0 and variance 1. Of two strategies whose scores are skewed alike, the differences are not.
SHAPES: dict[str, Callable[..., NDArray]] = {
    "normal": normal,
    "exponential scores": both(exponential),
    "lognormal scores": both(lognormal),
    "differences of skewness 0.5": gamma,
    "exponential differences": exponential,
    "lognormal differences": lognormal,
}


def drawn(
    rng: np.random.Generator, shape: str, mix: Sequence[float], size: tuple[int, int, int]
) -> tuple[NDArray, NDArray, float]:
    """Tables of differences (comparisons, seeds, samples), their true means on these samples, and that on new ones."""
    if shape == BINARY:
        return _binary(rng, mix, size)
    batch, seeds, samples = size
    draw = SHAPES[shape]
    seed, sample, rest = (np.float32(part) for part in mix)
    each = sample * draw(rng, (batch, 1, samples))
    table = rest * draw(rng, size)
    table += seed * draw(rng, (batch, seeds, 1))
    table += each
    return table, each.mean((1, 2), dtype=float), 0.0


def _binary(
    rng: np.random.Generator, mix: Sequence[float], size: tuple[int, int, int]
) -> tuple[NDArray, NDArray, float]:
    batch, seeds, samples = size
    seed, sample = mix[0], mix[1]
    table, true, new = np.zeros(size, np.float32), np.zeros(batch), 0.0
    shared = rng.standard_normal((batch, 1, samples), dtype=np.float32)
    for sign, level in zip((-1, 1), LEVELS, strict=True):
        # What makes a sample hard is hard for both, half of it for one alone.
        own = rng.standard_normal((batch, 1, samples), dtype=np.float32)
        hard = np.float32(sample) * (shared + own) / np.float32(np.sqrt(2))
        moved = np.float32(seed) * rng.standard_normal((batch, seeds, 1), dtype=np.float32)
        right = rng.random(size, dtype=np.float32) < special.ndtr(level + hard + moved)
        table += sign * right
        true += sign * special.ndtr((level + hard) / np.sqrt(1 + seed**2)).mean((1, 2), dtype=float)
        new += sign * float(special.ndtr(level / np.sqrt(1 + seed**2 + sample**2)))
    return table, true, new


def covered(
    rng: np.random.Generator, shape: str, mix: Sequence[float], seeds: int, samples: int, comparisons: int
) -> tuple[float, float]:
    """How often the interval for these samples, and that for new ones, hold the true difference."""
    found = np.zeros(2)
    step = max(1, BATCH // (seeds * samples))
    for start in range(0, comparisons, step):
        size = (min(step, comparisons - start), seeds, samples)
        table, true, new = drawn(rng, shape, mix, size)
        mean, *squares = mean_squares(table)
        these_half, new_half = intervals(seeds, samples, squares)
        found += (np.abs(mean - true) <= these_half).sum(), (np.abs(mean - new) <= new_half).sum()
    return float(found[0] / comparisons), float(found[1] / comparisons)


def of_intervals(comparisons: int) -> Iterator[str]:
    """The table of fixed-size intervals, a row for each kind of scores and mix of variances."""
    sizes = [(seeds, samples) for samples in SAMPLES for seeds in SEEDS]
    found = {
        (shape, name): [covered(_rng(shape, name, *size), shape, mix, *size, comparisons) for size in sizes]
        for shape in (*SHAPES, BINARY)
        for name, mix in MIXES.items()
    }
    for which, title in enumerate(("these test samples", "new test samples too")):
        yield f"\nCoverage of the 95 % interval for {title}, in %:\n"
        heads = [f"{seeds} seeds, {samples}" for seeds, samples in sizes]
        yield _row("scores", "variance from", *heads)
        yield _row("---", "---", *("---:" for _ in sizes))
        for (shape, name), rates in found.items():
            yield _row(shape, name, *(f"{100 * rate[which]:.1f}" for rate in rates))


def by_seed(rng: np.random.Generator, shape: str, size: tuple[int, int]) -> tuple[NDArray, float]:
    """Differences of the means of seeds (comparisons, seeds), and their true mean."""
    if shape == BINARY:
        right = [rng.binomial(500, special.ndtr(level + 0.05 * rng.standard_normal(size))) for level in LEVELS]
        first, second = (float(special.ndtr(level / np.sqrt(1 + 0.05**2))) for level in LEVELS)
        return (right[1] - right[0]) / 500, second - first
    return SHAPES[shape](rng, size).astype(float), 0.0


def running(values: NDArray) -> tuple[NDArray, NDArray]:
    """Mean and standard deviation of the first 1, 2, ... of each row."""
    n = np.arange(1, values.shape[1] + 1)
    means = values.cumsum(1) / n
    around = (values**2).cumsum(1) - n * means**2
    return means, np.sqrt(np.maximum(around, 0) / np.maximum(n - 1, 1))


def looked_at(rng: np.random.Generator, shape: str, comparisons: int) -> tuple[float, float, float]:
    """How often the sequence, a t interval at each of its looks, and a t interval at the last, miss."""
    values, true = by_seed(rng, shape, (comparisons, int(LOOKS[-1])))
    means, spreads = (one[:, LOOKS - 1] for one in running(values))
    off = np.abs(means - true)
    missed = (off > sequence.half_width(spreads, LOOKS)).any(1).mean()
    bounds = stats.t.ppf(0.975, LOOKS - 1) / np.sqrt(LOOKS)
    peeked = off > bounds * spreads
    return float(missed), float(peeked.any(1).mean()), float(peeked[:, -1].mean())


def of_sequences(comparisons: int) -> Iterator[str]:
    """The table of confidence sequences."""
    yield "\nComparisons in which an interval misses at any look from 5 to 100 seeds, in %:\n"
    yield _row("differences of seeds", "sequence", "t interval, each look", "t interval, 100 seeds alone")
    yield _row("---", "---:", "---:", "---:")
    for shape in (*SHAPES, BINARY):
        rates = looked_at(_rng(shape, "looks"), shape, comparisons)
        yield _row(shape, *(f"{100 * rate:.1f}" for rate in rates))


def of_families(comparisons: int) -> Iterator[str]:
    """The table of false finds: strategies that do not differ, all pairs, several seeds; fixed size and looked at."""
    yield "\nComparisons with a false find among all pairs, no strategy being different, in %:\n"
    yield _row("strategies", "pairs", "seeds", "each by itself", "Holm", "Holm, until settled")
    yield _row("---:", "---:", "---:", "---:", "---:", "---:")
    for strategies in (2, 3, 5, 8):
        for seeds in (5, 20):
            rng = _rng("families", strategies, seeds)
            alone, corrected, sequential = false_finds(rng, strategies, seeds, comparisons)
            pairs = strategies * (strategies - 1) // 2
            yield _row(strategies, pairs, seeds, *(f"{100 * one:.1f}" for one in (alone, corrected, sequential)))


def false_finds(rng: np.random.Generator, strategies: int, seeds: int, comparisons: int) -> tuple[float, float, float]:
    """Of families without any difference: how often one is found uncorrected, by Holm, and by Holm of a sequence."""
    scores = rng.standard_normal((comparisons, strategies, seeds))
    one, other = np.triu_indices(strategies, 1)
    values = (scores[:, one] - scores[:, other]).reshape(-1, seeds)
    means, spreads = (found[:, sequence.FIRST - 1 :] for found in running(values))
    looks = np.arange(sequence.FIRST, seeds + 1)
    p = 2 * stats.t.sf(np.abs(means[:, -1]) * np.sqrt(seeds) / spreads[:, -1], seeds - 1).reshape(comparisons, -1)
    looked = np.exp(-np.maximum(sequence.log_evidence(means, spreads, looks), 0)).min(1).reshape(comparisons, -1)
    corrected = np.mean([min(holm(row)) <= 0.05 for row in p])
    sequential = np.mean([min(holm(row)) <= 0.05 for row in looked])
    return float((p.min(1) <= 0.05).mean()), float(corrected), float(sequential)


def of_equivalence(comparisons: int) -> Iterator[str]:
    """The table of equivalence claimed where the true difference is the margin itself, the worst case."""
    yield "\nComparisons called equivalent although the true difference is the margin, in %:\n"
    yield _row("differences of seeds", "margin / sd", *(f"{n} seeds" for n in SEEDS), "until settled, 5 to 100 seeds")
    yield _row("---", "---:", *("---:" for _ in SEEDS), "---:")
    for shape in (*SHAPES, BINARY):
        for ratio in (0.5, 1.0, 2.0):
            rates = [equal(_rng(shape, ratio, n), shape, ratio, n, comparisons)[0] for n in SEEDS]
            rates.append(equal(_rng(shape, ratio), shape, ratio, int(LOOKS[-1]), comparisons)[1])
            yield _row(shape, ratio, *(f"{100 * rate:.1f}" for rate in rates))


def equal(rng: np.random.Generator, shape: str, ratio: float, seeds: int, comparisons: int) -> tuple[float, float]:
    """How often two one-sided tests at the last seed, and the sequence at any, put one at the margin inside."""
    values, true = by_seed(rng, shape, (comparisons, seeds))
    margin = ratio * float(values.std())
    means, spreads = (found[:, sequence.FIRST - 1 :] for found in running(values - true + margin))
    looks = np.arange(sequence.FIRST, seeds + 1)
    bound = stats.t.ppf(0.95, seeds - 1) / np.sqrt(seeds)
    fixed = np.abs(means[:, -1]) + bound * spreads[:, -1] <= margin
    inside = np.abs(means) + sequence.half_width(spreads, looks) <= margin
    return float(fixed.mean()), float(inside.any(1).mean())


def _rng(*names: object) -> np.random.Generator:
    """A generator for each cell, whatever else is run."""
    return np.random.default_rng(list("/".join(map(str, names)).encode()))


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


TABLES = {
    "intervals": of_intervals,
    "sequences": of_sequences,
    "families": of_families,
    "equivalence": of_equivalence,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TABLES, help="one table")
    parser.add_argument("--comparisons", type=int, default=COMPARISONS, help="of each cell")
    asked = parser.parse_args(arguments)
    for name, table in TABLES.items():
        if asked.only in (None, name):
            for line in table(asked.comparisons):
                print(line, flush=True)


if __name__ == "__main__":
    main()
