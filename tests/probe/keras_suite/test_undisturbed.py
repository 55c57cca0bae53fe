"""What explaining a Keras model needs, and that it leaves everything as it was."""

import queue
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras.src import backend
from keras.src.backend.common import global_state

import dropkit.keras as dk
from dropkit import Key
from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.keras import engine
from dropkit.probe.keras import explain_keras

BACKEND = keras.config.backend()


FORWARDS: list[Any] = []  # since the model was made; outside of it, where nothing puts it back


class Counting(keras.layers.Layer):
    """Counts its calls, adds a loss, draws from every generator, and fails when told to."""

    def __init__(self) -> None:
        super().__init__(name="counting")
        self.calls, self.seen, self.fails_at = 0, [0], -1
        self.average = self.add_weight(shape=(), trainable=False, initializer="zeros", name="average")

    def call(self, x: Any) -> Any:
        if self.fails_at == len(FORWARDS):
            raise ZeroDivisionError("as told")
        FORWARDS.append(None)
        self.calls += 1
        self.seen.append(self.calls)
        self.average.assign(self.average + 1.0)
        self.add_loss(keras.ops.sum(x))
        random.random()
        np.random.random()  # noqa: NPY002
        return keras.random.dropout(x, 0.2)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def model() -> Any:
    keras.utils.set_random_seed(1)
    made = keras.Sequential(
        [
            keras.Input((4, 8)),
            L.GRU(6, dropout=0.2, recurrent_dropout=0.2),
            L.BatchNormalization(),
            Counting(),
            L.Dropout(0.3, seed=4),
            L.AlphaDropout(0.2),
            dk.Dropout(0.3),
            dk.GaussianNoise(0.1),
            L.Dense(2),
        ]
    )
    made.layers[1].trainable = False
    with pytest.warns(UserWarning, match="stays on Keras' generators"):
        dk.bind(made, seed=2)
    made(np.ones((2, 4, 8), "float32"), training=True)
    FORWARDS.clear()
    return made


def state(made: Any) -> list[Any]:
    """All that a run could leave behind."""
    layers = made._flatten_layers()
    own = [{k: v for k, v in vars(layer).items() if not k.startswith("__")} for layer in layers]
    kept = [
        [keras.ops.convert_to_numpy(variable.value).tobytes() for variable in made.variables],
        [(layer.trainable, getattr(layer, "rate", None), layer.built) for layer in layers],
        [sorted((key, id(value)) for key, value in each.items()) for each in own],
        [len(each) for each in own],
        list(made.get_layer("counting").seen),
        [id(loss) for loss in made.losses],
        [(draws.count, id(draws.clock.counted())) for draws in (made.layers[5].seed_generator,)],
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],  # noqa: NPY002
        _global_seed(),
        dict(global_state.get_global_attribute("object_name_uids") or {}),
        [id(backend.random.dropout), id(keras.Layer.__call__), id(keras.Operation.__call__)],
        [id(L.AlphaDropout.call), engine.overheard()],
    ]
    if BACKEND == "torch":
        import torch

        kept += [torch.get_rng_state().tolist(), torch.is_grad_enabled()]
        kept += [[variable.value.grad for variable in made.variables]]
    return kept


def _global_seed() -> Any:
    generator = global_state.get_global_attribute("global_seed_generator")
    return None if generator is None else keras.ops.convert_to_numpy(generator.state.value).tolist()


def same(before: list[Any], after: list[Any]) -> None:
    for n, (a, b) in enumerate(zip(before, after, strict=True)):
        assert a == b, n


def test_nothing_is_another_afterwards_and_the_next_masks_are_the_same() -> None:
    made = model()
    before = state(made)
    first = explain_keras(made)
    same(before, state(made))
    assert explain_keras(made) == first
    assert len(first.sites) == 7 and all(site.train for site in first.sites)
    x = np.ones((2, 4, 8), "float32")
    after = keras.ops.convert_to_numpy(made(x, training=True))
    np.testing.assert_array_equal(after, keras.ops.convert_to_numpy(model()(x, training=True)))


@pytest.mark.parametrize("run", [0, 2, 5])
def test_nothing_is_another_after_an_exception(run: int) -> None:
    made = model()
    made.get_layer("counting").fails_at = run
    before = state(made)
    with pytest.raises(
        DropkitRuntimeError, match=r"failed on inputs made up for it, of shapes \(4, 4, 8\): Zero"
    ) as told:
        explain_keras(made)
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    same(before, state(made))


def test_the_same_after_another_seed_of_the_process() -> None:
    made = model()
    first = explain_keras(made)
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    assert explain_keras(made) == first


def test_it_takes_a_handful_of_runs() -> None:
    found = explain_keras(keras.Sequential([keras.Input((8,)), L.Dense(4), L.Dropout(0.5), L.Dense(2)]))
    apart = 2 if BACKEND == "jax" else 0  # whose gradients run the forward once more
    assert (found.forwards, found.backwards) == (6 + apart, 0 if BACKEND == "numpy" else 2)
    assert any("no gradients" in note for note in found.notes) == (BACKEND == "numpy")


def test_inputs_are_those_given_or_made_up() -> None:
    words = keras.Input((None,), dtype="int32", name="words")
    image = keras.Input((8,), name="image")
    both = L.Concatenate()([L.GlobalAveragePooling1D()(L.Embedding(5, 3)(words)), image])
    named = keras.Model({"words": words, "image": image}, L.Dense(2)(L.Dropout(0.5)(both)))
    assert sorted(explain_keras(named).inputs) == [(4, 8), (4, 16)]
    given = {"words": np.zeros((2, 3), "int32"), "image": np.ones((2, 8), "float32")}
    assert sorted(explain_keras(named, given).inputs) == [(2, 3), (2, 8)]
    listed = keras.Model([words, image], L.Dense(2)(both))
    assert explain_keras(listed, given["words"], given["image"]).inputs == ((2, 3), (2, 8))
    inner = keras.Sequential([keras.Input((6,)), keras.Sequential([keras.Input((6,)), L.Embedding(2, 3)])])
    assert explain_keras(inner).inputs == ((4, 6),)  # indices, though Keras calls them floats


class Plain(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="plain")
        self.dense = L.Dense(2, name="dense")

    def call(self, first: Any, second: Any) -> Any:
        return self.dense(first + second)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: keras.Sequential([L.Dense(2)], name="stack"), "the Sequential 'stack' is not built, so it has no"),
        (lambda: marked(Plain()), "the Plain 'plain' does not say what shapes its inputs have: give an input, such"),
        (lambda: keras.Sequential([keras.Input((None, None, 3)), L.Dense(2)]), r"inputs of shape \(None, None, None"),
    ],
)
def test_what_cannot_run_says_what_to_do(made: Any, message: str) -> None:
    with pytest.raises(DropkitValueError, match=message):
        explain_keras(made())


def marked(made: Any) -> Any:
    made.built = True
    return made


def test_a_model_that_fails_on_its_inputs_says_which() -> None:
    made, x = Plain(), np.ones((2, 3), "float32")
    made(x, x)
    with pytest.raises(
        DropkitRuntimeError, match=r"Plain failed on inputs made up for it, of shapes \(4, 3\): TypeError:"
    ):
        explain_keras(made)
    with pytest.raises(DropkitRuntimeError, match=r"Plain failed on these inputs, of shapes \(2, 3\), \(5, 3\): "):
        explain_keras(made, x, np.ones((5, 3), "float32"))
    assert explain_keras(made, x, x).inputs == ((2, 3), (2, 3))


def test_a_layer_that_is_not_built_is_not_built_by_the_way() -> None:
    made, x = marked(Plain()), np.ones((2, 3), "float32")
    with pytest.raises(DropkitValueError, match="the layer 'dense' is not built, so it has no weights yet: call the"):
        explain_keras(made, x, x)
    assert not made.dense.built and made.variables == []


def test_what_is_no_keras_layer_is_refused() -> None:
    with pytest.raises(DropkitTypeError, match="a Keras model or layer is needed, got int"):
        explain_keras(3)  # type: ignore[arg-type]


def names_of_dropkit() -> dict[tuple[str, str], int]:
    """What every name in dropkit's modules, and every attribute of their classes, stands for."""
    modules = {name: vars(module) for name, module in list(sys.modules.items()) if f"{name}.".startswith("dropkit.")}
    classes = {
        f"{home}.{name}": vars(value)
        for home, names in modules.items()
        for name, value in names.items()
        if isinstance(value, type) and value.__module__ == home
    }
    found = {(home, name): id(value) for home, names in (modules | classes).items() for name, value in names.items()}
    return {(home, name): value for (home, name), value in found.items() if (home, name) not in COUNTED}


# Who listens.
COUNTED = {("dropkit.keras.engine._Listening", "now")}


class Looking(keras.layers.Layer):
    """Looks at dropkit's names while the model runs."""

    def __init__(self) -> None:
        super().__init__(name="looking")

    def call(self, x: Any) -> Any:
        SEEN.append(names_of_dropkit())
        return x

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


SEEN: list[dict[tuple[str, str], int]] = []


def test_nothing_of_dropkit_is_patched() -> None:
    """What the probe hears of dropkit's layers and functions, it is told: no name stands for something else."""
    made = keras.Sequential([keras.Input((8,)), dk.Dropout(0.5), Looking(), L.Dense(2)])
    explain_keras(made, np.ones((2, 8), "float32"))
    SEEN.clear()
    before = names_of_dropkit()
    explain_keras(made, np.ones((2, 8), "float32"))
    assert len(SEEN) > 2
    for seen in SEEN:
        assert {name for name in before if before[name] != seen.get(name)} == set()


@contextmanager
def worker() -> Iterator[Any]:
    """Another thread that runs what it is given, while the caller waits."""
    jobs: queue.Queue[Any] = queue.Queue()
    done: queue.Queue[Any] = queue.Queue()

    def work() -> None:
        for job in iter(jobs.get, None):
            done.put(job())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda job: (jobs.put(job), done.get(timeout=60))[1]
    finally:
        jobs.put(None)
        thread.join(60)


def test_dropout_of_another_thread_is_none_of_the_model_s() -> None:
    x = keras.ops.ones((2, 8))
    other = dk.Dropout(0.5, seed=1)

    def elsewhere() -> None:
        other(x, training=True)
        dk.dropout(x, 0.5, training=True, key=Key())
        keras.random.dropout(x, 0.5, seed=1)

    with worker() as run:

        class Asking(keras.layers.Layer):
            def call(self, inputs: Any) -> Any:
                run(elsewhere)
                return inputs

        made = keras.Sequential([keras.Input((8,)), dk.Dropout(0.5, name="own"), Asking(), L.Dense(2)])
        found = explain_keras(made, np.ones((2, 8), "float32"))
    assert [site.name for site in found.sites] == ["own"]


def test_a_function_of_dropkit_is_told_with_its_rate_and_mask_wherever_it_runs() -> None:
    class Dropping(keras.layers.Layer):
        def call(self, inputs: Any, training: bool = False) -> Any:
            return dk.dropout(inputs, 0.2, training=training, key=Key(1, "here"), share=[1])

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    made = keras.Sequential([keras.Input((3, 8)), Dropping(name="dropping"), L.Dense(2)])
    (site,) = explain_keras(made, np.ones((4, 3, 8), "float32")).sites
    assert (site.name, site.kind, site.p, site.mask_shape) == (
        "dropping:dropout",
        "dropkit.keras.dropout",
        0.2,
        (4, 1, 8),
    )
    assert (site.train, site.eval) == (True, False)
