"""A small convolutional trunk, trained here on some classes of a data set and then frozen for two others.

The trunk sees no image of the two classes that it is moved to. Its weights are a function of the data, the settings and
Keras' version and backend; they are kept on disk, and so are the features that it computes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitValueError
from ...language import say
from ..data.sets import Data
from ..files.arrays import load_arrays, save_arrays
from ..files.cache import cache, keep
from ..files.sealed import SUM
from ..order import CHUNK, epoch_order
from .features import entering, place, with_features
from .recipe import Prepared, Settings

LEAST = 4  # classes: two to move to, and two at least for the trunk to tell apart
RATE, BATCH = 1e-3, 64  # of the trunk's own Adam
RANDOM = say(
    "The frozen part has its first weights, random ones: it was trained on nothing, so that nothing is transferred. "
    "transfer-pretrained is the same with a trained one."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkSettings(Settings):
    """Settings of a top on a trunk that is trained here.

    Args:
        held_back: the two classes that the trunk does not see and the top tells apart, label 0 and label 1; the last
            two of a data set that has no such classes.
        trained: whether the trunk is trained at all; else it keeps its first weights.
        trunk_epochs, trunk_samples: of the trunk's training; None for all images of its classes.
        trunk_seed: of the trunk's first weights and the order of its images, whatever the seed of a run.
    """

    held_back: tuple[int, int] = (3, 5)
    trained: bool = True
    trunk_epochs: int = 1
    trunk_samples: int | None = None
    trunk_seed: int = 0


@dataclass(frozen=True, slots=True)
class Trunk:
    """A trunk's weights by path, and its test accuracy on the classes that it was trained on; None where on none."""

    weights: dict[str, NDArray[np.float32]]
    accuracy: float | None


def prepare(data: Data, settings: TrunkSettings, weights: Path | None) -> Prepared:
    """The two classes that are held back, as features of a trunk that was trained on the others and frozen.

    Args:
        data: images of four classes or more.
        settings: train_samples and test_samples bound the images of the two classes.
        weights: must be None.

    Raises:
        DropkitValueError: fewer than four classes, or a file of weights.
    """
    if weights is not None:
        raise DropkitValueError(
            f"this recipe trains its frozen part itself, so --weights {weights} has no use: leave it out, or use the "
            "recipe transfer"
        )
    if data.classes < LEAST:
        raise DropkitValueError(
            f"two classes are held back and a trunk is trained on the others, which takes {LEAST} classes, and "
            f"{data.name} has {data.classes}: use --data digits or cifar10"
        )
    pair = settings.held_back if max(settings.held_back) < data.classes else (data.classes - 2, data.classes - 1)
    others = [label for label in range(data.classes) if label not in pair]
    learned = replace(of_classes(data, others), classes=len(others))
    about = _about(settings, pair, len(learned.train_x[: settings.trunk_samples]))
    trunk = _trunk(learned, settings, about)
    some = of_classes(data, pair, settings.train_samples, settings.test_samples)
    image = entering(data.train_x[:1]).shape[1:]
    found, where, seconds = with_features(some, about, lambda: frozen(settings, image, trunk))
    return Prepared(replace(found, classes=2), about, (_told(trunk, pair, len(others)), where), seconds)


def of_classes(data: Data, labels: Sequence[int], train: int | None = None, test: int | None = None) -> Data:
    """The images of some classes, labelled by their place in the sequence; so many of them."""
    names = np.full(data.classes, -1)
    names[list(labels)] = range(len(labels))
    kept, tested = (
        np.flatnonzero(np.isin(y, labels))[:most] for y, most in ((data.train_y, train), (data.test_y, test))
    )
    return replace(
        data,
        train_x=data.train_x[kept],
        train_y=names[data.train_y[kept]].astype(np.int64),
        test_x=data.test_x[tested],
        test_y=names[data.test_y[tested]].astype(np.int64),
    )


def _about(settings: TrunkSettings, pair: tuple[int, int], images: int) -> str:
    """What decides the trunk's weights, but the data and Keras."""
    widths = "-".join(map(str, settings.channels))
    start = f"a trunk of convolutions {widths}, seed {settings.trunk_seed}, classes {pair[0]} and {pair[1]} held back"
    if not settings.trained:
        return f"{start}, first weights"
    return f"{start}, {settings.trunk_epochs} x {images} images by Adam {RATE:g} in batches of {BATCH}"


def _told(trunk: Trunk, pair: tuple[int, int], others: int) -> str:
    if trunk.accuracy is None:
        return RANDOM
    return say(
        "The frozen part was trained here on {others} classes, on whose test images it has accuracy {accuracy:.4f}; "
        "classes {first} and {second} were held back, and the top tells these apart.",
        others=others,
        accuracy=trunk.accuracy,
        first=pair[0],
        second=pair[1],
    )


def convolutions(settings: Settings, shape: tuple[int, ...]) -> list[Any]:
    """The trunk's layers: for each width a 3 x 3 convolution with ReLU, and a 2 x 2 pooling."""
    from ..keras_backend import require

    keras = require()
    layers: list[Any] = [keras.Input(shape)]
    for number, width in enumerate(settings.channels, start=1):
        # Zeros, because the first weights follow, and Keras' own would move Python's generator.
        options = {"padding": "same", "activation": "relu", "kernel_initializer": "zeros", "name": f"conv{number}"}
        layers.append(keras.layers.Conv2D(width, 3, **options))
        layers.append(keras.layers.MaxPooling2D(2, padding="same", name=f"pool{number}"))
    return layers


def frozen(settings: TrunkSettings, shape: tuple[int, ...], trunk: Trunk | None = None) -> Any:
    """The trunk as a `keras.Sequential` of which nothing is trainable; without weights it has its first ones.

    Args:
        settings: channels and trunk_seed count here.
        shape: of an image, in the order of axes that Keras is set to.
        trunk: its weights.
    """
    from ..keras_backend import require
    from .keras_weights import path_in, set_first_weights

    keras = require()
    model = keras.Sequential(convolutions(settings, shape), name="trunk")
    set_first_weights(model, settings.trunk_seed, settings.weight_std)
    if trunk is not None:
        for weight in model.weights:
            weight.assign(trunk.weights[path_in(model, weight)])
    model.trainable = False
    return model


def _trunk(data: Data, settings: TrunkSettings, about: str) -> Trunk:
    """The trunk's weights: those that are kept, or trained now and then kept."""
    from safetensors import SafetensorError

    from .keras_weights import path_in

    fresh = frozen(settings, entering(data.train_x[:1]).shape[1:])
    first = {path_in(fresh, weight): np.asarray(weight) for weight in fresh.weights}
    if not settings.trained:
        return Trunk(first, None)
    key = hashlib.sha256(repr((data.fingerprint, data.shape, about, place())).encode()).hexdigest()
    path = cache("trunks") / f"{key}.safetensors"
    try:
        arrays, header = load_arrays(path, set(first))
        if SUM in header:
            return Trunk(arrays, float(header["accuracy"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        pass  # missing or damaged: it can be trained again
    trunk = train(data, settings)
    keep(path, lambda: save_arrays(path, trunk.weights, {"about": about, "accuracy": trunk.accuracy}))
    return trunk


def train(data: Data, settings: TrunkSettings) -> Trunk:
    """Train the trunk with a softmax layer on top of it, which is thrown away; then score it on the test images."""
    from ..keras_backend import batches, require
    from .keras_weights import path_in, set_first_weights

    keras = require()
    count = min(settings.trunk_samples or len(data.train_x), len(data.train_x))
    x, y = entering(data.train_x[:count]), data.train_y[:count].astype(np.int32)
    layers = convolutions(settings, x.shape[1:])
    layers.append(keras.layers.Flatten(name="flatten"))
    layers.append(keras.layers.Dense(data.classes, activation="softmax", kernel_initializer="zeros", name="classes"))
    model = set_first_weights(keras.Sequential(layers, name="trunk"), settings.trunk_seed, settings.weight_std)
    model.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    for epoch in range(1, settings.trunk_epochs + 1):
        order = epoch_order(count, settings.trunk_seed, epoch)
        model.fit(batches(x, y, order, BATCH), shuffle=False, verbose=0)
    test = entering(data.test_x), data.test_y.astype(np.int32)
    accuracy = model.evaluate(*test, batch_size=CHUNK, verbose=0, return_dict=True)["accuracy"]
    found = {path_in(model, weight): keras.ops.convert_to_numpy(weight) for weight in model.weights}
    return Trunk({name: value for name, value in found.items() if not name.startswith("classes/")}, float(accuracy))
