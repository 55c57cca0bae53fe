"""`swap`, `insert` and `set_rate` on nnx models that are there already, and the way back."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import dropkit.jax as dj
from dropkit import Key, keep
from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.jax.nnx import Dropout

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8)), jnp.float32)


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear, self.drop = nnx.Linear(8, 8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.drop(self.linear(x))


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.attend = nnx.MultiHeadAttention(2, 8, dropout_rate=0.25, rngs=rngs, decode=False)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(self.attend(x[:, None])[:, 0])


@nnx.jit
def forward(model: Any, x: Any) -> Any:
    return model(x)


def plain(model: Any) -> Any:
    """A model without attention's dropout, evaluated."""
    model.eval()
    y = np.asarray(model(X))
    model.train()
    return y


def test_flax_own_dropouts_become_ours_and_come_back() -> None:
    model: Any = Net()
    before, first = plain(model), model.blocks[0].drop
    weights = jax.tree.leaves(nnx.state(model, nnx.Param))
    model.blocks[0].drop.note = "mine"
    receipt = dj.swap(model)
    assert receipt.lines == (
        "blocks.0.drop: flax Dropout(0.5) -> dropkit Dropout(0.5)",
        "blocks.1.drop: flax Dropout(0.5) -> dropkit Dropout(0.5)",
        "attend: flax MultiHeadAttention(0.25) -> dropkit Dropout(0.25) in it, one mask for all samples and heads",
    )
    assert model.blocks[0].drop is first and type(first) is Dropout and first.note == "mine"
    np.testing.assert_array_equal(plain(model), before)
    forward(model, X)
    dj.set_rate(model, "attend", 0)
    dj.bind(model, seed=3)
    hidden = model.blocks[0].linear(X)
    kept = keep((4, 8), 0.5, Key(3, "blocks.0.drop", 0))
    np.testing.assert_allclose(np.asarray(model.blocks[0](X)), np.asarray(hidden) * kept * 2, rtol=1e-6)
    model.eval()
    receipt.restore()
    assert type(first) is nnx.Dropout and first.deterministic and dj.sites(model) == {}
    for old, new in zip(weights, jax.tree.leaves(nnx.state(model, nnx.Param)), strict=True):
        np.testing.assert_array_equal(old, new)
    model.train()
    forward(model, X)
    with pytest.raises(DropkitRuntimeError, match="restored already"):
        receipt.restore()


def test_a_dropout_stands_behind_in_every_mode_and_compiled() -> None:
    model: Any = nnx.Sequential(nnx.Linear(8, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 2, rngs=nnx.Rngs(1)))
    graph, state = nnx.split(model)
    before = np.asarray(model(X))
    receipt = dj.insert(model, "layers.0", Dropout(0.5))
    dj.bind(model, seed=3)
    assert list(dj.sites(model)) == ["layers.0.dropkit_drop"]
    hidden = nnx.Linear.__call__(model.layers[0], X)
    kept = keep((4, 8), 0.5, Key(3, "layers.0.dropkit_drop", 0))
    expected = model.layers[2](nnx.relu(hidden * kept * 2))
    np.testing.assert_allclose(forward(model, X), expected, rtol=1e-5)
    np.testing.assert_array_equal(nnx.clone(model)(X), copy.deepcopy(model)(X))
    model.eval()
    np.testing.assert_array_equal(np.asarray(model(X)), before)
    receipt.restore()
    assert nnx.split(model)[0] == graph and type(model.layers[0]) is nnx.Linear
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(nnx.split(model)[1]), strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_optimizer_goes_on() -> None:
    import optax

    model: Any = nnx.Sequential(nnx.Linear(8, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 2, rngs=nnx.Rngs(1)))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    def step() -> float:
        loss, grads = nnx.value_and_grad(lambda model: (model(X) ** 2).mean())(model)
        optimizer.update(model, grads)
        return float(loss)

    first = step()
    dj.bind(dj.insert(model, nnx.Linear, Dropout(0.1)) and model, seed=1)
    step()
    dj.set_rate(model, "*", 0)
    assert step() < first


def test_modes_streams_and_the_call_reach_what_was_inserted() -> None:
    model: Any = Net()
    model.eval()
    dj.set_rate(model, "attend", 0)
    dj.insert(model, ("head"), Dropout(0.5, rngs=nnx.Rngs(1)))
    assert model.head.dropkit_drop.deterministic
    model.train()
    assert not np.array_equal(model.head(X), model.head(X))
    dj.insert(model, "attend", lambda: Dropout(0.5, rngs=nnx.Rngs(1)))
    one, two = (np.asarray(model.attend(X[:, None], deterministic=True)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (np.asarray(model.attend(X[:, None], deterministic=False)) == 0).any()
    pair: Any = nnx.Sequential(nnx.Linear(8, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 8, rngs=nnx.Rngs(0)))
    dj.insert(pair, nnx.Linear, Dropout(0.5, rngs=nnx.Rngs(1)))
    ones = jnp.ones((4, 8))
    assert not np.array_equal(*(layer.dropkit_drop(ones) for layer in pair.layers))


def test_the_first_entry_of_a_tuple_is_dropped() -> None:
    cell = nnx.LSTMCell(8, 4, rngs=nnx.Rngs(0))
    carry = cell.initialize_carry((4, 8), nnx.Rngs(0))
    plain = cell(carry, X)
    dj.bind(dj.insert(cell, nnx.LSTMCell, Dropout(1.0)) and cell)
    (carried, y) = cell(carry, X)
    assert not np.asarray(carried[0]).any()
    np.testing.assert_array_equal(carried[1], plain[0][1])
    np.testing.assert_array_equal(y, plain[1])


def test_behind_a_stack_of_layers() -> None:
    @nnx.vmap
    def make(rngs: Any) -> Any:
        return nnx.Linear(8, 8, rngs=nnx.Rngs(rngs))

    class Stack(nnx.Module):
        def __init__(self) -> None:
            self.layers = make(jax.random.split(jax.random.key(0), 3))

        def __call__(self, x: Any) -> Any:
            return nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, self.layers)

    model = Stack()
    dj.bind(dj.insert(model, "layers", Dropout(0.5)) and model, seed=1)
    assert model.layers.dropkit_drop.stack == (3,)
    x = X
    for number in range(3):
        kernel, bias = model.layers.kernel[number], model.layers.bias[number]
        kept = keep((4, 8), 0.5, Key(1, f"layers.dropkit_drop.{number}", 0))
        x = (x @ kernel + bias) * kept * 2
    np.testing.assert_allclose(model(X), x, rtol=1e-4, atol=1e-5)


def test_rates_of_every_kind_act_and_come_back() -> None:
    model: Any = Net()
    ours: Any = nnx.Sequential(model, Dropout(0.5))
    names = {"layers.0.attend.dropout_rate": 0.25, "layers.0.blocks.0.drop": 0.5, "layers.0.blocks.1.drop": 0.5}
    with pytest.raises(DropkitValueError) as caught:
        dj.set_rate(ours, "decoder.*", 0.1)
    known = ", ".join(f"{name} ({p})" for name, p in {**names, "layers.1": 0.5}.items())
    assert str(caught.value) == f"pattern 'decoder.*' matches no rate in Sequential; it has {known}"
    with dj.set_rate(ours, "*", 0.75) as receipt:
        assert len(receipt.lines) == 4 and ours.layers[1].rate == model.attend.dropout_rate == 0.75
        with dj.set_rate(ours, "layers.1", 0.125):
            assert ours.layers[1].rate == 0.125
        assert ours.layers[1].rate == 0.75
    assert ours.layers[1].rate == 0.5 and "p" not in vars(ours.layers[1])
    assert (model.attend.dropout_rate, model.blocks[0].drop.rate) == (0.25, 0.5)


def test_a_rate_of_ours_compiles_nothing_again() -> None:
    model = dj.bind(nnx.Sequential(Dropout(0.5), nnx.Linear(8, 8, rngs=nnx.Rngs(0))), seed=1)
    dj.set_rate(model, "*", 0.25)
    runs: list[int] = []

    @nnx.jit
    def step(model: Any, x: Any) -> Any:
        runs.append(1)
        return model(x)

    for rate in (0.25, 0.5, 0.0, 1.0):
        dj.set_rate(model, "*", rate)
        step(model, X)
    assert runs == [1]


def test_errors_come_before_any_change() -> None:
    model: Any = Net()
    for bad, kind, text in (
        ((7, "head", Dropout(0.1)), DropkitTypeError, "insert needs a flax.nnx.Module, got int"),
        ((model, "decoder*", Dropout(0.1)), DropkitValueError, r"'decoder\*' matches nothing in Net; it has attend"),
        ((model, 7, Dropout(0.1)), DropkitTypeError, "after must be a pattern of paths"),
        ((model, int, Dropout(0.1)), DropkitTypeError, "after must be a pattern of paths"),
        ((model, "head", 0.1), DropkitTypeError, r"must be a dropout such as dropkit.jax.nnx.Dropout\(0.1\), got 0.1"),
        ((model, "head", nnx.Dropout(0.1)), DropkitTypeError, r"drop must be a dropout such as"),
        ((model, "head", lambda: 0.1), DropkitTypeError, r"drop\(\) must return a dropkit.jax.nnx.Dropout, got 0.1"),
        ((model, "head", Dropout(0.1, rngs=Key(1, "a"))), DropkitValueError, "drop has the stream of one site"),
        ((model, "blocks.0.drop", Dropout(0.1)), DropkitValueError, "blocks.0.drop: it is a dropout itself"),
    ):  # fmt: skip
        with pytest.raises(kind, match=text):
            dj.insert(*bad)
    dj.insert(model, "head", Dropout(0.1))
    with pytest.raises(DropkitValueError, match="head has an inserted dropout already"):
        dj.insert(model, "head", Dropout(0.1))
    with pytest.raises(DropkitValueError, match=r"no flax.nnx.Dropout to swap in Linear: it has none"):
        dj.swap(nnx.Linear(2, 2, rngs=nnx.Rngs(0)))
    for verb in (lambda model: dj.swap(model), lambda model: dj.set_rate(model, "*", 0.1)):
        with pytest.raises(DropkitTypeError, match=r"needs a flax.nnx.Module, got Dropout"):
            verb(linen.Dropout(0.1))
    for rate in (1.5, float("nan")):
        with pytest.raises(DropkitValueError, match=str(rate)):
            dj.set_rate(model, "*", rate)
    bound = dj.bind(nnx.Sequential(Dropout(0.5), nnx.Linear(8, 8, rngs=nnx.Rngs(0))), seed=1)
    with pytest.warns(UserWarning, match=r"the model is bound and these are not: layers.1.dropkit_drop"):
        dj.insert(bound, "layers.1", Dropout(0.1))


def test_an_output_that_is_no_array_is_named() -> None:
    class Pair(nnx.Module):
        def __call__(self, x: Any) -> Any:
            return {"a": x}

    pair = Pair()
    dj.insert(pair, Pair, Dropout(0.1))
    with pytest.raises(DropkitTypeError, match="behind a Pair that returns a dict"):
        pair(X)
