"""Layers of flax.nnx, flax.linen and Equinox take any noise and share, and the second array in the call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dropkit
from dropkit import DropkitError, Key
from dropkit.axes.noise import Alpha, Zoneout
from dropkit.axes.share import Exactly
from dropkit.jax import bind, dropout, equinox, linen
from dropkit.jax import nnx as ours

from .test_laws import Wobbling, sample

X, OTHER, DROP = sample(6, 8), sample(6, 8, seed=1), Key(1, "drop")
KINDS: dict[str, Any] = {"nnx": ours.Dropout, "linen": linen.Dropout, "equinox": equinox.Dropout}
kinds = pytest.mark.parametrize("kind", KINDS)


def run(kind: str, training: bool, *tensors: Any, rate: Any = 0.3, key: Any = DROP, **how: Any) -> Any:
    layer = KINDS[kind](rate, **how)
    if kind == "nnx":
        return layer(*tensors, deterministic=not training, rngs=key)
    if kind == "linen":
        other = tensors[1] if len(tensors) > 1 else None
        return layer.apply({}, tensors[0], not training, rng=key, other=other)
    return layer(*tensors, inference=not training, key=key)


@kinds
def test_noise_share_and_other(kind: str) -> None:
    wanted = dropkit.numpy.dropout(X, 0.3, training=True, key=DROP, noise=Zoneout(), share=Exactly((-1,)), other=OTHER)
    np.testing.assert_allclose(run(kind, True, X, OTHER, noise=Zoneout(), share=Exactly((-1,))), wanted, rtol=1e-6)


@kinds
def test_at_evaluation_the_law_says_what_is_done(kind: str) -> None:
    q = 45875 / 65536
    np.testing.assert_allclose(
        run(kind, False, X, OTHER, noise=Zoneout()), q * X + (1 - q) * OTHER, rtol=1e-5, atol=1e-6
    )
    always = run(kind, False, X, OTHER, noise=Zoneout(), when="always")
    np.testing.assert_array_equal(always, run(kind, True, X, OTHER, noise=Zoneout()))
    assert run(kind, False, X) is X
    with pytest.raises(DropkitError, match="needs a second tensor"):
        run(kind, False, X, noise=Zoneout())
    with pytest.raises(DropkitError, match="takes no second tensor"):
        run(kind, False, X, OTHER)


@kinds
def test_axes_are_checked_by_the_constructor(kind: str) -> None:
    for wrong, message in (
        ({"noise": "alpha"}, "noise must be a value of dropkit.axes.noise, got 'alpha'"),
        ({"share": "time"}, "share must be a sequence of axis numbers"),
        ({"share": (1, 1)}, "share names an axis twice"),
        ({"when": "sometimes"}, "when must be one of train, always, never"),
    ):
        with pytest.raises(DropkitError, match=message):
            KINDS[kind](0.5, **wrong)


@kinds
def test_a_soft_law_at_rate_1_draws_numbers(kind: str) -> None:
    wanted = dropout(X, 1.0, training=True, key=DROP, noise=Wobbling())
    np.testing.assert_array_equal(run(kind, True, X, rate=1.0, noise=Wobbling()), wanted)
    with pytest.raises(Exception, match=r"(?i)rng|key"):
        run(kind, True, X, rate=1.0, noise=Wobbling(), key=None)


def test_further_axes_beside_a_share() -> None:
    layer = ours.Dropout(0.3, broadcast_dims=(1,), share=(1, 0), rngs=DROP)
    assert len(set(np.asarray(layer(jnp.ones((6, 8)))).flat)) == 1
    for make in (ours.SpatialDropout1D, lambda p, **how: linen.Dropout(p, broadcast_dims=(1,), **how)):
        with pytest.raises(DropkitError, match=r"cannot share the axes .* besides"):
            make(0.5, share=Exactly((-1,)))


def test_presets_keep_their_noise_and_may_be_given_another() -> None:
    for preset in (ours.AlphaDropout, linen.AlphaDropout, equinox.AlphaDropout):
        assert preset(0.5).noise == Alpha()
        assert isinstance(preset(0.5, noise=Zoneout()).noise, Zoneout)


def test_a_bound_nnx_model_draws_any_noise_by_path_and_step() -> None:
    model = bind(nnx.Sequential(ours.Dropout(0.3, noise=Wobbling())), seed=1)
    for step in range(2):
        wanted = dropkit.numpy.dropout(X, 0.3, training=True, key=Key(1, "layers.0", step), noise=Wobbling())
        np.testing.assert_allclose(nnx.jit(lambda model, x: model(x))(model, X), wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("share", [(), (0,), (-1,), Exactly((0,)), Exactly((-2,)), Exactly((0, 1))], ids=repr)
def test_a_sample_of_a_bound_equinox_model_has_its_slice_of_the_batch(share: Any) -> None:
    x = sample(3, 4, 8)
    model = equinox.with_step(bind(equinox.Dropout(0.3, noise=Zoneout(), share=share), seed=1), 7)
    y = jax.vmap(model, axis_name="batch")(x, -x)
    axes = tuple(axis + 1 if axis >= 0 else axis for axis in getattr(share, "over", share))
    moved: Any = Exactly(axes) if isinstance(share, Exactly) else axes
    wanted = dropkit.numpy.dropout(x, 0.3, training=True, key=Key(1, "", 7), noise=Zoneout(), share=moved, other=-x)
    np.testing.assert_allclose(y, wanted, rtol=1e-6)
