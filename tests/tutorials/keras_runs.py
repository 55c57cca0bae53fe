"""What Keras does with a tutorial's lines, as JSON: a process of its own, since Keras has one backend in each."""

import json
from typing import Any

import keras
import noise_shape
import numpy as np

import dropkit
import dropkit.keras


def error(run: Any) -> str:
    """What it raises, in one line; empty where nothing."""
    try:
        run()
    except Exception as found:
        return f"{type(found).__name__}: {' '.join(str(found).split())}"
    return ""


def zeros(layer: Any, x: np.ndarray) -> Any:
    """Which elements a dropout zeroes, in training."""
    return (keras.ops.convert_to_numpy(layer(x, training=True)) == 0).tolist()


def compiled() -> dict[str, Any]:
    """The line that compiles: a name that is nowhere imported, and an argument of old."""
    imports = "import os\nfrom keras import Model, layers\n"
    return {
        "as written": error(lambda: exec(imports + "RMSprop(lr=0.0001)", {})),
        "lr": error(lambda: keras.optimizers.RMSprop(lr=1e-4)),
        "learning_rate": error(lambda: keras.optimizers.RMSprop(learning_rate=1e-4)),
    }


def network(rate: float) -> Any:
    """A frozen layer, two dense ones, a dropout and an output; the same first weights in each."""
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(6, "relu", name=name) for name in ("frozen", "hidden1", "hidden2")]
    dense[0].trainable = False
    dropout = keras.layers.Dropout(rate, name="dropout", seed=1)
    layers = [keras.Input((5,)), *dense, dropout, keras.layers.Dense(1, "sigmoid", name="output")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.RMSprop(learning_rate=1e-2), "binary_crossentropy")
    return model


def moved(rate: float) -> dict[str, Any]:
    """How far two epochs move each weight."""
    model = network(rate)
    before = {weight.path: keras.ops.convert_to_numpy(weight).copy() for weight in model.weights}
    x = np.random.default_rng(0).random((32, 5)).astype(np.float32)
    model.fit(x, (x.sum(1) > 2.2).astype(np.float32)[:, None], epochs=2, shuffle=False, verbose=0)
    found = {weight.path: keras.ops.convert_to_numpy(weight) - before[weight.path] for weight in model.weights}
    return {path.partition("/")[2]: value.tolist() for path, value in found.items()}


def literal_batch(layer: Any) -> str:
    """Two batches of two and a last one of one."""
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(4), layer(0.5, noise_shape=(2, 1, 4))])
    model.compile("sgd", "mse")
    return error(lambda: model.fit(np.ones((5, 3, 4)), np.ones((5, 3, 4)), batch_size=2, verbose=0))


def shapes() -> dict[str, Any]:
    """Masks of the four shapes, and what becomes of three mistakes."""
    theirs = keras.layers.Dropout
    wide = np.ones((64, 3, 4), np.float32)
    return {
        "elements": zeros(theirs(0.5, seed=0), wide),
        "neurons": zeros(theirs(0.5, noise_shape=(None, 1, 4), seed=0), wide),
        "for all": zeros(theirs(0.5, noise_shape=(1, 1, 4), seed=0), wide),
        "two of three": zeros(theirs(0.5, noise_shape=(1, 4), seed=0), wide),
        "ours, two of three": zeros(dropkit.keras.Dropout(0.5, noise_shape=(1, 4), seed=0), wide),
        "literal batch": literal_batch(theirs),
        "ours, literal batch": literal_batch(dropkit.keras.Dropout),
    }


def explained() -> dict[str, Any]:
    """Sentences on the targets of the example; the torch ones are handed over with inputs."""
    found = {}
    for name in ("elements", "neurons", "for_all", "for_all_2d"):
        explanation = dropkit.explain(getattr(noise_shape, name)())
        model, x = getattr(noise_shape, f"torch_{name}")()
        found[name] = explanation.sentences
        found[f"torch_{name}"] = dropkit.explain(model, x).sentences
        assert explanation.findings == ()
    return found


if __name__ == "__main__":
    layer = keras.layers.Dropout(0.2, seed=3)
    steps = [zeros(layer, np.ones((8, 1024), np.float32)) for _ in range(5)]
    rates = {str(rate): moved(rate) for rate in (0.0, 0.2, 1.0)}
    zero = dropkit.explain(network(1.0), np.random.default_rng(0).random((8, 5), np.float32)).sentences
    print(
        json.dumps(
            {
                "compile": compiled(),
                "steps": steps,
                "moved": rates,
                "rate 1": zero,
                "shapes": shapes(),
                "explained": explained(),
            }
        )
    )
