"""A small classifier that judges generated images: trained on the same data, and on nothing that was generated.

It is trained once for a data set, with one seed, on the CPU, and kept on disk; a file is named by all that decides its
weights, written whole or not at all, and read without running code.
"""

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...errors import OutputError
from ...torch import Dropout, bind
from ..data.sets import Data
from ..files import write_bytes
from ..files.sealed import SUM, header_text, read_sealed, seal
from ..order import epoch_order
from ..recipes.frozen import VARIABLE
from ..recipes.weights import set_first_weights

SEED = 0
CHUNK = 500  # images looked at at once


@dataclass(frozen=True, slots=True)
class Training:
    """How a judge is made: widths of its convolutions and of its features, and how these are trained (Adam, falling
    linearly to 0).
    """

    channels: tuple[int, int] = (32, 64)
    features: int = 128
    dropout: float = 0.5
    batch_size: int = 128
    epochs: int = 6
    least_steps: int = 400
    learning_rate: float = 2e-3


@dataclass(frozen=True, slots=True)
class Judge:
    """A trained classifier.

    Args:
        model: gives logits.
        accuracy: on the test set.
        seconds: that its training took, when it was trained.
        where: that it is kept in a file, or why not.
    """

    model: nn.Sequential
    accuracy: float
    seconds: float
    where: str

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What it sees in images in [0, 1], of shape (samples, height, width) or (samples, 3, height, width).

        Returns:
            The features before the last layer, float32 (samples, features), and the most likely classes, int64.
        """
        self.model.eval()
        features, labels = [], []
        for chunk in images.split(CHUNK):
            found = self.model[:-1](chunk)
            features.append(found.float().cpu())
            labels.append(self.model[-1](found).argmax(1).cpu())
        return torch.cat(features).numpy(), torch.cat(labels).numpy()


def judge(data: Data, training: Training | None = None) -> Judge:
    """The judge of a data set: read from its file, or trained and written.

    >>> from dropkit.lab import load_data
    >>> found = judge(load_data("digits"), Training(channels=(4, 8), epochs=1, least_steps=1))
    >>> found.look(torch.zeros(2, 8, 8))[0].shape
    (2, 128)
    """
    training = training or Training()
    path = _folder() / f"{_key(data, training)}.safetensors"
    model = network(data, training)
    header = _load(path, model)
    if header is not None:
        return Judge(model, header["accuracy"], header["seconds"], f"kept in {path}")
    start = time.perf_counter()
    _train(model, data, training)
    seconds = time.perf_counter() - start
    accuracy = _accuracy(model, data)
    about = {"accuracy": accuracy, "seconds": seconds, **asdict(training)}
    return Judge(model, accuracy, seconds, _keep(path, model, about))


def network(data: Data, training: Training) -> nn.Sequential:
    """Two convolutions of 3 x 3, each pooled and with ReLU, a dense layer of features, dropout, and a dense layer."""
    channels, height, width = data.shape if len(data.shape) == 3 else (1, *data.shape)
    first, second = training.channels
    flat = second * (height // 4) * (width // 4)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        input=nn.Unflatten(1, (1, height)) if channels == 1 else nn.Identity(),
        conv1=nn.utils.skip_init(nn.Conv2d, channels, first, 3, padding=1),
        pool1=nn.MaxPool2d(2),  # before the ReLU, which has then a quarter of the work and the same to say
        relu1=nn.ReLU(),
        conv2=nn.utils.skip_init(nn.Conv2d, first, second, 3, padding=1),
        pool2=nn.MaxPool2d(2),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        features=nn.utils.skip_init(nn.Linear, flat, training.features),
        relu3=nn.ReLU(),
        dropout=Dropout(training.dropout),
        output=nn.utils.skip_init(nn.Linear, training.features, data.classes),
    )
    model = nn.Sequential(layers)
    set_first_weights(model, SEED, None)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):  # a third faster on a CPU where the channels come last
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def _train(model: nn.Sequential, data: Data, training: Training) -> None:
    bind(model, seed=SEED)
    optimizer = torch.optim.Adam(model.parameters(), training.learning_rate)
    x, y = torch.from_numpy(np.ascontiguousarray(data.train_x)), torch.from_numpy(data.train_y)
    batches = math.ceil(len(x) / training.batch_size)
    epochs = max(training.epochs, math.ceil(training.least_steps / batches))
    model.train()
    for epoch in range(1, epochs + 1):
        for number, index in enumerate(torch.from_numpy(epoch_order(len(x), SEED, epoch)).split(training.batch_size)):
            done = ((epoch - 1) * batches + number) / (epochs * batches)
            optimizer.param_groups[0]["lr"] = training.learning_rate * (1 - done)
            optimizer.zero_grad()
            cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()


def _accuracy(model: nn.Sequential, data: Data) -> float:
    labels = Judge(model, 0.0, 0.0, "").look(torch.from_numpy(np.ascontiguousarray(data.test_x)))[1]
    return float((labels == data.test_y).mean())


def _key(data: Data, training: Training) -> str:
    return hashlib.sha256(repr((data.fingerprint, data.shape, SEED, training)).encode()).hexdigest()


def _folder() -> Path:
    root = os.environ.get(VARIABLE)
    if not root:
        import pooch

        root = str(pooch.os_cache("dropkit"))
    return Path(root) / "judges"


def _load(path: Path, model: nn.Sequential) -> dict[str, float] | None:
    """Weights from a file into the model; None where it is missing or damaged: they can be trained again."""
    try:
        content, header = read_sealed(path)
        if SUM not in header:
            return None
        model.load_state_dict(load(content))
        return {name: float(header[name]) for name in ("accuracy", "seconds")}
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, model: nn.Sequential, about: Mapping[str, Any]) -> str:
    weights = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, seal(save(weights, header_text(about))))
    except (OSError, OutputError) as error:
        reason = error.__cause__ or error
        return f"not kept ({reason}): set {VARIABLE} to a folder that can be written"
    return f"kept in {path}"
