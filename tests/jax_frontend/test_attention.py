"""JAX's attention with dropout: values and gradients by the definition, the mask that of every frontend."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropkit
from dropkit import DropkitError, Key
from dropkit.jax import attention, attention_mask_block

KEY = Key(3, "attention", 1)


def qkv(lengths: tuple[int, ...] = (20, 30, 30), heads: tuple[int, ...] = (4, 2, 2)) -> list[jax.Array]:
    draw = np.random.default_rng(0)
    return [jnp.asarray(draw.normal(size=(2, n, h, 8)), jnp.float32) for n, h in zip(lengths, heads, strict=True)]


def by_hand(
    q: Any, k: Any, v: Any, keep: np.ndarray, scale: float = 1.0, seen: Any = True, before: bool = False
) -> Any:
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.where(seen, jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(8), -jnp.inf)
    scores = jnp.where(keep, scores, -jnp.inf) if before else scores
    weights = jax.nn.softmax(scores, -1)
    weights = weights if before else jnp.where(keep, weights * scale, 0.0)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("how", [{}, {"share": (2, 3)}, {"rows": np.array([5, 3])}], ids=str)
def test_values_and_gradients(how: dict[str, Any], before: bool) -> None:
    q, k, v = qkv()
    keep = dropkit.keep((2, 4, 20, 30), 0.25, KEY, **how)

    def ours(q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, rate=0.25, training=True, dropout_key=KEY, before_softmax=before, **how)

    def wanted(q: Any, k: Any, v: Any) -> Any:
        return by_hand(q, k, v, keep, 4 / 3, before=before)

    if before and "share" in how:
        assert np.isfinite(ours(q, k, v)).all()  # heads without a key give 0
        return
    np.testing.assert_allclose(jax.jit(ours)(q, k, v), wanted(q, k, v), rtol=2e-5, atol=2e-6)
    found, right = (jax.grad(lambda *a, f=f: (f(*a) ** 2).sum(), (0, 1, 2))(q, k, v) for f in (ours, wanted))
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_masks_and_bias() -> None:
    q, k, v = qkv((20, 20, 20))
    keep = dropkit.keep((2, 4, 20, 20), 0.5, KEY)
    how: dict[str, Any] = {"rate": 0.5, "training": True, "dropout_key": KEY}
    causal = np.tril(np.ones((20, 20), bool))
    np.testing.assert_allclose(
        attention(q, k, v, is_causal=True, **how), by_hand(q, k, v, keep, 2.0, causal), rtol=2e-5, atol=2e-6
    )
    by_mask = attention(q, k, v, mask=jnp.asarray(causal), **how)
    by_bias = attention(q, k, v, bias=jnp.where(causal, 0.0, -jnp.inf), **how)
    assert (by_mask == by_bias).all()
    nothing = attention(q, k, v, mask=jnp.zeros((1, 1, 20, 20), bool), **how)
    assert not nothing.any()


@pytest.mark.parametrize("before", [False, True])
def test_a_row_that_sees_no_key_has_no_gradient_however_it_is_told(before: bool) -> None:
    q, k, v = qkv((20, 20, 20))
    seen = np.ones((1, 1, 20, 20), bool)
    seen[..., 3, :], seen[..., 5, 7:] = False, False
    how: dict[str, Any] = {"rate": 0.5, "training": True, "dropout_key": KEY, "before_softmax": before}

    def loss(q: Any, k: Any, v: Any, bias: Any, mask: Any = None) -> Any:
        out, lse = attention(q, k, v, bias=bias, mask=mask, return_lse=True, **how)
        return (out**2).sum() + jnp.where(jnp.isinf(lse), 0, lse).sum()

    grad = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
    bias = jnp.where(seen, 0.25, -jnp.inf)
    by_mask = grad(q, k, v, jnp.full(seen.shape, 0.25), jnp.asarray(seen))
    for found, wanted in zip(grad(q, k, v, bias), by_mask, strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found, wanted)
    assert not by_mask[0][:, 3].any() and by_mask[0][:, 5].any()


def test_in_evaluation_it_is_that_of_jax() -> None:
    q, k, v = qkv()
    plain = jax.nn.dot_product_attention(q, jnp.repeat(k, 2, 2), jnp.repeat(v, 2, 2))
    np.testing.assert_allclose(attention(q, k, v, rate=0.5, training=False), plain, rtol=2e-5, atol=2e-6)


def test_steps_of_a_ring_put_together_are_the_whole() -> None:
    q, k, v = qkv((20, 30, 30))
    how: dict[str, Any] = {"rate": 0.3, "training": True, "dropout_key": KEY}
    whole = attention(q, k, v, **how)
    parts = [
        attention(
            q, k[:, n : n + 10], v[:, n : n + 10], offset=(0, 0, 0, n), global_shape=(2, 4, 20, 30), return_lse=True,
            **how,
        )
        for n in (0, 10, 20)
    ]  # fmt: skip
    total = jax.nn.logsumexp(jnp.stack([lse for _, lse in parts]), 0)
    ring = sum(jnp.exp(lse - total).transpose(0, 2, 1)[..., None] * out for out, lse in parts)
    np.testing.assert_allclose(ring, whole, rtol=2e-5, atol=2e-6)


def test_blocks_of_the_mask() -> None:
    found = attention_mask_block(0.3, KEY, shape=(2, 3, 9, 40), q=(2, 9), k=(3, 17))
    wanted = dropkit.attention_mask_block(0.3, KEY, shape=(2, 3, 9, 40), q=(2, 9), k=(3, 17))
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"key": jnp.zeros((2, 30, 3, 8)), "value": jnp.zeros((2, 30, 3, 8))}, "multiple of 3"),
        ({"value": jnp.zeros((2, 29, 2, 8))}, "do not fit"),
        ({"query": jnp.zeros((2, 20, 4))}, "batch x length"),
        ({"mask": jnp.ones((20, 31), bool)}, "broadcast"),
        ({"mask": jnp.ones((20, 30))}, "bias"),
        ({"rate": 1.5}, "1.5"),
    ],
)
def test_what_does_not_fit_is_told(bad: dict[str, Any], words: str) -> None:
    q, k, v = qkv()
    given: dict[str, Any] = {"query": q, "key": k, "value": v, "rate": 0.1} | bad
    with pytest.raises(DropkitError, match=words):
        attention(training=True, dropout_key=KEY, **given)


@pytest.mark.parametrize("how", [{}, {"share": (2,)}, {"rows": np.array([5, 3])}, {"is_causal": True}], ids=str)
def test_some_queries_at_a_time_are_the_whole(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = qkv((20, 30, 30))

    def loss(q: Any, k: Any, v: Any) -> Any:
        return (attention(q, k, v, rate=0.25, training=True, dropout_key=KEY, **how) ** 2).sum()

    wanted = jax.value_and_grad(loss, (0, 1, 2))(q, k, v)
    module = sys.modules["dropkit.jax.attention"]
    monkeypatch.setattr(module, "MANY", 1)
    monkeypatch.setattr(module, "ROWS", 8)  # and 4 are left
    found = jax.value_and_grad(lambda *given: loss(*given), (0, 1, 2))(q, k, v)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_long_sequences_keep_no_weights() -> None:
    x = jax.ShapeDtypeStruct((1, 1024, 8, 8), jnp.float32)

    def loss(x: Any) -> Any:
        return attention(x, x, x, rate=0.25, training=True, dropout_key=KEY).sum()

    memory = jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 8 * 1024 * 1024  # of one array of weights
