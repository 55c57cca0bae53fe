"""Every GPU figure in one run: `python benchmarks/gpu.py` prints a table and writes JSON lines with --out.

What is measured: the bandwidth of `y.copy_(x)` in this very run, then each fused operation and what users write in its
place, eager and through torch.compile. A rate counts the bytes that the operation must move (inputs read once, outputs
written once), so `of copy` says how near the memory's speed it runs. Before that come checks, and a failed one ends the
run: bits against the CPU, indices past 2**31, a replayed CUDA graph.

CUDA events, the median of many repetitions, the L2 flushed before each. Without a CUDA device it says so and ends.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch._functorch import config as functorch

from dropkit import Key, keep
from dropkit.mask import scale, threshold

KEY = Key(seed=1, site="benchmark", step=0)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
MIB = 1 << 20
ROW = 4096  # elements: the last axis of every tensor


class Clock:
    """Medians of CUDA event times; every repetition starts with a cold L2."""

    def __init__(self, repetitions: int):
        self.repetitions = repetitions
        self.flush = torch.empty(256 * MIB, dtype=torch.int8, device="cuda")

    def median_ms(self, call: Callable[[], Any]) -> float:
        for _ in range(5):
            call()
        times = []
        for _ in range(self.repetitions):
            self.flush.zero_()
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            call()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop))
        return statistics.median(times)


# ---------------------------------------------------------------------------------------------------------------------
# checks


def check_bits() -> str:
    """Dropout of 2**20 elements equals the definition computed on the CPU, for every dtype and several p."""
    from dropkit.kernels.triton.dropout import dropout

    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        x = torch.randn(1 << 20, device="cuda").to(dtype)
        for p in (0.5, 0.25, 0.1, 0.3, 0.001, 0.0, 1.0):
            wide = x.cpu() if dtype == torch.float64 else x.cpu().float()
            kept = torch.from_numpy(keep(x.shape, p, KEY).copy())
            want = torch.where(kept, wide * scale(threshold(p)), 0.0).to(dtype)
            got = dropout(x, KEY.words, threshold(p)).cpu()
            if not torch.equal(got.view(torch.uint8), want.view(torch.uint8)):
                sys.exit(f"FAILED: bits differ from the CPU's, {dtype}, p = {p}")
    return "bits equal the CPU's: 2^20 elements, 4 dtypes, 7 p"


def check_operations() -> str:
    """The other operations in float32 equal the CPU kernels' bits, where those are compiled."""
    from dropkit.kernels import cpu
    from dropkit.kernels.triton.bias_activation import bias_activation
    from dropkit.kernels.triton.residual import residual

    if not cpu.available():
        return "residual, activations: not checked, the CPU kernels are not compiled"
    x, r = torch.randn(512, 2048), torch.randn(512, 2048)
    b, want, t = torch.randn(2048), torch.empty(512, 2048), threshold(0.1)
    inputs = [x.numpy(), b.expand_as(x).numpy()]
    cpu.walk(cpu.RESIDUAL, [x.numpy(), r.numpy()], want.numpy(), KEY.words, t, (2048, 1))
    equal = torch.equal(residual(x.cuda(), r.cuda(), KEY.words, t).cpu(), want)
    for name, op in (("relu", cpu.RELU), ("gelu", cpu.GELU), ("gelu_tanh", cpu.GELU_TANH)):
        cpu.walk(op, inputs, want.numpy(), KEY.words, t, (2048, 1))
        equal &= torch.equal(bias_activation(x.cuda(), b.cuda(), KEY.words, t, name).cpu(), want)
    if not equal:
        sys.exit("FAILED: residual or an activation differs from the CPU kernels")
    return "residual, bias + ReLU/GELU/GELU-tanh equal the CPU kernels' bits: 2^20 elements, float32"


def check_large() -> str:
    """Past 2**31 elements, the last 2**16 have the mask of their indices."""
    from dropkit.kernels.triton.dropout import dropout

    count, tail = 2**31 + 2**20 + 3, 1 << 16
    if torch.cuda.mem_get_info()[0] < 5 * count:
        return "more than 2^31 elements: not checked, too little memory"
    x = torch.ones(count, dtype=torch.bfloat16, device="cuda")
    y = dropout(x, KEY.words, threshold(0.5))
    kept = keep((tail,), 0.5, KEY, offset=(count - tail,), global_shape=(count,))
    if not torch.equal((y[-tail:] != 0).cpu(), torch.from_numpy(kept.copy())):
        sys.exit("FAILED: the mask is wrong past 2**31 elements")
    return f"the mask is right at the end of {count} elements"


def check_graph() -> str:
    """A replayed CUDA graph drops with the mask of the step that lies in memory at the replay."""
    from dropkit.kernels.triton.dropout import dropout
    from dropkit.kernels.triton.walk import StoredKey

    x, step = torch.ones(1 << 16, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")
    stored = StoredKey(torch.tensor([KEY.seed], device="cuda"), 77, step)
    dropout(x, stored, threshold(0.3))  # compiles, which a capture must not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = dropout(x, stored, threshold(0.3))
        step += 1
    step.zero_()
    for now in range(5):
        graph.replay()
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
        y = (torch.compile(self.forward) if compiled else self.forward)(*leaves)
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
    run = torch.compile(plain) if compiled else plain
    return lambda: run(*inputs)


def measure(clock: Clock, label: str, x: torch.Tensor, copy_ms: float, name: str, case: Case) -> dict[str, Any]:
    passes, ours, plain, inputs = case
    size = x.numel() * x.element_size()
    row: dict[str, Any] = {"dtype": label, "MiB": size // MIB, "operation": name, "ms": clock.median_ms(ours)}
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
        f"{row['dtype']:5} {row['MiB']:6} {row['operation']:44} {row['ms']:9.3f} {row['GB/s']:8.0f} "
        f"{row['of copy']:7.1%} {times('eager')} {times('compile')}"
    )


def run(clock: Clock, sizes: list[int], rates: list[float]) -> list[dict[str, Any]]:
    rows = []
    heads = f"{'dtype':5} {'MiB':>6} {'operation':44} {'ms':>9} {'GB/s':>8} {'of copy':>7} {'eager ms':>9} {'':>7} "
    print(heads + f"{'compile':>9}")
    for label, dtype in DTYPES.items():
        for mib in sizes:
            x = torch.randn(mib * MIB // dtype.itemsize // ROW, ROW, device="cuda", dtype=dtype)
            y = torch.empty_like(x)
            copy_ms = clock.median_ms(lambda x=x, y=y: y.copy_(x))
            print(f"{label:5} {mib:6} {'copy':44} {copy_ms:9.3f} {2 * mib * MIB / copy_ms / 1e6:8.0f}")
            rows.append({"dtype": label, "MiB": mib, "operation": "copy", "ms": copy_ms})
            del y
            cases = [dropout_cases(x, p) for p in rates]
            cases += [fused_cases(x, rates[0]), norm_cases(x, rates[0])] if mib <= 1024 else []
            for name, case in [item for group in cases for item in group.items()]:
                rows.append(measure(clock, label, x, copy_ms, name, case))
                print(shown(rows[-1]), flush=True)
            del x, cases, case
            torch.cuda.empty_cache()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Check and time the Triton kernels against copy, eager and compiled.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024, 4096], help="MiB of one tensor")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.5], help="p; fused operations use the first")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--tile", type=int, help="elements of a program's tile, a power of two")
    parser.add_argument("--cell", type=int, choices=(4, 8, 16, 32), help="neighbours that share one computed word")
    parser.add_argument("--warps", type=int, choices=(1, 2, 4, 8, 16), help="warps of a program")
    parser.add_argument("--out", type=Path, help="file of JSON lines to write")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device: nothing was measured. The kernels' tests run without one: pytest tests/kernels")
        return
    import triton

    from dropkit.kernels.triton import walk

    walk.TILE, walk.CELL, walk.WARPS = options.tile or walk.TILE, options.cell or walk.CELL, options.warps or walk.WARPS
    head = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__}
    head |= {"tile": walk.TILE, "cell": walk.CELL, "warps": walk.WARPS}
    print(head)
    for check in (check_bits, check_operations, check_graph, check_large):
        print("ok:", check(), flush=True)
        torch.cuda.empty_cache()
    rows = run(Clock(options.repetitions), options.sizes, options.rates)
    lines = "".join(json.dumps(row) + "\n" for row in [head, *rows])
    if options.out:
        options.out.write_text(lines)
    else:
        print(lines, end="")


if __name__ == "__main__":
    main()
