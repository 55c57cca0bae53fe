"""Models of flax.nnx as tasks: where they drop, how samples enter, and dropkit's dropouts in the places of theirs."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from ...axes.share import Axes
from ...errors import DropkitTypeError, DropkitValueError
from ...jax import insert, sites, swap
from ...jax.binding import foreign_dropouts
from ...jax.changing import FoundRate, attentions, places, rates, swappable
from ...jax.nnx import Dropout
from ...language import say
from ...patterns import listed
from ...visible import a_type
from ..data.sets import Data
from ..engines.nnx_losses import call, check_loss, check_optimizer, outputs_of, parted
from ..recipes.engine import NNX
from ..recipes.objective import Objective
from .examined import Examined, Place
from .found import ENTERING, LOOKED_AT, check_kind, entering, kinds, nowhere, put_in, ruled, sum_of
from .settings import TaskSettings
from .spec import Rule, rules
from .task import Task
from .variants import check_shape, variant_of


class Built:
    """A model that is to be trained, and what the engine asks of it.

    Args:
        model: the user's, its dropouts dropkit's.
        entering: how an array of samples enters.
    """

    def __init__(self, model: Any, entering: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self.model, self.entering = model, entering
        self.layers: dict[str, Rate] = {}
        self.numbers: dict[str, Number] = {}

    def places(self, names: Iterable[str]) -> dict[str, Any]:
        """Site -> what has its rate as `p`."""
        layers, numbers = sites(self.model), {rate.name: rate for rate in rates(self.model)}
        self.layers = {name: Rate() for name in names if name in layers}
        self.numbers = {name: Number(numbers[name]) for name in names if name not in layers}
        for name in self.layers:
            layers[name].rate = 0.0  # from here on state, which no program knows
        return {**self.layers, **self.numbers}

    def rates(self) -> Any:
        """The rates of the layers, for the step."""
        return np.array([rate.p for rate in self.layers.values()], np.float32)

    def changed(self) -> bool:
        """Whether a number that is a part of the program is another one than when this was asked last."""
        found = [number.taken() for number in self.numbers.values()]  # each is asked
        return any(found)

    def graphs(self) -> tuple[Any, Any]:
        """The model's graph as it trains, and as it is scored."""
        self.model.train()
        trains = parted(self.model)[0]
        self.model.eval()
        return trains, parted(self.model)[0]

    def state(self) -> tuple[Any, Any]:
        """Copies of the weights, and of what else the model keeps."""
        weights, rest = parted(self.model)[1:]
        return jax.tree.map(jnp.copy, weights), jax.tree.map(jnp.copy, rest)


class Rate:
    """The rate of a layer, as `p`; the step gets it as data."""

    p = 0.0


class Number:
    """A number in another module, as `p`: it is a part of the program."""

    def __init__(self, rate: FoundRate) -> None:
        self.rate, self.before = rate, float(rate.p)

    @property
    def p(self) -> float:
        """The present rate."""
        return float(self.rate.p)

    @p.setter
    def p(self, value: float) -> None:
        setattr(self.rate.module, self.rate.attribute, float(value))

    def taken(self) -> bool:
        """Whether it is another one than when this was asked last."""
        found, self.before = self.before != self.p, self.p
        return found


class NnxModels:
    """What knows the models of flax.nnx; see `dropkit.lab.tasks.task.Framework`."""

    engine = NNX
    learned: tuple[str, ...] = ()

    def examine(self, task: Task, model: Any, data: Data, objective: Objective) -> Examined:
        """Look at a model: its sites, how samples enter, and whether its outputs fit."""
        if not isinstance(model, nnx.Module) or not callable(model):
            raise DropkitTypeError(f"{task.name} makes {a_type(model)}, and not an nnx.Module that is called")
        weights = named_weights(model)
        if not weights:
            raise DropkitValueError(f"{task.name} makes a model without weights that can be trained")
        if same_weights(weights, named_weights(task.made(1))):
            warnings.warn(
                say(
                    "{name} has the same first weights for every seed: give it a parameter seed, as in def "
                    "make(seed): ... nnx.Rngs(seed), or the intervals are too narrow.",
                    name=task.name,
                ),
                stacklevel=2,
            )
        form, objective, outputs = entering(task, lambda x: _run(model, x, objective.kind), data, objective)
        check_loss(outputs, np.asarray(data.train_y[:LOOKED_AT]), objective)
        x = ENTERING[form](np.asarray(data.train_x[:LOOKED_AT]))
        known = _known(model)
        inserted = _insert(model, task.options.insert)
        _swapped(task, model)
        found = ruled(task, _places(task, model, x, inserted))
        if not found:
            raise nowhere(task, known)
        return Examined(
            places=found,
            objective=objective,
            entering=form,
            drawn=tuple(site for site, place in found.items() if place.number),
            sum=sum_of((name, leaf.shape) for name, leaf in weights.items()),
        )

    def check_optimizer(self, name: str) -> None:
        """Refuse an optimizer that there is not."""
        check_optimizer(name)

    def check(self, settings: TaskSettings, examined: Examined) -> None:
        """Refuse a kind that does not fit where a strategy puts it."""
        check_kind(settings, examined.places)

    def build(self, model: Any, settings: TaskSettings, examined: Examined) -> Built:
        """The model with a dropout of dropkit's at each site, as settings say."""
        _insert(model, rules(settings.insert, "--insert"))
        _swapped(None, model)
        found = sites(model)
        for site, kind in kinds(settings, examined.places).items():
            place, variant = examined.places[site], variant_of(kind)
            inside = place.shape or (1,) * variant.axes
            share = variant.share(inside, len(inside) - 1)
            new = Dropout(0.0, share=Axes(share) if isinstance(share, tuple) else share, noise=variant.noise)
            found[site].share, found[site].noise, found[site].broadcast_dims = new.share, new.noise, ()
        return Built(model, ENTERING[examined.entering])


def named_weights(model: Any) -> dict[str, Any]:
    """The weights by their paths."""
    flat, _ = jax.tree_util.tree_flatten_with_path(nnx.state(model, nnx.Param))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in flat}


def same_weights(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two models have the same weights."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _run(model: Any, x: NDArray[Any], kind: str) -> NDArray[Any]:
    model.eval()
    return np.asarray(outputs_of(call(model, jnp.asarray(x), False), kind))


def _known(model: Any) -> dict[str, str]:
    """Modules behind which a dropout can stand, and their classes."""
    return {
        place.path: type(place.module).__name__ for place in places(model) if not isinstance(place.module, nnx.Dropout)
    }


def _insert(model: Any, wanted: tuple[Rule, ...]) -> dict[str, Rule]:
    def put(paths: set[str], rule: Rule) -> list[str]:
        before = set(sites(model))
        insert(model, lambda path, _: path in paths, Dropout(rule.spec.p))
        return [site for site in sites(model) if site not in before]

    return put_in(wanted, _known(model), type(model).__name__, put)


def _swapped(task: Task | None, model: Any) -> None:
    """Make flax' own dropouts dropkit's; refuse what no rate reaches."""
    if swappable(model) or attentions(model)[0]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            swap(model)
    reached = {rate.path for rate in rates(model)}
    left = [name for name in foreign_dropouts(model) if name.rpartition(" (")[0] not in reached]
    if left and task is not None:
        raise DropkitValueError(
            f"{task.name} drops where no rate reaches it: {listed(left)}; use flax.nnx.Dropout there, or hold the rate "
            "in an attribute such as drop_rate"
        )


def _places(task: Task, model: Any, x: NDArray[Any], inserted: Mapping[str, Rule]) -> dict[str, Place]:
    """The sites whose rate can be set, by name."""
    layers = sites(model)
    shapes = _shapes(layers, lambda: _run(model, x, ""))
    found: dict[str, Place] = {}
    for site, layer in layers.items():
        rule = inserted.get(site)
        variant = rule.spec.variant if rule is not None else ""
        if variant:
            check_shape(variant, site, shapes.get(site))
        found[site] = Place(p=float(layer.rate), inserted=rule is not None, shape=shapes.get(site), variant=variant)
    for rate in rates(model):
        wanted = any(rule.means(rate.name) for rule in task.options.sites)
        if not isinstance(rate.module, nnx.Dropout) and (rate.p or wanted):
            found[rate.name] = Place(p=float(rate.p), number=True)
    return found


def _shapes(layers: Mapping[str, Dropout], run: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """The shape of what each dropout gets."""
    names = {id(layer): site for site, layer in layers.items()}
    found: dict[str, tuple[int, ...]] = {}
    kinds = {id(layer): type(layer) for layer in layers.values()}

    class Noted(Dropout):
        def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            found.setdefault(names[id(self)], tuple(inputs.shape))
            return inputs

    for layer in layers.values():
        object.__setattr__(layer, "__class__", Noted)
    try:
        run()
    finally:
        for layer in layers.values():
            object.__setattr__(layer, "__class__", kinds[id(layer)])
    return found
