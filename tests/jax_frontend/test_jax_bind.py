"""nnx models bound to a seed: sites, steps, state, checkpoints; and the page that tells flax's users of it all."""

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as linen_layers
from flax import nnx

import dropkit
from dropkit import Key
from dropkit.jax import equinox
from dropkit.jax.binding import at, bind, sites
from dropkit.jax.nnx import Dropout, KeyedStream

X = jnp.ones((16, 32))
PAGE = Path(__file__).parents[2] / "docs" / "coming-from-flax.md"


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.blocks = nnx.List([nnx.Linear(32, 32, rngs=rngs), Dropout(0.5), Dropout(0.25)])
        self.last = Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> Any:
        return self.blocks[1](x), self.blocks[2](x), self.last(x)


RATES = {"blocks.1": 0.5, "blocks.2": 0.25, "last": 0.5}


def net(seed: int = 3) -> Net:
    return bind(Net(nnx.Rngs(0)), seed=seed)


def check(outputs: Any, seed: int, step: int) -> None:
    """The masks of a forward are those of NumPy."""
    for y, (site, rate) in zip(outputs, RATES.items(), strict=True):
        np.testing.assert_array_equal(np.asarray(y) != 0, dropkit.keep(X.shape, rate, Key(seed, site, step)))


@nnx.jit
def forward(model: Net, x: jax.Array) -> Any:
    return model(x)


def test_masks_are_those_of_numpy() -> None:
    for seed in (0, 3, 2**64 - 1):
        model = net(seed)
        assert set(sites(model)) == set(RATES)
        for step in range(3):
            check(model(X), seed, step)
        for step in range(3, 6):
            check(forward(model, X), seed, step)


def test_check_can_fail() -> None:
    with pytest.raises(AssertionError):
        check(net(3)(X), 3, 1)


def test_evaluation_does_not_count() -> None:
    model = net()
    model.eval()
    assert model(X)[0] is X
    model.train()
    check(model(X), 3, 0)


def test_a_layer_that_is_called_twice_moves_two_steps() -> None:
    drop = bind(Dropout(0.5), seed=3)
    assert (drop(X) != drop(X)).any()
    np.testing.assert_array_equal(drop(X) != 0, dropkit.keep(X.shape, 0.5, Key(3, "", 2)))


def test_a_shared_layer_is_one_site() -> None:
    drop = Dropout(0.5)
    model = bind(nnx.List([drop, drop]), seed=3)
    assert list(sites(model)) == ["0"]
    assert model[0].rngs is model[1].rngs


def test_no_retrace_and_gradients() -> None:
    seen = []

    @nnx.jit
    def train(model: nnx.Module, x: jax.Array) -> Any:
        seen.append(1)
        return nnx.value_and_grad(lambda model, x: sum(y.sum() for y in model(x)))(model, x)

    model = net()
    model.last.rate = 0.5  # it moves from here on
    values = [float(train(model, X)[0]) for _ in range(3)]
    model.last.rate = 0.1
    train(model, X)
    assert len(seen) == 1
    assert len(set(values)) == 3


def test_seed_and_step_are_state() -> None:
    model = net()
    forward(model, X)
    saved = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.RngCount)))
    assert jax.tree.leaves(saved) == [1, 1, 1]
    state = nnx.state(model)
    resumed = net(seed=99)
    nnx.update(resumed, state)
    check(forward(resumed, X), 3, 1)
    graph, state = nnx.split(model)
    check(copy.deepcopy(model)(X), 3, 1)
    check(nnx.clone(model)(X), 3, 1)
    check(nnx.merge(graph, state)(X), 3, 1)


def test_checkpoint_of_plain_arrays() -> None:
    """Keys as their words, as any file format can hold them."""
    model = net()
    forward(model, X)
    state = nnx.state(model, nnx.RngState)
    plain = jax.tree.map(
        lambda v: np.asarray(jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v),
        nnx.to_pure_dict(state),
    )
    plain = pickle.loads(pickle.dumps(plain))
    resumed = net(seed=99)
    now = nnx.state(resumed, nnx.RngState)
    nnx.replace_by_pure_dict(
        now,
        jax.tree.map(
            lambda old, new: jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if new.ndim else new,
            nnx.to_pure_dict(now),
            plain,
        ),
    )
    nnx.update(resumed, now)
    check(forward(resumed, X), 3, 1)


def test_at_sets_the_step_for_a_while() -> None:
    model = net()
    for step in range(3):
        check(forward(model, X), 3, step)
    with at(model, step=1):
        check(forward(model, X), 3, 1)
        check(forward(model, X), 3, 2)
        with at(model, step=70, seed=2**63 + 1):
            check(forward(model, X), 2**63 + 1, 70)
        check(forward(model, X), 3, 3)
    check(forward(model, X), 3, 3)
    with pytest.raises(KeyError), at(model, seed=5):
        check(forward(model, X), 5, 4)
        raise KeyError
    check(forward(model, X), 3, 4)
    with pytest.raises(ValueError, match=r"step must lie in \[0, 2\*\*32\)"), at(model, step=2**32):
        pass
    with pytest.raises(ValueError, match=r"this Net is not bound; dropkit\.jax\.bind"), at(Net(nnx.Rngs(0)), step=1):
        pass


def test_binding_again_starts_over() -> None:
    model = net()
    forward(model, X)
    check(forward(bind(model, seed=4, step=7), X), 4, 7)


def test_explicit_keys_win() -> None:
    model = net()
    y = model.last(X, rngs=jax.random.key(7))
    np.testing.assert_array_equal(y != 0, dropkit.keep(X.shape, 0.5, Key(7)))
    check(model(X), 3, 0)


def test_another_library_gets_its_own_bind() -> None:
    model = bind(eqx.nn.Sequential([equinox.Dropout(0.5)]), seed=5, axis_name=None)
    y = equinox.with_step(model, 2)(X)
    np.testing.assert_array_equal(y != 0, dropkit.keep(X.shape, 0.5, Key(5, "layers.0", 2)))


def test_what_cannot_be_bound() -> None:
    with pytest.raises(TypeError, match=r"bind needs a flax\.nnx\.Module or an equinox\.Module, got dict"):
        bind({})
    with pytest.raises(ValueError, match="no dropkit dropout to bind in Linear: it has none"):
        bind(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"it has others: layers\.0 \(Dropout\); dropkit\.jax\.swap it first"):
        bind(nnx.Sequential(nnx.Dropout(0.5)))
    for bad, error in ((-1, ValueError), (0.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="seed must"):
            bind(net(), seed=bad)
        with pytest.raises(error, match="step must"):
            bind(net(), step=bad)


def test_other_dropouts_are_named() -> None:
    class Own(nnx.Module):
        def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
            return x * jax.random.bernoulli(key, 0.5, x.shape)

    attention = nnx.MultiHeadAttention(2, 4, dropout_rate=0.1, rngs=nnx.Rngs(0))
    calm = nnx.MultiHeadAttention(2, 4, rngs=nnx.Rngs(0))
    linen = nnx.bridge.ToNNX(linen_layers.Dropout(0.5), rngs=nnx.Rngs(0))
    model = nnx.Sequential(Dropout(0.5), nnx.Dropout(0.5), attention, calm, nnx.Dropout(0.0), Own(), linen)
    with pytest.warns(UserWarning) as told:
        bind(model)
    assert [str(each.message) for each in told] == [
        "bind leaves dropouts unbound that are not dropkit's, and they need rngs as before: layers.1 (Dropout), "
        "layers.2 (MultiHeadAttention), layers.5 (jax.random.bernoulli), layers.6 (flax.linen.Dropout); "
        "dropkit.jax.swap takes over what it can"
    ]
    assert isinstance(model.layers[0].rngs, KeyedStream)


def test_a_stack_without_rngs_is_bound_as_one() -> None:
    """Nothing in such a layer's state says that it is a stack; its constructor saw it."""

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.linear, self.drop = nnx.Linear(32, 32, rngs=rngs), Dropout(0.5)

    blocks = nnx.split_rngs(splits=3)(nnx.vmap(Block))(nnx.Rngs(0))
    bind(blocks, seed=3)
    masks = nnx.vmap(lambda block, x: block.drop(x), in_axes=(0, None))(blocks, X)
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(mask != 0, dropkit.keep(X.shape, 0.5, Key(3, f"drop.{i}")))
    with pytest.raises(RuntimeError, match="bind was called inside a vmap"):
        nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: bind(Block(rngs))))(nnx.Rngs(0))


def test_binding_imports_neither_library() -> None:
    code = "import dropkit.jax.binding, sys; print({'flax', 'equinox'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_every_row_of_the_page_names_a_test() -> None:
    here = Path(__file__).parent
    known = {name: set(re.findall(r"^def (test_\w+)", (here / name).read_text(), re.M)) for name in
             ("test_nnx.py", "test_nnx_transforms.py", "test_equinox.py", "test_equinox_stacks.py", "test_linen.py",
              "test_layer_axes.py", "test_jax_bind.py") if (here / name).exists()}  # fmt: skip
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    named = [re.search(r"\| `(test_\w+\.py)::(test_\w+)` \|$", row) for row in rows]
    named = [match for row, match in zip(rows, named, strict=True) if not row.endswith("| shown by |")]
    assert len(named) > 20
    for row, match in zip([row for row in rows if not row.endswith("| shown by |")], named, strict=True):
        assert match, row
        assert match[2] in known[match[1]], row
