"""Learned rates on several ranks: every gradient is that of one process with the whole batch."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from dropkit.torch import bind, regularizer
from dropkit.torch.learned import (
    ConcreteDropout,
    HardConcrete,
    LearnableBernoulli,
    SparseVariationalLinear,
    VariationalGaussianDropout,
    antithetic_backward,
    hypergradient_backward,
    rates,
)

EACH = 8  # samples of a rank
X = torch.randn(4 * EACH, 6, generator=torch.Generator().manual_seed(3))
Gradients = dict[str, torch.Tensor]


def coupled(shape: tuple[int, ...] = (), **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    drop = LearnableBernoulli(0.5, shape=shape, inputs=8, **options)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), drop, nn.Linear(8, 1))


def relaxed(shape: tuple[int, ...] = ()) -> nn.Sequential:
    torch.manual_seed(0)
    head = nn.Linear(8, 1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), ConcreteDropout(0.3, shape=shape, layer=head), head)


def mine(rank: int) -> torch.Tensor:
    return X[EACH * rank : EACH * rank + EACH]


def losses(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: model(x).squeeze(1).square()


def loss(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: losses(model, x)().mean()


def gradients(model: nn.Module) -> Gradients:
    def whole(tensor: Any) -> torch.Tensor:
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    return {
        name.removeprefix("module."): whole(p.grad).clone()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def one_process(ranks: int, steps: int = 1, **options: Any) -> Gradients:
    """The gradients of the whole batch."""
    model = bind(coupled(**options), seed=1, data_parallel=False)
    for _ in range(steps):
        antithetic_backward(model, losses(model, X[: EACH * ranks]))
    return gradients(model)


def equal(found: Gradients, wanted: Gradients, only: str = "") -> None:
    assert set(found) == set(wanted)
    for name in wanted:
        if only in name:
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-5, atol=1e-7)


def antithetic_ddp(rank: int, ranks: int, folder: Path) -> Any:
    """Whichever of the two is handed over, the model or its wrapper, bound or not, one rate or one for each unit."""
    found = []
    for options in ({}, {"shape": (8,)}, {"estimator": "arm"}):
        wanted = one_process(ranks, **options)
        bound = bind(coupled(**options), seed=1)
        wrapped = DistributedDataParallel(bound)
        antithetic_backward(bound, losses(wrapped, mine(rank)))
        equal(gradients(bound), wanted)
        wrapped = DistributedDataParallel(bind(coupled(**options), seed=1))
        antithetic_backward(wrapped, losses(wrapped, mine(rank)))
        equal(gradients(wrapped), wanted)
        found.append(wanted["2.logit"].flatten()[0].item())
    once = bind(coupled(), seed=1)
    antithetic_backward(once, losses(DistributedDataParallel(once), mine(rank)), both=False)
    ambient = coupled()
    torch.manual_seed(rank)
    antithetic_backward(ambient, losses(DistributedDataParallel(ambient), mine(rank)))
    for model in (once, ambient):
        value = gradients(model)["2.logit"]
        mean = value.clone()
        torch.distributed.all_reduce(mean)
        torch.testing.assert_close(mean / ranks, value)  # the same on every rank
    return found


def antithetic_no_sync(rank: int, ranks: int, folder: Path) -> Any:
    """Under no_sync every rank keeps its own; with the next step that is reduced, all is."""
    bound = bind(coupled(), seed=1)
    wrapped = DistributedDataParallel(bound)
    with wrapped.no_sync():
        antithetic_backward(wrapped, losses(wrapped, mine(rank)))
    alone = gradients(bound)["2.logit"].item()
    antithetic_backward(wrapped, losses(wrapped, mine(rank)))
    equal(gradients(bound), one_process(ranks, steps=2))
    return alone


def antithetic_group(rank: int, ranks: int, folder: Path) -> Any:
    """A wrapper that is not known, but whose group is: rates are reduced, weights are the wrapper's."""
    wanted = one_process(ranks)
    mesh = init_device_mesh("cpu", (ranks,))
    square = init_device_mesh("cpu", (2, ranks // 2)) if ranks > 1 else mesh
    for group in (torch.distributed.group.WORLD, mesh, square):
        model = bind(coupled(scale=True), seed=1, data_parallel=group)
        antithetic_backward(model, losses(model, mine(rank)))
        for name, p in model.named_parameters():
            if name != "2.logit":
                torch.distributed.all_reduce(p.grad)
                p.grad /= ranks
        if ranks == 1:
            equal(gradients(model), wanted)
        copied = copy.deepcopy(bind(coupled(scale=False), seed=1, data_parallel=group))
        antithetic_backward(copied, losses(copied, mine(rank)))
        equal(gradients(copied), one_process(ranks, scale=False), only="logit")  # no path-wise term
    return True


def antithetic_sharded(rank: int, ranks: int, folder: Path) -> Any:
    """Rates in the shards of fully_shard, one of them too few for all ranks; around the model, or around its parts."""
    meshes = [init_device_mesh("cpu", (ranks,))]
    if ranks == 4:
        meshes.append(init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    for shape in ((), (8,)):
        wanted = one_process(ranks, shape=shape)
        for mesh in meshes:
            for parts in (False, True):
                model: Any = bind(coupled(shape), seed=1)
                for part in list(model) if parts else []:
                    fully_shard(part, mesh=mesh)
                fully_shard(model, mesh=mesh)
                antithetic_backward(model, losses(model, mine(rank)))
                equal(gradients(model), wanted)
                antithetic_backward(model, losses(model, mine(rank)), both=False)
                assert gradients(model)["2.logit"].isfinite().all()
    return True


def hypergradient(rank: int, ranks: int, folder: Path) -> Any:
    def one(steps: int) -> Gradients:
        model = bind(relaxed(), seed=1, data_parallel=False)
        x = X[: EACH * ranks]
        hypergradient_backward(model, loss(model, x), loss(model, x.flip(1)), lr=0.1, steps=steps)
        return gradients(model)

    for steps in (1, 2):
        wanted = one(steps)
        bound = bind(relaxed(), seed=1)
        wrapped = DistributedDataParallel(bound)
        for model in (bound, wrapped):
            bound.zero_grad()
            bound.dropkit_step.zero_()
            train, validation = loss(wrapped, mine(rank)), loss(wrapped, mine(rank).flip(1))
            hypergradient_backward(model, train, validation, lr=0.1, steps=steps)
            equal(gradients(bound), wanted)
        told = bind(relaxed(), seed=1, data_parallel=torch.distributed.group.WORLD)
        train, validation = loss(told, mine(rank)), loss(told, mine(rank).flip(1))
        hypergradient_backward(told, train, validation, lr=0.1, steps=steps)
        equal(gradients(told), wanted)
    return wanted["2.logit"].item()


def refused_wrappers(rank: int, ranks: int, folder: Path) -> Any:
    texts = []
    sharded: Any = fully_shard(bind(relaxed(), seed=1))
    older = FullyShardedDataParallel(coupled((1,)), device_id=torch.device("cpu")) if ranks > 1 else None
    for call in (
        lambda: hypergradient_backward(sharded, loss(sharded, mine(rank)), loss(sharded, mine(rank)), lr=0.1),
        lambda: antithetic_backward(older, losses(older, mine(rank))),  # type: ignore[arg-type]
    ):
        try:
            call()
        except (RuntimeError, TypeError) as error:
            texts.append(f"{type(error).__name__}: {error}")
    return texts


def zoo(shape: tuple[int, ...]) -> nn.Sequential:
    torch.manual_seed(0)
    first, head = nn.Linear(6, 8), nn.Linear(8, 1)
    return nn.Sequential(
        first,
        ConcreteDropout(0.3, shape=shape, layer=head, clamp=(0.0, 0.5)),
        VariationalGaussianDropout(0.3, shape=shape, inputs=8),
        HardConcrete(shape),
        SparseVariationalLinear(8, 8, log_sigma2=-3.0),
        head,
    )


def sharded_regularizer(rank: int, ranks: int, folder: Path) -> Any:
    """Part of the loss, or by itself; the layer that a rate weighs lies in another shard than the rate."""
    for shape in ((), (8,)):
        one = bind(zoo(shape), seed=1, data_parallel=False)
        value = loss(one, X[: EACH * ranks])() + regularizer(one, n=1000)
        value.backward()
        for parts in (False, True):
            for apart in (False, True):
                model: Any = bind(zoo(shape), seed=1)
                for part in list(model) if parts else []:
                    fully_shard(part)
                fully_shard(model)
                data = loss(model, mine(rank))()
                if apart:
                    data.backward()
                    regularizer(model, n=1000).backward()
                else:
                    (data + regularizer(model, n=1000)).backward()
                equal(gradients(model), gradients(one))
                wanted = rates(one)
                for name, p in rates(model).items():
                    torch.testing.assert_close(p, wanted[name])
                assert abs(model[1].p - one[1].p) < 1e-6
                assert "Concrete" in repr(model)
    return True


def sharded_steps(rank: int, ranks: int, folder: Path) -> Any:
    """A rate learns in float32 under mixed precision, and a plain checkpoint goes into the plain model."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    model: Any = bind(relaxed(), seed=1)
    fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        (loss(model, mine(rank))() + regularizer(model, n=1000)).backward()
        optimizer.step()
    assert model[2].logit.dtype == torch.float32
    moved = abs(model[2].p - 0.3)
    assert 1e-4 < moved < 1e-2
    plain = relaxed()
    plain[2].load_state_dict({"logit": model[2].logit.full_tensor()})
    assert plain[2].p == model[2].p
    return True


CHECKS = [
    antithetic_ddp,
    antithetic_no_sync,
    antithetic_group,
    antithetic_sharded,
    hypergradient,
    refused_wrappers,
    sharded_regularizer,
    sharded_steps,
]
