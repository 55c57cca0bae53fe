"""dropkit's layers for flax.nnx against flax's own: values, arguments, and the rate as state."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dropkit
import dropkit.jax
from dropkit import Key
from dropkit.axes.noise import Gaussian
from dropkit.axes.share import Block
from dropkit.jax.nnx import (
    AlphaDropout,
    DropBlock2D,
    Dropout,
    DropPath,
    GaussianDropout,
    Rate,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
    Zoneout,
)

NAN, INF = float("nan"), float("inf")
X = jnp.ones((16, 32))
DROP = Key(1, "drop")


def kept(y: jax.Array) -> np.ndarray:
    return np.asarray(y) != 0


def traces(function: Any) -> tuple[Any, list[int]]:
    """A jitted function and the list that grows with each of its traces."""
    seen: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(1)
        return function(*args, **kwargs)

    return nnx.jit(counted), seen


# ---------------------------------------------------------------------------------------------------------------------
# values


def test_kept_values_and_mean() -> None:
    x = jax.random.normal(jax.random.key(0), (1_000_000,)) + 3
    for rate in (0.1, 0.25, 0.5, 0.9):
        y = Dropout(rate, rngs=nnx.Rngs(dropout=1))(x)
        t = dropkit.mask.threshold(rate)
        np.testing.assert_array_equal(y[kept(y)], np.asarray(x)[kept(y)] * np.float32(65536 / t))
        q = t / 65536
        error = np.sqrt(q * (1 - q) / x.size)
        assert abs(kept(y).mean() - q) < 5 * error  # 5 standard errors; the key is fixed
        assert abs(float(y.mean()) / float(x.mean()) - 1) < 5 * error / q * 1.1


def test_rate_0_and_deterministic_return_the_same_array() -> None:
    assert Dropout(0.0)(X) is X
    assert Dropout(0.0, rngs=nnx.Rngs(0))(X) is X
    assert Dropout(0.5, deterministic=True)(X) is X
    assert Dropout(0.5)(X, deterministic=True) is X


@pytest.mark.parametrize("jitted", [False, True])
def test_rate_1_gives_zeros_and_a_zero_gradient(jitted: bool) -> None:
    layer = Dropout(1.0, rngs=nnx.Rngs(0))

    def total(layer: Dropout, x: jax.Array) -> jax.Array:
        return layer(x).sum()

    gradient = nnx.grad(total, argnums=1)
    value, slope = (nnx.jit(total), nnx.jit(gradient)) if jitted else (total, gradient)
    assert value(layer, X) == 0
    assert not slope(layer, X).any()
    assert not Dropout(1.0)(X).any()  # no random numbers, so no rngs, as in flax


def test_dropped_nan_is_zero_and_so_is_its_gradient() -> None:
    x = jnp.array([NAN, INF, -INF, 1.0] * 64)
    layer = Dropout(0.5, rngs=DROP)
    mask = dropkit.keep(x.shape, 0.5, DROP)
    y = np.asarray(layer(x))
    assert (y[~mask] == 0).all()
    assert not np.isfinite(y[mask & ~np.isfinite(np.asarray(x))]).any()
    _, pull = jax.vjp(lambda x: layer(x, rngs=DROP), jnp.ones(256))
    slope = np.asarray(pull(x)[0])
    assert (slope[~mask] == 0).all()
    assert np.isnan(slope[mask]).any()


def test_gradient_has_the_mask_of_the_forward() -> None:
    layer = Dropout(0.3, rngs=nnx.Rngs(dropout=2))
    y, pull = jax.vjp(lambda x: layer(x, rngs=jax.random.key(5)), X)
    np.testing.assert_array_equal(pull(X)[0], y)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_keeps_dtype_and_mask(dtype: Any) -> None:
    y = Dropout(0.5, rngs=DROP)(X.astype(dtype))
    assert y.dtype == dtype
    np.testing.assert_array_equal(kept(y), dropkit.keep(X.shape, 0.5, DROP))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 4), (1,), (2, 3, 4, 5, 6)])
def test_keeps_shape(shape: tuple[int, ...]) -> None:
    assert Dropout(0.5, rngs=nnx.Rngs(0))(jnp.ones(shape)).shape == shape


def test_rows_name_the_samples() -> None:
    rows = jnp.array([7, 3, 11, 0])
    y = Dropout(0.5, rngs=DROP)(X[:4], rows=rows)
    np.testing.assert_array_equal(kept(y), dropkit.keep((4, 32), 0.5, DROP, rows=np.asarray(rows)))


def test_presets() -> None:
    for layer, shape, share in (
        (SpatialDropout1D, (4, 6, 8), (1,)),
        (SpatialDropout2D, (4, 3, 5, 8), (1, 2)),
        (SpatialDropout3D, (4, 3, 5, 2, 8), (1, 2, 3)),
        (DropPath, (4, 3, 8), (1, 2)),
        (DropPath, (9,), ()),
    ):
        y = layer(0.5, rngs=DROP)(jnp.ones(shape))
        np.testing.assert_array_equal(kept(y), np.broadcast_to(dropkit.keep(shape, 0.5, DROP, share=share), shape))
    alpha = AlphaDropout(0.2, rngs=nnx.Rngs(0))(jax.random.normal(jax.random.key(1), (1_000_000,)))
    assert abs(float(alpha.mean())) < 0.01
    assert abs(float(alpha.std()) - 1) < 0.01
    assert isinstance(AlphaDropout(0.5), nnx.Dropout)


def test_published_presets_are_a_dropout_of_their_law_and_share() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 7, 9, 3))
    y = DropBlock2D(0.3, 3, rngs=DROP)(x)
    np.testing.assert_array_equal(y, Dropout(0.3, share=Block(3, (-3, -2)), rngs=DROP)(x))
    np.testing.assert_array_equal(GaussianDropout(0.3, rngs=DROP)(x), Dropout(0.3, noise=Gaussian(), rngs=DROP)(x))
    mask = dropkit.keep(x.shape, 0.25, DROP)
    np.testing.assert_array_equal(Zoneout(0.25, rngs=DROP)(x, 2 * x), np.where(mask, x, 2 * x))
    np.testing.assert_allclose(Zoneout(0.25, deterministic=True)(x, 2 * x), 1.25 * x, rtol=1e-6)
    for layer in (DropBlock2D(0.3, 3), GaussianDropout(0.3), DropPath(0.3)):
        assert layer(x, deterministic=True) is x
    moved = DropPath(0.3, rngs=DROP)
    moved.rate = 0.5
    run = nnx.jit(lambda layer, x: layer(x))
    np.testing.assert_array_equal(
        kept(run(moved, x)), np.broadcast_to(dropkit.keep(x.shape, 0.5, DROP, share=(1, 2, 3)), x.shape)
    )


# ---------------------------------------------------------------------------------------------------------------------
# arguments


@pytest.mark.parametrize("dims", [(0,), (1,), (-1,), (0, 2), (-1, -2), (0, 1, 2)])
def test_broadcast_dims_share_the_mask(dims: tuple[int, ...]) -> None:
    x = jnp.ones((4, 6, 8))
    y = Dropout(0.5, broadcast_dims=dims, rngs=DROP)(x)
    same = Dropout(0.5, share=dims, rngs=DROP)(x)
    np.testing.assert_array_equal(y, same)
    np.testing.assert_array_equal(kept(y), np.broadcast_to(dropkit.keep(x.shape, 0.5, DROP, share=dims), x.shape))
    for dim in dims:
        assert (np.asarray(y) == np.asarray(y).take([0], dim)).all()


def test_kinds_of_rngs() -> None:
    layer = Dropout(0.5)
    raw, typed = jax.random.PRNGKey(7), jax.random.key(7)
    np.testing.assert_array_equal(layer(X, rngs=raw), layer(X, rngs=typed))
    np.testing.assert_array_equal(kept(layer(X, rngs=typed)), dropkit.keep(X.shape, 0.5, Key(7)))
    stream = nnx.Rngs(dropout=3).dropout
    np.testing.assert_array_equal(layer(X, rngs=stream), layer(X, rngs=nnx.Rngs(dropout=3)))
    assert stream.count[...] == 1
    np.testing.assert_array_equal(Dropout(0.5, rngs=nnx.Rngs(dropout=3).dropout)(X), Dropout(0.5, rngs=nnx.Rngs(3))(X))
    np.testing.assert_array_equal(kept(layer(X, rngs=DROP)), dropkit.keep(X.shape, 0.5, DROP))
    np.testing.assert_array_equal(layer(X, rngs=dropkit.jax.key(1, "drop", jnp.uint32(0))), layer(X, rngs=DROP))
    for bad in (7, "key", np.ones(2, np.uint32)):
        with pytest.raises(TypeError, match=r"rngs must be a Rngs, RngStream or jax\.Array, but got <class"):
            layer(X, rngs=bad)
    for bad in (7, jax.random.key(0)):
        with pytest.raises(TypeError, match="rngs must be a Rngs, RngStream or None, but got"):
            Dropout(0.5, rngs=bad)


def test_rng_collection() -> None:
    rngs = nnx.Rngs(noise=0, dropout=1)
    layer = Dropout(0.5, rng_collection="noise", rngs=rngs)
    assert layer.rngs.tag == "noise"
    layer = Dropout(0.5, rng_collection="noise")
    np.testing.assert_array_equal(layer(X, rngs=nnx.Rngs(noise=4, dropout=5)), layer(X, rngs=nnx.Rngs(noise=4)))
    with pytest.raises(KeyError, match="No RngStream named 'noise'"):
        layer(X, rngs=nnx.Rngs(dropout=5))


def test_deterministic_must_be_said() -> None:
    layer = Dropout(0.5, deterministic=None, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="No `deterministic` argument was provided to Dropout"):
        layer(X)
    assert layer(X, deterministic=True) is X
    assert not kept(layer(X, deterministic=False)).all()


def test_rngs_must_be_given() -> None:
    with pytest.raises(
        ValueError,
        match=r"`deterministic` is False, but no `rngs` argument was provided to Dropout.*dropkit\.jax\.bind",
    ):
        Dropout(0.5)(X)


def test_rate_0_under_jit_needs_no_rngs() -> None:
    call = nnx.jit(lambda layer, x: layer(x))
    for make in (nnx.Dropout, Dropout):
        assert (call(make(0.0), X) == X).all()
    moving = Dropout(0.5)
    moving.rate = 0.0  # and may be another next time
    with pytest.raises(ValueError, match="no `rngs` argument was provided"):
        call(moving, X)


def test_streams_move_at_every_training_call() -> None:
    """Otherwise a rate that passes 0 would leave other masks behind when compiled than when not."""
    flax, ours = nnx.Dropout(0.0, rngs=nnx.Rngs(0)), Dropout(0.0, rngs=nnx.Rngs(0))
    flax(X), ours(X)
    assert (flax.rngs.count[...], ours.rngs.count[...]) == (0, 1)


@pytest.mark.parametrize("bad", [1.5, -0.5, NAN, jnp.float32(2), np.array([0.5, 1.5])])
def test_rates_are_checked(bad: Any) -> None:
    nnx.Dropout(bad)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got"):
        Dropout(bad)
    layer = Dropout(0.5)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got"):
        layer.rate = bad
    assert layer.rate == 0.5
    layer.rate = np.array([0.5, 0.25])
    np.testing.assert_array_equal(layer.rate, [0.5, 0.25])


def test_rates_of_another_type() -> None:
    for bad in ("0.5", None, [0.5, "x"]):
        with pytest.raises(TypeError):
            nnx.Dropout(bad)(X, rngs=jax.random.key(0))
        with pytest.raises(TypeError, match="dropout probability must be a number, but got"):
            Dropout(bad)


def test_integers_are_refused() -> None:
    for make in (nnx.Dropout, Dropout):
        with pytest.raises(TypeError):
            make(0.5, rngs=nnx.Rngs(0))(jnp.ones((3, 4), jnp.int32))
    with pytest.raises(TypeError, match=r"but x is int32"):
        Dropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((3, 4), jnp.int32))


@pytest.mark.parametrize("make", [nnx.Dropout, Dropout])
def test_at_rate_0_the_very_array_comes_back_whatever_its_type(make: Any) -> None:
    x = jnp.ones((3, 4), jnp.int32)
    assert make(0, rngs=nnx.Rngs(0))(x) is x


def test_bad_axes_and_when() -> None:
    with pytest.raises(ValueError, match="share names an axis twice"):
        Dropout(0.5, share=(1, 1))
    with pytest.raises(ValueError, match="when must be one of train, always, never; got 'often'"):
        Dropout(0.5, when="often")
    with pytest.raises(ValueError, match="axis"):
        Dropout(0.5, broadcast_dims=(5,), rngs=nnx.Rngs(0))(X)


def test_when() -> None:
    always, never = Dropout(0.5, when="always", rngs=DROP), Dropout(0.5, when="never", rngs=DROP)
    assert not kept(always(X, deterministic=True)).all()
    assert never(X, deterministic=False) is X
    model = nnx.Sequential(always, never)
    model.eval()
    np.testing.assert_array_equal(kept(model(X)), dropkit.keep(X.shape, 0.5, Key(1, "drop", 1)))


def test_flax_tools_find_it() -> None:
    model = nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), Dropout(0.5, rngs=nnx.Rngs(0)))
    assert isinstance(model.layers[1], nnx.Dropout)
    model.set_attributes(nnx.Dropout, deterministic=True)
    assert model.layers[1].deterministic is True
    model.train()
    assert model.layers[1].deterministic is False
    view = nnx.view(model, only=nnx.Dropout, deterministic=True)
    assert (view.layers[1].deterministic, model.layers[1].deterministic) == (True, False)


# ---------------------------------------------------------------------------------------------------------------------
# the rate as state


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.123457, 1 / 3, 0.5 + 2**-17, 1e-7])
def test_rates_mean_what_numpy_takes_them_for(rate: float) -> None:
    layer = Dropout(rate)
    assert layer.rate == rate
    layer.rate = rate
    assert dropkit.mask.threshold(float(layer.p[...])) == dropkit.mask.threshold(rate)
    assert layer.rate == pytest.approx(rate, abs=2**-17)
    assert Dropout(0.1).rate == 0.1


def test_another_rate_does_not_retrace() -> None:
    layer = Dropout(0.1, rngs=DROP)
    call, seen = traces(lambda layer, x: layer(x))
    for step, rate in enumerate((0.1, 0.1, 0.5, 1.0, 0.0, 0.123)):
        layer.rate = rate
        np.testing.assert_array_equal(kept(call(layer, X)), dropkit.keep(X.shape, rate, Key(1, "drop", step)))
    assert len(seen) == 1
    flax = nnx.Dropout(0.1, rngs=nnx.Rngs(0))
    call, seen = traces(lambda layer, x: layer(x))
    for rate in (0.1, 0.1, 0.5):
        flax.rate = rate
        call(flax, X)
    assert len(seen) == 2


def test_rate_may_be_traced_or_assigned_in_a_trace() -> None:
    made = jax.jit(lambda rate, x: Dropout(rate)(x, rngs=jax.random.key(7)))
    np.testing.assert_array_equal(kept(made(0.25, X)), dropkit.keep(X.shape, 0.25, Key(7)))
    assert np.isnan(made(1.5, X)).all()  # nothing can be raised there
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jax.jit(lambda rate, x: nnx.Dropout(rate)(x, rngs=jax.random.key(7)))(0.25, X)

    @nnx.jit
    def halve(layer: Dropout) -> None:
        layer.rate = layer.rate / 2

    layer = Dropout(0.5)
    halve(layer)
    assert layer.rate == 0.25


def test_rate_may_be_a_variable_that_layers_share() -> None:
    rate = Rate(jnp.float32(0.5))
    model = nnx.List([Dropout(rate, rngs=DROP), Dropout(rate, rngs=Key(1, "two"))])
    rate[...] = jnp.float32(0.25)
    call, seen = traces(lambda model, x: [layer(x) for layer in model])
    for step in range(2):
        for y, site in zip(call(model, X), ("drop", "two"), strict=True):
            np.testing.assert_array_equal(kept(y), dropkit.keep(X.shape, float(rate[...]), Key(1, site, step)))
        model[0].rate = 0.75
    assert rate[...] == 0.75
    assert len(seen) == 1


def test_rates_of_channels() -> None:
    rates = np.linspace(0, 1, 32, dtype=np.float32)
    with pytest.raises(ValueError, match="truth value of an array"):
        nnx.Dropout(rates, rngs=nnx.Rngs(0))(X)
    y = Dropout(rates, rngs=DROP)(X)
    np.testing.assert_array_equal(kept(y), dropkit.keep(X.shape, rates, DROP))


def test_gradients_of_parameters_alone_are_taken() -> None:
    model = nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), Dropout(0.5, rngs=nnx.Rngs(0)))
    gradient = nnx.grad(lambda model, x: model(x).sum())(model, jnp.ones((2, 4)))
    assert [path for path, _ in nnx.to_flat_state(gradient)] == [("layers", 0, "bias"), ("layers", 0, "kernel")]


def test_a_rate_compiles_once_when_it_starts_to_move_and_then_no_more() -> None:
    layer = Dropout(0.1, rngs=DROP)
    call, seen = traces(lambda layer, x: layer(x))
    for step, rate in enumerate((None, None, 0.5, 0.3, 1.0, 0.0)):
        if rate is not None:
            layer.rate = rate
        mask = dropkit.keep(X.shape, 0.1 if rate is None else rate, Key(1, "drop", step))
        np.testing.assert_array_equal(kept(call(layer, X)), mask)
    assert len(seen) == 2


@pytest.mark.parametrize("kind", [Dropout, AlphaDropout, SpatialDropout1D])
@pytest.mark.parametrize("rate", [0.1, 0, jnp.float32(0.5), np.full(32, 0.5)], ids=["0.1", "0", "array", "channels"])
def test_state_of_a_layer_is_that_of_flax(kind: Any, rate: Any) -> None:
    def state(layer: nnx.Dropout) -> Any:
        return jax.tree.structure(nnx.to_pure_dict(nnx.state(layer)))

    layer = kind(rate, rngs=nnx.Rngs(0))
    assert state(layer) == state(nnx.Dropout(0.1, rngs=nnx.Rngs(0)))
    nnx.split(layer, nnx.RngState)  # all of it
    layer.rate = 0.25
    assert {type(variable) for _, variable in nnx.to_flat_state(nnx.state(layer))} == {Rate, nnx.RngKey, nnx.RngCount}


def test_state_of_another_model_leaves_the_rate_alone() -> None:
    """F3: a checkpoint, whoever wrote it, does not override the rate that the code says."""
    moving = Dropout(0.1, rngs=nnx.Rngs(0))
    moving.rate = 0.2
    for other in (Dropout(0.1, rngs=nnx.Rngs(0)), nnx.Dropout(0.1, rngs=nnx.Rngs(0)), moving):
        layer = Dropout(0.3, rngs=nnx.Rngs(5))
        nnx.update(layer, nnx.state(other))
        assert layer.rate == 0.3
        assert layer.rngs.key[...] == other.rngs.key[...]
        assert "p" not in nnx.state(layer)


class Net(nnx.Module):
    def __init__(self, rate: float, kind: Any = Dropout):
        self.linear, self.drop = nnx.Linear(4, 4, rngs=nnx.Rngs(0)), kind(rate, rngs=nnx.Rngs(1))


@pytest.mark.parametrize("kind", [Dropout, nnx.Dropout])
def test_checkpoints_of_either_class_restore(kind: Any, tmp_path: Any) -> None:
    """F3, F4: by orbax, whose trees must match."""
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as files:
        saved = Net(0.1, kind)
        saved.drop(jnp.ones(4))
        files.save(tmp_path / "one", nnx.state(saved))
        files.wait_until_finished()
        net = Net(0.3)
        nnx.update(net, files.restore(tmp_path / "one", nnx.state(net)))
    assert net.drop.rate == 0.3
    assert net.drop.rngs.count[...] == saved.drop.rngs.count[...] == 1


def test_checkpoints_with_a_rate_in_them_restore_by_their_leaves(tmp_path: Any) -> None:
    """Those of dropkit before rates were constants, and those of rates that moved: as the page says."""
    orbax = pytest.importorskip("orbax.checkpoint")
    with orbax.StandardCheckpointer() as files:
        saved = Net(0.1)
        saved.drop.rate = 0.2
        files.save(tmp_path / "one", nnx.state(saved))
        files.wait_until_finished()
        net = Net(0.3)
        wanted = nnx.state(net)
        wanted["drop"]["p"] = Rate(jnp.float32(0))
        nnx.update(net, files.restore(tmp_path / "one", wanted))
    assert net.drop.rate == 0.3
    assert net.drop.rngs.key[...] == saved.drop.rngs.key[...]


def test_flaxs_linen_bridge_takes_it() -> None:
    """F7, also for a rate that moves."""

    class Linen(nnx.bridge.Module):
        def setup(self) -> None:
            self.drop = Dropout(0.5)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.drop(x, rngs=jax.random.key(0))

    class Inner(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.drop = Dropout(0.5, rngs=rngs)
            self.moving = Dropout(Rate(jnp.float32(0.5)), rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.moving(self.drop(x))

    linen = Linen()
    y = linen.apply(linen.init(jax.random.key(0), X), X)
    np.testing.assert_array_equal(kept(y), dropkit.keep(X.shape, 0.5, Key(0)))
    wrapped = nnx.bridge.ToLinen(Inner)
    variables = wrapped.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, X)
    y = wrapped.apply(variables, X, rngs={"dropout": jax.random.key(2)})
    assert 0.6 < (~kept(y)).mean() < 0.9


def test_tabulate_shows_what_it_shows_of_flax() -> None:
    columns = [
        nnx.tabulate(nnx.Sequential(nnx.Linear(32, 32, rngs=nnx.Rngs(0)), kind(0.5, rngs=nnx.Rngs(0))), X)
        for kind in (nnx.Dropout, Dropout)
    ]
    assert columns[0] == columns[1]


def test_the_former_module_has_the_same_classes() -> None:
    from dropkit.jax import layers, nnx

    public = {name for name in vars(layers) if not name.startswith("__")}
    assert {"Dropout", "AlphaDropout", "KeyedStream", "Rate", "Rates"} < public
    assert all(getattr(layers, name) is getattr(nnx, name) for name in public)
