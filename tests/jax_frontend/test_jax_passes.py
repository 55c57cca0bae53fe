"""passes: n draws of one step, each a function of its number, under transformations; pass 0 is the ordinary draw."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import dropkit
import dropkit.jax as dj
from dropkit import DropkitError, Key
from dropkit.jax import equinox
from dropkit.jax import linen as keyed_linen
from dropkit.jax.nnx import Dropout

X = jnp.ones((4, 64))


class Net(nnx.Module):
    def __init__(self) -> None:
        self.drop = Dropout(0.5)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.drop(x)


def bound() -> Net:
    return dj.bind(Net(), seed=7)


def kept(site: str, step: int, seed: int = 7) -> Any:
    return dropkit.keep(X.shape, 0.5, Key(seed, site, step))


def views(model: Any, x: jax.Array, n: int = 2) -> list[jax.Array]:
    with dj.passes(model, n) as each:
        return [model(x) for _ in each]


def check(found: Any, site: str, step: int) -> None:
    for number, y in enumerate(found):
        name = f"{site}@{number}" if number else site
        np.testing.assert_array_equal(np.asarray(y) != 0, kept(name, step))


def test_passes_of_nnx_are_named_sites_of_one_step() -> None:
    model = bound()
    for step in range(2):
        check(views(model, X, 3), "drop", step)
    np.testing.assert_array_equal(np.asarray(model(X)) != 0, kept("drop", 2))


def test_inside_and_around_compiled_functions_the_masks_are_the_same() -> None:
    inside = nnx.jit(views)
    model = bound()
    for step in range(2):
        check(inside(model, X), "drop", step)
    around, compiled = bound(), nnx.jit(lambda model, x: model(x))
    for step in range(2):
        with dj.passes(around, 2) as each:
            check([compiled(around, X) for _ in each], "drop", step)
    np.testing.assert_array_equal(np.asarray(around(X)) != 0, kept("drop", 2))


def test_gradients_have_the_mask_of_their_pass() -> None:
    class Scaled(Net):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nnx.Param(jnp.ones(X.shape))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.drop(x * self.scale[...])

    model = dj.bind(Scaled(), seed=7)
    grads = nnx.grad(lambda model: sum(y.sum() * 3**j for j, y in enumerate(views(model, X))))(model)
    wanted = 2.0 * kept("drop", 0) + 6.0 * kept("drop@1", 0)
    np.testing.assert_array_equal(np.asarray(grads["scale"][...]), wanted)


def test_several_calls_of_a_pass_are_several_steps() -> None:
    model = bound()
    with dj.passes(model, 2) as each:
        found = [(model(X), model(X)) for _ in each]
    for step in range(2):
        check([ys[step] for ys in found], "drop", step)
    assert int(model.drop.rngs.count[...]) == 2


def test_layers_of_a_scanned_stack_have_their_own_names() -> None:
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(_: jax.Array) -> Net:
        return Net()

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def run(layer: Net, x: jax.Array) -> jax.Array:
        return layer(x)

    model = dj.bind(make(jnp.zeros(2)), seed=7)
    with dj.passes(model, 2) as each:
        for number in each:
            y, mark = run(model, X), f"@{number}" if number else ""
            np.testing.assert_array_equal(np.asarray(y) != 0, kept(f"drop.0{mark}", 0) & kept(f"drop.1{mark}", 0))

    @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
    def inside(layer: Net, x: jax.Array) -> jax.Array:
        return sum(views(layer, x))  # type: ignore[return-value]

    with pytest.raises(DropkitError, match="around"):
        inside(model, X)


def test_an_exception_or_an_early_end_leaves_everything_in_order() -> None:
    model = bound()
    with pytest.raises(KeyError), dj.passes(model, 2) as each:
        for number in each:
            model(X)
            if number:
                raise KeyError
    with dj.passes(model, 3) as each:
        for _ in each:
            model(X)
            break
    np.testing.assert_array_equal(np.asarray(model(X)) != 0, kept("drop", 2))


def test_passes_of_equinox_are_models_at_named_sites() -> None:
    model = equinox.bind({"drop": equinox.Dropout(0.5)}, seed=7, axis_name="batch")

    @eqx.filter_jit
    def run(model: Any, x: jax.Array, step: jax.Array) -> Any:
        each = equinox.passes(equinox.with_step(model, step), 2)
        return [jax.vmap(view["drop"], axis_name="batch")(x) for view in each]

    for step in range(2):
        check(run(model, X, jnp.asarray(step)), "drop", step)


def test_a_stack_of_equinox_has_a_name_for_each_layer() -> None:
    stack = eqx.filter_vmap(lambda _: equinox.Dropout(0.5))(jnp.zeros(2))
    model = equinox.with_step(equinox.bind({"drop": stack}, seed=7, axis_name=None), 3)
    for number, view in enumerate(equinox.passes(model, 2)):
        ys, mark = eqx.filter_vmap(lambda drop: drop(X))(view["drop"]), f"@{number}" if number else ""
        for layer, y in enumerate(ys):
            np.testing.assert_array_equal(np.asarray(y) != 0, kept(f"drop.{layer}{mark}", 3))
    with pytest.raises(DropkitError, match="whole model"):
        eqx.filter_vmap(lambda drop: equinox.passes(drop, 2)[1](X))(model["drop"])


def test_passes_of_linen_are_rngs() -> None:
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return keyed_linen.Dropout(0.5, deterministic=False, name="drop")(x)

    @jax.jit
    def run(x: jax.Array, step: jax.Array) -> Any:
        return [Model().apply({}, x, rngs=rngs) for rngs in keyed_linen.passes(7, step, 3)]

    for step in range(2):
        check(run(X, jnp.asarray(step)), "drop", step)
    first, second = keyed_linen.passes(7, 0, 2)
    with pytest.raises(DropkitError, match="one forward is one pass"):
        Model().apply({}, X, rngs={**first, **second})


@pytest.mark.parametrize(
    "call",
    [
        lambda n: dj.passes(bound(), n).__enter__(),
        lambda n: equinox.passes(equinox.bind([equinox.Dropout(0.5)]), n),
        lambda n: keyed_linen.passes(0, 0, n),
    ],
)
@pytest.mark.parametrize(("n", "words"), [(0, "n=0"), (-1, "n=-1"), (True, "n=True"), (1.5, "1.5"), ("2", "'2'")])
def test_how_many_is_checked(call: Any, n: Any, words: str) -> None:
    with pytest.raises(DropkitError, match=words):
        call(n)


def test_what_does_not_fit_is_told() -> None:
    model, reseeded = bound(), bound()
    nnx.reseed(reseeded, dropout=1)
    unbound = equinox.Dropout(0.5)
    for call, words in (
        (lambda: dj.passes(Net(), 2), "not bound.*bind"),
        (lambda: dj.passes(reseeded, 2), "reseeded.*bind"),
        (lambda: dj.passes(3, 2), "int"),  # type: ignore[arg-type]
        (lambda: dj.passes(unbound, 2), "equinox.passes"),  # type: ignore[arg-type]
        (lambda: dj.passes(linen.Dropout(0.5), 2), "linen.passes"),  # type: ignore[arg-type]
    ):
        with pytest.raises(DropkitError, match=words), call():
            pass
    with pytest.raises(DropkitError, match="not bound"):
        equinox.passes(unbound, 2)
    with pytest.raises(DropkitError, match="take all of them in one"):
        equinox.passes(equinox.passes(equinox.bind([unbound], seed=1), 2)[0], 2)
    with dj.passes(model, 2) as each:
        next(each)
        with pytest.raises(DropkitError, match="take all of them in one"), dj.passes(bound(), 2):
            pass
