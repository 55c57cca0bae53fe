"""Features of a frozen network, computed once and kept on disk: nothing random comes before them, so they never change.

A file of features is named by everything that decides its numbers: the images, how many of them, the weights, the cut,
Keras' version and backend. It is written whole or not at all, and read without running code.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, DropkitValueError
from ...language import say, template
from ...visible import one_line
from ..data.sets import Data
from ..files.arrays import load_arrays, save_arrays
from ..files.cache import cache, keep, kept_in
from ..files.sealed import SUM
from ..order import first_weights
from .recipe import Prepared, Settings

NETWORK, CUT = "InceptionV3", "mixed7"
LEAST = 75  # pixels, of InceptionV3
BATCH = 32
PUBLISHED = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
SITE = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
RANDOM = say(
    "The frozen part, {network}, has random weights, not pretrained ones: it is a random feature extractor, and "
    "these accuracies say nothing about transfer learning. Give {published} with --weights.",
    network=NETWORK,
    published=PUBLISHED,
)


@dataclass(frozen=True, slots=True)
class Features:
    """Features of training and test images, and what it took to compute those of one image."""

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    seconds: float


def prepare(data: Data, settings: Settings, weights: Path | None) -> Prepared:
    """Two classes of colour images as features of InceptionV3, cut at mixed7 and frozen.

    Args:
        data: images (samples, 3, height, width) in [0, 1], of two classes.
        settings: train_samples and test_samples bound what is computed.
        weights: a file that Keras saved, of InceptionV3 without its top; None for random weights.

    Raises:
        DropkitValueError: grey images, too small ones, or another number of classes.
        DataError: the weights cannot be read or do not fit.
    """
    _check(data)
    train, test = data.train_x[: settings.train_samples], data.test_x[: settings.test_samples]
    digest = _digest(weights)
    about = f"{NETWORK} to {CUT}, " + ("random weights" if digest is None else f"weights of sha256 {digest}")
    path = cache("features") / f"{_key(data, (len(train), len(test)), about)}.safetensors"
    found, remark = _load(path), kept_in(path)
    if found is None:
        network = frozen((data.shape[1], data.shape[2], 3), weights)
        start = time.perf_counter()
        parts = [compute(network, part) for part in (train, test)]
        seconds = (time.perf_counter() - start) / (len(train) + len(test))
        found, remark = Features(parts[0], parts[1], seconds), _keep(path, Features(parts[0], parts[1], seconds), about)
    kept = replace(
        data,
        train_x=found.train,
        train_y=data.train_y[: len(found.train)],
        test_x=found.test,
        test_y=data.test_y[: len(found.test)],
    )
    words = template("Frozen features of {number} images, computed once and {kept}.")
    where = say(words, number=len(train) + len(test), kept=remark)
    return Prepared(kept, about, (where,) if weights else (RANDOM, where), found.seconds)


def _check(data: Data) -> None:
    if data.classes != 2:
        raise DropkitValueError(
            f"this recipe tells two classes apart, and {data.name} has {data.classes}: use --data flowers2, or a "
            "folder with two sub-folders of images"
        )
    if len(data.shape) != 3 or data.shape[0] != 3 or min(data.shape[1:]) < LEAST:
        raise DropkitValueError(
            f"{NETWORK} takes colour images of at least {LEAST} x {LEAST} pixels, got images of shape {data.shape}: "
            "use --data flowers2, or a folder with two sub-folders of images"
        )


def frozen(shape: tuple[int, int, int], weights: Path | None) -> Any:
    """InceptionV3 without its top up to mixed7, as a Keras model of which nothing is trainable.

    Args:
        shape: of an image: height, width, 3.
        weights: a file that Keras saved (.h5 or .weights.h5); None for N(0, 2 / fan-in) in convolutions, with batch
            norm as the identity.

    Raises:
        DataError: the file cannot be read or does not fit.
    """
    from ..keras_backend import require

    keras = require()
    if keras.config.image_data_format() == "channels_first":
        shape = (shape[2], shape[0], shape[1])
    base = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=shape)
    if weights is not None:
        _load_weights(base, weights)
    model = keras.Model(base.input, base.get_layer(CUT).output, name="inception_v3")
    model.trainable = False
    if weights is None:
        # Biases are 0, and batch norm is the identity but for its epsilon, as Keras made them. Layers have no names of
        # their own, so they are told apart by number.
        for number, layer in enumerate(model.layers):
            if isinstance(layer, keras.layers.Conv2D):
                height, width, channels, _ = layer.kernel.shape
                std = (2 / (height * width * channels)) ** 0.5
                layer.kernel.assign(first_weights(tuple(layer.kernel.shape), 0, f"frozen/{number}", std))
    return model


def _load_weights(model: Any, path: Path) -> None:
    try:
        model.load_weights(str(path))
    except Exception as error:  # Keras and h5py raise whatever they meet
        reason = one_line(error)[:300]
        raise DataError(
            f"{path} does not hold the weights of {NETWORK} without its top: {reason}; use {SITE}{PUBLISHED}, or what "
            f"save_weights of keras.applications.{NETWORK}(include_top=False) wrote"
        ) from error


def compute(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features of images (samples, 3, height, width) in [0, 1], which enter as 2 x - 1."""
    from ..keras_backend import require

    last = require().config.image_data_format() == "channels_last"
    features = np.empty((len(images), *model.output_shape[1:]), np.float32)
    for start in range(0, len(images), BATCH):
        some = images[start : start + BATCH]
        # A last batch of another size would be compiled once more, which takes longer than it does.
        chunk = np.zeros((BATCH, *images.shape[1:]), np.float32)
        chunk[: len(some)] = 2 * some - 1
        x = np.ascontiguousarray(chunk.transpose(0, 2, 3, 1)) if last else chunk
        features[start : start + BATCH] = np.asarray(model.predict_on_batch(x))[: len(some)]
    return features


def _digest(weights: Path | None) -> str | None:
    if weights is None:
        return None
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot read the weights {weights}: {error.strerror or error}; use {SITE}{PUBLISHED}, or leave --weights "
            "out for random ones"
        ) from error


def _key(data: Data, samples: tuple[int, int], about: str) -> str:
    from ..keras_backend import require

    keras = require()
    place = (keras.__version__, keras.config.backend(), keras.config.image_data_format())
    return hashlib.sha256(repr((data.fingerprint, data.shape, samples, about, place)).encode()).hexdigest()


def _load(path: Path) -> Features | None:
    """Features in a file, or None where it is missing or damaged: they can be computed again."""
    from safetensors import SafetensorError

    try:
        arrays, header = load_arrays(path, {"train", "test"})
        return Features(arrays["train"], arrays["test"], float(header["seconds"])) if SUM in header else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, features: Features, about: str) -> str:
    """Write a file of features; says where, or why not."""
    arrays, header = {"train": features.train, "test": features.test}, {"about": about, "seconds": features.seconds}
    return keep(path, lambda: save_arrays(path, arrays, header))
