"""The frozen part of `transfer`: InceptionV3 up to mixed7, with weights of a file or random ones."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import DataError, DropkitValueError
from ...language import say
from ...visible import one_line
from ..data.sets import Data
from ..order import first_weights
from .features import with_features
from .recipe import Prepared, Settings

NETWORK, CUT = "InceptionV3", "mixed7"
LEAST = 75  # pixels, of InceptionV3
PUBLISHED = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
SITE = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
RANDOM = say(
    "The frozen part, {network}, has random weights, not pretrained ones: it is a random feature extractor, and "
    "these accuracies say nothing about transfer learning. Give {published} with --weights.",
    network=NETWORK,
    published=PUBLISHED,
)


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
    digest = _digest(weights)
    about = f"{NETWORK} to {CUT}, " + ("random weights" if digest is None else f"weights of sha256 {digest}")
    train, test = settings.train_samples, settings.test_samples
    some = replace(
        data,
        train_x=data.train_x[:train],
        train_y=data.train_y[:train],
        test_x=data.test_x[:test],
        test_y=data.test_y[:test],
    )
    found, where, seconds = with_features(some, about, lambda: frozen((data.shape[1], data.shape[2], 3), weights))
    return Prepared(found, about, (where,) if weights else (RANDOM, where), seconds)


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
