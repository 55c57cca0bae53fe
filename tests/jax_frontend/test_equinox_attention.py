"""Attention and recurrent cells of Equinox: masks without keys to hand on, taken over by `swap` and given back."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropkit.jax as dj
from dropkit import Key, keep
from dropkit.errors import DropkitRuntimeError, DropkitValueError
from dropkit.jax.equinox import Dropout, GRUCell, LSTMCell, MultiheadAttention, restore, sites, swap, with_step

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 8)), jnp.float32)
THEIRS = eqx.nn.MultiheadAttention(4, 8, dropout_p=0.5, key=jax.random.key(0))


@eqx.filter_jit
def run(model: Any, x: Any, step: Any) -> Any:
    return jax.vmap(lambda model, x: model(x, x, x), axis_name="batch", in_axes=(None, 0))(with_step(model, step), x)


def by_hand(model: Any, x: Any, kept: Any) -> Any:
    heads = (model.query_proj, model.key_proj, model.value_proj)
    q, k, v = (jax.vmap(jax.vmap(part))(x).reshape(*x.shape[:2], 4, 2) for part in heads)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(2), -1) * kept * 2
    return jax.vmap(jax.vmap(model.output_proj))(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


def test_a_finished_attention_is_taken_over_and_needs_no_key() -> None:
    model = dj.bind(dj.swap(THEIRS), seed=1)
    found = run(model, X, jnp.asarray(4))
    wanted = by_hand(THEIRS, X, keep((3, 4, 6, 6), 0.5, Key(1, "dropout", 4)))
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(run(model, X, jnp.asarray(4)), found)
    np.testing.assert_array_equal(run(eqx.filter_checkpoint(model), X, jnp.asarray(4)), found)
    assert (run(model, X, jnp.asarray(5)) != found).any()
    evaluated = eqx.nn.inference_mode(model)
    np.testing.assert_array_equal(evaluated(X[0], X[0], X[0]), THEIRS(X[0], X[0], X[0], inference=True))
    back = restore(model)
    assert jax.tree.structure(back) == jax.tree.structure(THEIRS) and type(back) is eqx.nn.MultiheadAttention


def test_a_key_that_is_given_wins_and_heads_differ() -> None:
    model = dj.swap(THEIRS)
    x = X[:1]
    wanted = by_hand(THEIRS, x, keep((1, 4, 6, 6), 0.5, Key(7)))
    np.testing.assert_allclose(model(x[0], x[0], x[0], key=jax.random.key(7)), wanted[0], rtol=2e-5, atol=2e-6)
    with pytest.raises(DropkitRuntimeError, match="requires a key"):
        model(x[0], x[0], x[0])
    with pytest.raises(DropkitValueError, match=r"mask must have shape \(6, 6\) or \(4, 6, 6\), got \(6,\)"):
        model(x[0], x[0], x[0], mask=jnp.ones(6, bool), key=jax.random.key(7))
    with pytest.raises(DropkitValueError, match=r"1\.5"):
        MultiheadAttention(4, 8, dropout_p=1.5, key=jax.random.key(0))


def test_members_of_an_ensemble_differ() -> None:
    make = eqx.filter_vmap(lambda key: eqx.nn.MultiheadAttention(4, 8, dropout_p=0.5, key=key))
    members = dj.bind(dj.swap(make(jax.random.split(jax.random.key(0), 2))), seed=1)

    def one(member: Any, x: Any) -> Any:
        return jax.vmap(lambda x: member(x, x, x), axis_name="batch")(x)

    found = eqx.filter_vmap(one, in_axes=(eqx.if_array(0), None))(with_step(members, jnp.asarray(2)), X)
    for number in range(2):
        member = jax.tree.map(lambda leaf, n=number: leaf[n] if eqx.is_array(leaf) else leaf, restore(members))
        wanted = by_hand(member, X, keep((3, 4, 6, 6), 0.5, Key(1, f"dropout.{number}", 2)))
        np.testing.assert_allclose(found[number], wanted, rtol=2e-5, atol=2e-6)


def test_what_swap_leaves_and_refuses() -> None:
    class Own(eqx.nn.Dropout):
        pass

    model = [eqx.nn.Dropout(0.25), THEIRS, Own(0.5)]
    with pytest.warns(UserWarning, match=r"cannot replace.*: 2 \(Own\)"):
        swapped = swap(model)
    assert list(sites(swapped)) == ["0", "1.dropout"] and type(model[0]) is eqx.nn.Dropout
    with pytest.raises(DropkitValueError, match="no dropout of Equinox to swap in Linear: it has none"):
        dj.swap(eqx.nn.Linear(2, 2, key=jax.random.key(0)))
    with pytest.raises(DropkitValueError, match=r"1\.5"):
        swap([eqx.nn.Dropout(1.5)])
    with pytest.raises(DropkitValueError, match="nothing of dropkit to restore in list"):
        restore(model)
    with pytest.raises(DropkitValueError, match="Equinox has no dropout such as '0'"):
        restore([Dropout(0.5, share=(0,))])


@pytest.mark.parametrize("kind", [LSTMCell, GRUCell])
def test_recurrent_masks_are_drawn_once_a_sequence(kind: Any) -> None:
    cell = dj.bind(kind(8, 5, dropout_p=0.5, recurrent_dropout_p=0.25, key=jax.random.key(0)), seed=2)
    plain = restore(cell)
    first = (jnp.ones(5), jnp.ones(5)) if kind is LSTMCell else jnp.ones(5)

    @eqx.filter_jit
    def forward(cell: Any, step: Any) -> Any:
        def one(x: Any) -> Any:
            return jax.lax.scan(lambda h, x: (with_h := cell_now(x, h), with_h), first, x)[1]

        cell_now = with_step(cell, step)
        return jax.vmap(one, axis_name="batch")(X)

    x = X * keep((3, 8), 0.5, Key(2, "dropout", 3))[:, None] * 2
    kept = keep((3, 5), 0.25, Key(2, "recurrent_dropout", 3)) / 0.75
    for sample in range(3):
        masked = eqx.tree_at(lambda cell: cell.weight_hh, plain, plain.weight_hh * kept[sample])
        wanted = jax.lax.scan(lambda h, x, m=masked: (m(x, h),) * 2, first, x[sample])[1]
        found = jax.tree.map(lambda leaf, n=sample: leaf[n], forward(cell, jnp.asarray(3)))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    free = kind(8, 5, dropout_p=0.5, key=jax.random.key(0))
    same = [jax.tree.leaves(free(X[0, 0], first, key=jax.random.key(1)))[0] for _ in range(2)]
    np.testing.assert_array_equal(*same)
