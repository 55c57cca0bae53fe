"""A two-layer transformer, ways to spread it over processes, and its training with every keep mask on record."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from dropkit.torch import Dropout, bind
from dropkit.torch.sharding import ShardedDropout

BATCH, TIME, WIDTH, HEADS, WORDS = 8, 8, 16, 4, 16
SEED = 11
TOLERANCE = 1e-10  # of a loss in float64, relative: what another order of summation leaves after 20 steps

Masks = dict[str, Any]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.drop = Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = self.drop(torch.softmax(q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5, -1))
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.drop(nn.functional.gelu(self.up(x))))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.mlp = Attention(), MLP()
        self.drop1, self.drop2 = Dropout(0.1), Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop1(self.attention(self.norm1(x)))
        return x + self.drop2(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.embed_drop = nn.Embedding(WORDS, WIDTH), Dropout(0.1)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embed_drop(self.embed(words))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def fresh() -> Transformer:
    """The same parameters at every call."""
    torch.manual_seed(0)
    return Transformer().double()


def tensor_parallel(model: Transformer, mesh: DeviceMesh) -> Transformer:
    """Columns, then rows; what lies between is a plain tensor of each rank's heads or hidden units."""
    plan = {
        "attention.q": ColwiseParallel(),
        "attention.k": ColwiseParallel(),
        "attention.v": ColwiseParallel(),
        "attention.drop": ShardedDropout(1),
        "attention.out": RowwiseParallel(),
        "mlp.up": ColwiseParallel(),
        "mlp.drop": ShardedDropout(-1),
        "mlp.down": RowwiseParallel(),
    }
    for block in model.blocks:
        parallelize_module(block, mesh, plan)
    return model


def sequence_parallel(model: Transformer, mesh: DeviceMesh) -> Transformer:
    """Tensor parallelism whose residual stream is split along time."""
    whole_time = {"input_layouts": (Shard(1),), "desired_input_layouts": (Replicate(),)}
    plan = {
        "norm1": SequenceParallel(),
        "attention": PrepareModuleInput(**whole_time),
        "attention.q": ColwiseParallel(),
        "attention.k": ColwiseParallel(),
        "attention.v": ColwiseParallel(),
        "attention.drop": ShardedDropout(1),
        "attention.out": RowwiseParallel(output_layouts=Shard(1)),
        "drop1": SequenceParallel(),
        "norm2": SequenceParallel(),
        "mlp": PrepareModuleInput(**whole_time),
        "mlp.up": ColwiseParallel(),
        "mlp.drop": ShardedDropout(-1),
        "mlp.down": RowwiseParallel(output_layouts=Shard(1)),
        "drop2": SequenceParallel(),
    }
    for block in model.blocks:
        parallelize_module(block, mesh, plan)
    ends = {
        "embed": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1), use_local_output=False),
        "embed_drop": SequenceParallel(),
        "norm": SequenceParallel(),
        "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Replicate()),
    }
    return parallelize_module(model, mesh, ends)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Words and the words to predict."""
    words = torch.randint(0, WORDS, (BATCH, TIME + 1), generator=torch.Generator().manual_seed(step))
    return words[:, :-1], words[:, 1:]


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)


@contextmanager
def recorded(model: nn.Module, record: Masks, step: int) -> Iterator[None]:
    """Every dropout's keep mask, under "site step": plain tensors as they are, DTensors with their placements."""
    hooks = []
    for name, part in model.named_modules():
        if isinstance(part, Dropout):
            site = name.removeprefix("module.")

            def look(module: Any, inputs: Any, output: torch.Tensor, site: str = site) -> None:
                record[f"{site} {step}"] = output.detach() != 0

            hooks.append(part.register_forward_hook(look, prepend=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def train(
    model: nn.Module, steps: range, part: slice = slice(None), mean: Callable[[torch.Tensor], Any] = lambda loss: loss,
    use: torch.optim.Optimizer | None = None,
) -> tuple[list[float], Masks]:  # fmt: skip
    """Losses of the whole batch and masks of this rank; `part` is its share of the samples."""
    use = optimizer(model) if use is None else use
    losses, masks = [], Masks()
    for step in steps:
        words, targets = batch(step)
        use.zero_grad()
        with recorded(model, masks, step):
            logits = model(words[part])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets[part].flatten())
        loss.backward()
        use.step()
        losses.append(float(mean(loss.detach())))
    return losses, masks


@lru_cache
def alone() -> tuple[list[float], Masks]:
    """The training of one process that knows nothing of the others."""
    losses, masks = train(bind(fresh(), SEED, data_parallel=False), range(20))
    kept = torch.cat([mask.flatten() for mask in masks.values()]).double().mean()
    assert 0.7 < kept < 0.9, kept
    assert len(set(losses)) == 20, losses
    return losses, masks


def compare_masks(found: Masks, whole: Masks, slices: Callable[[str, torch.Tensor], torch.Tensor]) -> int:
    """Assert that masks are the slices of the whole ones that `slices(site, mask)` cuts out; how many bits were it."""
    bits = 0
    for name, mask in found.items():
        expected = whole[name]
        if isinstance(mask, DTensor):
            expected = distribute_tensor(expected, mask.device_mesh, mask.placements).to_local()
            mask = mask.to_local()
        else:
            expected = slices(name.split()[0], expected)
        assert torch.equal(mask, expected), f"{name}: {mask.shape} of {whole[name].shape}"
        bits += mask.numel()
    return bits


def compare_losses(found: list[float], whole: list[float]) -> float:
    """Assert that losses agree; the largest relative difference."""
    worst = max(abs(a - b) / abs(b) for a, b in zip(found, whole, strict=True))
    assert worst < TOLERANCE, f"losses differ by {worst}: {found} and {whole}"
    return worst
