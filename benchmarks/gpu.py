"""The kernels on a GPU: `python benchmarks/gpu.py` prints a table and writes JSON lines with --out.

What is measured: the bandwidth of `y.copy_(x)` in this very run, then each fused operation and what users write in its
place, eager and through torch.compile. A rate counts the bytes that the operation must move (inputs read once, outputs
written once), so `of copy` says how near the memory's speed it runs. Before that come checks, and a failed one ends the
run: bits against the CPU, indices past 2**31, a replayed CUDA graph.

CUDA events, the median of many repetitions, the L2 flushed before each. Without a CUDA device it says so and ends with
status 2. `make gpu` runs this and what else needs a GPU.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_device import COMPILER, DEVICE, DRY, MIB, NO_DEVICE, Clock, Graph, Lines
from torch._functorch import config as functorch

from dropkit import Key, keep
from dropkit.mask import scale, threshold

KEY = Key(seed=1, site="benchmark", step=0)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
UNIT = 1 << 10 if DRY else MIB  # of --sizes
ROW = 256 if DRY else 4096  # elements: the last axis of every tensor
COUNT = 1 << 10 if DRY else 1 << 20  # elements that are compared with the CPU's


# ---------------------------------------------------------------------------------------------------------------------
# checks


def check_bits() -> str:
    """Dropout of COUNT elements equals the definition computed on the CPU, for every dtype and several p."""
    from dropkit.kernels.triton.dropout import dropout

    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        x = torch.randn(COUNT, device=DEVICE).to(dtype)
        for p in (0.5, 0.25, 0.1, 0.3, 0.001, 0.0, 1.0):
            wide = x.cpu() if dtype == torch.float64 else x.cpu().float()
            kept = torch.from_numpy(keep(x.shape, p, KEY).copy())
            want = torch.where(kept, wide * scale(threshold(p)), 0.0).to(dtype)
            got = dropout(x, KEY.words, threshold(p)).cpu()
            if not torch.equal(got.view(torch.uint8), want.view(torch.uint8)):
                sys.exit(f"FAILED: bits differ from the CPU's, {dtype}, p = {p}")
    return f"bits equal the CPU's: {COUNT} elements, 4 dtypes, 7 p"


def check_operations() -> str:
    """The other operations in float32 equal the CPU kernels' bits, where those are compiled."""
    from dropkit.kernels import cpu
    from dropkit.kernels.triton.bias_activation import bias_activation
    from dropkit.kernels.triton.residual import residual

    if not cpu.available():
        return "residual, activations: not checked, the CPU kernels are not compiled"
    x, r = torch.randn(COUNT // 64, 64), torch.randn(COUNT // 64, 64)
    b, want, t = torch.randn(64), torch.empty_like(x), threshold(0.1)
    inputs = [x.numpy(), b.expand_as(x).numpy()]
    cpu.walk(cpu.RESIDUAL, [x.numpy(), r.numpy()], want.numpy(), KEY.words, t, (64, 1))
    equal = torch.equal(residual(x.to(DEVICE), r.to(DEVICE), KEY.words, t).cpu(), want)
    for name, op in (("relu", cpu.RELU), ("gelu", cpu.GELU), ("gelu_tanh", cpu.GELU_TANH)):
        cpu.walk(op, inputs, want.numpy(), KEY.words, t, (64, 1))
        equal &= torch.equal(bias_activation(x.to(DEVICE), b.to(DEVICE), KEY.words, t, name).cpu(), want)
    if not equal:
        sys.exit("FAILED: residual or an activation differs from the CPU kernels")
    return "residual, bias + ReLU/GELU/GELU-tanh equal the CPU kernels' bits, float32"


def check_graph() -> str:
    """A replayed CUDA graph drops with the mask of the step that lies in memory at the replay."""
    from dropkit.kernels.triton.dropout import dropout
    from dropkit.kernels.triton.walk import StoredKey

    x, step = torch.ones(COUNT >> 4, device=DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE)
    stored = StoredKey(torch.tensor([KEY.seed], device=DEVICE), 77, step)

    def call() -> torch.Tensor:
        y = dropout(x, stored, threshold(0.3))
        step.add_(1)
        return y

    graph = Graph(call)
    step.zero_()
    for now in range(5):
        y = graph.replay()
        kept = torch.from_numpy(keep(x.shape, 0.3, Key(KEY.seed, 77, now)).copy())
        if not torch.equal((y != 0).cpu(), kept):
            sys.exit(f"FAILED: replay {now} of the CUDA graph has another mask")
    return "5 replays of one CUDA graph: 5 masks, each that of its step"


# ---------------------------------------------------------------------------------------------------------------------
# what is timed: name -> (bytes per element of x's dtype, ours, what users write)

Case = tuple[int, Callable[[], Any], Callable[..., Any], tuple[Any, ...]]


class Gradients:
    """The backward pass of an expression alone: the forward pass runs once, outside the clock."""

    def __init__(self, forward: Callable[..., torch.Tensor]):
        self.forward = forward

    def prepared(self, dy: torch.Tensor, *inputs: torch.Tensor, compiled: bool) -> Callable[[], Any]:
        leaves = [a.detach().requires_grad_() for a in inputs]
        functorch.donated_buffer = False  # it would let a compiled backward run only once
        y = (torch.compile(self.forward, backend=COMPILER) if compiled else self.forward)(*leaves)
        return lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True)


def dropout_cases(x: torch.Tensor, p: float) -> dict[str, Case]:
    from dropkit.kernels.triton.dropout import dropout

    t, words, module = threshold(p), KEY.words, torch.nn.Dropout(p)
    return {
        f"dropout p={p}": (2, lambda: dropout(x, words, t), module, (x,)),
        f"dropout backward p={p}": (2, lambda: dropout(x, words, t), Gradients(module), (x, x)),
    }


def fused_cases(x: torch.Tensor, p: float) -> dict[str, Case]:
    from dropkit.kernels.triton.bias_activation import bias_activation, bias_activation_backward
    from dropkit.kernels.triton.residual import residual

    f = torch.nn.functional
    t, words = threshold(p), KEY.words
    r, b = torch.randn_like(x), torch.randn(x.shape[-1], dtype=x.dtype, device=x.device)
    cases: dict[str, Case] = {
        f"residual p={p}": (3, lambda: residual(x, r, words, t), lambda x, r: f.dropout(x, p) + r, (x, r))
    }
    for name, act in (("relu", f.relu), ("gelu", f.gelu)):

        def plain(x: torch.Tensor, b: torch.Tensor, act: Any = act) -> torch.Tensor:
            return f.dropout(act(x + b), p)

        def forth(name: str = name) -> Any:
            return bias_activation(x, b, words, t, name)

        def back(name: str = name) -> Any:
            return bias_activation_backward(r, x, b, words, t, name)

        cases[f"bias+{name} p={p}"] = (2, forth, plain, (x, b))
        cases[f"bias+{name} backward p={p}"] = (3, back, Gradients(plain), (r, x, b))
    return cases


def norm_cases(x: torch.Tensor, p: float) -> dict[str, Case]:
    from dropkit.kernels.triton.norm import norm, norm_backward

    f = torch.nn.functional
    t, words = threshold(p), KEY.words
    r, dy = torch.randn_like(x), torch.randn_like(x)
    w, b = (torch.randn(x.shape[-1], dtype=x.dtype, device=x.device) for _ in range(2))
    cases: dict[str, Case] = {}
    for name, rms in (("layernorm", False), ("rmsnorm", True)):
        bias = None if rms else b
        out = norm(x, r, w, bias, words, t, 1e-5, rms)

        def plain(x: torch.Tensor, r: torch.Tensor, w: torch.Tensor, rms: bool = rms) -> Any:
            z = f.dropout(x, p) + r
            return (f.rms_norm(z, w.shape, w, 1e-5) if rms else f.layer_norm(z, w.shape, w, b, 1e-5)), z

        def forth(bias: Any = bias, rms: bool = rms) -> Any:
            return norm(x, r, w, bias, words, t, 1e-5, rms)

        def back(out: Any = out, bias: Any = bias) -> Any:
            return norm_backward(dy, None, out.z, w, bias, out.mean, out.rstd, words, t)

        label = f"dropout+residual+{name}"
        cases[f"{label} p={p}"] = (4, forth, plain, (x, r, w))
        cases[f"{label} backward p={p}"] = (4, back, Gradients(lambda *a, f=plain: f(*a)[0]), (dy, x, r, w))
    return cases


# ---------------------------------------------------------------------------------------------------------------------
# the run


def rival(plain: Any, inputs: tuple[Any, ...], compiled: bool) -> Callable[[], Any]:
    if isinstance(plain, Gradients):
        return plain.prepared(*inputs, compiled=compiled)
    run = torch.compile(plain, backend=COMPILER) if compiled else plain
    return lambda: run(*inputs)


def measure(clock: Clock, label: str, x: torch.Tensor, copy_ms: float, name: str, case: Case) -> dict[str, Any]:
    passes, ours, plain, inputs = case
    size = x.numel() * x.element_size()
    row: dict[str, Any] = {"dtype": label, "MiB": size / MIB, "operation": name, "ms": clock.median_ms(ours)}
    row["GB/s"] = passes * size / row["ms"] / 1e6
    row["of copy"] = row["GB/s"] / (2 * size / copy_ms / 1e6)
    for kind in ("eager", "compile"):
        torch._dynamo.reset()
        try:
            row[f"{kind} ms"] = clock.median_ms(rival(plain, inputs, kind == "compile"))
        except torch.OutOfMemoryError:
            row[f"{kind} ms"] = None
    return row


def shown(row: dict[str, Any]) -> str:
    def times(kind: str) -> str:
        other = row.get(f"{kind} ms")
        return f"{other:9.3f} {other / row['ms']:6.2f}x" if other else f"{'-':>9} {'':>7}"

    return (
        f"{row['dtype']:5} {row['MiB']:6g} {row['operation']:44} {row['ms']:9.3f} {row['GB/s']:8.0f} "
        f"{row['of copy']:7.1%} {times('eager')} {times('compile')}"
    )


def run(clock: Clock, sizes: list[int], rates: list[float], lines: Lines) -> None:
    heads = f"{'dtype':5} {'MiB':>6} {'operation':44} {'ms':>9} {'GB/s':>8} {'of copy':>7} {'eager ms':>9} {'':>7} "
    print(heads + f"{'compile':>9}")
    for size, (label, dtype) in [(size, item) for size in sizes for item in DTYPES.items()]:
        x = torch.randn(size * UNIT // dtype.itemsize // ROW, ROW, device=DEVICE, dtype=dtype)
        y = torch.empty_like(x)
        copy_ms = clock.median_ms(lambda x=x, y=y: y.copy_(x))
        mib = size * UNIT / MIB
        print(f"{label:5} {mib:6g} {'copy':44} {copy_ms:9.3f} {2 * size * UNIT / copy_ms / 1e6:8.0f}")
        lines.add(dtype=label, MiB=mib, operation="copy", ms=copy_ms)
        del y
        cases = [dropout_cases(x, p) for p in rates]
        cases += [fused_cases(x, rates[0]), norm_cases(x, rates[0])] if size <= 1024 else []
        for name, case in [item for group in cases for item in group.items()]:
            row = measure(clock, label, x, copy_ms, name, case)
            print(shown(row), flush=True)
            lines.add(**row)
        del x, cases, case
        if not DRY:
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description="Check and time the Triton kernels against copy, eager and compiled.")
    sizes = [8] if DRY else [1024, 64, 256, 4096]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, help="MiB of one tensor")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.5], help="p; fused operations use the first")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--tile", type=int, help="elements of a program's tile, a power of two")
    parser.add_argument("--cell", type=int, choices=(4, 8, 16, 32), help="neighbours that share one computed word")
    parser.add_argument("--warps", type=int, choices=(1, 2, 4, 8, 16), help="warps of a program")
    parser.add_argument("--out", type=Path, help="file of JSON lines to append to")
    options = parser.parse_args()
    if not DRY and not torch.cuda.is_available():
        print(NO_DEVICE, file=sys.stderr)
        sys.exit(2)
    import triton

    from dropkit.kernels.triton import walk

    walk.TILE, walk.CELL, walk.WARPS = options.tile or walk.TILE, options.cell or walk.CELL, options.warps or walk.WARPS
    lines = Lines(options.out, "kernels")
    head = {"gpu": "none" if DRY else torch.cuda.get_device_name(), "torch": torch.__version__}
    lines.add(**head, triton=triton.__version__, tile=walk.TILE, cell=walk.CELL, warps=walk.WARPS)
    for check in (check_bits, check_operations, check_graph):
        lines.add(check=check.__name__.removeprefix("check_"), result=check())
        if not DRY:
            torch.cuda.empty_cache()
    run(Clock(options.repetitions), options.sizes, options.rates, lines)


if __name__ == "__main__":
    main()
