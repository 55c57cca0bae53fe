"""Dropout's cost through the public functions, beside the floor, PyTorch, and whatever else is installed.

    make bench                                       # everything: table, build/bench/*.csv, docs/img/speed.svg
    python benchmarks/dropout.py --quick             # a minute, for a look

The floor is `torch.mul(x, s)`: it reads, multiplies and allocates its output as dropout does. All contestants of a row
are timed in turn within each round, so that a busy machine slows all of them; quoted is the median over rounds of the
ratio within a round.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import dropkit
import dropkit.numpy
import dropkit.torch
from dropkit import Key
from dropkit.kernels import cpu

KEY = Key(1, "bench")
Row = dict[str, Any]
Calls = dict[str, Callable[[], Any]]


def rounds_of(calls: Calls, rounds: int, least: float = 0.02) -> dict[str, list[float]]:
    """Seconds a call, for each round; a call is repeated until a round takes `least` seconds for the quickest."""
    first = {name: _once(call) for name, call in calls.items()}
    first = {name: _once(call) for name, call in calls.items()}
    repeats = {name: max(1, min(2000, int(least / seconds))) for name, seconds in first.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # untimed: nobody pays for threads that fell asleep, or caches that another emptied
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def _once(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return max(time.perf_counter() - start, 1e-7)


def rows_of(times: dict[str, list[float]], elements: int, about: Row, floor: str) -> list[Row]:
    """A row for each contestant: time, and the median of its ratio to the floor and to torch's dropout."""

    def ratio(name: str, base: str) -> float | str:
        if base not in times:
            return ""
        return round(statistics.median(a / b for a, b in zip(times[name], times[base], strict=True)), 4)

    return [
        about
        | {
            "contestant": name,
            "ns_per_element": round(statistics.median(seconds) / elements * 1e9, 4),
            "over_floor": ratio(name, floor),
            "torch_over_it": ratio("torch", name) if "torch" in times else "",
        }
        for name, seconds in times.items()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# one tensor


def forward_calls(x: Tensor, p: float, compiled: bool) -> Calls:
    """Forward passes over one tensor."""
    scale = 1 / (1 - p)
    calls: Calls = {
        "floor": lambda: torch.mul(x, scale),
        "dropkit": lambda: dropkit.torch.dropout(x, p, training=True, key=KEY),
        "torch": lambda: functional.dropout(x, p, True),
    }
    if compiled:
        fast = torch.compile(lambda x: functional.dropout(x, p, True))
        fast(x)
        calls["torch.compile"] = lambda: fast(x)
    return calls


def inplace_calls(x: Tensor, p: float) -> Calls:
    """Forward passes that write into their input: no fresh memory, no page faults."""
    scale = 1.0  # so that values stay what they are over many rounds
    return {
        "floor": lambda: x.mul_(scale),
        "dropkit": lambda: dropkit.torch.dropout(x, p, training=True, key=KEY, inplace=True),
        "torch": lambda: functional.dropout(x, p, True, True),
    }


def both_calls(x: Tensor, p: float) -> Calls:
    """Forward and backward, through autograd."""
    scale, grad = 1 / (1 - p), torch.randn_like(x)
    leaf = x.clone().requires_grad_()

    def both(function: Callable[[Tensor], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(function(leaf), leaf, grad)

    return {
        "floor": both(lambda x: torch.mul(x, scale)),
        "dropkit": both(lambda x: dropkit.torch.dropout(x, p, training=True, key=KEY)),
        "torch": both(lambda x: functional.dropout(x, p, True)),
    }


def numpy_calls(size: int, p: float) -> Calls:
    """The same in NumPy, with its default generator as the usual way."""
    x, rng, scale = (
        np.random.default_rng(0).normal(size=size).astype(np.float32),
        np.random.default_rng(1),
        np.float32(2),
    )
    keep = np.float32(1 - p)
    return {
        "floor": lambda: np.multiply(x, scale),
        "dropkit.numpy": lambda: dropkit.numpy.dropout(x, p, training=True, key=KEY),
        "numpy PCG64": lambda: x * (rng.random(size, np.float32) < keep) / keep,
    }


def jax_calls(size: int, p: float) -> Calls:
    """JAX's own, where JAX is installed."""
    try:
        import jax
    except ModuleNotFoundError:
        return {}
    x = jax.random.normal(jax.random.key(0), (size,))
    mul = jax.jit(lambda x: x * 2)
    drop = jax.jit(lambda k, x: jax.numpy.where(jax.random.bernoulli(k, 1 - p, x.shape), x / (1 - p), 0))
    key = jax.random.key(1)
    return {"floor": lambda: mul(x).block_until_ready(), "jax threefry": lambda: drop(key, x).block_until_ready()}


def elements(quick: bool) -> list[Row]:
    """Times per element over sizes, rates, dtypes and directions."""
    rows: list[Row] = []
    sizes = (10, 16, 20) if quick else (10, 12, 14, 16, 18, 20, 22, 24, 26)
    for power in sizes:
        n, rounds = 1 << power, 5 if power > 22 or quick else 9
        for dtype in (torch.float32, torch.bfloat16):
            for p in (0.1,) if quick else (0.5, 0.25, 0.1, 0.2):
                x = torch.randn(n).to(dtype)
                about = {"n": n, "dtype": str(dtype).removeprefix("torch."), "p": p}
                compiled = not quick and dtype is torch.float32 and p == 0.1
                for what, calls in (
                    ("forward", forward_calls(x, p, compiled)),
                    ("forward+backward", both_calls(x, p)),
                    ("in place", inplace_calls(x, p)),
                ):
                    rows += rows_of(rounds_of(calls, rounds), n, about | {"what": what}, "floor")
                if dtype is torch.float32:
                    for what, calls in (("numpy", numpy_calls(n, p)), ("jax", jax_calls(n, p))):
                        if calls:
                            rows += rows_of(rounds_of(calls, rounds), n, about | {"what": what}, "floor")
        print(f"2^{power} done", flush=True)
    return rows


def overhead() -> list[Row]:
    """Microseconds of a module's forward on a 64 x 16 tensor that requires grad."""
    x = torch.randn(64, 16, requires_grad=True)
    ours, torchs = dropkit.torch.Dropout(0.1), nn.Dropout(0.1)
    bound = dropkit.torch.bind(nn.Sequential(*(dropkit.torch.Dropout(0.1) for _ in range(4))))
    four = nn.Sequential(*(nn.Dropout(0.1) for _ in range(4)))
    calls: Calls = {
        "dropkit": lambda: ours(x),
        "torch": lambda: torchs(x),
        "dropkit, bound model of four": lambda: bound(x),
        "torch, model of four": lambda: four(x),
    }
    times = rounds_of(calls, 25)
    return rows_of(times, 1, {"what": "64 x 16 forward, ns a call"}, "torch")


def saved() -> list[Row]:
    """Bytes kept for backward, per element."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(1 << 20, dtype=dtype, requires_grad=True)
        for name, module in (("dropkit", dropkit.torch.Dropout(0.1)), ("torch", nn.Dropout(0.1))):
            sizes: list[int] = []

            def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
                sizes.append(tensor.untyped_storage().nbytes())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                module(x)
            kept = sum(sizes) / x.numel()
            rows.append(
                {"what": "saved for backward", "dtype": str(dtype), "contestant": name, "bytes_per_element": kept}
            )
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# whole training steps


def step_of(model: nn.Module, x: Tensor) -> Callable[[], Any]:
    """Forward, backward and an SGD step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return step


def mlp(drop: Callable[[float], nn.Module]) -> tuple[nn.Module, Tensor]:
    layers = (nn.Linear(784, 256), nn.ReLU(), drop(0.2), nn.Linear(256, 256), nn.ReLU(), drop(0.5), nn.Linear(256, 10))
    return nn.Sequential(*layers), torch.randn(256, 784)


def classifier(drop: Callable[[float], nn.Module]) -> tuple[nn.Module, Tensor]:
    """The end of VGG-16: 25088-4096-4096-1000, batch 32."""
    layers = (
        nn.Linear(25088, 4096),
        nn.ReLU(),
        drop(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        drop(0.5),
        nn.Linear(4096, 1000),
    )
    return nn.Sequential(*layers), torch.randn(32, 25088)


def encoder(drop: Callable[[float], nn.Module]) -> tuple[nn.Module, Tensor]:
    """TransformerEncoderLayer 512/8/2048 at batch 8 x 128; its own attention dropout is off for all contestants."""
    layer = nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    for name in ("dropout", "dropout1", "dropout2"):
        setattr(layer, name, drop(0.1))
    return layer, torch.randn(8, 128, 512)


def on_own_threads(step: Callable[[], Any]) -> Callable[[], Any]:
    """The step with the kernels on a pool of their own, beside torch's, instead of on torch's threads."""

    def run() -> None:
        cpu.extension().drop_openmp()
        try:
            step()
        finally:
            cpu.adopt_openmp()

    return run


def steps(quick: bool) -> list[Row]:
    """Whole steps with no dropout, torch's, and ours."""
    rows: list[Row] = []
    kinds: dict[str, Callable[[float], nn.Module]] = {
        "none": lambda p: nn.Identity(),
        "dropkit": dropkit.torch.Dropout,
        "torch": nn.Dropout,
    }
    models = {
        "mlp 784-256-256-10, batch 256": mlp,
        "encoder layer 512/8/2048, 8 x 128": encoder,
        "VGG-16 classifier, batch 32": classifier,
    }
    for name, make in models.items():
        if quick and make is classifier:
            continue
        calls = {}
        for kind, drop in kinds.items():
            torch.manual_seed(0)
            calls[kind] = step_of(*make(drop))
        if cpu.available():
            calls["dropkit, threads of its own"] = on_own_threads(step_of(*make(dropkit.torch.Dropout)))
        rows += rows_of(rounds_of(calls, 7 if quick else 31), 1, {"what": f"step: {name}"}, "none")
        print(f"{name} done", flush=True)
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# output


def write(rows: list[Row], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def show(title: str, rows: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    widths = {name: max(len(name), *(len(str(row.get(name, ""))) for row in rows)) for name in names}
    print(f"\n{title}\n" + "  ".join(f"{name:<{widths[name]}}" for name in names))
    for row in rows:
        print("  ".join(f"{row.get(name, '')!s:<{widths[name]}}" for name in names))


def plot(rows: list[Row], path: Path) -> None:
    """Time per element over size: floor, dropkit, torch, in float32 at p = 0.1."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, what in zip(axes, ("forward", "forward+backward"), strict=True):
        chosen = [row for row in rows if row["what"] == what and row["dtype"] == "float32" and row["p"] == 0.1]
        for name in dict.fromkeys(row["contestant"] for row in chosen):
            points = [(row["n"], row["ns_per_element"]) for row in chosen if row["contestant"] == name]
            axis.loglog(*zip(*points, strict=True), marker="o", label=name, base=2)
        axis.set(title=what, xlabel="elements")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("ns per element")
    axes[0].legend()
    figure.suptitle(f"Dropout, float32, p = 0.1, {torch.get_num_threads()} threads")
    figure.savefig(path)


def summary(tables: dict[str, list[Row]]) -> str:
    """The figures that the documentation quotes, as Markdown; a range is that over the rates p."""
    lines = ["| | dtype | elements | time over floor | torch's time over it |", "|---|---|---|---|---|"]
    ours = [row for row in tables["elements"] if row["contestant"] == "dropkit"]
    for what in ("forward", "forward+backward", "in place"):
        for dtype in ("float32", "bfloat16"):
            for power in (10, 16, 18, 20, 22, 24, 26):
                chosen = [r for r in ours if (r["what"], r["dtype"], r["n"]) == (what, dtype, 1 << power)]
                if chosen:
                    floor, torchs = ([float(r[name]) for r in chosen] for name in ("over_floor", "torch_over_it"))
                    lines.append(
                        f"| {what} | {dtype} | 2^{power} | {min(floor):.2f} to {max(floor):.2f} "
                        f"| {min(torchs):.0f} to {max(torchs):.0f} |"
                    )
    lines += ["", "| training step | dropout | time over the step without any |", "|---|---|---|"]
    for row in tables["steps"]:
        if row["contestant"] != "none":
            lines.append(f"| {row['what'].removeprefix('step: ')} | {row['contestant']} | {row['over_floor']:.3f} |")
    lines += ["", "| 64 x 16 forward | microseconds |", "|---|---|"]
    lines += [f"| {row['contestant']} | {row['ns_per_element'] / 1000:.1f} |" for row in tables["overhead"]]
    lines += ["", "| saved for backward | dtype | bytes an element |", "|---|---|---|"]
    lines += [
        f"| {r['contestant']} | {r['dtype']} | {r['bytes_per_element']:g} |" for r in tables["saved for backward"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sizes and rounds")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for the CSV files and the plot")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(dropkit.choice.info_text())
    tables = {
        "overhead": overhead(),
        "saved for backward": saved(),
        "steps": steps(options.quick),
        "elements": elements(options.quick),
    }
    for title, rows in tables.items():
        show(title, rows)
        write(rows, options.out / f"{title.replace(' ', '_')}.csv")
    plot(tables["elements"], options.out / "speed.svg")
    (options.out / "summary.md").write_text(summary(tables))
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
