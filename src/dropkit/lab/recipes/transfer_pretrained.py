"""transfer-pretrained and transfer-random: a top on a trunk trained here on other classes, and on an untrained one.

    for each width a 3 x 3 convolution with ReLU and a 2 x 2 pooling, frozen
    Flatten, Dense 512 relu, Dense 1024 relu, Dropout 0.2, Dense 1 sigmoid

The trunk learns all classes of a data set but two, and is frozen; the top, which is that of `transfer`, tells these two
apart from few images, where transfer pays. Of CIFAR-10 cats and dogs are held back, of digits 3 and 5. Chosen here:
the trunk's widths, Adam 0.001, batches of 64 and one or ten epochs for it; 200 images for the top, in batches of 20;
first weights N(0, 2 / fan-in) and zero biases; pixels enter as 2 x - 1.
"""

from dataclasses import replace
from typing import Any

from .engine import KERAS
from .recipe import Recipe
from .strategies import scheduled
from .transfer import FIXED, build, topped
from .trunk import TrunkSettings, frozen, prepare

SIDE = 32  # of CIFAR-10's images, and of those of a folder

SMALL = TrunkSettings(
    epochs=20,
    seeds=5,
    batch_size=20,
    learning_rate=1e-4,
    hidden=(512, 1024),
    channels=(32, 64, 128),
    step_epochs=4,
    optimizer="rmsprop",
    train_samples=200,
    image_size=SIDE,
    threads=1,
)
FULL = replace(SMALL, epochs=40, seeds=10, step_epochs=8, trunk_epochs=10)
TINY = replace(
    SMALL,
    epochs=2,
    seeds=2,
    step_epochs=1,
    batch_size=8,
    hidden=(16, 16),
    channels=(8, 8),
    train_samples=32,
    test_samples=32,
    trunk_epochs=2,
    trunk_samples=256,
)


def settings(size: str, data: str) -> TrunkSettings:
    """The settings at a size, the same for every data set."""
    return {"tiny": TINY, "small": SMALL, "full": FULL}[size]


def untrained(size: str, data: str) -> TrunkSettings:
    """The same, with a trunk that keeps its first weights."""
    return replace(settings(size, data), trained=False)


def whole_model(settings: TrunkSettings = FULL) -> Any:
    """The trunk and the top as one `keras.Model` that takes colour images, its dropout at the fixed rate.

    The trunk has its first weights, since what dropout reaches does not depend on them.
    """
    from ..keras_backend import require

    last = require().config.image_data_format() == "channels_last"
    return topped(frozen(settings, (SIDE, SIDE, 3) if last else (3, SIDE, SIDE)), settings)


TRANSFER_PRETRAINED = Recipe(
    name="transfer-pretrained",
    summary="Keras: the top of transfer on a small trunk that is trained here on all classes but two, then frozen, for "
    "these two (digits, cifar10); none, fixed, step",
    settings=settings,
    strategies=scheduled(FIXED),
    feeds={"dropout": "output"},
    build=build,
    engine=KERAS,
    needs=(("keras", '"dropkit[keras]"'),),
    prepare=prepare,  # type: ignore[arg-type]  # its settings are those that it makes
    whole=whole_model,  # type: ignore[arg-type]
)
TRANSFER_RANDOM = replace(
    TRANSFER_PRETRAINED,
    name="transfer-random",
    summary="the same on a trunk with random weights, which transfers nothing",
    settings=untrained,
)
