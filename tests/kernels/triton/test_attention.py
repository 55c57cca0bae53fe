"""Attention in Triton: output, log-sum-exps and gradients against float64, the mask by `dropkit.keep`.

Interpreted, an operation takes 100 microseconds whatever its size, and the mask of a tile some hundred of them for each
four bits of p: so sizes are a tile or two, and most p have one group of bits.
"""

import os
from typing import Any

import pytest
import torch

from dropkit import Key, keep
from dropkit.kernels.triton import attention as file
from dropkit.mask import threshold
from dropkit.place import Part, place_of

KEY = Key(seed=1, site="attention", step=2)
DEVICE = os.environ.get("DROPKIT_DEVICE", "cpu")
BOUND = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
ONE = 65536


def data(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(DEVICE, dtype)


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: file.Weights, kept: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64, with a mask that is given outright and stored; a row that sees nothing gives 0 and no gradient."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * weights.scale
    if weights.mask is not None and weights.mask.dtype != torch.bool:
        scores = scores + weights.mask.double()
    hidden = torch.zeros_like(scores, dtype=torch.bool)
    if weights.mask is not None:
        hidden = hidden | (~weights.mask if weights.mask.dtype == torch.bool else weights.mask == -torch.inf)
    if weights.diagonal is not None:
        hidden = hidden | ~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(weights.diagonal)
    scores = scores.masked_fill(hidden | ~kept if weights.before else hidden, -torch.inf)
    lse = torch.logsumexp(scores, -1)
    empty = lse == -torch.inf
    probabilities = (scores - lse.masked_fill(empty, 0.0).unsqueeze(-1)).exp()
    if not weights.before:
        probabilities = torch.where(kept, probabilities * (ONE / max(weights.t, 1)), 0.0)
    return probabilities @ v, lse.masked_fill(empty, 0.0)


def check(
    shape: tuple[int, ...], features: tuple[int, int] = (16, 16), p: float = 0.5, groups: int = 1, dtype: Any = None,
    mask: torch.Tensor | None = None, diagonal: int | None = None, before: bool = False, **where: Any,
) -> None:  # fmt: skip
    """A call of this shape of weights, on all sides."""
    dtype = dtype or torch.float32
    batch, heads, queries, keys = shape
    rows = where.get("rows")
    place = place_of(shape, where.get("share", ()), Part.of(where.get("offset"), where.get("global_shape"), rows))
    mask = None if mask is None else mask.expand(shape)
    weights = file.Weights(mask, diagonal, 0.3, before, KEY.words, threshold(p), place.strides, place.base, place.rows)
    host = {**where, "rows": None if rows is None else rows.cpu().numpy()}
    kept = torch.from_numpy(keep(shape, p, KEY, **host).copy()).to(DEVICE).expand(shape)
    q = data(batch, heads, queries, features[0], dtype=dtype)
    k = data(batch, heads // groups, keys, features[0], dtype=dtype, seed=1)
    v = data(batch, heads // groups, keys, features[1], dtype=dtype, seed=2)
    out, most, inverse = file.attention(q, k, v, weights)
    flow, lse_flow = data(*out.shape, dtype=dtype, seed=3), data(*most.shape, seed=4)
    found = file.attention_backward(flow, lse_flow, q, k, v, out, most, inverse, weights)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    wanted, lse = reference(*leaves, weights, kept)
    gradients = torch.autograd.grad((wanted * flow).sum() + (lse * lse_flow).sum(), leaves)
    seen = inverse != 0
    near = (most * 0.6931471805599453 - inverse.log())[seen].double()
    torch.testing.assert_close(near, lse.detach()[seen], rtol=1e-5, atol=1e-5)
    assert out.dtype == dtype
    for a, b in zip((out, *found), (wanted.detach(), *gradients), strict=True):
        error = float((a.double() - b).abs().max() / (b.abs().max() + 1e-30))
        assert a.dtype == dtype and error <= BOUND[dtype], error


@pytest.mark.parametrize(("dtype", "p"), [(dtype, p) for dtype in BOUND for p in (0.0, 0.5)] + [(torch.float32, 0.1)])
def test_dtypes_and_rates(dtype: torch.dtype, p: float) -> None:
    check((1, 1, 40, 64), p=p, dtype=dtype)


def test_all_is_dropped_or_all_but_a_little() -> None:
    check((1, 1, 5, 32), p=1.0)
    check((1, 1, 5, 32), p=1.0, before=True)
    check((1, 1, 5, 32), p=1 - 2**-16)


@pytest.mark.parametrize("features", [(20, 7), (130, 1), (64, 256)], ids=str)
def test_features(features: tuple[int, int]) -> None:
    check((1, 1, 20, 32), features)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 130, 65), (2, 1, 3, 31)], ids=str)
def test_ragged_lengths_over_several_tiles(shape: tuple[int, ...]) -> None:
    check(shape, p=0.5)


@pytest.mark.parametrize("diagonal", [0, -20, 10**9, -(10**9)])
def test_order_of_a_part(diagonal: int) -> None:
    """Some queries see nothing, and whole tiles are left out."""
    check((1, 1, 70, 64), p=0.0, diagonal=diagonal)


@pytest.mark.parametrize("shape", [(2, 1, 1, 40), (1, 2, 20, 40), (20, 40)], ids=str)
@pytest.mark.parametrize("kind", ["bool", "added", "added half"])
def test_masks_that_broadcast(shape: tuple[int, ...], kind: str) -> None:
    given = data(*shape, dtype=torch.bfloat16 if kind == "added half" else torch.float32, seed=5)
    check((2, 2, 20, 40), p=0.0, mask=given > -0.3 if kind == "bool" else given)


def test_a_masked_row_and_a_row_of_minus_infinity_give_nothing() -> None:
    mask = torch.ones(40, 33, dtype=torch.bool)
    mask[7] = False
    check((1, 1, 40, 33), mask=mask, diagonal=3)
    check((1, 1, 40, 33), mask=torch.where(mask, 0.5, -torch.inf))


@pytest.mark.parametrize(
    "where",
    [
        {"share": (2, 3)},
        {"share": (2,)},
        {"share": (3,)},
        {"share": (0, 1)},
        {"rows": [7, 2**33]},
        {"offset": (2**20, 0, 2**15, 2**15 + 7), "global_shape": (2**21, 8, 2**16, 2**16)},
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [False, True])
def test_shares_rows_and_offsets_are_those_of_keep(where: dict[str, Any], before: bool) -> None:
    if "rows" in where:
        where = {"rows": torch.tensor(where["rows"])}
    check((2, 1, 5, 32), before=before, **where)


def test_heads_that_share_keys() -> None:
    check((1, 4, 17, 32), groups=2, diagonal=5)


def test_a_key_in_memory_and_tensors_that_lie_otherwise() -> None:
    q, k, v = (data(1, 30, 2, 16, seed=seed).transpose(1, 2) for seed in range(3))
    weights = file.Weights(None, 0, 0.25, False, KEY.words, threshold(0.5), (1800, 900, 30, 1))
    wanted = file.attention(q.contiguous(), k.contiguous(), v.contiguous(), weights)[0]
    assert torch.equal(file.attention(q, k, v, weights)[0], wanted)
    stored = weights._replace(key=torch.tensor(KEY.words))
    apart = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v)]
    assert torch.equal(file.attention(*apart, stored)[0], wanted)
    assert torch.equal(file.attention(*(x[:, :1] for x in (q, k, v)), weights)[0], wanted[:, :1])


@pytest.mark.parametrize("shape", [(1, 2, 0, 5), (1, 2, 5, 0), (0, 2, 5, 5)], ids=str)
def test_nothing_at_all(shape: tuple[int, ...]) -> None:
    q, k = data(*shape[:3], 16), data(*shape[:2], shape[3], 16)
    weights = file.Weights(None, None, 1.0, False, KEY.words, threshold(0.5), (0, 0, 0, 1))
    out, most, inverse = file.attention(q, k, k, weights)
    assert out.shape == q.shape and not out.any()
    found = file.attention_backward(out, most, q, k, k, out, most, inverse, weights)
    assert [x.shape for x in found] == [q.shape, k.shape, k.shape] and not any(x.any() for x in found)


@pytest.mark.parametrize("name", ["forward", "query", "key"])
def test_tiles_hold_whole_words_of_keys(name: str) -> None:
    for wide in (16, 32, 64, 128, 256):
        for half in (False, True):
            tiles = file.tiles_of(name, wide, half)
            assert tiles.N % 32 == 0 and tiles.M >= 16
