"""Laws with an other, soft laws and shares that make the mask, under each of JAX's transformations."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import dropkit
from dropkit import DropkitError, Key
from dropkit.axes.noise import Alpha, Soft, Zoneout
from dropkit.axes.share import Exactly
from dropkit.jax import dropout, key
from tests.conformance.own import Masked, Mixing

ROOT = Path(__file__).parents[2]
SHAPE = (6, 8)


class Wobbling(Soft):
    """y = x (1 + p z) + p."""

    source = "normal"

    def factors(self, n: Any, q: Any, xp: Any) -> tuple[Any, Any]:
        return 1 + (1 - q) * n, 1 - q


CASES: dict[str, dict[str, Any]] = {
    "alpha": {"noise": Alpha()},
    "keeping": {"noise": Zoneout()},
    "mixing": {"noise": Mixing(), "share": (1,)},
    "masked": {"noise": Masked()},
    "wobbling": {"noise": Wobbling()},
    "exactly": {"share": Exactly((-1,))},
    "exactly mixing": {"noise": Mixing(), "share": Exactly((0,))},
}
cases = pytest.mark.parametrize("how", CASES.values(), ids=CASES)


def sample(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def others(how: dict[str, Any], *shape: int) -> Any:
    return sample(*shape, seed=1) if "noise" in how and how["noise"].needs_other else None


def called(x: Any, o: Any, step: Any, rate: Any, how: dict[str, Any]) -> Any:
    return dropout(x, rate, training=True, key=key(3, "laws", step), other=o, **how)


def oracle(x: Any, o: Any, step: int, rate: float, how: dict[str, Any]) -> Any:
    return dropkit.numpy.dropout(x, rate, training=True, key=Key(3, "laws", step), other=o, **how)


near = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


@cases
def test_mapped_keys_and_rates_give_each_lane_its_own(how: dict[str, Any]) -> None:
    x, o = sample(*SHAPE), others(how, *SHAPE)
    steps, rates = jnp.arange(3), jnp.array([0.25, 0.5, 0.3])
    y = jax.jit(jax.vmap(lambda step, rate: called(x, o, step, rate, how)))(steps, rates)
    for lane, (step, rate) in enumerate(zip(range(3), (0.25, 0.5, 0.3), strict=True)):
        near(y[lane], oracle(x, o, step, rate, how))


@cases
def test_lanes_of_x_share_one_mask_and_the_gradient_of_the_other_sums_over_them(how: dict[str, Any]) -> None:
    x, o = sample(3, *SHAPE), others(how, *SHAPE)
    lanes = jax.vmap(lambda x, o: called(x, o, 0, 0.3, how), (0, None))
    near(lanes(x, o), np.stack([oracle(each, o, 0, 0.3, how) for each in x]))
    if o is not None:
        _, back = jax.vjp(lambda o: lanes(x, o), jnp.asarray(o))
        _, one = jax.vjp(lambda o: called(x[0], o, 0, 0.3, how), jnp.asarray(o))
        near(back(jnp.ones((3, *SHAPE)))[0], 3 * one(jnp.ones(SHAPE))[0])


@cases
def test_forward_and_reverse_derivatives_are_each_others_transposes(how: dict[str, Any]) -> None:
    x, o = sample(*SHAPE), others(how, *SHAPE)
    given = (x,) if o is None else (x, o)

    def function(x: Any, o: Any = None) -> Any:
        return called(x, o, 0, 0.3, how)

    tangents = tuple(sample(*SHAPE, seed=2 + i) for i in range(len(given)))
    dy = sample(*SHAPE, seed=7)
    _, tangent = jax.jvp(function, given, tangents)
    _, back = jax.vjp(function, *given)
    near((tangent * dy).sum(), sum((a * b).sum() for a, b in zip(back(dy), tangents, strict=True)), rtol=1e-4)


@cases
def test_neither_x_nor_a_mask_is_kept_for_backward(how: dict[str, Any]) -> None:
    x, o = jnp.asarray(sample(64, 64)), others(how, 64, 64)
    given = (x,) if o is None else (x, jnp.asarray(o))

    def grads(step: Any, rate: Any) -> Any:
        return jax.vjp(lambda x, o=None: called(x, o, step, rate, how), *given)[1]

    kept = jax.eval_shape(grads, 0, jnp.float32(0.3))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)) < 200


@cases
def test_scan_and_checkpoint(how: dict[str, Any]) -> None:
    x, o = sample(*SHAPE), others(how, *SHAPE)

    @jax.jit
    @jax.grad
    def slope(x: Any) -> Any:
        def body(x: Any, step: Any) -> Any:
            y = jax.checkpoint(lambda x: called(x, o, step, 0.3, how))(x)
            return jnp.where(jnp.isfinite(y), y, 0), None

        return jax.lax.scan(body, x, jnp.arange(2))[0].sum()

    def twice(x: Any) -> Any:
        for step in range(2):
            y = called(x, o, step, 0.3, how)
            x = jnp.where(jnp.isfinite(y), y, 0)
        return x.sum()

    near(slope(x), jax.grad(twice)(jnp.asarray(x)))


@cases
def test_a_rate_that_is_none_gives_nan_and_another_rate_compiles_nothing(how: dict[str, Any]) -> None:
    x, o = sample(*SHAPE), others(how, *SHAPE)
    function = jax.jit(lambda rate: called(x, o, 0, rate, how))
    for rate in (0.3, 0.5):
        near(function(rate), oracle(x, o, 0, rate, how))
    near(function(0.0), called(x, o, 0, jnp.zeros(()), how))
    for rate in (-0.5, 1.5, float("nan")):
        assert np.isnan(function(rate)).all(), rate
    assert function._cache_size() == 1


def test_where_no_noise_is_on_the_law_says_what_is_done_and_no_key_is_needed() -> None:
    x, o = jnp.asarray(sample(*SHAPE)), jnp.asarray(sample(*SHAPE, seed=1))
    off = jax.jit(lambda x, o, rate: dropout(x, rate, training=False, noise=Zoneout(), other=o))
    near(off(x, o, 0.25), 0.75 * x + 0.25 * o)
    near(jax.grad(lambda o: off(x, o, 0.25).sum())(o), 0.25)
    assert dropout(x, 0.25, training=False, noise=Alpha()) is x
    assert np.isnan(off(x, o, 1.5)).all()


def test_an_other_broadcasts_and_may_be_of_another_type() -> None:
    x, o = jnp.asarray(sample(*SHAPE), jnp.bfloat16), sample(8, seed=1)
    y = called(x, o, 0, 0.3, {"noise": Mixing()})
    wide = oracle(np.asarray(x, np.float32), np.broadcast_to(o, SHAPE), 0, 0.3, {"noise": Mixing()})
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jnp.asarray(wide, jnp.bfloat16))  # rounded once
    grad = jax.grad(lambda o: called(x, o, 0, 0.3, {"noise": Mixing()}).astype(jnp.float32).sum())(jnp.asarray(o))
    assert grad.shape == (8,) and grad.dtype == jnp.float32


def test_a_dropped_nan_or_infinity_is_dropped() -> None:
    x, o = jnp.full(64, jnp.nan), jnp.full(64, jnp.inf)
    kept = dropkit.keep((64,), 0.3, Key(3, "laws", 0))
    y = called(x, jnp.ones(64), 0, 0.3, {"noise": Zoneout()})
    np.testing.assert_array_equal(np.isnan(y), kept)
    y = called(jnp.ones(64), o, 0, 0.3, {"noise": Zoneout()})  # b is 0, and 0 times infinity is none of it
    np.testing.assert_array_equal(y, np.where(kept, 1, np.inf))


def test_traced_offsets_where_the_share_does_not_look() -> None:
    x, share = sample(12, 8), Exactly((-1,))
    whole = dropkit.numpy.dropout(x, 0.3, training=True, key=Key(1), share=share)

    def shard(x: Any, start: Any, axis: int) -> Any:
        offset = [0, 0]
        offset[axis] = start
        return dropout(x, 0.3, training=True, key=Key(1), share=share, offset=offset, global_shape=(12, 8))

    found = jax.jit(partial(shard, axis=0))(x[4:7], 4)
    near(found, whole[4:7])
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    cut = PartitionSpec("data")
    by_hand = jax.shard_map(
        lambda x: shard(x, jax.lax.axis_index("data") * x.shape[0], 0), mesh=mesh, in_specs=cut, out_specs=cut
    )
    near(by_hand(x), whole)
    with pytest.raises(DropkitError, match=r"needs an offset that is an int there, got .*; cut other"):
        jax.jit(partial(shard, axis=1))(x[:, 2:5], 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"noise": Zoneout()}, "needs a second tensor; pass other="),
        ({"other": jnp.ones(3)}, "takes no second tensor; leave out other="),
        ({"noise": Zoneout(), "other": jnp.ones(5)}, r"other of shape \(5,\) does not broadcast to shape \(2, 3\)"),
        ({"noise": Zoneout(), "other": jnp.ones(3) * 1j}, "other must be a real array, got complex64"),
        ({"noise": Wobbling(), "share": Exactly((0,))}, "has no mask for share"),
        ({"rate": jnp.full((2, 3), 0.5), "share": Exactly((0,))}, "takes one rate"),
        ({"share": "time"}, "share must be a sequence of axis numbers"),
        ({"noise": Alpha}, "noise must be a value of dropkit.axes.noise"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any], message: str) -> None:
    given = {"rate": 0.5, "training": True, "key": Key(1)} | wrong
    with pytest.raises(DropkitError, match=message):
        dropout(jnp.ones((2, 3)), **given)


@pytest.mark.slow
def test_arrays_cut_over_eight_devices() -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    command = [sys.executable, "-m", "tests.jax_frontend.sharded_laws"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 2 * len(CASES)
    assert [one for one in found if not (one["same"] and one["cut"] and one["slope"])] == []
    assert [one for one in found if one["collectives"] and "exactly" not in one["name"]] == []
