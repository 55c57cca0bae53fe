"""What layers that are left out save: training steps of a 12-layer encoder at p = 0.5 against p = 0.

    python benchmarks/depth.py                  # table, and build/bench/depth.csv
    python benchmarks/depth.py --quick          # few rounds

12 pre-norm layers of width 192 with 4 heads, batch 8 of 64 tokens, forward, backward and a step of SGD, on one thread.
In each round all contestants take their turn, the order alternates, and p = 0 is the same model at that rate. Quoted
are medians over rounds, of ratios within a round. "compiled" is `torch.compile`, and the last column counts the graphs
of a run through all masks and rates.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dropkit.torch
from dropkit.torch import LayerDrop, ResidualDrop, StochasticDepth

LAYERS, WIDTH, HEADS, BATCH, TOKENS = 12, 192, 4, 8, 64
STEPS = 8  # of one turn: at p = 0.5 their masks differ, so that a turn is near the mean


class Attention(nn.Module):
    """Self-attention of normalised input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def feed() -> nn.Module:
    """The other branch."""
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))


class Layer(nn.Module):
    """Two residual branches, with what `around` makes of each."""

    def __init__(self, around: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.attention, self.feed = around(Attention()), around(feed())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.feed(self.attention(x))


class Residual(nn.Module):
    """x + drop(branch(x)), where the branch is computed whatever becomes of it."""

    def __init__(self, branch: nn.Module, drop: nn.Module) -> None:
        super().__init__()
        self.branch, self.drop = branch, drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.branch(x))


def encoder(kind: str) -> nn.Module:
    """A bound encoder."""
    torch.manual_seed(0)
    if kind.startswith("LayerDrop"):
        layers = [Layer(lambda branch: Residual(branch, nn.Identity())) for _ in range(LAYERS)]
        model: nn.Module = nn.Sequential(LayerDrop(layers, 0.0, "row" if "row" in kind else "batch"))
    elif kind.startswith("ResidualDrop"):
        model = nn.Sequential(*[Layer(lambda branch: ResidualDrop(branch, 0.0)) for _ in range(LAYERS)])
    else:
        model = nn.Sequential(
            *[Layer(lambda branch: Residual(branch, StochasticDepth(0.0, "row"))) for _ in range(LAYERS)]
        )
    return dropkit.torch.bind(model, seed=0)


class Contestant:
    """A model that trains at a rate."""

    def __init__(self, kind: str, compiled: bool) -> None:
        self.kind, self.compiled, self.graphs = kind, compiled, 0
        self.model = encoder(kind)
        self.run: Any = torch.compile(self.model, backend=self._backend) if compiled else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        self.rates = [part for part in self.model.modules() if hasattr(part, "site")]

    def _backend(self, graph: Any, inputs: Any) -> Any:
        from torch._inductor.compile_fx import compile_fx

        self.graphs += 1
        return compile_fx(graph, inputs)

    def turn(self, p: float, steps: int = STEPS) -> float:
        """CPU seconds of some training steps."""
        for part in self.rates:
            part.p = p
        x = torch.randn(BATCH, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
        begun = time.process_time()
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.run(x).square().mean().backward()
            self.optimizer.step()
        return time.process_time() - begun


KINDS = (("LayerDrop", "ResidualDrop row", "LayerDrop row", "StochasticDepth row"), (False, True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    rounds = 3 if parser.parse_args().quick else 9
    torch.set_num_threads(1)
    rows = []
    print(f"{'':22}{'':10}{'ms a step, p = 0':>18}{'p = 0.5':>10}{'faster':>9}{'graphs':>8}")
    for compiled in KINDS[1]:
        for kind in KINDS[0]:
            torch.compiler.reset()
            one = Contestant(kind, compiled)
            for p in (0.0, 0.5, 0.3, 0.5):  # whatever is to be compiled is
                one.turn(p, 6)
            before = one.graphs
            times: dict[float, list[float]] = {0.0: [], 0.5: []}
            for number in range(rounds):
                for p in (0.0, 0.5) if number % 2 else (0.5, 0.0):
                    times[p].append(one.turn(p) / STEPS * 1e3)
            assert one.graphs == before, f"{kind} was compiled again"
            faster = statistics.median(a / b for a, b in zip(times[0.0], times[0.5], strict=True))
            row = (
                kind,
                "compiled" if compiled else "eager",
                *map(statistics.median, times.values()),
                faster,
                one.graphs,
            )
            rows.append(row)
            print(f"{row[0]:22}{row[1]:10}{row[2]:18.1f}{row[3]:10.1f}{row[4]:9.2f}{row[5]:8}", flush=True)
    out = Path("build/bench/depth.csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        csv.writer(file).writerows([("kind", "mode", "p0_ms", "p05_ms", "faster", "graphs"), *rows])


if __name__ == "__main__":
    main()
