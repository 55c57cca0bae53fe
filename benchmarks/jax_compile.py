"""The first call of a network with many dropouts: tracing, lowering and compiling, in CPU seconds.

    python benchmarks/jax_compile.py                # table, and build/bench/jax_compile.csv
    python benchmarks/jax_compile.py --quick        # one round

32 x (Linear 256, relu, dropout) in flax.nnx, `nnx.jit(nnx.grad(...))`; and in Keras on JAX, 6 x (Dense 512,
dropout), compiled, the first step of `fit`. Every figure is from a process of its own, without a compilation cache; in
each round all contestants take their turn, in alternating order. Quoted are medians, of ratios within a round too.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NNX = ("nnx none", "nnx flax", "nnx ours", "nnx ours bound", "nnx ours XLA", "nnx ours bound XLA")
KERAS = ("keras none", "keras keras", "keras ours", "keras ours bound", "keras ours XLA", "keras ours bound XLA")
DEPTH = {"nnx": 32, "keras": 6}


def nnx_call(kind: str) -> Callable[[], object]:
    """The first call of an nnx network and its gradient."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from dropkit.jax import bind
    from dropkit.jax.nnx import Dropout

    make = {"none": None, "flax": nnx.Dropout}.get(kind, Dropout)

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.linear = nnx.Linear(256, 256, rngs=rngs)
            self.drop = make(0.1, rngs=rngs) if make else None

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.relu(self.linear(x))
            return self.drop(x) if self.drop is not None else x

    model = nnx.Sequential(*(Block(nnx.Rngs(i)) for i in range(DEPTH["nnx"])))
    if "bound" in kind:
        bind(model, seed=0)
    x = jnp.ones((64, 256))
    step = nnx.jit(nnx.grad(lambda model, x: model(x).sum()))
    nnx.jit(lambda x: x + 1)(x).block_until_ready()
    return lambda: jax.block_until_ready(step(model, x))


def keras_call(kind: str) -> Callable[[], object]:
    """The first step of fit of a Keras network."""
    import keras
    import numpy as np

    import dropkit.keras

    make = {"none": None, "keras": keras.layers.Dropout}.get(kind, dropkit.keras.Dropout)
    layers: list[object] = [keras.Input((512,))]
    for _ in range(DEPTH["keras"]):
        layers += [keras.layers.Dense(512, activation="relu"), *([make(0.1)] if make else [])]
    model = keras.Sequential(layers)
    if "bound" in kind:
        dropkit.keras.bind(model, seed=0)
    model.compile("sgd", "mse")
    x = np.ones((64, 512), np.float32)
    return lambda: model.fit(x, x, batch_size=64, epochs=1, verbose=0)


def one(name: str) -> None:
    """Print the CPU and wall seconds of a contestant's first call."""
    library, kind = name.split(" ", 1)
    call = {"nnx": nnx_call, "keras": keras_call}[library](kind)
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    print(time.process_time() - cpu, time.perf_counter() - wall)


def measured(name: str) -> tuple[float, float]:
    """One figure from a fresh process."""
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    if "XLA" in name:
        environment["DROPKIT_CPU"] = "off"
    done = subprocess.run(
        [sys.executable, __file__, "--one", name], capture_output=True, text=True, env=environment, check=True
    )
    cpu, wall = map(float, done.stdout.split()[-2:])
    return cpu, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("nnx", "keras"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    rows = []
    for library, names in (("nnx", NNX), ("keras", KERAS)):
        if options.only in (None, library):
            rows += table(library, names, 1 if options.quick else options.rounds)
    out = Path("build/bench/jax_compile.csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def table(library: str, names: tuple[str, ...], rounds: int) -> list[dict[str, object]]:
    """The rows of one library, printed."""
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            figures[name].append(measured(name))
    theirs = figures[names[1]]
    rows: list[dict[str, object]] = []
    print(f"{library}: first call, median of {rounds} rounds\n{'':22}  CPU s  wall s  CPU, times {names[1]}")
    for name in names:
        cpu, wall = (statistics.median(figure[i] for figure in figures[name]) for i in (0, 1))
        ratio = statistics.median(a[0] / b[0] for a, b in zip(figures[name], theirs, strict=True))
        print(f"{name:22} {cpu:6.2f} {wall:7.2f} {ratio:8.2f}")
        rows.append({"name": name, "cpu": round(cpu, 3), "wall": round(wall, 3), "ratio": round(ratio, 3)})
    return rows


if __name__ == "__main__":
    main()
