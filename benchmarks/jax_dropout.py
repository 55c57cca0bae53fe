"""Dropout in JAX, compiled, on the CPU: dropkit's kernels, dropkit in XLA's operations, and JAX's own.

    python benchmarks/jax_dropout.py             # table, and build/bench/jax.csv
    python benchmarks/jax_dropout.py --quick     # fewer rounds

JAX's own is `jax.random.bernoulli` and a select, as `flax.nnx.Dropout` writes it, with the default threefry generator.
The floor is a compiled multiplication, which reads, multiplies and allocates its output as dropout does. In each round
all contestants of a row are timed in turn; quoted are the medians of times and of ratios within a round. The rate is an
argument of the compiled function for dropkit and a constant for JAX's own, which cannot take it otherwise in Flax.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dropkit import Key, choice
from dropkit.jax import arithmetic, dropout
from dropkit.mask import threshold

KEY = Key(1, "bench")
Row = dict[str, Any]
Call = Callable[[jax.Array], jax.Array]


def by_jax(x: jax.Array, key: jax.Array, p: float) -> jax.Array:
    """The lines of flax.nnx.Dropout."""
    keep_prob = 1.0 - p
    mask = jax.random.bernoulli(key, keep_prob, x.shape)
    return jax.lax.select(mask, x / keep_prob, jnp.zeros_like(x))


def by_formula(x: jax.Array, t: jax.Array, words: jax.Array, base: jax.Array) -> jax.Array:
    """What `DROPKIT_CPU=off`, or an install without kernels, compiles."""
    strides = (x.shape[1], 1)
    plain = arithmetic.Way("t")
    return arithmetic.applied(
        x, t, words, base, strides=strides, batch=0, aligned=True, with_rows=False, way=plain, early=True
    )


def contestants(p: float) -> dict[str, Call]:
    """Compiled forward passes."""
    key = jax.random.key(1)
    t, words, base = np.uint32(threshold(p)), np.array(KEY.words, np.uint32), np.zeros(2, np.uint32)
    kernel, formula_, theirs = (
        jax.jit(lambda x, p: dropout(x, p, training=True, key=KEY)),
        jax.jit(by_formula),
        jax.jit(by_jax, static_argnames="p"),
    )
    multiply = jax.jit(lambda x, s: x * s)
    calls: dict[str, Call] = {
        "floor": lambda x: multiply(x, np.float32(1.5)),
        "dropkit, XLA": lambda x: formula_(x, t, words, base),
        "jax.random": lambda x: theirs(x, key, p=p),
    }
    if choice.xla() is not None:
        calls["dropkit, kernels"] = lambda x: kernel(x, p)
    return calls


def gradients(p: float) -> dict[str, Call]:
    """Compiled forward and backward passes, of the sum of squares."""

    def slope(function: Callable[..., jax.Array]) -> Any:
        return jax.jit(jax.grad(lambda x, *args: (function(x, *args) ** 2).sum()))

    key = jax.random.key(1)
    kernel = slope(lambda x, p: dropout(x, p, training=True, key=KEY))
    theirs, multiply = slope(partial(by_jax, p=p)), slope(lambda x, s: x * s)
    name = "dropkit, kernels" if choice.xla() is not None else "dropkit, XLA"
    return {
        "floor": lambda x: multiply(x, np.float32(1.5)),
        name: lambda x: kernel(x, p),
        "jax.random": lambda x: theirs(x, key),
    }


def rounds_of(calls: dict[str, Call], x: jax.Array, rounds: int) -> dict[str, list[float]]:
    """Seconds a call, for each round."""
    for call in calls.values():
        call(x).block_until_ready()
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = max(1, (1 << 21) // x.size)
    for _ in range(rounds):
        for name, call in calls.items():
            call(x).block_until_ready()
            start = time.perf_counter()
            for _ in range(repeats):
                call(x).block_until_ready()
            times[name].append((time.perf_counter() - start) / repeats)
    return times


def rows_of(times: dict[str, list[float]], about: Row) -> list[Row]:
    """A row for each contestant, with the median ratios to the floor and to JAX's own."""

    def ratio(a: str, b: str) -> float:
        return round(statistics.median(u / v for u, v in zip(times[a], times[b], strict=True)), 2)

    return [
        about
        | {
            "contestant": name,
            "ns_per_element": round(statistics.median(seconds) / about["n"] * 1e9, 3),
            "over_floor": ratio(name, "floor"),
            "jax_over_it": ratio("jax.random", name),
        }
        for name, seconds in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for the CSV file")
    options = parser.parse_args()
    print(choice.info_text() + f"\njax  {jax.__version__}, custom call: {'yes' if choice.xla() else 'no'}")
    rows: list[Row] = []
    for power in (10, 16, 20, 24):
        for dtype in ("float32", "bfloat16"):
            x = jax.random.normal(jax.random.key(0), (1 << power - 10, 1024)).astype(dtype)
            for p in (0.5, 0.1):
                for what, calls in (("forward", contestants(p)), ("forward+backward", gradients(p))):
                    about = {"what": what, "dtype": dtype, "n": x.size, "p": p}
                    rows += rows_of(rounds_of(calls, x, 5 if options.quick else 15), about)
    width = max(len(row["contestant"]) for row in rows)
    for row in rows:
        print(
            f"{row['what']:<17} {row['dtype']:<9} {row['n']:>9} p={row['p']} {row['contestant']:<{width}} "
            f"{row['ns_per_element']:>9} ns  floor x{row['over_floor']:<7} JAX's own x{row['jax_over_it']}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "jax.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
