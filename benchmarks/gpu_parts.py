"""The parts of `make gpu` that are no kernel timings: `python benchmarks/gpu_parts.py PART [--out FILE]`.

    tests     the tests of the Triton kernels and of the torch frontend, with their tensors on the device
    graph     replays of a captured bound model draw the CPU's masks, step by step, forward and backward
    large     more than 2**31 elements have the CPU's mask, on slices
    host      microseconds of the host for one call on a small tensor, eager and compiled
    training  one training step of a transformer layer: torch's dropout, ours, ours bound, none; eager and compiled
    vgg       one epoch of `vgg-adaptive --size full`

A failed check ends a part with a message and exit status 1.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_device import COMPILER, DEVICE, DRY, MIB, Clock, Graph, Lines, as_captured, synchronize
from torch import nn

from dropkit import Key, keep
from dropkit.torch import Dropout, at, bind, dropout, swap

ROOT = Path(__file__).parents[1]
ON_DEVICE = "tests/torch_frontend/test_cuda.py"
KEY = Key(seed=1, site="large", step=0)


# ---------------------------------------------------------------------------------------------------------------------
# checks


class Tally:
    """Counts what pytest ran."""

    def __init__(self) -> None:
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or (report.when == "setup" and not report.passed):
            self.counts[report.outcome] += 1
            self.failed += [report.nodeid] if report.failed else []


def tests(lines: Lines) -> None:
    """Warnings are no errors here: the versions are the device's. Files at once, where pytest-xdist is there."""
    import pytest

    os.environ["DROPKIT_DEVICE"] = DEVICE
    os.chdir(ROOT)
    parts = ["tests/kernels/triton", "tests/conformance/test_conformance.py"]
    parts += [f"{ON_DEVICE}::test_fused_and_in_place", f"{ON_DEVICE}::test_what_a_captured_graph_reads"]
    options = ["-p", "no:cacheprovider", "-W", "default", "--tb=short", "-k", "not a_broken_frontend"]
    if DRY:
        parts, options = parts[:1], [*options[:-1], "test_norm_without_weights or test_a_row_too_long"]
    elif _installed("xdist"):
        options += ["-n", "8"]
    tally = Tally()
    code = pytest.main([*options, *parts], plugins=[tally])
    lines.add(**tally.counts, failures=tally.failed[:20])
    if code or not tally.counts["passed"]:
        sys.exit(f"FAILED: {tally.counts['failed']} tests failed, {tally.counts['passed']} passed, pytest says {code}")


class Masks(nn.Module):
    """Two dropouts of ones: what they return is their mask. The parameter says where the model lies."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.first, self.second = Dropout(0.5), Dropout(0.3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(x * self.weight), self.second(x * self.weight)


def replayed(warm: bool) -> str:
    """Captures a bound model, replays it, and compares each replay with the CPU."""
    shape = (8, 40) if DRY else (64, 1000)
    x = torch.ones(shape, device=DEVICE, requires_grad=True)
    model, twin = bind(Masks(), seed=2**64 - 3).to(DEVICE), bind(Masks(), seed=2**64 - 3)

    def call() -> tuple[torch.Tensor, ...]:
        first, second = model(x)
        return first, second, torch.autograd.grad(first.sum(), x)[0]

    if warm:  # a capture must not compile, and a captured model's kernels take their key from memory
        as_captured(call)
    graph = Graph(call)
    begun = int(model.dropkit_step)
    for now in range(begun, begun + 5):
        first, second, gradient = (y.cpu() for y in graph.replay())
        with at(step=now), torch.no_grad():
            wanted = twin(torch.ones(shape))
        if int(model.dropkit_step) != now + 1:
            sys.exit(f"FAILED: a replay left the step at {int(model.dropkit_step)}, not at {now + 1}")
        if not (torch.equal(first, wanted[0]) and torch.equal(second, wanted[1]) and torch.equal(gradient, first)):
            sys.exit(f"FAILED: the replay of step {now} has another mask than the CPU")
    return "5 replays: 5 steps, the CPU's masks, backward those of its forward"


def graph(lines: Lines) -> None:
    lines.add(check="warmed up as a capture", result=replayed(warm=True))
    try:
        result = replayed(warm=False)
    except Exception as error:  # what the driver says of a kernel that is loaded while a graph is captured
        result = f"refused: {error}".splitlines()[0]
    lines.add(check="warmed up eagerly alone", result=result)


def large(lines: Lines) -> None:
    half, tail = (1 << 12, 1 << 8) if DRY else (1 << 31, 1 << 16)
    count = half + tail * 16 + 3
    for dtype, inplace in ((torch.bfloat16, False), (torch.float32, True)):
        needed = count * dtype.itemsize * (1 if inplace else 2)
        if not DRY and torch.cuda.mem_get_info()[0] < needed + 512 * MIB:
            lines.add(check=f"{count} elements, {dtype}", result=f"skipped: needs {needed >> 30} GiB of free memory")
            continue
        x = torch.ones(count, dtype=dtype, device=DEVICE)
        y = dropout(x, 0.3, training=True, key=KEY, inplace=inplace)
        for start in (0, half - tail // 2, count - tail):
            kept = keep((tail,), 0.3, KEY, offset=(start,), global_shape=(count,))
            if not np.array_equal((y[start : start + tail] != 0).cpu().numpy(), kept):
                sys.exit(f"FAILED: {dtype}: the mask differs from the CPU's from element {start} on")
        lines.add(check=f"{count} elements, {dtype}", result="the CPU's mask at the start, around 2^31 and at the end")
        del x, y


# ---------------------------------------------------------------------------------------------------------------------
# what a call costs the host


def host(lines: Lines) -> None:
    """A tensor so small that the device waits for the host: what is left is the price of a call."""
    x = torch.ones(8, 64, device=DEVICE, requires_grad=True)
    body: dict[str, Callable[[], nn.Module]] = {
        "torch.nn.Dropout": lambda: nn.Sequential(nn.Identity(), nn.Dropout(0.1)),
        "dropkit": lambda: nn.Sequential(nn.Identity(), Dropout(0.1)),
        "dropkit, bound": lambda: bind(Held(Dropout(0.1)).to(DEVICE), seed=1),
    }
    for compiled in (False, True):
        for name, make in body.items():
            torch.compiler.reset()
            model = make().train()
            call = torch.compile(model, backend=COMPILER) if compiled else model
            forward = _host_us(lambda call=call: call(x))
            both = _host_us(lambda call=call: call(x).sum().backward())
            mode = "compiled" if compiled else "eager"
            lines.add(dropout=name, mode=mode, forward_us=forward, both_us=both)


class Held(nn.Sequential):
    """Holds a parameter, which says where the clock of a bound model lies."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts)
        self.here = nn.Parameter(torch.zeros(()))


def _host_us(call: Callable[[], Any]) -> float:
    """Microseconds until the call returns, the mean of many that nobody waits for."""
    rounds = 2 if DRY else 200
    for _ in range(rounds // 10 + 1):
        call()
    synchronize()
    begun = time.perf_counter()
    for _ in range(rounds):
        call()
    seconds = time.perf_counter() - begun
    synchronize()
    return 1e6 * seconds / rounds


# ---------------------------------------------------------------------------------------------------------------------
# one training step of a transformer layer

WIDTH, HEADS, BATCH, LENGTH = (8, 2, 1, 4) if DRY else (1024, 16, 16, 1024)
DTYPE = torch.float32 if DRY else torch.bfloat16


class Layer(nn.Module):
    """A pre-norm transformer layer with three dropouts, none of them inside the attention."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop1, self.drop2, self.drop3 = (nn.Dropout(p) if p else nn.Identity() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS)).movedim(2, 0).transpose(2, 3)
        attended = nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.drop1(self.out(attended))
        return x + self.drop3(self.down(self.drop2(nn.functional.gelu(self.up(self.norm2(x))))))


def _swapped(model: nn.Module) -> nn.Module:
    swap(model)
    return model


VARIANTS: dict[str, tuple[float, Callable[[nn.Module], nn.Module]]] = {
    "torch.nn.Dropout": (0.1, lambda model: model),
    "dropkit, bound": (0.1, lambda model: bind(_swapped(model), seed=1)),
    "no dropout": (0.0, lambda model: model),
    "dropkit": (0.1, _swapped),
}


def training(lines: Lines) -> None:
    clock = Clock(30)
    x = torch.randn(BATCH, LENGTH, WIDTH, device=DEVICE, dtype=DTYPE)
    for compiled in (False, True):
        for name, (p, change) in VARIANTS.items():
            torch.manual_seed(0)
            model = change(Layer(p).to(DEVICE, DTYPE).train())
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            torch.compiler.reset()
            call = torch.compile(model, backend=COMPILER) if compiled else model
            first, step_ms, peak = _measured(clock, call, optimizer, x)
            mode = "compiled" if compiled else "eager"
            lines.add(dropout=name, mode=mode, ms=step_ms, first_s=first, peak_mib=peak)


def _measured(clock: Clock, model: Any, optimizer: Any, x: torch.Tensor) -> tuple[float, float, float]:
    """Seconds of the first step, milliseconds of a later one, MiB at the peak above what lies there before."""

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x).float().square().mean().backward()
        optimizer.step()

    begun = time.perf_counter()
    step()
    synchronize()
    first = time.perf_counter() - begun
    ms = clock.median_ms(step)
    if DRY:
        return first, ms, 0.0
    optimizer.zero_grad(set_to_none=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return first, ms, (torch.cuda.max_memory_allocated() - before) / MIB


# ---------------------------------------------------------------------------------------------------------------------
# one epoch of vgg-adaptive


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def _images() -> tuple[Any, str]:
    """CIFAR-10 where a folder holds it, and otherwise noise of its shape; and which of the two it is."""
    from dropkit.errors import DataError
    from dropkit.lab.data.sets import Data, load_data

    folder = Path(os.environ.get("DROPKIT_DATA") or ROOT / "build" / "gpu-data")
    if not DRY and (folder / "cifar10").is_dir():
        try:
            return load_data("cifar10", folder), "CIFAR-10"
        except DataError as error:
            print(f"synthetic images instead: {error}")
    train, test = (64, 32) if DRY else (50_000, 10_000)
    draw = np.random.Generator(np.random.Philox(0))
    x = draw.random((train + test, 3, 32, 32), np.float32)
    y = draw.integers(0, 10, train + test)
    return Data("synthetic", x[:train], y[:train], x[train:], y[train:], 10, "synthetic"), "synthetic images"


def vgg(lines: Lines) -> None:
    missing = [name for name in ("lightning_fabric", "torchmetrics", "safetensors") if not _installed(name)]
    if missing:
        lines.add(result=f"skipped: not installed: {', '.join(missing)}")
        return
    from dropkit.lab.engines.torch import Trainer
    from dropkit.lab.plan import Choices, Plan

    data, kind = _images()
    choices = Choices.make("vgg-adaptive", data=data, size="tiny" if DRY else "full", epochs=1, device=DEVICE)
    for strategy in ("none", "fixed") if DRY else ("none", "fixed", "concrete", "disarm"):
        trainer = Trainer(Plan.make(choices, strategy, 0))
        begun = time.perf_counter()
        row = trainer.epoch(1, 0)
        synchronize()
        row = {name: row[name] for name in ("train_loss", "test_loss", "test_accuracy")}
        lines.add(strategy=strategy, data=kind, seconds=time.perf_counter() - begun, **row)


PARTS = {part.__name__: part for part in (tests, graph, large, host, training, vgg)}


def main() -> None:
    parser = argparse.ArgumentParser(description="One part of `make gpu`.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to")
    options = parser.parse_args()
    PARTS[options.part](Lines(options.out, options.part))


if __name__ == "__main__":
    main()
