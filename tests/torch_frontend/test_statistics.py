"""Counts, positions, independence and moments of the six classes and functions, as users call them.

Every bound is five standard errors of what is measured, so a right generator fails one such comparison in 1.7 million;
all seeds are fixed. `tests/test_mask.py` holds the same for the mask itself.
"""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import dropkit.torch
from dropkit import Key
from dropkit.mask import ONE, alpha_factors, threshold
from dropkit.torch import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    bind,
    dropout,
    functional,
)
from dropkit.torch.arithmetic import registered

N = 10_000_000
RATES = (1e-4, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999)
CHANNELS = {Dropout1d: 1, Dropout2d: 2, Dropout3d: 3, FeatureAlphaDropout: 2}  # and the axes inside a channel


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def independent(a: torch.Tensor, b: torch.Tensor) -> bool:
    return abs(correlation(a, b)) * math.sqrt(a.numel()) < 5


def compiled(x: torch.Tensor, p: float) -> torch.Tensor:
    """What a compiler's graph runs."""
    return torch.ops.dropkit.dropout(
        x, torch.tensor(p, dtype=torch.float64), torch.ops.dropkit.fresh_key(), (1,), 0, None
    )


def any_device(x: torch.Tensor, p: float) -> torch.Tensor:
    """What runs where there is no kernel."""
    p, key = torch.tensor(p, dtype=torch.float64), torch.ops.dropkit.fresh_key()
    return registered._anywhere(x, p, key, (1,), 0, None)


WAYS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "module": lambda x, p: Dropout(p)(x),
    "in place": lambda x, p: Dropout(p, inplace=True)(x),
    "functional": lambda x, p: functional.dropout(x, p),
    "rates": lambda x, p: dropout(x, torch.full((1,), p, dtype=torch.float64), training=True),
    "compiled": compiled,
}


# ---------------------------------------------------------------------------------------------------------------------
# how many, and which


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("p", RATES)
def test_drop_count(way: str, p: float) -> None:
    """n = 1e7 tells p = 0.3 from a threshold of 8 bits, 77/256; p = 1e-4 tells 16 bits from fewer."""
    torch.manual_seed(11)
    dropped = N - int(WAYS[way](torch.ones(N), p).count_nonzero())
    assert abs(dropped - N * p) < 5 * math.sqrt(N * p * (1 - p))


def test_drop_count_where_there_is_no_kernel() -> None:
    torch.manual_seed(11)
    dropped = N - int(any_device(torch.ones(N), 0.3).count_nonzero())
    assert abs(dropped - N * 0.3) < 5 * math.sqrt(N * 0.3 * 0.7)


@pytest.mark.parametrize("kind", [AlphaDropout, *CHANNELS])
@pytest.mark.parametrize("p", RATES)
def test_drop_count_of_the_other_classes(kind: type[nn.Module], p: float) -> None:
    torch.manual_seed(12)
    inside = CHANNELS.get(kind, 0)
    x = torch.full((1000, N // 1000, *[1] * inside), 7.0)
    y = kind(p)(x)
    values, counts = torch.unique(y, return_counts=True)
    assert len(values) == 2
    # a dropped 7 has the smaller value in all of them: 0, or SELU's limit
    assert abs(int(counts[0]) - N * p) < 5 * math.sqrt(N * p * (1 - p))


@pytest.mark.parametrize("seen_as", ["ambient", "bound"])
@pytest.mark.parametrize("p", [0.5, 0.1])
def test_every_position_is_dropped_as_often(seen_as: str, p: float) -> None:
    """2000 calls on 1000 elements: chi-square over positions, then first, last and each residue of the index."""
    calls, n = 2000, 1000
    torch.manual_seed(13)
    model = nn.Sequential(Dropout(p))
    if seen_as == "bound":
        bind(model, seed=13)
    x, kept = torch.ones(n), torch.zeros(n)
    for _ in range(calls):
        kept += model(x) != 0
    exact = threshold(p) / ONE
    variance = calls * exact * (1 - exact)
    off = kept.double() - calls * exact
    assert abs(float((off**2).sum() / variance) - n) < 5 * math.sqrt(2 * n)
    for one in (off[0], off[-1]):
        assert abs(float(one)) < 5 * math.sqrt(variance)
    for modulus in (2, 4, 8, 16, 128, 256):
        for residue in range(modulus):
            some = off[residue::modulus]
            assert abs(float(some.sum())) < 5 * math.sqrt(len(some) * variance), (modulus, residue)


# ---------------------------------------------------------------------------------------------------------------------
# independence


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_elements_calls_layers_and_seeds_are_independent(p: float) -> None:
    n = 1 << 20
    drop, x = Dropout(p), torch.ones(n)
    torch.manual_seed(14)
    first, second = drop(x) != 0, drop(x) != 0
    for lag in (*range(1, 65), 128, 256, 1024):
        assert independent(first[:-lag], first[lag:]), lag
    assert independent(first, second)
    torch.manual_seed(15)  # the next seed
    assert independent(first, drop(x) != 0)
    table = first.reshape(1024, 1024)
    assert independent(table[:-1], table[1:])
    assert independent(table[:, :-1], table[:, 1:])
    two = nn.ModuleList([Dropout(p), Dropout(p)])
    torch.manual_seed(14)
    assert independent(two[0](x) != 0, two[1](x) != 0)


def test_layers_steps_and_seeds_of_bound_models_are_independent() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Dropout(0.3), Dropout(0.3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.one(x), self.two(x), self.one(x)]) != 0

    x = torch.ones(1 << 18)
    masks = [mask for seed in (0, 1) for model in [bind(Two(), seed=seed)] for _ in range(2) for mask in model(x)]
    for a, b in itertools.combinations(masks, 2):
        assert independent(a, b)


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("p", [0.5, 0.2])
def test_channels_are_whole_and_independent(kind: type[nn.Module], p: float) -> None:
    """A mask shared over the batch, or over channels, passes every test of counts: row and column sums tell."""
    torch.manual_seed(16)
    batch, channels, inside = 512, 512, (2,) * CHANNELS[kind]
    y = kind(p)(torch.full((batch, channels, *inside), 7.0)).flatten(2)
    assert torch.equal(y.amin(2), y.amax(2))
    kept = (y[:, :, 0] > 5).double()
    exact = threshold(p) / ONE
    for axis in (0, 1):
        n, m = kept.shape[axis], kept.shape[1 - axis]
        sums = kept.sum(axis)
        chi_square = float(((sums - n * exact) ** 2).sum() / (n * exact * (1 - exact)))
        assert abs(chi_square - m) < 5 * math.sqrt(2 * m)
        for lag in (1, 2, 3, 7, 32, 256):
            assert independent(kept.narrow(axis, 0, n - lag), kept.narrow(axis, lag, n - lag)), (axis, lag)


def test_rows_dropped_whole_are_independent_between_samples() -> None:
    """One draw for each sample, which is stochastic depth: constant within a sample, binomial over samples."""
    torch.manual_seed(17)
    p, calls, samples = 0.2, 400, 64
    drop = Dropout(p, share=(1, 2))
    kept = torch.zeros(calls, samples, dtype=torch.bool)
    for call in range(calls):
        y = drop(torch.ones(samples, 3, 5)).flatten(1)
        assert torch.equal(y.amin(1), y.amax(1))
        kept[call] = y[:, 0] != 0
    exact = threshold(p) / ONE
    n = kept.numel()
    assert abs(int(kept.sum()) - n * exact) < 5 * math.sqrt(n * exact * (1 - exact))
    for lag in range(1, 9):
        assert independent(kept[:, :-lag], kept[:, lag:])
        assert independent(kept[:-lag], kept[lag:])


# ---------------------------------------------------------------------------------------------------------------------
# values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("p", RATES)
def test_kept_values_are_scaled_exactly(dtype: torch.dtype, p: float) -> None:
    """x * 65536 / t in float32 (float64 for float64), rounded once to the dtype; nothing in between."""
    torch.manual_seed(18)
    x = torch.randn(1 << 16).to(dtype)
    y = Dropout(p)(x)
    wide = x.double() if dtype == torch.float64 else x.float()
    exact = (wide * (ONE / threshold(p))).to(dtype)
    kept = y != 0
    assert torch.equal(y[kept], exact[kept])
    assert kept.any()
    ones = torch.unique(Dropout(p)(torch.ones(1 << 16, dtype=dtype)))
    assert set(ones.tolist()) <= {0.0, torch.tensor(ONE / threshold(p), dtype=torch.float64).to(dtype).item()}


def test_kept_ones_in_bfloat16_are_torchs() -> None:
    torch.manual_seed(19)
    x = torch.ones(1000, dtype=torch.bfloat16)
    assert torch.unique(Dropout(0.3)(x)).tolist() == torch.unique(nn.Dropout(0.3)(x)).tolist() == [0.0, 1.4296875]


@pytest.mark.parametrize("kind", [AlphaDropout, FeatureAlphaDropout])
@pytest.mark.parametrize("p", [0.05, 0.1, 0.3, 0.5, 0.8])
def test_alpha_keeps_mean_and_variance(kind: type[nn.Module], p: float) -> None:
    torch.manual_seed(20)
    n = 1_000_000
    x = torch.randn(n, generator=torch.Generator().manual_seed(21), dtype=torch.float64)
    y = kind(p)(x.reshape(1000, 1000)).flatten()
    a, b, dropped = alpha_factors(threshold(p))
    kept = y != dropped
    assert torch.equal(y[kept], (x * a + b)[kept])
    assert abs(float(y.mean())) < 5 / math.sqrt(n)
    fourth = float(((y - y.mean()) ** 4).mean())
    assert abs(float(y.var()) - 1) < 5 * math.sqrt((fourth - 1) / n)
    # as torch has it, whose p is not rounded: to a relative 1 / 65536 of p
    alpha_prime = -1.7580993408473766
    assert a == pytest.approx(((1 - p) * (1 + p * alpha_prime**2)) ** -0.5, rel=1e-3)
    assert b == pytest.approx(-a * p * alpha_prime, rel=1e-3)
    assert dropped == pytest.approx(a * alpha_prime + b, rel=1e-3)


@pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.8])
def test_alpha_values_are_torchs(name: str, p: float) -> None:
    """The two values that an input of ones can become, of torch's class and of ours."""
    torch.manual_seed(22)
    x = torch.ones(300, 300, dtype=torch.float64)
    ours, theirs = (torch.unique(getattr(package, name)(p)(x)) for package in (dropkit.torch, nn))
    assert len(ours) == len(theirs) == 2
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=0)


def test_elements_far_past_2_to_the_31_are_dropped_as_often_and_repeat_nothing() -> None:
    """Where a 32-bit index would overflow, or come round again: by rows and offsets, without the memory."""
    n, p, key = 1 << 20, 0.3, Key(23, "far")
    exact = threshold(p) / ONE
    starts = [0, 2**31 - n // 2, 2**32 - n // 2, 2**32, 2**33, 2**37, 2**40 + 7, 2**63 - n]
    masks = []
    for start in starts:
        y = dropout(torch.ones(n), p, training=True, key=key, offset=(start,), global_shape=(2**63,))
        masks.append(y != 0)
        kept = int(masks[-1].sum())
        assert abs(kept - n * exact) < 5 * math.sqrt(n * exact * (1 - exact)), start
    for (i, a), (j, b) in itertools.combinations(enumerate(masks), 2):
        if abs(starts[i] - starts[j]) >= n:
            assert independent(a, b), (starts[i], starts[j])
    rows = torch.tensor([0, 2**21, 2**22 - 1, 2**22, 2**43])  # of 1024 elements: past 2**31 and 2**32 of them
    by_rows = dropout(torch.ones(5, 1024), p, training=True, key=key, rows=rows) != 0
    whole = [
        dropout(torch.ones(1, 1024), p, training=True, key=key, offset=(int(row), 0), global_shape=(2**44, 1024)) != 0
        for row in rows
    ]
    assert torch.equal(by_rows, torch.cat(whole))
    assert len(torch.unique(by_rows, dim=0)) == 5


@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_with_one_seed_share_masks_only_through_that_seed(seed: int) -> None:
    """What forked workers inherit is torch's generator: equal seeds are equal masks, other seeds independent ones."""
    x, drop = torch.ones(1 << 16), Dropout(0.5)
    masks = []
    for worker in (seed, seed, seed + 10):
        torch.manual_seed(worker)
        masks.append(drop(x) != 0)
    assert torch.equal(masks[0], masks[1])
    assert independent(masks[0], masks[2])
