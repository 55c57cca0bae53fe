"""The first calls of a compiled transformer: tracing, partitioning and compiling, in CPU seconds.

    python benchmarks/compile.py                # table, and build/bench/compile.csv
    python benchmarks/compile.py --quick        # one round

12 layers of width 64 with 4 heads, BERT-like, three dropouts each (attention weights, attention output, feed-forward),
forward and backward, by `torch.compile(backend="aot_eager")`: tracing and partitioning, without the C++ compiler. In
one process come the first call, a new batch, another one, a new length, another one, and p = 0.2, 0.3. Every figure
is from a process of its own, on one thread, without caches; in each round all contestants take their turn, in
alternating order. Quoted are medians, of ratios within a round too, and how many graphs each call compiled.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LAYERS = 12
NAMES = ("none", "torch", "ours", "ours bound")
CALLS = ("first call", "batch 6", "batch 7", "length 48", "length 40", "p = 0.2", "p = 0.3")
SETTINGS = ((4, 32, 0.1), (6, 32, 0.1), (7, 32, 0.1), (4, 48, 0.1), (4, 40, 0.1), (4, 32, 0.2), (4, 32, 0.3))


def network(kind: str) -> Any:
    """The model; torch is loaded by the process that measures alone."""
    import torch
    from torch import nn

    import dropkit.torch

    make = {"none": lambda p: nn.Identity(), "torch": nn.Dropout}.get(kind, dropkit.torch.Dropout)

    class Layer(nn.Module):
        def __init__(self, width: int, heads: int):
            super().__init__()
            self.heads = heads
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.drop_weights, self.drop_attention, self.drop_feed = make(0.1), make(0.1), make(0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            n, length, width = x.shape
            q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            weights = self.drop_weights((q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5).softmax(-1))
            attended = (weights @ v).transpose(1, 2).reshape(n, length, width)
            x = self.norm1(x + self.drop_attention(self.out(attended)))
            return self.norm2(x + self.drop_feed(self.down(nn.functional.gelu(self.up(x)))))

    torch.manual_seed(0)
    model = nn.Sequential(*(Layer(64, 4) for _ in range(LAYERS)))
    return dropkit.torch.bind(model, seed=0) if "bound" in kind else model


def one(kind: str, calls: int) -> None:
    """Print CPU seconds, and graphs compiled, of each call."""
    import torch
    from torch import nn
    from torch._dynamo.utils import counters

    torch.set_num_threads(1)
    warm = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), backend="aot_eager")  # what the compiler loads once
    warm(torch.ones(2, 4)).sum().backward()
    torch._dynamo.reset()
    model = network(kind)
    step = torch.compile(model, backend="aot_eager")
    for n, length, p in SETTINGS[:calls]:
        for part in model.modules():
            if hasattr(part, "p"):
                part.p = p
        x = torch.randn(n, length, 64)
        graphs, start = counters["stats"]["unique_graphs"], time.process_time()
        step(x).sum().backward()
        print(time.process_time() - start, counters["stats"]["unique_graphs"] - graphs)


def measured(name: str, calls: int) -> list[tuple[float, int]]:
    """CPU seconds and graphs of each call, from a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    command = [sys.executable, __file__, "--one", name, "--calls", str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lines = [line.split() for line in done.stdout.splitlines()[-calls:]]
    return [(float(seconds), int(graphs)) for seconds, graphs in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=len(CALLS), help="how many of the calls, from the first on")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.calls)
        return
    rounds = 1 if options.quick else options.rounds
    figures: dict[str, list[list[tuple[float, int]]]] = {name: [] for name in NAMES}
    for number in range(rounds):
        for name in NAMES if number % 2 == 0 else NAMES[::-1]:
            figures[name].append(measured(name, options.calls))
    rows = []
    print(f"{LAYERS} layers, aot_eager, median of {rounds} rounds: CPU s, times torch (graphs)")
    for call, title in enumerate(CALLS[: options.calls]):
        cells = []
        for name in NAMES:
            seconds = statistics.median(run[call][0] for run in figures[name])
            pairs = zip(figures[name], figures["torch"], strict=True)
            ratio = statistics.median(run[call][0] / torchs[call][0] for run, torchs in pairs)
            graphs = figures[name][0][call][1]
            cells.append(f"{name} {seconds:6.2f} {ratio:5.2f} ({graphs})")
            rows.append(
                {"call": title, "name": name, "cpu": round(seconds, 3), "ratio": round(ratio, 3), "graphs": graphs}
            )
        print(f"{title:10} | " + " | ".join(cells), flush=True)
    out = Path("build/bench/compile.csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
