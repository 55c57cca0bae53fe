"""What trains a recipe, as plain values: all that differs between engines before one is at work."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ...errors import UnknownNameError
from ..keras_backend import backend

# 16-mixed is left out: its loss scale is a state that a resumed run would have to carry too.
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What trains a recipe.

    Args:
        name: as recipes and config.json have it.
        framework: whose models it trains: "torch", "keras", "nnx" or "numpy".
        title: the framework's name in sentences.
        trainer: the class that trains a plan, as "module:name"; loaded when a run begins.
        precisions, devices: what it trains in and on, "auto" among the devices.
        networks: the parts of a model of several networks, the one with the dropouts first.
        backend: what the framework itself runs on, where that can be chosen; refuses what cannot train.
        optimizers: of recipes, by name; those on torch take `module:name` too.
    """

    name: str
    framework: str
    title: str
    trainer: str
    precisions: tuple[str, ...] = PRECISIONS
    devices: tuple[str, ...] = DEVICES
    networks: tuple[str, ...] = ()
    backend: Callable[[], str] | None = None
    optimizers: tuple[str, ...] = ("adam", "adamw", "rmsprop", "sgd")

    def start(self, plan: Any) -> Any:
        """What trains this plan an epoch at a time, from its first weights."""
        module, _, name = self.trainer.partition(":")
        return getattr(import_module(module), name)(plan)

    def check_optimizer(self, name: str) -> None:
        """Refuse an optimizer that recipes of this engine do not have.

        >>> NUMPY.check_optimizer("adam")
        Traceback (most recent call last):
        ...
        dropkit.errors.UnknownNameError: unknown optimizer 'adam'; Known: sgd
        """
        if name not in self.optimizers and not (self.framework == "torch" and ":" in str(name)):
            raise UnknownNameError("optimizer", str(name), self.optimizers)

    def record(self) -> dict[str, str]:
        """Its name for config.json, which says nothing of the engine that every recipe had at first.

        >>> TORCH.record(), NUMPY.record()
        ({}, {'engine': 'numpy'})
        """
        return {} if self == TORCH else {"engine": self.name}


TORCH = Engine(name="torch", framework="torch", title="torch", trainer="dropkit.lab.engines.torch:Trainer")
KERAS = Engine(
    name="keras",
    framework="keras",
    title="Keras",
    trainer="dropkit.lab.engines.keras:KerasTrainer",
    precisions=("32-true",),
    backend=backend,
    optimizers=("adam", "rmsprop", "sgd"),
)
NUMPY = Engine(
    name="numpy",
    framework="numpy",
    title="NumPy",
    trainer="dropkit.lab.engines.numpy:NumpyTrainer",
    precisions=("32-true",),
    devices=("auto", "cpu"),
    optimizers=("sgd",),
)
NNX = Engine(
    name="nnx",
    framework="nnx",
    title="flax.nnx",
    trainer="dropkit.lab.engines.nnx:NnxTrainer",
    precisions=("32-true",),
)
ADVERSARIAL = Engine(
    name="adversarial",
    framework="torch",
    title="torch",
    trainer="dropkit.lab.engines.adversarial:Adversarial",
    networks=("discriminator", "generator"),
)
ENGINES = {engine.name: engine for engine in (TORCH, KERAS, NUMPY, NNX, ADVERSARIAL)}


def engine_of(engine: Engine | str) -> Engine:
    """The engine of a name; an Engine is passed through.

    Raises:
        UnknownNameError: no engine has that name.

    >>> engine_of("numpy").title
    'NumPy'
    """
    if isinstance(engine, Engine):
        return engine
    if engine not in ENGINES:
        raise UnknownNameError("engine", str(engine), ENGINES)
    return ENGINES[engine]
