"""CPU kernels against their floor and against PyTorch, alone and inside training steps.

    python benchmarks/cpu.py [--csv FILE] [--threads N] [--rounds N] [--only alone|step]

Floor: `torch.mul(x, s)`, which reads, multiplies and allocates its output as dropout does. Everything in a group is
timed in turn within a round, so that a busy machine slows all of it; ratios are medians of the rounds' ratios.
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dropkit.kernels import cpu
from dropkit.mask import threshold

K0, K1 = 123456789, 987654321
CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
Row = dict[str, Any]


def apply(x: Tensor, out: Tensor, t: int, threads: int, base: int = 0) -> Tensor:
    call = cpu.extension().dropout
    call(x.data_ptr(), out.data_ptr(), x.numel(), CODES[x.dtype], K0, K1, t, base, threads)
    return out


class Dropout(torch.autograd.Function):
    """The least that a differentiable call costs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: int, threads: int) -> Tensor:
        ctx.t, ctx.threads = t, threads
        return apply(x, torch.empty_like(x), t, threads)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        dy = dy.contiguous()
        return apply(dy, torch.empty_like(dy), ctx.t, ctx.threads), None, None


def timed(calls: dict[str, Callable[[], Any]], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Seconds a call, per round. An untimed call goes first, so that nobody pays for threads that fell asleep."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            times[name].append((time.perf_counter() - start) / repeats)
    return times


def rows_of(times: dict[str, list[float]], floor: str, torch_name: str, **what: Any) -> list[Row]:
    def ratio(a: list[float], b: list[float]) -> float:
        return statistics.median(x / y for x, y in zip(a, b, strict=True))

    n = what.get("elements", 1)
    return [
        {
            **what,
            "name": name,
            "ns_per_element": round(statistics.median(series) / n * 1e9, 4),
            "over_floor": round(ratio(series, times[floor]), 3),
            "torch_over_it": round(ratio(times[torch_name], series), 2),
        }
        for name, series in times.items()
    ]


def forward(dtype: torch.dtype, n: int, p: float, threads: int, rounds: int) -> list[Row]:
    x, y, t = torch.randn(n).to(dtype), torch.randn(n).to(dtype), threshold(p)
    calls: dict[str, Callable[[], Any]] = {
        "mul": lambda: torch.mul(x, 2.0),
        "torch": lambda: torch.dropout(x, p, True),
        "dropkit": lambda: apply(x, torch.empty_like(x), t, threads),
        "dropkit in place": lambda: apply(y, y, t, threads),
    }
    repeats = max(1, min(50, (1 << 20) // n))
    return rows_of(
        timed(calls, rounds, repeats),
        "mul",
        "torch",
        what="forward",
        dtype=str(dtype),
        elements=n,
        p=p,
        threads=threads,
    )


def both_ways(dtype: torch.dtype, n: int, p: float, threads: int, rounds: int) -> list[Row]:
    x, t = torch.randn(n).to(dtype).requires_grad_(), threshold(p)
    dy = torch.randn(n).to(dtype)

    def run(y: Tensor) -> None:
        torch.autograd.grad(y, x, dy)

    calls: dict[str, Callable[[], Any]] = {
        "mul": lambda: run(torch.mul(x, 2.0)),
        "torch": lambda: run(torch.dropout(x, p, True)),
        "dropkit": lambda: run(Dropout.apply(x, t, threads)),
    }
    repeats = max(1, min(50, (1 << 20) // n))
    what = "forward+backward"
    return rows_of(
        timed(calls, rounds, repeats), "mul", "torch", what=what, dtype=str(dtype), elements=n, p=p, threads=threads
    )


class Layer(nn.Module):
    def __init__(self, p: float, threads: int):
        super().__init__()
        self.t, self.threads = threshold(p), threads

    def forward(self, x: Tensor) -> Tensor:
        return Dropout.apply(x.contiguous(), self.t, self.threads)


def mlp(drop: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    layers = [nn.Linear(784, 256), nn.ReLU(), drop(), nn.Linear(256, 256), nn.ReLU(), drop(), nn.Linear(256, 10)]
    return nn.Sequential(*layers), torch.randn(256, 784)


def encoder(drop: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    layer.dropout, layer.dropout1, layer.dropout2 = drop(), drop(), drop()
    return layer, torch.randn(8, 128, 512)


def train_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


def on_pool(pool: str, step: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        if pool == "openmp":
            cpu.adopt_openmp()
        else:
            cpu.extension().drop_openmp()
        step()

    return run


def steps(p: float, threads: int, rounds: int) -> list[Row]:
    """What dropout adds to a training step, by where its threads come from."""
    rows = []
    for name, build in (("mlp", mlp), ("encoder", encoder)):
        calls = {
            "none": train_step(*build(nn.Identity)),
            "torch": train_step(*build(lambda: nn.Dropout(p))),
            "dropkit, openmp": on_pool("openmp", train_step(*build(lambda: Layer(p, threads)))),
            "dropkit, own pool": on_pool("own", train_step(*build(lambda: Layer(p, threads)))),
            "dropkit, one thread": train_step(*build(lambda: Layer(p, 1))),
        }
        repeats = 20 if name == "mlp" else 2
        rows += rows_of(
            timed(calls, rounds, repeats),
            "none",
            "torch",
            what=f"step {name}",
            dtype="",
            elements=1,
            p=p,
            threads=threads,
        )
    return rows


def write(rows: list[Row], path: Path) -> None:
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    Path(file.name).replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=["alone", "step"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(cpu.info()["path"], "threads from", cpu.adopt_openmp())
    rows: list[Row] = []

    def add(more: list[Row]) -> None:
        rows.extend(more)
        for row in more:
            print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)

    for dtype in (torch.float32, torch.bfloat16) if options.only != "step" else ():
        for log in (16, 18, 20, 24):
            for p in (0.5, 0.1, 0.2):
                add(forward(dtype, 1 << log, p, options.threads, options.rounds))
                add(both_ways(dtype, 1 << log, p, options.threads, options.rounds))
    if options.only != "alone":
        add(steps(0.1, options.threads, options.rounds))
    if options.csv:
        write(rows, options.csv)


if __name__ == "__main__":
    main()
