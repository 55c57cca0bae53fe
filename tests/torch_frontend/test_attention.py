"""Attention with dropout: outputs and gradients against float64, over random shapes; the mask is `dropkit.keep`."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit import DropkitError, Key
from dropkit.kernels import cpu
from dropkit.mask import threshold
from dropkit.torch import at, attention, attention_mask_block, bind, merge_attention
from dropkit.torch.attention import blocks, heads, rows

KEY = Key(3, "attention", 1)
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-12}


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: float,
    keep: torch.Tensor,
    mask: torch.Tensor | None = None,
    causal: int | None = None,
    before: bool = False,
) -> torch.Tensor:
    """In float64, with a mask that is given outright and stored."""
    q, k, v = (x.double() for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.double()
    if causal is not None:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(causal), -torch.inf)
    if before:
        scores = scores.masked_fill(~keep, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    if not before:
        weights = torch.where(keep, weights * (65536 / max(threshold(p), 1)), 0.0)
    return weights @ v


def bits(shape: tuple[int, ...], p: float, key: Key = KEY, **how: Any) -> torch.Tensor:
    return torch.from_numpy(dropkit.keep(shape, p, key, **how).copy())


def close(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
    found, wanted = found.detach(), wanted.detach()
    scale = float(wanted.abs().max()) + 1e-30
    error = float((found.double() - wanted.double()).abs().max()) / scale if found.numel() else 0.0
    assert error <= BOUND[dtype], error


def sizes(generator: np.random.Generator, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """q, k and v of random sizes, several heads of q for one of k."""
    batch, few, groups = (int(generator.integers(1, 4)) for _ in range(3))
    queries, keys = (int(generator.integers(1, 300)) for _ in range(2))
    features, others = (int(generator.integers(1, 70)) for _ in range(2))
    each = ((few * groups, queries, features), (few, keys, features), (few, keys, others))
    return tuple(torch.randn(batch, *size, dtype=dtype, requires_grad=True) for size in each)


def by(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole heads in one kernel, with the weights kept or computed again; or blocks between torch's products."""
    monkeypatch.setattr(heads, "suits", lambda shape, heads_of_k: way != "blocks")
    monkeypatch.setattr(heads, "KEPT", 1 << 20 if way == "kept" else 0)


WAYS = ["kept", "again", "blocks"]


@pytest.mark.parametrize("number", range(24))
def test_outputs_and_gradients_are_those_of_float64(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(number)
    torch.manual_seed(number)
    q, k, v = sizes(generator)
    shape = (*q.shape[:3], k.shape[2])
    p, before, causal = float(generator.choice([0.0, 0.1, 0.3, 0.5])), bool(number % 5 == 0), bool(number % 2)
    mask = {0: None, 1: torch.rand(shape[0], 1, *shape[2:]) > 0.3, 2: torch.randn(1, shape[1], 1, shape[3])}[number % 3]
    by(WAYS[number // 3 % 3], monkeypatch)
    monkeypatch.setattr(rows, "QUERIES", int(generator.integers(1, 200)))
    monkeypatch.setattr(rows, "SCORES", int(generator.integers(1, 1 << 18)))
    assert blocks.usable(q, k, v, mask) or not dropkit.info()["cpu"]["compiled"]
    out = attention(
        q, k, v, p=p, training=True, key=KEY, mask=mask, is_causal=causal, enable_gqa=True, before_softmax=before
    )
    wanted = reference(q, k, v, p, bits(shape, p), mask, 0 if causal else None, before)
    close(out, wanted)
    flow = torch.randn_like(out)
    for a, b in zip(
        torch.autograd.grad(out, (q, k, v), flow), torch.autograd.grad(wanted, (q, k, v), flow.double()), strict=True
    ):
        close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_round_once(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 65, 16, dtype=dtype, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, p=0.2, training=True, key=KEY, is_causal=True)
    assert out.dtype == dtype
    wanted = reference(q, k, v, 0.2, bits((2, 3, 65, 65), 0.2), causal=0)
    close(out, wanted, dtype)
    flow = torch.randn_like(out)
    for a, b in zip(
        torch.autograd.grad(out, (q, k, v), flow), torch.autograd.grad(wanted, (q, k, v), flow.double()), strict=True
    ):
        close(a, b, dtype)


@pytest.mark.parametrize("features", [16, 64, 128, 256])
def test_head_sizes(features: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 40, features) for _ in range(3))
    out = attention(q, k, v, p=0.1, training=True, key=KEY)
    close(out, reference(q, k, v, 0.1, bits((1, 2, 40, 40), 0.1)))


def test_tensors_that_lie_otherwise_in_memory() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 50, 3, 16).transpose(1, 2) for _ in range(3))
    mask = torch.rand(50, 50).t() > 0.5
    out = attention(q, k, v, p=0.4, training=True, key=KEY, mask=mask)
    close(out, reference(q, k, v, 0.4, bits((2, 3, 50, 50), 0.4), mask))


@pytest.mark.parametrize(
    "how",
    [
        {"share": (2, 3)},
        {"share": (2,)},
        {"share": (3,)},
        {"share": (0, 1)},
        {"rows": [7, 2]},
        {"offset": (1, 2, 30, 17), "global_shape": (5, 9, 99, 80)},
    ],
    ids=str,
)
@pytest.mark.parametrize("before", [False, True])
def test_shares_rows_and_offsets_are_those_of_keep(how: dict[str, Any], before: bool) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (40, 60, 60))
    out = attention(q, k, v, p=0.3, training=True, key=KEY, before_softmax=before, **how)
    wanted = reference(q, k, v, 0.3, bits((2, 3, 40, 60), 0.3, **how), before=before)
    close(out, wanted)
    close(torch.autograd.grad(out.sum(), q)[0], torch.autograd.grad(wanted.sum(), q)[0])


def test_steps_of_a_ring_put_together_are_the_whole() -> None:
    """Three chunks of keys for two of queries: outputs and gradients, merged by their log-sum-exps, causal too."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 60, 16, requires_grad=True) for _ in range(3))
    whole = attention(q, k, v, p=0.3, training=True, key=KEY, is_causal=True)
    pieces = []
    for q0 in (0, 30):
        parts = [
            attention(
                q[:, :, q0 : q0 + 30], k[:, :, k0 : k0 + 20], v[:, :, k0 : k0 + 20], p=0.3, training=True, key=KEY,
                is_causal=True, offset=(0, 0, q0, k0), global_shape=(1, 2, 60, 60), return_lse=True,
            )
            for k0 in (0, 20, 40)
        ]  # fmt: skip
        pieces.append(merge_attention(parts)[0])
    ring = torch.cat(pieces, 2)
    close(ring, whole)
    flow = torch.randn_like(whole)
    for a, b in zip(
        torch.autograd.grad(ring, (q, k, v), flow), torch.autograd.grad(whole, (q, k, v), flow), strict=True
    ):
        close(a, b)


def test_merged_parts_of_which_none_sees_a_key_give_nothing() -> None:
    torch.manual_seed(0)
    out, lse = (torch.randn(3, *shape, dtype=torch.float64) for shape in ((1, 1, 4, 2), (1, 1, 4)))
    lse[:, :, :, 1] = -torch.inf
    lse[0, :, :, 2] = -torch.inf
    out[lse == -torch.inf] = 0
    out.requires_grad_(), lse.requires_grad_()
    merged, total = merge_attention(zip(out, lse, strict=True))
    assert not merged[0, 0, 1].any() and total[0, 0, 1] == -torch.inf and torch.isfinite(merged).all()
    torch.testing.assert_close(total[0, 0, [0, 2, 3]], torch.logsumexp(lse, 0)[0, 0, [0, 2, 3]])
    assert all(torch.isfinite(x).all() for x in torch.autograd.grad(merged.sum() + total[0, 0, 0], (out, lse)))
    for bad in ([], [(out[0], lse[0]), (out[1][:, :, :2], lse[1][:, :, :2])], [(out[0], lse[0][..., :1])]):
        with pytest.raises(DropkitError, match="merge_attention needs parts"):
            merge_attention(bad)


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5, 5))

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return attention(q, k, v, p=0.4, training=True, key=KEY, return_lse=True)

    assert torch.autograd.gradcheck(call, (q, k, v))


def test_nothing_is_dropped_in_evaluation_and_everything_at_one() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 8, requires_grad=True) for _ in range(3))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    close(attention(q, k, v, p=0.9, training=False), plain)
    close(attention(q, k, v, p=0.0, training=True), plain)
    out, lse = attention(q, k, v, p=1.0, training=True, return_lse=True)
    assert not out.any() and torch.isfinite(lse).all()
    assert all(not g.any() for g in torch.autograd.grad(out.sum(), (q, k, v)))
    assert not attention(q, k, v, p=1.0, training=True, before_softmax=True).any()


def test_a_query_that_sees_nothing_gives_zero_and_no_gradient() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[True, True, False], [False] * 3, [True] * 3])
    for dtype in (torch.float32, torch.float64):
        out, lse = attention(
            q.to(dtype), k.to(dtype), v.to(dtype), p=0.1, training=True, key=KEY, mask=mask, return_lse=True
        )
        assert not out[0, 0, 1].any() and lse[0, 0, 1] == -torch.inf
        (grad,) = torch.autograd.grad(out.sum(), q)
        assert torch.isfinite(grad).all() and not grad[0, 0, 1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_of_minus_infinity_that_is_added_hides_as_a_false_one_does(dtype: torch.dtype) -> None:
    """Padding as models of Hugging Face say it; the composed way once had gradients that were no numbers."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 3, 4, dtype=dtype, requires_grad=True) for _ in range(3))
    seen = torch.tensor([[True, True, False], [False] * 3, [True] * 3])
    found = []
    for mask in (seen, torch.where(seen, 0.0, -torch.inf).to(dtype)):
        out = attention(q, k, v, p=0.3, training=True, key=KEY, mask=mask)
        found.append([out, *torch.autograd.grad(out.sum(), (q, k, v))])
    for one, other in zip(*found, strict=True):
        assert torch.isfinite(one).all()
        close(one, other, dtype)


def test_what_is_not_finite_shows() -> None:
    q, k, v = (torch.randn(1, 1, 20, 4) for _ in range(3))
    q[0, 0, 3, 0] = torch.nan
    out = attention(q, k, v, p=0.1, training=True, key=KEY)
    assert out[0, 0, 3].isnan().all() and torch.isfinite(out[0, 0, :3]).all()


def test_bound_and_recomputed_draws_are_the_same() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(lambda x: attention(x, x, x, p=0.5, training=True), x, use_reentrant=False)

    torch.manual_seed(0)
    x = torch.randn(1, 2, 20, 8, requires_grad=True)
    with at(seed=1, site="a", step=2):
        out = Model()(x)
        (grad,) = torch.autograd.grad(out.sum(), x)
        wanted = attention(x, x, x, p=0.5, training=True)
    assert torch.equal(out, wanted)
    assert torch.equal(grad, torch.autograd.grad(wanted.sum(), x)[0])
    assert torch.equal(out, attention(x, x, x, p=0.5, training=True, key=Key(1, "a", 2)))


def test_unkeyed_calls_follow_the_generator() -> None:
    q = torch.randn(1, 1, 30, 4)
    torch.manual_seed(5)
    first = attention(q, q, q, p=0.5, training=True)
    second = attention(q, q, q, p=0.5, training=True)
    torch.manual_seed(5)
    assert torch.equal(first, attention(q, q, q, p=0.5, training=True)) and not torch.equal(first, second)


def test_compiled_and_mapped() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 12, 8) for _ in range(3))

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q, k, v, p=0.3, training=True, key=KEY, is_causal=True)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    close(compiled(q, k, v), call(q, k, v))
    mapped = torch.func.vmap(lambda q, k, v: call(q[None], k[None], v[None])[0], randomness="same")(q, k, v)
    close(mapped[:1], call(q[:1], k[:1], v[:1]))


def test_blocks_of_the_mask_are_the_mask() -> None:
    shape = (2, 3, 20, 33)
    whole = dropkit.attention_mask_block(0.3, KEY, shape=shape)
    assert np.array_equal(whole, dropkit.keep(shape, 0.3, KEY))
    block = {"q": (3, 17), "k": (5, 33)}
    assert np.array_equal(dropkit.attention_mask_block(0.3, KEY, shape=shape, **block), whole[:, :, 3:17, 5:33])
    found = attention_mask_block(0.3, KEY, shape=shape, **block)
    assert found.dtype == torch.bool and np.array_equal(found.numpy(), whole[:, :, 3:17, 5:33])
    assert attention_mask_block(1.0, KEY, shape=shape).shape == shape


Q = torch.zeros(2, 4, 5, 8)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"p": 1.5}, "1.5"),
        ({"p": float("nan")}, "nan"),
        ({"p": torch.tensor([0.1, 0.2])}, r"\(2,\)"),
        ({"q": Q[0]}, r"4 axes.*\(4, 5, 8\)"),
        ({"k": Q[..., :7]}, r"features.*\(2, 4, 5, 7\)"),
        ({"v": Q[:, :, :3]}, r"length.*\(2, 4, 3, 8\)"),
        ({"k": Q[:, :2], "v": Q[:, :2]}, "4 heads.*2.*enable_gqa"),
        ({"k": Q[:, :3], "v": Q[:, :3], "enable_gqa": True}, "4 heads.*multiple of 3"),
        ({"k": Q[:1], "v": Q[:1]}, "batch"),
        ({"v": Q.double()}, "one dtype"),
        ({"mask": torch.ones(5, 6)}, r"\(5, 6\) does not broadcast"),
        ({"mask": torch.ones(5, 5, dtype=torch.int64)}, "int64"),
        ({"training": None}, "training"),
        ({"share": (7,)}, "7"),
        ({"key": 3}, "3"),
        ({"offset": (0, 0, 3, 0), "global_shape": (2, 4, 6, 5)}, "offset"),
        ({"offset": (0, 0, -1, 0), "global_shape": (2, 4, 9, 9)}, "offset"),
        ({"offset": (0, 0, 0, 0)}, "global_shape"),
        ({"offset": (0, 0, 0, 0), "global_shape": (2**40, 4, 2**20, 2**20)}, r"2\*\*63"),
        ({"rows": [2**62, 0]}, r"2\*\*63"),
        ({"rows": [1]}, "rows"),
        ({"p": -0.1, "training": False}, "-0.1"),
        ({"p": "much"}, "much"),
        ({"k": Q.to("meta")}, "one device.*meta"),
        ({"mask": torch.ones(5, 5, device="meta")}, "meta.*mask.to"),
        ({"mask": torch.ones(1, 2, 4, 5, 5)}, "does not broadcast"),
        ({"mask": [[True]]}, "mask must be a bool tensor"),
        ({"scale": float("nan")}, "scale.*nan"),
        ({"scale": "big"}, "scale.*big"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_told(arguments: dict[str, Any], words: str) -> None:
    given = {"q": Q, "k": Q, "v": Q, "p": 0.1, "training": True, "key": KEY} | arguments
    with pytest.raises(DropkitError, match=words):
        attention(given.pop("q"), given.pop("k"), given.pop("v"), **given)


@pytest.mark.parametrize("bad", [{"shape": (2, 3, 4)}, {"q": (3, 1)}, {"k": (0, 6)}, {"q": 3}, {"p": 2.0}])
def test_a_block_that_does_not_exist_is_told(bad: dict[str, Any]) -> None:
    given = {"p": 0.1, "key": KEY, "shape": (1, 1, 5, 5)} | bad
    for block in (dropkit.attention_mask_block, attention_mask_block):
        with pytest.raises(DropkitError):
            block(
                given["p"], given["key"], **{name: value for name, value in given.items() if name not in ("p", "key")}
            )


def test_a_bound_model_may_hold_it() -> None:
    """Nothing of `bind` is in its way."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = dropkit.torch.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return attention(self.drop(x), x, x, p=0.1, training=self.training, key=KEY)

    model = bind(Model(), seed=0)
    assert model(torch.randn(1, 1, 4, 4)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("shape", [(1, 3, 30, 40), (2, 1, 1, 40), (30, 40)])
@pytest.mark.parametrize("way", WAYS)
def test_an_added_mask_has_its_gradient(shape: tuple[int, ...], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the position bias of T5, which is learned."""
    torch.manual_seed(0)
    by(way, monkeypatch)
    q, k, v = (torch.randn(2, 3, length, 8) for length in (30, 40, 40))
    mask = torch.randn(shape, requires_grad=True)
    out = attention(q, k, v, p=0.3, training=True, key=KEY, mask=mask)
    wanted = reference(q, k, v, 0.3, bits((2, 3, 30, 40), 0.3), mask)
    flow = torch.randn_like(out)
    close(torch.autograd.grad(out, mask, flow)[0], torch.autograd.grad(wanted, mask, flow.double())[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scale", [-0.5, 0.0, 2.0])
@pytest.mark.parametrize("before", [False, True])
def test_any_scale(scale: float, before: bool, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    by(way, monkeypatch)
    q, k, v = (torch.randn(1, 2, 21, 8, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, p=0.3, training=True, key=KEY, scale=scale, before_softmax=before)
    scaled = q * (scale * 8**0.5)
    wanted = reference(scaled, k, v, 0.3, bits((1, 2, 21, 21), 0.3), before=before)
    close(out, wanted)
    for a, b in zip(
        torch.autograd.grad(out.sum(), (q, k, v)), torch.autograd.grad(wanted.sum(), (q, k, v)), strict=True
    ):
        close(a, b)


@pytest.mark.parametrize("path", dropkit.info()["cpu"].get("paths", ()))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keys", [16, 70])
def test_every_path_of_the_kernels_agrees(path: str, way: str, keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values to rounding; the mask to the bit, as p = 0.5 with values of 1 shows it."""
    torch.manual_seed(0)
    by(way, monkeypatch)
    raw = cpu.extension()
    before = raw.default_path()
    q, k, v = (torch.randn(2, 3, length, 8, requires_grad=True) for length in (33, keys, keys))
    shape = (2, 3, 33, keys)
    mask = torch.rand(2, 1, 33, keys) > 0.1
    raw.set_default_path(cpu.path_code(path))
    try:
        out = attention(q, k, v, p=0.3, training=True, key=KEY, mask=mask)
        found = (out, *torch.autograd.grad(out.square().sum(), (q, k, v)))
        same = torch.zeros(2, 3, keys, 1)
        shown = attention(q[..., :1] * 0, same, torch.eye(keys).expand(2, 3, -1, -1), p=0.5, training=True, key=KEY)
    finally:
        raw.set_default_path(before)
    wanted = reference(q, k, v, 0.3, bits(shape, 0.3), mask)
    for a, b in zip(found, (wanted, *torch.autograd.grad(wanted.square().sum(), (q, k, v))), strict=True):
        close(a, b)
    assert torch.equal(shown != 0, bits(shape, 0.5))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("length", [16, 1100])  # one block, several
def test_autocast_casts_as_for_torchs_attention(length: int, inside: bool) -> None:
    drawn = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, length, 8, generator=drawn, requires_grad=True) for _ in range(3))
    how: dict[str, Any] = {"p": 0.3, "training": True, "key": KEY}

    def gradients(out: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(out.float().square().sum(), (q, k, v))

    wanted = attention(*(x.bfloat16() for x in (q, k, v)), **how)
    slopes = gradients(wanted)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(q, k, v, **how)
        found_slopes = gradients(found) if inside else ()
    assert found.dtype == torch.nn.functional.scaled_dot_product_attention(*(q.bfloat16(),) * 3).dtype
    assert torch.equal(found, wanted)
    for one, other in zip(found_slopes or gradients(found), slopes, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("lengths", [(200, 40), (40, 200), (1, 300), (300, 1), (130, 257)])
def test_the_ways_of_the_cpu_agree(
    lengths: tuple[int, int], before: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several blocks of queries, several depths, causal from a diagonal on; log-sum-exps, differentiated."""
    torch.manual_seed(0)
    by(way, monkeypatch)
    queries, keys = lengths
    q = torch.randn(2, queries, 4, 20).transpose(1, 2).requires_grad_()
    k, v = (torch.randn(2, 2, keys, size, requires_grad=True) for size in (20, 33))
    how: dict[str, Any] = {"offset": (0, 0, 30, 0), "global_shape": (2, 4, 400, 400)}
    out, lse = attention(
        q, k, v, p=0.3, training=True, key=KEY, is_causal=True, enable_gqa=True, before_softmax=before,
        return_lse=True, **how,
    )  # fmt: skip
    keep = bits((2, 4, queries, keys), 0.3, **how)
    wanted = reference(q, k, v, 0.3, keep, causal=30, before=before)
    close(out, wanted)
    shown = torch.ones(queries, keys, dtype=torch.bool).tril(30) & (keep if before else True)
    scores = q.double() @ k.double().repeat_interleave(2, 1).transpose(2, 3) * 20**-0.5
    whole = torch.logsumexp(scores.masked_fill(~shown, -torch.inf), -1)
    seen = whole.detach() > -torch.inf
    assert torch.equal(lse > -torch.inf, seen)
    flow = torch.randn_like(out)
    found = torch.autograd.grad((out * flow).sum() + lse[seen].sum(), (q, k, v))
    for a, b in zip(found, torch.autograd.grad((wanted * flow).sum() + whole[seen].sum(), (q, k, v)), strict=True):
        close(a, b)


@pytest.mark.parametrize("way", WAYS)
def test_any_number_of_threads_gives_the_same(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    by(way, monkeypatch)
    q, k, v = (torch.randn(2, 3, 150, 16, requires_grad=True) for _ in range(3))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out = attention(q, k, v, p=0.3, training=True, key=KEY)
            found.append([out, *torch.autograd.grad(out.square().sum(), (q, k, v))])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            close(a, b)


def test_no_second_backward_is_spoiled_by_the_first() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 40, 8, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, p=0.3, training=True, key=KEY)
    first, second = (torch.autograd.grad(out.sum(), (q, k, v), retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, second))
