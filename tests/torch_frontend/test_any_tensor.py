"""Whatever torch calls a dense tensor: any strides, any number of axes, lazily negated, at any address."""

import numpy as np
import pytest
import torch

import dropkit
from dropkit import Key
from dropkit.torch import fused
from dropkit.torch.ops import dropout
from tests.numpy_frontend.test_any_array import axes

KEY = Key(3, "any", 1)
RNG = np.random.Generator(np.random.Philox(9))


def unaligned(values: torch.Tensor) -> torch.Tensor:
    """The values one byte behind the start of a storage."""
    room = bytearray(1 + values.numel() * values.itemsize)
    room[1:] = values.contiguous().numpy().tobytes()
    return torch.frombuffer(room, dtype=values.dtype, offset=1).reshape(values.shape)


def negated(values: torch.Tensor) -> torch.Tensor:
    """The values as a lazy negation of what their pointer says."""
    found = torch.complex(torch.zeros_like(values), -values).conj().imag
    assert found.is_neg() and torch.equal(found, values)
    return found


def record(values: torch.Tensor) -> torch.Tensor:
    """The values as every second number of NumPy's records."""
    table = np.zeros(values.shape, [("value", "f4"), ("more", "f4")])
    table["value"] = values.numpy()
    return torch.from_numpy(table["value"])


MEMORY = {
    "transposed": lambda a: a.t().contiguous().t(),
    "every second": lambda a: a.repeat_interleave(2, dim=1)[:, ::2],
    "one row for all": lambda a: a[:1].expand(a.shape),
    "one number for all": lambda a: a[:1, :1].expand(a.shape),
    "overlapping windows": lambda a: a.reshape(-1)[: sum(a.shape)].as_strided(a.shape, (1, 1)),
    "unaligned": unaligned,
    "negated": negated,
    "of NumPy, in a record": lambda a: record(a),
}


def numbers(scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(scale * RNG.uniform(size=(10, 100)).astype(np.float32))


@pytest.mark.parametrize("memory", MEMORY)
def test_tensors_of_any_memory_are_dropped_as_their_copy_is(memory: str) -> None:
    x, p = MEMORY[memory](numbers()), MEMORY[memory](numbers())
    same = x.clone(memory_format=torch.contiguous_format).resolve_neg()
    rates = p.clone(memory_format=torch.contiguous_format).resolve_neg()
    for rate, copy in ((0.3, 0.3), (p, rates)):
        wanted = dropout(same, copy, training=True, key=KEY)
        assert torch.equal(dropout(x, rate, training=True, key=KEY), wanted)
        assert torch.equal(dropout(same, rate, training=True, key=KEY), wanted)
        assert 0 < (wanted == 0).sum() < wanted.numel()


@pytest.mark.parametrize("memory", MEMORY)
def test_neighbours_of_any_memory(memory: str) -> None:
    x, r = MEMORY[memory](numbers()), MEMORY[memory](numbers())
    bias = MEMORY[memory](numbers())[0]
    copies = [each.clone(memory_format=torch.contiguous_format).resolve_neg() for each in (x, r, bias)]
    found = fused.dropout_add(x, r, 0.3, training=True, key=KEY)
    assert torch.equal(found, fused.dropout_add(*copies[:2], 0.3, training=True, key=KEY))
    results = []
    for first, second, incoming in ((x, bias, r), (copies[0], copies[2], copies[1])):
        leaf = first.detach().requires_grad_()
        y = fused.bias_act_dropout(leaf, second, 0.3, activation="relu", training=True, key=KEY)
        results.append((y, *torch.autograd.grad(y, leaf, incoming)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rows", ["reversed", "every third", "repeated", "negated", "of bytes"])
def test_rows_of_any_memory(rows: str) -> None:
    numbers = torch.tensor([9, 2, 5, 0, 7, 3])
    held = {
        "reversed": lambda: torch.from_numpy(numbers.numpy()[::-1].copy()),
        "every third": lambda: numbers.repeat_interleave(3)[::3],
        "repeated": lambda: numbers[:1].expand(6),
        "negated": lambda: torch._neg_view(-numbers),
        "of bytes": lambda: numbers.to(torch.uint8),
    }[rows]()
    x = torch.ones(6, 40)
    y = dropout(x, 0.5, training=True, key=KEY, rows=held)
    for number, row in enumerate(held.tolist()):
        assert torch.equal(y[number], dropout(x[:1], 0.5, training=True, key=KEY, rows=[row])[0])


@pytest.mark.parametrize("rank", [15, 16, 20, 32, 33, 60])
def test_any_number_of_axes(rank: int) -> None:
    """R9."""
    shape = axes(rank)
    flat = torch.from_numpy(RNG.normal(size=2**12).astype(np.float32))
    x = flat.reshape(shape)
    backwards = tuple(reversed(range(rank)))
    other = x.permute(backwards).contiguous().permute(backwards)
    p = torch.tensor([0.2, 0.7]).reshape([1] * (rank - 1) + [2])
    for rate in (0.3, p):
        whole = rate.expand(shape).reshape(-1) if isinstance(rate, torch.Tensor) else rate
        wanted = dropout(flat, whole, training=True, key=KEY)
        for each in (x, other):
            assert torch.equal(dropout(each, rate, training=True, key=KEY).reshape(-1), wanted)
    for each in (x, other):
        found = fused.dropout_add(each, other, 0.3, training=True, key=KEY)
        assert torch.equal(found, x + dropout(x, 0.3, training=True, key=KEY))
    y = dropout(other, 0.5, training=True, key=KEY, share=range(0, rank, 2))
    kept = dropkit.keep(shape, 0.5, KEY, share=range(0, rank, 2))
    assert torch.equal(y != 0, torch.from_numpy(kept.copy()))


@pytest.mark.parametrize("rank", [15, 18])
def test_many_reversed_axes_longer_than_one(rank: int) -> None:
    """R9: reversed (2, 2, ...) axes; forward, backward and in place."""
    flat = torch.from_numpy(RNG.normal(size=2**rank).astype(np.float32))
    backwards = tuple(reversed(range(rank)))
    x = flat.reshape([2] * rank).permute(backwards).contiguous().permute(backwards)
    wanted = dropout(flat, 0.3, training=True, key=KEY)
    assert torch.equal(dropout(x, 0.3, training=True, key=KEY).reshape(-1), wanted)
    x.requires_grad_()
    dropout(x, 0.3, training=True, key=KEY).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad.reshape(-1), dropout(torch.ones_like(flat), 0.3, training=True, key=KEY))
    x = x.detach()
    dropout(x, 0.3, training=True, key=KEY, inplace=True)
    assert torch.equal(x.reshape(-1), wanted)
