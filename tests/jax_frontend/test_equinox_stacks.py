"""Bound Equinox models of stacked, scanned and vmapped layers: masks that differ, or a refusal; and steps."""

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropkit
from dropkit import Key
from dropkit.jax.equinox import Dropout, bind, sites, with_step

KEYS = jax.random.split(jax.random.key(0), 3)
ONES = jnp.ones(64)


class Block(eqx.Module):
    lin: eqx.nn.Linear
    drop: Dropout

    def __init__(self, key: jax.Array):
        self.lin, self.drop = eqx.nn.Linear(64, 64, key=key), Dropout(0.5)

    def __call__(self, x: jax.Array) -> Any:
        return self.lin(x), self.drop(ONES)


class Net(eqx.Module):
    blocks: Block

    def __call__(self, x: jax.Array) -> jax.Array:
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)
        return jax.lax.scan(lambda carry, own: eqx.combine(own, rest)(carry), x, arrays)[1]


def made() -> Net:
    """As Equinox' page on tricks makes it."""
    return Net(eqx.filter_vmap(Block)(KEYS))


def stacked() -> Net:
    """Of finished layers."""
    return Net(jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0],
                            *map(Block, KEYS)))  # fmt: skip


def check(masks: Any, name: str, step: int, shape: tuple[int, ...] = (64,), seed: int = 0) -> None:
    """The i-th mask is that of the site name.i."""
    for index in np.ndindex(np.shape(masks)[: np.ndim(masks) - len(shape)]):
        site = ".".join(map(str, (name, *index)))
        np.testing.assert_array_equal(np.asarray(masks)[index] != 0, dropkit.keep(shape, 0.5, Key(seed, site, step)))


@pytest.mark.parametrize("make", [made, stacked])
@pytest.mark.parametrize("jitted", [False, True])
def test_layers_of_a_scanned_stack_have_their_own_masks(make: Any, jitted: bool) -> None:
    """F1."""
    net = bind(make(), seed=0, axis_name=None)
    run = eqx.filter_jit(lambda net, x: net(x)) if jitted else lambda net, x: net(x)
    for step in (0, 1, 2**40):
        check(run(with_step(net, step), ONES), "blocks.drop", step)


@pytest.mark.parametrize("make", [made, stacked])
def test_members_of_an_ensemble_have_their_own_masks(make: Any) -> None:
    members = bind(make().blocks, seed=0, axis_name=None)
    check(eqx.filter_vmap(lambda member: with_step(member, 3)(ONES)[1])(members), "drop", 3)
    each = eqx.filter_vmap(lambda member, x: member(x)[1], in_axes=(eqx.if_array(0), None))
    check(each(with_step(members, 4), ONES), "drop", 4)
    loss = eqx.filter_vmap(
        eqx.filter_grad(lambda member, x: sum(map(jnp.sum, member(x)))), in_axes=(eqx.if_array(0), None)
    )
    assert loss(with_step(members, 4), ONES).lin.weight.shape == (3, 64, 64)


def test_stacks_of_stacks() -> None:
    """Layers of heads: a scan over layers, a vmap over each one's heads."""

    class Layer(eqx.Module):
        heads: Block

        def __init__(self, key: jax.Array):
            self.heads = eqx.filter_vmap(Block)(jax.random.split(key, 2))

        def __call__(self, x: jax.Array) -> Any:
            masks = eqx.filter_vmap(lambda head: head(x)[1])(self.heads)
            return x, masks

    net = with_step(bind(Net(eqx.filter_vmap(Layer)(KEYS)), seed=0, axis_name=None), 5)  # type: ignore[arg-type]
    masks = net(ONES)
    assert masks.shape == (3, 2, 64)
    check(masks, "blocks.heads.drop", 5)


def test_a_stack_under_a_batch() -> None:
    net = with_step(bind(made(), seed=0), 2)
    y = jax.vmap(net, axis_name="batch")(jnp.ones((4, 64)))
    check(y.swapaxes(0, 1), "blocks.drop", 2, (4, 64))
    y = eqx.filter_vmap(lambda x: net(x), axis_name="batch")(jnp.ones((4, 64)))
    check(y.swapaxes(0, 1), "blocks.drop", 2, (4, 64))


def test_a_stack_is_not_called_itself() -> None:
    members = bind(made().blocks, seed=0, axis_name=None)
    with pytest.raises(RuntimeError, match=r"dropout 'drop' is a stack of 3 layers; call it inside jax\.lax\.scan"):
        with_step(members, 0).drop(ONES)


def test_a_stack_that_nobody_can_tell_is_refused() -> None:
    """Its step has no leading axis, so what slices the stack cannot slice it."""

    class Own(eqx.Module):
        weight: jax.Array
        drop: Dropout

        def __call__(self, x: jax.Array) -> Any:
            return x * self.weight, self.drop(ONES)

    for count in (2, 3):
        layers = [Own(jnp.ones(64) * i, Dropout(0.5)) for i in range(count)]
        stack = jax.tree.map(lambda *all: jnp.stack(all) if eqx.is_array(all[0]) else all[0], *layers)
        net = with_step(bind(Net(stack), seed=0, axis_name=None), 0)
        with pytest.raises((ValueError, IndexError)):  # by JAX, whose scan looks for a leading axis
            net(ONES)
        with pytest.raises(ValueError, match="vmap"):
            eqx.filter_vmap(lambda own: own(ONES)[1])(net.blocks)


class Scaled(eqx.Module):
    """A layer of which nobody can tell whether it is a stack."""

    weight: jax.Array
    drop: Dropout

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.weight[0] * 0 + self.drop(x)


def untold() -> tuple[Any, Any]:
    """A stack of such layers: arrays, and what is none."""
    layers = [Scaled(jnp.ones(64) * i, Dropout(0.5)) for i in range(3)]
    stack = jax.tree.map(lambda *all: jnp.stack(all) if eqx.is_array(all[0]) else all[0], *layers)
    return eqx.partition(bind(stack, seed=0, axis_name=None), eqx.is_array)


@pytest.mark.parametrize("step", [3, jnp.uint32(3)])
def test_one_step_for_all_layers_of_an_unknown_stack_is_refused(step: Any) -> None:
    """`with_step` inside the body sees one site, and would give all of them one mask."""
    arrays, rest = untold()

    def body(carry: Any, own: Any) -> Any:
        return carry, with_step(eqx.combine(own, rest), step)(ONES)

    loops: list[Any] = [
        lambda body: jax.lax.scan(body, 0, arrays)[1],
        lambda body: jax.jit(lambda: jax.lax.scan(body, 0, arrays)[1])(),
        lambda body: jax.lax.scan(jax.checkpoint(body), 0, arrays)[1],
        lambda body: jax.lax.map(lambda own: body(0, own)[1], arrays),
        lambda body: jax.vmap(lambda own: body(0, own)[1])(arrays),
        lambda body: jax.grad(lambda arrays: jax.lax.scan(body, 0, arrays)[1].sum())(arrays),
        lambda body: jax.lax.scan(lambda _, own: (0, jax.grad(lambda own: body(0, own)[1].sum())(own)), 0, arrays)[1],
        lambda body: jax.lax.fori_loop(
            0, 3, lambda i, y: body(0, jax.tree.map(lambda each: each[i], arrays))[1], jnp.zeros(64)
        ),
    ]
    for loop in loops:
        with (
            warnings.catch_warnings(),
            pytest.raises(RuntimeError, match="but dropout 'drop' does not, so all would"),
        ):
            warnings.simplefilter("ignore")  # of the Python int
            loop(body)
    with pytest.raises(RuntimeError, match="for all iterations of a loop"):  # a constant of the body
        jax.lax.scan(lambda _, own: (0, with_step(eqx.combine(own, rest), jnp.asarray(3) + 1)(ONES)), 0, arrays)
    with pytest.raises(RuntimeError, match="for all iterations of a loop"):
        jax.jit(lambda step: jax.lax.scan(
            lambda _, own: (0, with_step(eqx.combine(own, rest), step)(ONES)), 0, arrays))(jnp.uint32(3))  # fmt: skip


def test_steps_that_differ_inside_a_loop_are_taken() -> None:
    """Of layers, by the step; of training, whose model and step are in the carry; of one layer that is closed over."""
    arrays, rest = untold()
    steps = jnp.arange(3, dtype=jnp.uint32)
    each = jax.lax.scan(lambda _, at: (0, with_step(eqx.combine(at[0], rest), at[1])(ONES)), 0, (arrays, steps))[1]
    mapped = jax.vmap(lambda own, step: with_step(eqx.combine(own, rest), step)(ONES))(arrays, steps)
    layer = bind(Scaled(jnp.ones(64), Dropout(0.5)), seed=0, axis_name=None)
    own, static = eqx.partition(layer, eqx.is_array)

    def train(carry: Any, _: Any) -> Any:
        model, step = carry
        return (model, step + 1), with_step(eqx.combine(model, static), step)(ONES)

    trained = jax.lax.scan(train, (own, jnp.uint32(0)), None, 3)[1]
    for masks in (each, mapped, trained):
        for step in range(3):
            np.testing.assert_array_equal(masks[step] != 0, dropkit.keep((64,), 0.5, Key(0, "drop", step)))
    same = jax.lax.scan(lambda _, x: (0, with_step(layer, jnp.uint32(1))(x)), 0, jnp.ones((2, 64)))[1]
    np.testing.assert_array_equal(same[0], same[1])  # one layer that is called twice
    batched = bind(Scaled(jnp.ones(64), Dropout(0.5)), seed=0)
    y = jax.vmap(lambda x: with_step(batched, 1)(x), axis_name="batch")(jnp.ones((2, 64)))
    np.testing.assert_array_equal(y != 0, dropkit.keep((2, 64), 0.5, Key(0, "drop", 1)))
    members = bind(eqx.combine(arrays, rest), seed=0, axis_name="member")
    y = eqx.filter_vmap(lambda own: with_step(own, 1)(ONES), axis_name="member")(members)
    np.testing.assert_array_equal(y != 0, dropkit.keep((3, 64), 0.5, Key(0, "drop", 1)))


@pytest.mark.parametrize("make", [made, stacked])
def test_a_step_inside_the_scan_of_a_known_stack(make: Any) -> None:
    arrays, rest = eqx.partition(bind(make(), seed=0, axis_name=None).blocks, eqx.is_array)
    step = jnp.uint32(2)
    body = lambda carry, own: with_step(eqx.combine(own, rest), step)(carry)  # noqa: E731
    for wrapped in (body, jax.checkpoint(body)):
        check(jax.lax.scan(wrapped, ONES, arrays)[1], "blocks.drop", 2)


def test_a_vmap_that_the_model_was_not_bound_for_is_refused() -> None:
    x = jnp.ones((4, 64))
    layer = bind(Dropout(0.5), seed=0, axis_name=None)
    refused = r"dropout '' is called under a jax\.vmap that its model was not bound for.*axis_name='lane'"
    for call in (jax.vmap, lambda f: jax.jit(jax.vmap(f)), lambda f: jax.vmap(eqx.filter_jit(f)), eqx.filter_vmap):
        with pytest.raises(RuntimeError, match=refused):
            call(with_step(layer, 0))(x)
    batched = with_step(bind(Dropout(0.5), seed=0), 0)
    with pytest.raises(RuntimeError, match=refused):
        jax.vmap(jax.vmap(batched), axis_name="batch")(jnp.ones((2, 4, 64)))
    with pytest.raises(RuntimeError, match=refused):
        jax.vmap(jax.grad(lambda x: with_step(layer, 0)(x).sum()))(x)
    y = jax.vmap(lambda x: with_step(layer, 0)(x, key=Key(3)))(x)  # who gives a key knows
    np.testing.assert_array_equal(y != 0, np.broadcast_to(dropkit.keep((64,), 0.5, Key(3)), y.shape))


def test_derivatives_in_many_directions_share_the_mask() -> None:
    layer = with_step(bind(Dropout(0.5), seed=0, axis_name=None), 0)
    mask = dropkit.keep((8,), 0.5, Key(0, "", 0))
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_array_equal(jacobian(layer)(jnp.ones(8)), np.diag(2.0 * mask))
    batched = with_step(bind(Dropout(0.5), seed=0), 0)
    slopes = jax.vmap(jax.jacfwd(batched), axis_name="batch")(jnp.ones((3, 8)))
    mask = dropkit.keep((3, 8), 0.5, Key(0, "", 0))
    np.testing.assert_array_equal(slopes, 2.0 * mask[:, :, None] * np.eye(8))


def test_binding_under_vmap_is_refused() -> None:
    with pytest.raises(RuntimeError, match="bind was called inside a vmap, where all of a stack would get one site"):
        eqx.filter_vmap(lambda key: bind(Block(key), seed=0))(KEYS)


def test_unbound_stacks_are_as_equinoxs() -> None:
    """No leaf more, so files of eqx.tree_serialise_leaves go both ways."""
    ours, theirs = (
        eqx.filter_vmap(lambda key: Dropout(0.5))(KEYS),
        eqx.filter_vmap(lambda key: eqx.nn.Dropout(0.5))(KEYS),
    )
    assert jax.tree.leaves(ours) == jax.tree.leaves(theirs) == [0.5, False]


# ---------------------------------------------------------------------------------------------------------------------
# steps


def test_a_step_from_outside_traces_once() -> None:
    seen = []

    @eqx.filter_jit
    def run(net: Net, x: jax.Array) -> jax.Array:
        seen.append(1)
        return net(x)

    net = bind(made(), seed=0, axis_name=None)
    for step in range(4):
        check(run(with_step(net, step), ONES), "blocks.drop", step)
    assert len(seen) == 1


def test_a_python_int_in_a_trace_is_told_of() -> None:
    """F2: with an array there is one trace; with an int one for each step, so it warns."""
    seen = []

    @eqx.filter_jit
    def run(net: Net, x: jax.Array, step: Any) -> jax.Array:
        seen.append(1)
        return with_step(net, step)(x)

    net = bind(made(), seed=0, axis_name=None)
    with pytest.warns(UserWarning, match=r"the Python int 7 while a function is traced.*jnp\.asarray\(step\)"):
        check(run(net, ONES, 7), "blocks.drop", 7)
    seen.clear()
    for step in range(3):
        check(run(net, ONES, jnp.asarray(step)), "blocks.drop", step)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eqx.filter_grad(lambda net: with_step(net, 3)(ONES).sum())(net)  # no program
        jax.jit(lambda: with_step(net, jnp.uint32(3))(ONES))()  # a constant, said so


def test_other_dropouts_are_named() -> None:
    class Own(eqx.Module):
        def __call__(self, x: jax.Array, key: jax.Array) -> jax.Array:
            return x * jax.random.bernoulli(key, 0.5, x.shape)

    attention = eqx.nn.MultiheadAttention(2, 4, dropout_p=0.1, key=KEYS[0])
    calm = eqx.nn.MultiheadAttention(2, 4, key=KEYS[0])
    model = [Dropout(0.5), eqx.nn.Dropout(0.5), attention, calm, Own()]
    with pytest.warns(UserWarning) as told:
        bound = bind(model, seed=0)
    assert [str(each.message) for each in told] == [
        "bind leaves dropouts unbound that are not dropkit's, and they need keys as before: 1 (Dropout), "
        "2.dropout (Dropout), 4 (jax.random.bernoulli); dropkit.jax.swap takes over what it can"
    ]
    assert list(sites(bound)) == ["0"]
    with pytest.raises(ValueError, match=r"no dropkit dropout to bind in Dropout: it has others:  \(Dropout\)"):
        bind(eqx.nn.Dropout(0.5))
