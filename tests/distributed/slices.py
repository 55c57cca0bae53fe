"""DTensors: each rank's part gets its slice of the whole tensor's mask, and so does its gradient."""

import copy
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import SequenceParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard

import dropkit.torch
from dropkit import Key
from dropkit.axes.noise import Alpha
from dropkit.torch import AlphaDropout, Dropout, Dropout2d, at, bind, dropout, unbind
from dropkit.torch.parts.dtensor import first_element
from dropkit.torch.sharding import ShardedDropout

KEY = Key(seed=3, site="here", step=5)
WHOLE = torch.arange(1.0, 1 + 7 * 6 * 5).reshape(7, 6, 5)  # no axis is divisible by all of 2 and 4


def layouts(ranks: int) -> list[tuple[Any, list[Placement]]]:
    line = init_device_mesh("cpu", (ranks,))
    found: list[tuple[Any, list[Placement]]] = [(line, [one]) for one in (Replicate(), Shard(0), Shard(1), Shard(2))]
    if ranks == 4:
        square = init_device_mesh("cpu", (2, 2))
        pairs = [(Shard(0), Shard(0)), (Shard(1), Shard(0)), (Replicate(), Shard(2)), (Shard(2), Replicate())]
        found += [(square, list(pair)) for pair in pairs]
    return found


def same(found: torch.Tensor, whole: torch.Tensor) -> None:
    assert isinstance(found, DTensor)
    assert torch.equal(found.full_tensor(), whole), found.placements


def placements(rank: int, ranks: int, folder: Path) -> Any:
    count = 0
    for mesh, layout in layouts(ranks):
        for options in ({}, {"share": (1,)}, {"share": (0, 2)}, {"noise": Alpha()}, {"p": 1.0}):
            rest = {"p": 0.4, "training": True, "key": KEY, **options}
            plain = WHOLE.clone().requires_grad_()
            expected = dropout(plain, **rest)
            expected.backward(WHOLE)
            x = distribute_tensor(WHOLE, mesh, layout).requires_grad_()
            y = dropout(x, **rest)
            assert y.placements == tuple(layout)
            assert y.shape == x.shape and y.stride() == x.stride()
            same(y, expected)
            y.backward(distribute_tensor(WHOLE, mesh, layout))
            same(x.grad, plain.grad)
            count += 1
    return count


def offsets(rank: int, ranks: int, folder: Path) -> Any:
    """Where parts begin, as torch says it."""
    count = 0
    for mesh, layout in layouts(ranks):
        for shape in ((7, 6, 5), (1, 2, 3), (16, 8, 4), (3, 0, 9)):
            size, start = compute_local_shape_and_global_offset(shape, mesh, layout)
            if 0 not in size:  # an empty part begins nowhere
                assert first_element(shape, mesh, layout) == start, (shape, layout)
                count += 1
    return count


def coordinates(rank: int, ranks: int, folder: Path) -> Any:
    """Rows, a place in a larger whole, a split and a p of many values are those of the whole DTensor."""
    rows = torch.tensor([4, 0, 9, 100, 3, 2, 8])
    larger = {"offset": (1, 2, 3), "global_shape": (9, 9, 9)}
    p = torch.linspace(0, 1, 7 * 6).reshape(7, 6, 1).double()
    for mesh, layout in layouts(ranks):
        x = distribute_tensor(WHOLE, mesh, layout)
        for rest in ({"rows": rows}, larger, {"rows": rows, "offset": (0, 2, 3), "global_shape": (1, 9, 9)}):
            same(
                dropout(x, 0.4, training=True, key=KEY, **rest),
                dropout(WHOLE, 0.4, training=True, key=KEY, **rest),
            )
        with at(split={0: (1, 2), 2: (2, 3)}):
            same(dropout(x, 0.4, training=True, key=KEY), dropout(WHOLE, 0.4, training=True, key=KEY))
        same(dropout(x, p, training=True, key=KEY), dropout(WHOLE, p, training=True, key=KEY))
        if layout[0].is_shard() and not (layout[0].is_shard(0) and x.to_local().shape[0] == 7):
            try:
                dropout(x, 0.4, training=True, key=KEY, rows=rows[:3])
            except ValueError as error:
                assert "each entry of axis 0 of the whole DTensor of shape (7, 6, 5), got shape (3,)" in str(error)
            else:
                raise AssertionError("rows of another length were taken")
    return len(layouts(ranks))


def sums(rank: int, ranks: int, folder: Path) -> Any:
    """One mask on the terms of a sum is that mask on the sum; for other laws the sum is taken first."""
    mesh = init_device_mesh("cpu", (ranks,))
    term = DTensor.from_local(WHOLE * (rank + 1), mesh, [Partial()])
    total = term.full_tensor()
    y = dropout(term, 0.5, training=True, key=KEY)
    assert y.placements == (Partial(),)
    same(y, dropout(total, 0.5, training=True, key=KEY))
    y = dropout(term, 0.5, training=True, key=KEY, noise=Alpha())
    assert y.placements == (Replicate(),)
    same(y, dropout(total, 0.5, training=True, key=KEY, noise=Alpha()))
    largest = DTensor.from_local(WHOLE * (rank + 1), mesh, [Partial("max")])
    same(dropout(largest, 0.5, training=True, key=KEY), dropout(WHOLE * ranks, 0.5, training=True, key=KEY))
    # As FSDP lays out parameters that are tensor-parallel too: no part is one box of the whole.
    if ranks == 4:
        square = init_device_mesh("cpu", (2, 2))
        whole = torch.arange(1.0, 65.0).reshape(8, 8)
        local = whole.reshape(2, 2, 2, 8)[:, rank // 2, :][rank % 2]
        x = DTensor.from_local(
            local, square, [_StridedShard(0, split_factor=2), Shard(0)], shape=whole.shape, stride=whole.stride()
        )
        same(x, whole)
        same(dropout(x, 0.5, training=True, key=KEY), dropout(whole, 0.5, training=True, key=KEY))
    return True


def in_place(rank: int, ranks: int, folder: Path) -> Any:
    for mesh, layout in layouts(ranks):
        expected = dropout(WHOLE * 3, 0.5, training=True, key=KEY)
        x = distribute_tensor(WHOLE * 3, mesh, layout)
        assert dropout(x, 0.5, training=True, key=KEY, inplace=True) is x
        same(x, expected)
        leaf = distribute_tensor(WHOLE, mesh, layout).requires_grad_()
        x = leaf * 3
        assert dropout(x, 0.5, training=True, key=KEY, inplace=True) is x
        same(x.detach(), expected)
        x.backward(distribute_tensor(torch.ones_like(WHOLE), mesh, layout))
        same(leaf.grad, 3 * dropout(torch.ones_like(WHOLE), 0.5, training=True, key=KEY))
    return True


def outsiders(rank: int, ranks: int, folder: Path) -> Any:
    """A tensor on a mesh that not all ranks belong to; the others hold nothing of it, and count the draw too."""
    mesh = init_device_mesh("cpu", (ranks,))
    only_first = mesh if ranks == 1 else DeviceMesh("cpu", [0])
    model = bind(nn.Sequential(Dropout(0.5, share=(1,))), seed=4, data_parallel=False)
    x = distribute_tensor(WHOLE, only_first, [Shard(0)])
    y = model(x)
    assert isinstance(y, DTensor) and y.shape == WHOLE.shape
    assert int(model.dropkit_step) == 1
    expected = bind(nn.Sequential(Dropout(0.5, share=(1,))), seed=4, data_parallel=False)(WHOLE)
    assert torch.equal(y.to_local(), expected if rank == 0 else torch.empty(0))
    return True


def modules(rank: int, ranks: int, folder: Path) -> Any:
    """Bound modules, evaluation, p = 0, channels, and the plan style of torch that knows dropout."""
    mesh = init_device_mesh("cpu", (ranks,))
    x = distribute_tensor(WHOLE, mesh, [Shard(1)])
    model = bind(nn.Sequential(Dropout(0.5), AlphaDropout(0.2)), seed=4)
    one = bind(nn.Sequential(Dropout(0.5), AlphaDropout(0.2)), seed=4, data_parallel=False)
    for _ in range(2):
        same(model(x), one(WHOLE))
    assert model.eval()(x) is x
    assert Dropout(0.0)(x) is x
    images = torch.ones(4, 6, 3, 3)
    channels = bind(Dropout2d(0.5), data_parallel=False)
    for layout in (Shard(0), Shard(1), Shard(3)):
        with at(step=0):
            same(channels(distribute_tensor(images, mesh, [layout])), channels(images))
    # A local chunk of time becomes a DTensor; one that has to be cut from a replicated or summed one first, too.
    plan = bind(nn.Sequential(Dropout(0.5)), data_parallel=False)
    with at(step=7):
        expected = plan(WHOLE[:, :4])
    parallelize_module(plan, mesh, {"0": SequenceParallel()})
    with at(step=7):
        same(plan(WHOLE[:, :4].chunk(ranks, 1)[rank]), expected) if 4 % ranks == 0 else None
        same(plan(DTensor.from_local(WHOLE[:, :4] / ranks, mesh, [Partial()])), expected)
    return True


def compiled(rank: int, ranks: int, folder: Path) -> Any:
    """One graph, forward and backward, for DTensors and for the split of plain tensors."""
    if ranks != 2:  # compilers take their time, and have nothing to do with the number of ranks
        return None
    mesh = init_device_mesh("cpu", (ranks,))
    for layout in (Replicate(), Shard(0)):
        torch.compiler.reset()
        model = bind(nn.Sequential(Dropout(0.5), Dropout(0.25)), seed=4)
        one = bind(nn.Sequential(Dropout(0.5), Dropout(0.25)), seed=4, data_parallel=False)
        quick = torch.compile(model, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            x = distribute_tensor(WHOLE, mesh, [layout]).requires_grad_()
            plain = WHOLE.clone().requires_grad_()
            expected = one(plain)
            y = quick(x)
            same(y, expected)
            y.backward(distribute_tensor(WHOLE, mesh, [layout]))
            expected.backward(WHOLE)
            same(x.grad, plain.grad)
    torch.compiler.reset()
    told = bind(nn.Sequential(Dropout(0.5)), seed=4, data_parallel=mesh)
    one = bind(nn.Sequential(Dropout(0.5)), seed=4, data_parallel=False)
    expected = one(torch.ones(3 * ranks, 5))[3 * rank : 3 * rank + 3]
    assert torch.equal(torch.compile(told, backend="aot_eager", fullgraph=True)(torch.ones(3, 5)), expected)
    return True


def plans(rank: int, ranks: int, folder: Path) -> Any:
    """The style for plain tensors: before and after bind, unbound, copied, pickled, for heads and for features."""
    mesh = init_device_mesh("cpu", (ranks,))
    x = torch.ones(2, 8, 12)
    one = bind(Dropout(0.5), seed=1, data_parallel=False)
    with at(step=0):
        whole = one(x)
    expected = {dim: whole.chunk(ranks, dim)[rank] for dim in (1, -1)}
    for dim in (1, -1):
        first = bind(parallelize_module(Dropout(0.5), mesh, ShardedDropout(dim)), seed=1, data_parallel=False)
        later = parallelize_module(bind(Dropout(0.5), seed=1, data_parallel=False), mesh, ShardedDropout(dim))
        for model in (first, later, copy.deepcopy(first), pickle.loads(pickle.dumps(later))):
            with at(step=0):
                assert torch.equal(model(x.chunk(ranks, dim)[rank]), expected[dim])
                same(model(distribute_tensor(x, mesh, [Shard(dim % 3)])), whole)  # says so by itself
        unbind(first)
        with at(seed=1, site="", step=0):
            assert torch.equal(first(x.chunk(ranks, dim)[rank]), expected[dim])
        torch.manual_seed(8)
        found = [torch.empty_like(expected[dim]) for _ in range(ranks)]
        torch.distributed.all_gather(found, first(x.chunk(ranks, dim)[rank]).contiguous())
        torch.manual_seed(8)
        # all ranks draw for one process here, and are meant to agree
        dropkit.torch.drawing.coordinates._watch.waiting = False
        assert torch.equal(torch.cat(found, dim), Dropout(0.5)(x))
    try:
        parallelize_module(nn.Dropout(0.5), mesh, ShardedDropout())
    except ValueError as error:
        assert "meets a Dropout without dropkit dropouts; swap torch's for dropkit's first" in str(error)
    else:
        raise AssertionError("torch's dropout was taken")
    return True


CHECKS = [placements, offsets, coordinates, sums, in_place, outsiders, modules, compiled, plans]
