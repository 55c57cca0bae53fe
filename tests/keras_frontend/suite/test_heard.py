"""Who listens to dropkit's layers and functions, such as the probe, hears of each noise and may change it."""

import queue
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import dropkit.keras as dk
from dropkit import Key
from dropkit.keras.engine import listening
from dropkit.keras.ops import Call

from .test_layers import every_layer, make
from .tools import BACKEND, array

X = np.ones((4, 8), "float32")


class Ear:
    """Hears, and lets be."""

    def __init__(self) -> None:
        self.sites: list[Any] = []
        self.shapes: list[tuple[int, ...]] = []
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, site: Any, apply: Callable[[Any], Any], x: Any) -> Any:
        y = apply(x)
        self.sites.append(site)
        self.shapes.append(tuple(site.mask_shape(x)))
        self.pairs.append((array(x), array(y)))
        return y


@pytest.fixture
def ear() -> Ear:
    return Ear()


@every_layer
def test_each_layer_is_heard_where_it_draws_and_gives_what_it_gives_unheard(name: str, ear: Ear) -> None:
    (layer, x), (twin, _) = make(name, seed=1, name="a"), make(name, seed=1, name="a")
    with listening(ear):
        evaluated, y = layer(x, training=False), layer(x, training=True)
    assert ear.sites == [layer]
    np.testing.assert_array_equal(array(y), array(twin(x, training=True)))
    np.testing.assert_array_equal(array(evaluated), x)
    before, after = ear.pairs[0]
    np.testing.assert_array_equal(before, x)
    np.testing.assert_array_equal(after, array(y))


@pytest.mark.parametrize(
    ("layer", "shape", "mask"),
    [
        (lambda: dk.Dropout(0.5), (4, 3, 8), (4, 3, 8)),
        (lambda: dk.Dropout(0.5, noise_shape=(None, 1, None)), (4, 3, 8), (4, 1, 8)),
        (lambda: dk.Dropout(0.5, noise_shape=(1, 8)), (4, 3, 8), (1, 1, 8)),
        (lambda: dk.AlphaDropout(0.5, noise_shape=(None, 1)), (4, 8), (4, 1)),
        (lambda: dk.GaussianDropout(0.5), (4, 8), (4, 8)),
        (lambda: dk.GaussianNoise(0.5), (4, 8), (4, 8)),
        (lambda: dk.SpatialDropout1D(0.5), (4, 3, 8), (4, 1, 8)),
        (lambda: dk.SpatialDropout2D(0.5, data_format="channels_first"), (4, 8, 3, 2), (4, 8, 1, 1)),
        (lambda: dk.SpatialDropout3D(0.5, data_format="channels_last"), (4, 3, 2, 2, 8), (4, 1, 1, 1, 8)),
        (lambda: dk.ConcreteDropout(keras.layers.Dense(2)), (4, 8), (4, 8)),
        (lambda: dk.ConcreteDropout(keras.layers.Conv1D(2, 1)), (4, 3, 8), (4, 1, 8)),
    ],
)
def test_the_shape_of_the_mask(
    layer: Callable[[], Any], shape: tuple[int, ...], mask: tuple[int, ...], ear: Ear
) -> None:
    with listening(ear):
        layer()(np.ones(shape, "float32"), training=True)
    assert ear.shapes == [mask]


@pytest.mark.parametrize("p", [0.25, "a tensor"])
def test_a_function_is_heard_with_its_rate_and_its_shared_axes(p: Any, ear: Ear) -> None:
    rate = ops.convert_to_tensor([[0.25]] * 4, "float32") if p == "a tensor" else p
    key = Key(1, "here")
    with listening(ear):
        y = dk.dropout(ops.convert_to_tensor(X), rate, training=True, key=key, share=[-1])
    (site,) = ear.sites
    assert isinstance(site, Call)
    assert site.rate is rate
    assert ear.shapes == [(4, 1)]
    np.testing.assert_array_equal(array(y), array(dk.dropout(X, rate, training=True, key=key, share=[-1])))


@pytest.mark.parametrize("wrong", [{"share": [7]}, {"rows": [0]}, {"key": None}, {"rate": 2.0}])
def test_the_error_of_a_function_is_that_of_one_unheard(wrong: dict[str, Any], ear: Ear) -> None:
    given = {"rate": 0.5, "training": True, "key": Key(), **wrong}
    with pytest.raises((ValueError, TypeError)) as unheard:
        dk.dropout(X, **given)
    with listening(ear), pytest.raises(unheard.type) as heard:
        dk.dropout(X, **given)
    assert str(heard.value) == str(unheard.value)


def test_what_a_listener_gives_is_the_output_and_who_came_last_is_asked_first(ear: Ear) -> None:
    layer = dk.Dropout(0.5)
    with listening(lambda site, apply, x: apply(x) * 2.0), listening(lambda site, apply, x: apply(x + 1.0) + 1.0):
        y = layer(np.zeros((64,), "float32"), training=True)
    assert set(array(y)) == {1.0, 5.0}  # (0 + 1) / (1 - p) * 2 + 1


def test_nobody_hears_after_the_block_nor_after_an_exception(ear: Ear) -> None:
    layer = dk.Dropout(0.5)
    with pytest.raises(ZeroDivisionError), listening(ear):
        raise ZeroDivisionError
    layer(X, training=True)
    assert ear.sites == []


def test_listeners_of_several_threads_come_and_go_in_any_order() -> None:
    """The first leaves before the second: each hears while it listens, and nobody afterwards."""
    layer, first, second = dk.Dropout(0.5), Ear(), Ear()
    told: queue.Queue[None] = queue.Queue()
    here, there = threading.Event(), threading.Event()

    def other() -> None:
        with listening(second):
            here.set()
            told.get(timeout=60)
        there.set()

    thread = threading.Thread(target=other)
    with listening(first):
        thread.start()
        assert here.wait(60)
        layer(X, training=True)
    layer(X, training=True)
    told.put(None)
    assert there.wait(60)
    thread.join(60)
    layer(X, training=True)
    assert (len(first.sites), len(second.sites)) == (1, 2)


@pytest.mark.parametrize("when", ["before", "inside"])
def test_a_program_that_was_compiled_is_heard(when: str, ear: Ear) -> None:
    """torch.compile leaves the noise out of its graph, whoever listens; XLA's programs are traced where one listens."""
    if BACKEND != "torch":
        pytest.skip("programs of XLA are fixed when they are traced")
    import torch

    layer = dk.Dropout(0.5, seed=1)
    program = torch.compile(lambda x: layer(x, training=True) + 1.0, backend="eager")
    if when == "before":
        program(torch.ones(4, 8))
    with listening(ear):
        program(torch.ones(4, 8))
    assert ear.sites == [layer]
