"""Attention with dropout on the CPU: time and memory of a forward and backward pass, beside torch's (Linux).

    python benchmarks/attention.py                 # both tables; minutes
    python benchmarks/attention.py --lengths 512   # one length

float32, (2, 8, T, 64), p = 0.1. All contestants of a row are timed in turn within each round, on one thread in
processor time, so that other work on the machine counts little; quoted is the median over rounds of the ratio within a
round. Memory is the growth of the process' peak over what it had before, each contestant in a process of its own.
`flash` is scaled_dot_product_attention without dropout, the floor; `SDPA` the same with dropout_p.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import dropkit.torch
from dropkit import Key

KEY = Key(1, "attention")
P = 0.1
Pass = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


def sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v, dropout_p=P)


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return dropkit.torch.dropout(weights, P, training=True, key=KEY) @ v


def ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return dropkit.torch.attention(q, k, v, p=P, training=True, key=KEY)


def without(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return dropkit.torch.attention(q, k, v, p=0.0, training=True)


CONTESTANTS: dict[str, Pass] = {
    "flash": flash,
    "SDPA": sdpa,
    "matmul, softmax, dropkit.torch.dropout, matmul": plain,
    "dropkit.torch.attention": ours,
    "dropkit.torch.attention, p = 0": without,
}


def inputs(length: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 8, length, 64, requires_grad=number < 3) for number in range(4)]


def both_ways(call: Pass, tensors: list[torch.Tensor]) -> None:
    *qkv, flow = tensors
    torch.autograd.grad(call(*qkv), qkv, flow)


def times(length: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round."""
    tensors = inputs(length)
    repeats = max(1, 2048 * 256 // length**2)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds + 1):
        for name, call in CONTESTANTS.items():
            begun = clock()
            for _ in range(repeats):
                both_ways(call, tensors)
            if number:  # the first round warms up
                found[name].append((clock() - begun) / repeats)
    return found


def memory(name: str, length: int) -> float:
    """MiB by which the peak grows, in this process."""
    tensors = inputs(length)
    both_ways(CONTESTANTS[name], inputs(64))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kib("VmRSS")
    both_ways(CONTESTANTS[name], tensors)
    return (_kib("VmHWM") - before) / 1024


def operator(call: Pass) -> str:
    """Which of torch's operators a call of scaled_dot_product_attention ends in."""
    with torch.profiler.profile() as seen:
        call(*inputs(64)[:3])
    found = {event.key for event in seen.key_averages()} - {"aten::scaled_dot_product_attention"}
    return ", ".join(sorted(name for name in found if "attention" in name))


def _kib(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def _table(head: list[str], lines: list[list[Any]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for line in lines:
        print("| " + " | ".join(map(str, line)) + " |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 1024, 2048])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "T"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory_of:
        print(memory(asked.memory_of[0], int(asked.memory_of[1])))
        return
    print(f"torch {torch.__version__}, {dropkit.info()['cpu']['path']}")
    print(f"flash runs {operator(flash)}, SDPA {operator(sdpa)}\n")
    lines = []
    for threads in asked.threads:
        torch.set_num_threads(threads)
        for length in asked.lengths:
            found = times(length, asked.rounds)
            for name, seconds in found.items():
                ratios = [
                    f"{statistics.median(a / b for a, b in zip(seconds, found[base], strict=True)):.2f}"
                    for base in ("flash", "SDPA")
                ]
                lines.append([threads, length, name, f"{1e3 * statistics.median(seconds):.1f}", *ratios])
    _table(["threads", "T", "", "ms", "x flash", "x SDPA"], lines)
    rows = []
    for length in asked.lengths:
        each = [
            subprocess.run(
                [sys.executable, __file__, "--memory-of", name, str(length)], capture_output=True, text=True, check=True
            ).stdout
            for name in CONTESTANTS
        ]
        rows.append([length, *(f"{float(growth):.0f}" for growth in each)])
    _table(["T", *(f"{name}, MiB" for name in CONTESTANTS)], rows)


if __name__ == "__main__":
    main()
