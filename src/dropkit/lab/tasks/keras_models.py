"""Models of Keras as tasks: where they drop, how samples enter, and dropkit's dropouts in the places of theirs."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...axes.share import Axes
from ...errors import DropkitTypeError, DropkitValueError
from ...visible import a_type
from ..data.sets import Data
from ..engines.keras_losses import check_loss, loss_of
from ..engines.keras_optimizing import family
from ..engines.keras_whole import outputs_of, whole
from ..recipes.engine import KERAS
from ..recipes.objective import CLASSES, TOKENS, Objective
from .examined import Examined, Place
from .found import ENTERING, LOOKED_AT, check_kind, entering, kinds, nowhere, put_in, ruled, sum_of
from .settings import TaskSettings
from .spec import Rule, rules
from .task import Task
from .variants import check_shape, variant_of

FAR = 1e3  # inputs so far out take a number out of [0, 1] unless something holds it there


@dataclass(frozen=True, slots=True)
class Built:
    """A model that is to be trained, and what the engine asks of it.

    Args:
        model: the user's, its dropouts dropkit's.
        entering: how an array of samples enters.
        probabilities: whether it ends in a softmax or a sigmoid.
        left: paths of dropouts that no rate reaches.
    """

    model: Any
    entering: Callable[[NDArray[Any]], NDArray[Any]]
    probabilities: bool
    left: tuple[str, ...]

    def whole(self, objective: Objective, l2: float) -> Any:
        """The model for `fit`."""
        loss = loss_of(objective, self.probabilities)
        return whole(self.model, objective, loss, self.probabilities, l2)

    def places(self, sites: Any) -> dict[str, Any]:
        """Site -> what has its rate as `p`."""
        from ...keras import sites as layers

        found = layers(self.model)
        return {site: _Layer(found[site]) if site in found else _Number(self.model, site) for site in sites}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Without any dropout, what no rate reaches included."""
        from ...keras import disabled

        with disabled(self.model):
            yield


class _Layer:
    """The rate of a layer of dropkit's, as `p`."""

    compiled = False

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @property
    def p(self) -> float:
        """The present rate."""
        return float(self.layer.rate)

    @p.setter
    def p(self, value: float) -> None:
        if value != self.p:
            self.layer.rate = value


class _Number:
    """A number in another layer, as `p`: it is a part of the program."""

    compiled = True

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name, self.now = model, name, -1.0

    @property
    def p(self) -> float:
        """The rate that was set."""
        return self.now

    @p.setter
    def p(self, value: float) -> None:
        from ...keras import set_rate

        if value != self.now:
            set_rate(self.model, self.name, value)
            self.now = value


class KerasModels:
    """What knows the models of Keras; see `dropkit.lab.tasks.task.Framework`."""

    engine = replace(KERAS, trainer="dropkit.lab.engines.keras_task:KerasTaskTrainer")
    learned: tuple[str, ...] = ()

    def examine(self, task: Task, model: Any, data: Data, objective: Objective) -> Examined:
        """Look at a model: its sites, how samples enter, and whether its outputs fit."""
        import keras

        if not isinstance(model, keras.Layer):
            raise DropkitTypeError(f"{task.name} makes {a_type(model)}, and not a Keras model")
        form, objective, outputs = entering(task, lambda x: _run(model, x, objective.kind), data, objective)
        if not model.trainable_weights:
            raise DropkitValueError(f"{task.name} makes a model without weights that can be trained")
        x = ENTERING[form](np.asarray(data.train_x[:LOOKED_AT]))
        probabilities = _probabilities(model, x, outputs, objective.kind)
        check_loss(outputs, np.asarray(data.train_y[:LOOKED_AT]), objective, probabilities)
        signature = sum_of((weight.name, tuple(weight.shape)) for weight in model.weights)  # paths are counted up
        inserted = _insert(model, task.options.insert)
        left = _swapped(model)
        places = ruled(task, _places(task, model, x, inserted))
        if not places and not left:
            raise nowhere(task, _known(model))
        return Examined(
            places=places,
            objective=objective,
            entering=form,
            left=left,
            drawn=tuple(site for site, place in places.items() if place.number),
            sum=signature,
            sample=(x.shape[1:], x.dtype.name),
            probabilities=probabilities,
        )

    def check_optimizer(self, name: str) -> None:
        """Refuse an optimizer that there is not."""
        family(name)

    def check(self, settings: TaskSettings, examined: Examined) -> None:
        """Refuse a kind that does not fit where a strategy puts it."""
        check_kind(settings, examined.places)

    def build(self, model: Any, settings: TaskSettings, examined: Examined) -> Built:
        """The model with a dropout of dropkit's at each site, as settings say."""
        from ...keras import sites
        from ...keras.recast import recast

        shape, dtype = examined.sample
        _run(model, np.zeros((LOOKED_AT, *shape), dtype), settings.kind)  # what is not built yet has no layers
        _insert(model, rules(settings.insert, "--insert"))
        _swapped(model)
        found = sites(model)
        for site, kind in kinds(settings, examined.places).items():
            place, variant = examined.places[site], variant_of(kind)
            inside = place.shape or (1,) * variant.axes
            share = variant.share(inside, _channels(len(inside)))
            recast(found[site], share if not isinstance(share, tuple) else Axes(share), variant.noise)
        return Built(model, ENTERING[examined.entering], examined.probabilities, examined.left)


def _run(model: Any, x: NDArray[Any], kind: str) -> NDArray[Any]:
    from keras import ops

    found: NDArray[Any] = ops.convert_to_numpy(outputs_of(model(ops.convert_to_tensor(x), training=False), kind))
    return found


def _channels(axes: int) -> int:
    import keras

    return 1 if keras.config.image_data_format() == "channels_first" and axes > 3 else axes - 1


def _probabilities(model: Any, x: NDArray[Any], outputs: NDArray[Any], kind: str) -> bool:
    """Whether a model ends in a softmax or a sigmoid, by what it gives: numbers say it of any model."""
    if kind == "regression" or outputs.min() < 0 or outputs.max() > 1:
        return False
    if kind in (CLASSES, TOKENS):
        return bool(np.allclose(outputs.sum(-1), 1, atol=1e-2))
    if not np.issubdtype(x.dtype, np.floating):
        return True
    far = [_run(model, np.asarray(x * scale, x.dtype), kind) for scale in (FAR, -FAR)]
    return all(found.min() >= 0 and found.max() <= 1 for found in far)


def _known(model: Any) -> dict[str, str]:
    """Layers behind which a dropout can stand, and their classes."""
    import keras

    from ...keras.base import Keyed
    from ...keras.finding import NOISES
    from ...keras.paths import walk

    none = (Keyed, *NOISES, keras.layers.InputLayer)
    layers = ((path, layer) for path, layer in walk(model) if layer is not model and not isinstance(layer, none))
    return {path: type(layer).__name__ for path, layer in layers}


def _insert(model: Any, wanted: tuple[Rule, ...]) -> dict[str, Rule]:
    from ...keras import Dropout, insert, sites

    def put(paths: set[str], rule: Rule) -> list[str]:
        before = set(sites(model))
        with _quiet():
            insert(model, lambda path, _: path in paths, Dropout(rule.spec.p))
        return [site for site in sites(model) if site not in before]

    return put_in(wanted, _known(model), model.name, put)


def _swapped(model: Any) -> tuple[str, ...]:
    """Make Keras' own layers dropkit's; the paths of those that no rate reaches."""
    from ...keras import swap
    from ...keras.finding import places
    from ...keras.paths import walk
    from ...keras.setting import rates
    from ...keras.surgery import SWAPS

    if any(type(layer) in SWAPS for _, layer in walk(model)):
        with _quiet():
            swap(model)
    reached = {id(rate.layer) for rate in rates(model)}
    return tuple(
        place.path for place in places(model) if place.on and not place.keyed and id(place.layer) not in reached
    )


def _places(task: Task, model: Any, x: NDArray[Any], inserted: Mapping[str, Rule]) -> dict[str, Place]:
    """The sites whose rate can be set, by name."""
    from ...keras import sites
    from ...keras.finding import ATTENTION
    from ...keras.paths import walk
    from ...keras.rated import Rated
    from ...keras.setting import rates

    off = {
        id(layer._dropout_layer)
        for _, layer in walk(model)
        if isinstance(layer, ATTENTION) and hasattr(layer, "_dropout_layer") and not layer.dropout
    }
    layers = {site: layer for site, layer in sites(model).items() if isinstance(layer, Rated) and id(layer) not in off}
    shapes = _shapes(layers, lambda: _run(model, x, task.options.loss or ""))
    places: dict[str, Place] = {}
    for site, layer in layers.items():
        rule = inserted.get(site)
        variant = rule.spec.variant if rule is not None else ""
        if variant:
            check_shape(variant, site, shapes.get(site))
        places[site] = Place(p=float(layer.rate), inserted=rule is not None, shape=shapes.get(site), variant=variant)
    for rate in rates(model):
        wanted = any(rule.means(rate.name) for rule in task.options.sites)
        if rate.name not in places and not isinstance(rate.layer, Rated) and not rate.learned and (rate.p or wanted):
            places[rate.name] = Place(p=rate.p, number=True)
    return places


def _shapes(layers: Mapping[str, Any], run: Callable[[], Any]) -> dict[str, tuple[int, ...]]:
    """The shape of what each layer gets."""
    found: dict[str, tuple[int, ...]] = {}

    def hook(site: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            found.setdefault(site, tuple(inputs.shape))
            return call(inputs, *args, **kwargs)

        return noted

    for site, layer in layers.items():
        object.__setattr__(layer, "call", hook(site, layer.call))
    try:
        run()
    finally:
        for layer in layers.values():
            object.__delattr__(layer, "call")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings on what stays on Keras' generators, which is told in another way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
