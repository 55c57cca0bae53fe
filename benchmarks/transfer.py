"""An epoch of the recipe transfer on kept features, and one that passes every image through the frozen part again.

    python benchmarks/transfer.py --data flowers2 --data-dir DIR

Both train the same top from the same weights with the same masks by `keras.Model.fit`, and score the test set. CPU
seconds are those of the process, which a busy machine does not stretch.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dropkit.lab.keras_backend import require
from dropkit.lab.order import epoch_order
from dropkit.lab.recipes import transfer
from dropkit.lab.recipes.frozen import frozen, prepare

keras = require()

from dropkit.keras import bind  # noqa: E402
from dropkit.lab import Data, load_data  # noqa: E402


def timed(what: str, run: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what}: {wall:.1f} s, {cpu:.1f} CPU s, {found}", flush=True)
    return wall, cpu


def epoch(model: Any, x: np.ndarray, test_x: np.ndarray, data: Data, batch: int) -> dict[str, float]:
    """Train once over all samples in the lab's order; then score the test set."""
    order = epoch_order(len(x), 0, 1)
    y, test_y = (part[:, None].astype(np.float32) for part in (data.train_y, data.test_y))
    history = model.fit(x[order], y[order], batch_size=batch, shuffle=False, verbose=0).history
    return {"train_loss": history["loss"][0], "test_loss": float(model.evaluate(test_x, test_y, verbose=0))}


def top(shape: tuple[int, ...]) -> Any:
    """What is trained, its rate that of `fixed`."""
    model = bind(transfer.build(transfer.SMALL, shape, 2, 0), 0)
    model.get_layer("dropout").rate = transfer.FIXED["dropout"]
    return model


def compiled(model: Any) -> Any:
    """With the recipe's loss and optimizer."""
    model.compile(keras.optimizers.RMSprop(transfer.SMALL.learning_rate), "binary_crossentropy")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="flowers2")
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    settings, batch = transfer.SMALL, transfer.SMALL.batch_size
    data = load_data(arguments.data, arguments.data_dir, settings.image_size)
    kept = prepare(data, settings, None).data
    print(f"{len(data.train_x)} training and {len(data.test_x)} test images, Keras on {keras.config.backend()}")
    with_cache = timed(
        "kept features", lambda: epoch(compiled(top(kept.shape)), kept.train_x, kept.test_x, data, batch)
    )
    network = frozen((data.shape[1], data.shape[2], 3), None)
    whole = compiled(keras.Sequential([keras.Input(network.input_shape[1:]), network, top(kept.shape)]))
    images, tests = (2 * x.transpose(0, 2, 3, 1) - 1 for x in (data.train_x, data.test_x))
    without = timed("every image again", lambda: epoch(whole, images, tests, data, batch))
    print(f"ratio: {without[0] / with_cache[0]:.1f} by the clock, {without[1] / with_cache[1]:.1f} in CPU seconds")


if __name__ == "__main__":
    main()
