"""The Triton kernels: bits, arithmetic, layouts, keys, gradients.

Run by Triton's interpreter in NumPy, with TRITON_INTERPRET=1 from the start of the process; or on a GPU, with
DROPKIT_DEVICE=cuda, where a fixture puts new tensors on the device.
"""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dropkit import Key, keep
from dropkit.errors import DropkitValueError, UnknownNameError
from dropkit.kernels import cpu
from dropkit.kernels import triton as package
from dropkit.kernels.triton import affine as affine_file
from dropkit.kernels.triton import bias_activation as bias_activation_file
from dropkit.kernels.triton import dropout as dropout_file
from dropkit.kernels.triton import norm as norm_file
from dropkit.kernels.triton import residual as residual_file
from dropkit.kernels.triton import walk as walk_file
from dropkit.layout import layout
from dropkit.mask import alpha_factors, scale, threshold

dropout, residual, affine = dropout_file.dropout, residual_file.residual, affine_file.affine
bias_activation = bias_activation_file.bias_activation
GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "mask_vectors.json").read_text())
KEY = Key(seed=1, site="triton", step=2)
DEVICE = os.environ.get("DROPKIT_DEVICE", "cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
RATES = [0.5, 0.25, 0.1, 0.3, 0.001, 0.0, 1.0]


def data(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(DEVICE, dtype)


def bits(kept: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(kept.copy()).to(DEVICE)


def scaled(x: torch.Tensor, p: float, kept: np.ndarray) -> torch.Tensor:
    """The specification's arithmetic, not yet rounded: float32 (float64 for float64)."""
    wide = x if x.dtype == torch.float64 else x.float()
    return torch.where(bits(kept), wide * scale(threshold(p)), 0.0)


def dropped(x: torch.Tensor, p: float, kept: np.ndarray) -> torch.Tensor:
    return scaled(x, p, kept).to(x.dtype)


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert torch.equal(a.view(torch.uint8) if a.dim() else a, b.view(torch.uint8) if b.dim() else b), (a, b)


def assert_bits(y: torch.Tensor, want: torch.Tensor) -> None:
    assert_same(y.contiguous(), want.contiguous())


# ---------------------------------------------------------------------------------------------------------------------
# the mask


@pytest.mark.parametrize("vector", GOLDEN["keep"], ids=lambda v: f"{v['site']}-{v['p']}")
def test_golden_masks(vector: dict) -> None:
    words = Key(vector["seed"], vector["site"], vector["step"]).words
    if "index" in vector:
        # What a tensor of one axis gathers by rows are its indices.
        index = [i for i in vector["index"] if i < 2**63]
        y = dropout(torch.ones(len(index)), words, vector["T"] >> 16, rows=torch.tensor(index))
        assert (y != 0).tolist() == [bit for i, bit in zip(vector["index"], vector["bits"], strict=True) if i < 2**63]
        return
    y = dropout(torch.ones(vector["shape"]), words, vector["T"] >> 16)
    assert np.packbits((y != 0).cpu().numpy().reshape(-1), bitorder="little").tobytes().hex() == vector["bits"]


@pytest.mark.parametrize(("dtype", "p"), list(itertools.product(DTYPES, RATES)))
def test_dropout_is_bit_equal(dtype: torch.dtype, p: float) -> None:
    x = data(3, 1361, dtype=dtype)
    assert_bits(dropout(x, KEY.words, threshold(p)), dropped(x, p, keep(x.shape, p, KEY)))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 4095, 4096, 4097, 9000])
def test_any_size(size: int) -> None:
    x = data(size)
    assert_bits(dropout(x, KEY.words, threshold(0.3)), dropped(x, 0.3, keep(x.shape, 0.3, KEY)))


@pytest.mark.parametrize("cell", [4, 8, 16, 32])
def test_however_words_are_shared_among_threads(cell: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_file, "CELL", cell)
    x = data(5000)
    for base in (0, 37):
        kept = keep(x.shape, 0.1, KEY, offset=(base,), global_shape=(10000,))
        assert_bits(dropout(x, KEY.words, threshold(0.1), base=base), dropped(x, 0.1, kept))


@pytest.mark.parametrize("base", [1, 31, 33, 2**31 - 5, 2**32 - 7, 2**37 - 64, 2**40 + 3, 2**62 - 17, 2**63 - 5000])
def test_base_offsets(base: int) -> None:
    x = data(4500)
    index = np.arange(x.numel(), dtype=np.uint64) + np.uint64(base)
    y = dropout(x, KEY.words, threshold(0.1), base=base)
    assert_bits(y, dropped(x, 0.1, keep(x.shape, 0.1, KEY, index=index)))


def test_dropped_nan_and_infinity_are_zero_and_kept_ones_stay() -> None:
    x = torch.tensor([float("nan"), float("inf")]).repeat(100)
    y, kept = dropout(x, KEY.words, threshold(0.5)), bits(keep(x.shape, 0.5, KEY))
    assert (y[~kept] == 0).all()
    assert torch.equal(y[kept].isnan(), x[kept].isnan())
    assert torch.equal(y[kept].isinf(), x[kept].isinf())


# ---------------------------------------------------------------------------------------------------------------------
# layouts

PLACES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "spatial": ((3, 5, 7, 9), {"share": (-1, -2)}),
    "wide spatial": ((2, 3, 4200), {"share": (2,)}),
    "time-locked": ((3, 7, 70), {"share": (1,)}),
    "time-locked, whole words": ((2, 5, 64), {"share": (1,)}),
    "stochastic depth": ((9, 50), {"share": (1,)}),
    "batch": ((4, 6, 33), {"share": (0,)}),
    "one draw": ((4, 6), {"share": (0, 1)}),
    "shard": ((3, 5, 20), {"offset": (2, 1, 13), "global_shape": (9, 8, 41)}),
    "far shard": ((3, 70), {"offset": (2**35, 33), "global_shape": (2**36, 2**20)}),
    "rows": ((5, 3, 11), {"rows": [7, 0, 7, 2**33, 100]}),
    "rows of one": ((5,), {"rows": [7, 0, 7, 2**33, 100]}),
    "one row": ((1, 40), {"rows": [9]}),
    "rows and share": ((5, 3, 11), {"rows": [7, 0, 7, 1, 100], "share": (2,)}),
    "alternating": ((2, 3, 2, 3, 2, 5), {"share": (1, 3)}),
    "0-dim": ((), {}),
}


def placed(shape: tuple[int, ...], where: dict[str, Any]) -> dict[str, Any]:
    rows = torch.tensor(where["rows"]) if "rows" in where else None
    place = layout(shape, **{**where, "rows": rows})
    return {"noise": place.strides, "base": place.base, "rows": place.rows}


@pytest.mark.parametrize("name", PLACES)
def test_layouts(name: str) -> None:
    shape, where = PLACES[name]
    x = data(*shape)
    y = dropout(x, KEY.words, threshold(0.3), **placed(shape, where))
    assert_bits(y, dropped(x, 0.3, keep(shape, 0.3, KEY, **where)))


STRIDED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda x: x.transpose(0, 2),
    "channels last": lambda x: x[None].contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: x[:, ::2, 1:],
    "expanded": lambda x: x[:, :1].expand(-1, 7, -1),
    "unaligned pointer": lambda x: x.view(-1)[1:],
}


@pytest.mark.parametrize("name", STRIDED)
def test_strides(name: str) -> None:
    x = STRIDED[name](data(4, 6, 40))
    for rows in (None, torch.arange(x.shape[0]) * 3):
        y = dropout(x, KEY.words, threshold(0.3), rows=rows)
        kept = keep(x.shape, 0.3, KEY, rows=None if rows is None else rows.cpu().numpy())
        assert_bits(y, dropped(x, 0.3, kept))
        assert y.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p_shape", [(6, 37), (37,), (6, 1)])
def test_rate_of_each_element(dtype: torch.dtype, p_shape: tuple[int, ...]) -> None:
    generator = torch.Generator("cpu").manual_seed(3)
    p = torch.rand(p_shape, generator=generator, dtype=torch.float64, device="cpu").to(DEVICE, dtype)
    p.view(-1)[:3] = torch.tensor([0.0, 1.0, 0.5], dtype=dtype)
    x = data(6, 37, dtype=dtype)
    wide = (p if dtype == torch.float64 else p.float()).cpu().numpy()
    t = (65536 - np.rint(wide * 65536)).astype(np.int64)
    kept = keep((6, 37), wide, KEY)
    factor = torch.from_numpy(np.where(t > 0, 65536 / np.maximum(t, 1).astype(wide.dtype), 0)).to(DEVICE)
    want = torch.where(bits(kept), (x if dtype == torch.float64 else x.float()) * factor, 0.0)
    assert_bits(dropout(x, KEY.words, p), want.to(dtype))
    shared = dropout(x, KEY.words, p, noise=(1, 0), base=5)
    kept = keep((6, 37), wide, KEY, index=np.arange(5, 11)[:, None])
    assert torch.equal(shared != 0, bits(kept))


# ---------------------------------------------------------------------------------------------------------------------
# key and rate from memory


def test_key_words_from_memory() -> None:
    x = data(100)
    assert_bits(dropout(x, torch.tensor(KEY.words), 40000), dropout(x, KEY.words, 40000))


@pytest.mark.parametrize("seed", [1, -1, 2**40 + 7])
def test_seed_and_step_from_memory_are_read_anew(seed: int) -> None:
    x = torch.ones(300)
    site = 2**63 + 12345
    step = torch.tensor([2**32 - 2])
    stored = walk_file.StoredKey(torch.tensor([seed]), site, step)
    masks = []
    for _ in range(4):
        now = Key(seed % 2**64, site, int(step))
        y = dropout(x, stored, threshold(0.5))
        assert_bits(y, dropped(x, 0.5, keep(x.shape, 0.5, now)))
        masks.append((y != 0).cpu().numpy().tobytes())
        step += 1
    assert len(set(masks)) == 4


@pytest.mark.parametrize("p", RATES)
def test_rate_from_memory(p: float) -> None:
    x = data(200)
    want = dropout(x, KEY.words, threshold(p))
    for rate in (torch.tensor(threshold(p)), torch.tensor([p]), torch.tensor(p, dtype=torch.float64)):
        assert_bits(dropout(x, KEY.words, rate), want)


def test_a_rate_that_is_no_probability_drops() -> None:
    for p in (float("nan"), -0.1, 1.5):
        assert (dropout(torch.ones(50), KEY.words, torch.tensor(p)) == 0).all()


# ---------------------------------------------------------------------------------------------------------------------
# affine


def alpha_dropped(x: torch.Tensor, p: float, kept: np.ndarray) -> torch.Tensor:
    wide = (x if x.dtype == torch.float64 else x.float()).cpu().numpy()
    factor, shift, gone = (wide.dtype.type(value) for value in alpha_factors(threshold(p)))
    return torch.from_numpy(np.where(kept, wide * factor + shift, gone)).to(DEVICE, x.dtype)


@pytest.mark.parametrize(("dtype", "p"), list(itertools.product(DTYPES, RATES)))
def test_affine_is_bit_equal(dtype: torch.dtype, p: float) -> None:
    x, t = data(3, 1361, dtype=dtype), threshold(p)
    want = alpha_dropped(x, p, keep(x.shape, p, KEY))
    assert_bits(affine(x, KEY.words, t, alpha_factors(t)), want)
    stored = torch.tensor(alpha_factors(t), dtype=torch.float64)
    assert_bits(affine(x, KEY.words, torch.tensor(t), stored), want)
    assert affine(x, KEY.words, t, alpha_factors(t), inplace=True) is x
    assert_bits(x, want)


@pytest.mark.parametrize("name", PLACES)
def test_affine_layouts(name: str) -> None:
    shape, where = PLACES[name]
    x, t = data(*shape), threshold(0.3)
    y = affine(x, KEY.words, t, alpha_factors(t), **placed(shape, where))
    assert_bits(y, alpha_dropped(x, 0.3, keep(shape, 0.3, KEY, **where)))


def test_affine_strides_nan_and_nothing() -> None:
    t = threshold(0.5)
    x = data(4, 6, 40).transpose(0, 2)
    x[0] = float("nan")
    kept = bits(keep(x.shape, 0.5, KEY))
    for inplace in (False, True):
        y = affine(x, KEY.words, t, (2.0, 1.0, -3.0), inplace=inplace)
        assert y.stride() == torch.empty_like(x).stride()
        assert (y[~kept] == -3).all()
        assert torch.equal(y.isnan().any(), torch.tensor(True))
    assert affine(torch.empty(0, 3), KEY.words, t, (2.0, 1.0, -3.0)).shape == (0, 3)


# ---------------------------------------------------------------------------------------------------------------------
# residual, bias and activation


@pytest.mark.parametrize(("dtype", "p"), list(itertools.product(DTYPES, [0.5, 0.1, 0.0, 1.0])))
def test_residual(dtype: torch.dtype, p: float) -> None:
    x, r = data(4, 37, dtype=dtype), data(4, 37, dtype=dtype, seed=1)
    wide = r if dtype == torch.float64 else r.float()
    want = (scaled(x, p, keep(x.shape, p, KEY)) + wide).to(dtype)
    assert_bits(residual(x, r, KEY.words, threshold(p)), want)
    laid_otherwise = r.t().contiguous().t()
    assert_bits(residual(x, laid_otherwise, KEY.words, threshold(p)), want)
    path = residual(x, r, KEY.words, threshold(p), noise=(1, 0))
    assert_bits(path, (scaled(x, p, keep(x.shape, p, KEY, share=(1,))) + wide).to(dtype))


REFERENCES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda h: torch.nn.functional.gelu(h, approximate="tanh"),
}


@pytest.mark.parametrize("activation", REFERENCES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias_shape", [None, (37,), (5, 1)])
def test_bias_activation(activation: str, dtype: torch.dtype, bias_shape: tuple[int, ...] | None) -> None:
    x, dy = data(4, 5, 37, dtype=dtype), data(4, 5, 37, dtype=dtype, seed=1)
    b = None if bias_shape is None else data(*bias_shape, dtype=dtype, seed=2)
    rate = threshold(0.3)
    y = bias_activation(x, b, KEY.words, rate, activation)
    dx, db = bias_activation_file.bias_activation_backward(dy, x, b, KEY.words, rate, activation)

    h = x.double() if b is None else x.double() + b.double()
    h.requires_grad_()
    kept = keep(x.shape, 0.3, KEY)
    want = scaled(REFERENCES[activation](h), 0.3, kept)
    want.backward(dy.double())
    close = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(y.double(), want.detach(), rtol=close, atol=close)
    torch.testing.assert_close(dx.double(), h.grad, rtol=close, atol=close)
    assert (y[bits(~kept)] == 0).all()
    if b is None:
        assert db is None
    else:
        assert db is not None
        assert db.dtype == dtype
        torch.testing.assert_close(db.double(), h.grad.sum_to_size(b.shape), rtol=20 * close, atol=20 * close)


@pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not compiled")
@pytest.mark.parametrize("activation", REFERENCES)
def test_float32_activations_are_the_cpu_kernels_bits(activation: str) -> None:
    codes = {"relu": cpu.RELU, "gelu": cpu.GELU, "gelu_tanh": cpu.GELU_TANH}
    grads = {"relu": cpu.RELU_GRAD, "gelu": cpu.GELU_GRAD, "gelu_tanh": cpu.GELU_TANH_GRAD}
    x, b, dy = 4 * data(20, 64), data(64, seed=1), data(20, 64, seed=2)
    x[0, :8] = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 50.0, -50.0, float("inf"), 3e-39])
    x[1, :2] = float("nan")
    want, rate = np.empty((20, 64), np.float32), threshold(0.1)
    inputs = [x.cpu().numpy(), np.broadcast_to(b.cpu().numpy(), x.shape)]
    cpu.walk(codes[activation], inputs, want, KEY.words, rate, (64, 1))
    with np.errstate(invalid="ignore"):  # NumPy, which interprets, warns of infinity times zero
        y = bias_activation(x, b, KEY.words, rate, activation)
    np.testing.assert_array_equal(y.cpu().numpy(), want)
    cpu.walk(grads[activation], [dy.cpu().numpy(), *inputs], want, KEY.words, rate, (64, 1))
    with np.errstate(invalid="ignore"):
        dx, _ = bias_activation_file.bias_activation_backward(dy, x, b, KEY.words, rate, activation)
    np.testing.assert_array_equal(dx.cpu().numpy(), want)


def test_an_unknown_activation() -> None:
    with pytest.raises(UnknownNameError, match="unknown activation 'gelo'; did you mean 'gelu'"):
        bias_activation(data(3), None, KEY.words, 40000, "gelo")


# ---------------------------------------------------------------------------------------------------------------------
# norms


def normed(z: torch.Tensor, w: torch.Tensor | None, b: torch.Tensor | None, rms: bool) -> torch.Tensor:
    if rms:
        return torch.nn.functional.rms_norm(z, z.shape[-1:], w, 1e-5)
    return torch.nn.functional.layer_norm(z, z.shape[-1:], w, b, 1e-5)


@pytest.mark.parametrize("rms", [False, True], ids=["layer", "rms"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 8, 48), (3, 1), (70,), (2, 4500)], ids=str)
def test_norm(rms: bool, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, r = data(*shape, dtype=dtype), data(*shape, dtype=dtype, seed=1)
    w, b = data(shape[-1], dtype=dtype, seed=2), None if rms else data(shape[-1], dtype=dtype, seed=3)
    dy, dz = data(*shape, dtype=dtype, seed=4), data(*shape, dtype=dtype, seed=5)
    rate = threshold(0.3)
    out = norm_file.norm(x, r, w, b, KEY.words, rate, 1e-5, rms)
    grads = norm_file.norm_backward(dy, dz, out.z, w, b, out.mean, out.rstd, KEY.words, rate)
    assert_bits(out.z, residual(x, r, KEY.words, rate))
    assert (out.mean is None) == rms

    kept = keep(shape, 0.3, KEY)
    z = out.z.double().requires_grad_()
    w64 = w.double().requires_grad_()
    b64 = None if b is None else b.double().requires_grad_()
    y = normed(z, w64, b64, rms)
    torch.autograd.backward([y, z], [dy.double(), dz.double()])
    close = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
    for got, want in [
        (out.y, y.detach()),
        (grads.r, z.grad),
        (grads.x, scaled(z.grad, 0.3, kept)),
        (grads.weight, w64.grad),
        *([] if b64 is None else [(grads.bias, b64.grad)]),
    ]:
        assert got is not None
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), want, rtol=close, atol=close)
    assert_bits(grads.x, dropped(grads.r, 0.3, kept))


def test_norm_without_weights_with_shared_noise_and_no_gradient_of_the_sum() -> None:
    x, r, dy = data(4, 6, 40), data(4, 6, 40, seed=1), data(4, 6, 40, seed=2)
    where = placed(x.shape, {"share": (1, 2), "rows": [5, 0, 9, 2]})
    out = norm_file.norm(x, r, None, None, KEY.words, 40000, 1e-5, **where)
    grads = norm_file.norm_backward(dy, None, out.z, None, None, out.mean, out.rstd, KEY.words, 40000, **where)
    assert_bits(out.z, residual(x, r, KEY.words, 40000, **where))
    z = out.z.clone().requires_grad_()
    normed(z, None, None, False).backward(dy)
    torch.testing.assert_close(grads.r, z.grad)
    assert grads.weight is None
    assert grads.bias is None
    assert_bits(grads.x, dropout(grads.r, KEY.words, 40000, **where))


def test_a_row_too_long_or_missing() -> None:
    for x in (torch.ones(()), torch.ones(1, 65537), torch.ones(3, 0)):
        with pytest.raises(DropkitValueError, match="last axis of 1 to 65536 elements, got shape"):
            norm_file.norm(x, x, None, None, KEY.words, 40000, 1e-5)


def test_availability() -> None:
    assert package.available()
    assert package.info()["interpreted"] == (DEVICE == "cpu")
