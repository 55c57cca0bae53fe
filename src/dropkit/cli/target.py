"""What `dropkit explain` and `dropkit doctor` are pointed at: a recipe, `module:factory` or a `.keras` file."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ..errors import DataError, DropkitTypeError, DropkitValueError
from ..frontends import is_keras, is_torch
from ..lab import recipes
from ..lab.data.limits import check_model
from ..lab.imported import imported, made, seed_all
from ..lab.recipes.recipe import LearnedRate, Rates, Recipe, Settings, Strategy, sized, strategy_rates
from ..visible import a_type, one_line
from . import inputs

FACTORY = "a function without arguments that returns the model, or (model, inputs)"
# Files of weights, or of pickled code, by what to say of them.
WEIGHTS = {".h5", ".hdf5", ".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".onnx", ".pb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says besides the target; None where it says nothing.

    Args:
        shapes: of inputs, as `Input.parse` reads them.
        data: a file of samples, in place of random ones.
        batch: samples in the run.
        seed: of first weights and random inputs.
        strategy, size: of a recipe.
    """

    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="SHAPE",
            help="Of one sample, such as 3,150,150, or 128:int64 for indices; again for each further input.",
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="Samples in place of random ones: .npy, .npz, .safetensors."),
    ] = None
    batch: Annotated[int | None, typer.Option("--batch", metavar="N", help="Samples in the run; 8.")] = None
    seed: Annotated[int, typer.Option("--seed", metavar="K", help="Of first weights and random inputs.")] = 0
    strategy: Annotated[
        str | None, typer.Option("--strategy", metavar="NAME", help="Of a recipe, such as fixed:0.3.")
    ] = None
    size: Annotated[str | None, typer.Option("--size", help="Of a recipe: tiny, small or full; full.")] = None

    def arrays(self, model: Any) -> inputs.Arrays | None:
        """The inputs that are asked for."""
        if self.data is not None and self.shapes:
            raise DropkitValueError(
                f"--data {self.data} and --input both say what the model is run with: leave one out"
            )
        if self.data is not None:
            return inputs.load(self.data, self.batch)
        return inputs.random(model, self.shapes, self.batch, self.seed) if self.shapes else None


@dataclass(frozen=True, slots=True)
class Target:
    """A model and what it is run with.

    Args:
        name: what it is called; None for the name of its class.
        model: a torch module, or a Keras model or layer.
        inputs, kwargs: what its forward takes.
    """

    name: str | None
    model: Any
    inputs: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def resolve(text: str, options: Options) -> Target:
    """Make the model that a target means, and what it is run with.

    Raises:
        DropkitValueError: it is neither recipe, module:factory nor file; or the options do not fit it.
        DropkitTypeError: the factory makes no model.
        DropkitRuntimeError: the module or the factory fails.
        DataError: the file cannot be read.
    """
    name, _, part = text.partition(":")
    path = Path(text)
    if name in recipes.RECIPES:
        return _recipe(recipes.get(name), part, options)
    if options.strategy is not None or options.size is not None:
        option = "--size" if options.strategy is None else "--strategy"
        raise DropkitValueError(f"{option} is for recipes, and {text!r} is none of {', '.join(recipes.RECIPES)}")
    if path.suffix == ".keras":
        return _with_inputs(_load(path), options, None)
    if path.suffix in WEIGHTS and ":" not in text:
        raise DropkitValueError(_refused(path))
    if part:
        return _imported(name, part, options)
    near = difflib.get_close_matches(text, recipes.RECIPES, n=1, cutoff=0.5)
    raise DropkitValueError(
        f"{text!r} is no target{f'; did you mean {near[0]!r}?' if near else '.'} A target is a recipe "
        f"({', '.join(recipes.RECIPES)}), a module and what makes the model there, such as my_model:make, or a .keras "
        "file"
    )


def _refused(path: Path) -> str:
    if path.suffix in (".h5", ".hdf5", ".safetensors"):
        reason = "it may hold weights without a model, or code"
        remedy = "save the model as a .keras file, or load the weights"
    else:
        reason = "loading it may run code, or it holds weights without a model"
        remedy = "load it"
    return f"{path} is not read: {reason}; {remedy} in a function of your own and give that, such as my_model:make"


def _recipe(recipe: Recipe, part: str, options: Options) -> Target:
    networks = recipe.engine.networks
    if recipe.engine.framework not in SETTLED:
        raise DropkitTypeError(
            f"recipe {recipe.name!r} is made of {recipe.engine.title} layers, and explained are models of torch and "
            "Keras; its network is that of the recipe 'mlp'"
        )
    if options.shapes:
        raise DropkitValueError(f"recipe {recipe.name!r} knows its inputs: leave --input out")
    if part and part not in networks:
        names = [f"{recipe.name}:{network}" for network in networks] or [recipe.name]
        raise DropkitValueError(f"recipe {recipe.name!r} has no part {part!r}: give {' or '.join(names)}")
    settings = sized(recipe, options.size or "full", recipe.data, None)
    rates = strategy_rates(recipe, Strategy.parse(options.strategy or "fixed"), settings, steps=1)
    part = part or next(iter(networks), "")
    name = f"{recipe.name}:{part}" if networks else recipe.name
    if recipe.whole is not None:
        return _whole(name, recipe.whole(settings), rates, options)
    return _on_its_data(recipe, name, part, settings, rates, options)


def _on_its_data(recipe: Recipe, name: str, part: str, settings: Settings, rates: Rates, options: Options) -> Target:
    """A recipe's model, or a part of it, for the recipe's data, and some of these."""
    from ..lab.data.sets import load_data

    data = load_data(recipe.data)
    images = data.train_x[: options.batch or inputs.BATCH]
    model = recipe.build(settings, data.shape, data.classes, options.seed)
    if part:
        model, rates = model.get_submodule(part), rates if part == recipe.engine.networks[0] else {}
        images = _for_part(part, 2 * images - 1, settings, options)
    SETTLED[recipe.engine.framework](model, rates, recipe, options.seed)
    arrays = options.arrays(model)
    positional, by_name = inputs.arguments(model, [images] if arrays is None else arrays)
    return Target(name, model, positional, by_name)


def _for_part(part: str, images: NDArray, settings: Settings, options: Options) -> NDArray:
    """What a network of a pair takes: images in [-1, 1], or as many latent vectors."""
    if part != "generator":
        return images
    latent = inputs.Input((settings.latent,))  # type: ignore[attr-defined]  # a GAN's settings have it
    return latent.random(len(images), options.seed, 0, None)


def _settle_torch(model: Any, rates: Rates, recipe: Recipe, seed: int) -> None:
    """Bind a recipe's model, with its rates as they are at first."""
    from ..lab.engines.moves import Sites
    from ..torch import bind

    moved = Sites(model, rates, recipe.feeds)
    moved.set(0)
    if moved.modules:
        bind(model, seed=seed)


def _settle_keras(model: Any, rates: Rates, recipe: Recipe, seed: int) -> None:
    """The same of a Keras model."""
    from ..keras import bind

    bind(model, seed)
    _set_keras_rates(model, rates)


SETTLED = {"torch": _settle_torch, "keras": _settle_keras}
"""Frameworks whose models are explained."""


def _whole(name: str, model: Any, rates: Rates, options: Options) -> Target:
    """The recipe on a frozen network, with that network: dropout's reach is seen in the whole."""
    _set_keras_rates(model, rates)
    arrays = options.arrays(model)
    if arrays is None:
        batch, shape = options.batch or inputs.BATCH, tuple(model.input_shape[1:])
        noise = inputs.Input(shape).random(batch, options.seed, 0, None)
        # Pixels of [0, 1] enter as 2 x - 1. Noise alone looks the same to a network, image by image; colours do not.
        colours = inputs.Input((1, 1, shape[-1])).random(batch, options.seed, 1, None)
        arrays = [np.clip((noise + colours) / 2, -1, 1).astype(np.float32)]
    return Target(name, model, *inputs.arguments(model, arrays))


def _set_keras_rates(model: Any, rates: Rates) -> None:
    for site, rate in rates.items():
        if not isinstance(rate, LearnedRate):
            model.get_layer(site).rate = rate.at(0)


def _imported(name: str, attribute: str, options: Options) -> Target:
    """What a module makes, with the current folder importable."""
    seed_all(options.seed)
    target = f"{name}:{attribute}"
    found = imported(target)
    if not _is_model(found):
        found = made(target, found, options.seed, FACTORY)
    model, given = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not _is_model(model):
        raise DropkitTypeError(
            f"{target} makes {a_type(model)}, and explained are models of torch and Keras: give {FACTORY}"
        )
    return _with_inputs(model, options, given)


def _is_model(found: Any) -> bool:
    return is_torch(found) or is_keras(found)


def _load(path: Path) -> Any:
    """The model in a `.keras` file, of classes that are already there: nothing in the file is run."""
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if find_spec("keras") is None:
        raise DropkitValueError(f'{path} is read with keras, which is not installed: pip install "dropkit[lab,keras]"')
    from ..lab.keras_backend import require

    keras = require()
    import dropkit.keras  # noqa: F401  # its layers are found by name

    try:
        with path.open("rb") as file:
            check_model(file)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and h5py raise whatever they meet
        reason = one_line(error)[:300]
        raise DataError(
            f"cannot read {path}: {reason}; a model with code of its own is given by {FACTORY}, such as my_model:make"
        ) from error


def _with_inputs(model: Any, options: Options, given: Any) -> Target:
    """A model with the inputs asked for, else those that came with it, else those that it knows."""
    arrays = options.arrays(model)
    if arrays is None and given is not None:
        if isinstance(given, Mapping):
            return Target(None, model, (), dict(given))
        return Target(None, model, tuple(given) if isinstance(given, tuple | list) else (given,))
    if arrays is None and is_keras(model):
        arrays = inputs.own(model, options.batch, options.seed)
        if arrays is None:
            return Target(None, model)  # the probe makes them up, or says what it does not know
    if arrays is None:
        raise DropkitValueError(
            f"{type(model).__name__} is a torch model, which does not tell what it takes: give --input with the shape "
            "of one sample, such as --input 3,224,224 or --input 128:int64, or --data with a file of samples"
        )
    positional, by_name = inputs.arguments(model, arrays)
    if is_keras(model) and not model.built:
        model(*positional)  # makes its weights
    return Target(None, model, positional, by_name)
