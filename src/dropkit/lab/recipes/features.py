"""Features of a frozen network, computed once and kept on disk: nothing random comes before them, so they never change.

A file of features is named by everything that decides its numbers: the images, how many of them, the weights, the cut,
Keras' version and backend. It is written whole or not at all, and read without running code.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...language import say, template
from ..data.sets import Data
from ..files.arrays import load_arrays, save_arrays
from ..files.cache import cache, keep, kept_in
from ..files.sealed import SUM

BATCH = 32


@dataclass(frozen=True, slots=True)
class Features:
    """Features of training and test images, and what it took to compute those of one image."""

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    seconds: float


def with_features(data: Data, about: str, network: Callable[[], Any]) -> tuple[Data, str, float]:
    """Data with the features of its images in their place: those that are kept, or computed now and then kept.

    Args:
        data: the images that are wanted, and no others.
        about: how the network came about, for the name of the file.
        network: makes it, where it is needed.

    Returns:
        The data, where the features are kept, in a sentence, and seconds that one image takes.
    """
    count = len(data.train_x) + len(data.test_x)
    path = cache("features") / f"{_key(data, about)}.safetensors"
    found, remark = _load(path), kept_in(path)
    if found is None:
        model = network()
        start = time.perf_counter()
        train, test = compute(model, data.train_x), compute(model, data.test_x)
        found = Features(train, test, (time.perf_counter() - start) / count)
        remark = _keep(path, found, about)
    words = template("Frozen features of {number} images, computed once and {kept}.")
    where = say(words, number=count, kept=remark)
    return replace(data, train_x=found.train, test_x=found.test), where, found.seconds


def compute(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The features of images in [0, 1], grey or (samples, 3, height, width), which enter as 2 x - 1."""
    features = np.empty((len(images), *model.output_shape[1:]), np.float32)
    for start in range(0, len(images), BATCH):
        some = entering(images[start : start + BATCH])
        # A last batch of another size would be compiled once more, which takes longer than it does.
        chunk = np.zeros((BATCH, *some.shape[1:]), np.float32)
        chunk[: len(some)] = some
        features[start : start + BATCH] = np.asarray(model.predict_on_batch(chunk))[: len(some)]
    return features


def entering(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images in [0, 1], grey or (samples, channels, height, width), as networks of Keras take them here: 2 x - 1."""
    from ..keras_backend import require

    found = 2 * (images[:, None] if images.ndim == 3 else images) - 1
    last = require().config.image_data_format() == "channels_last"
    return np.ascontiguousarray(found.transpose(0, 2, 3, 1)) if last else found


def place() -> tuple[str, str, str]:
    """What decides the last bits of a network's numbers: Keras' version, its backend and the order of its axes."""
    from ..keras_backend import require

    keras = require()
    return keras.__version__, keras.config.backend(), keras.config.image_data_format()


def _key(data: Data, about: str) -> str:
    samples = len(data.train_x), len(data.test_x)
    return hashlib.sha256(repr((data.fingerprint, data.shape, samples, about, place())).encode()).hexdigest()


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
