"""Layers by hand: gradients against finite differences, dropout's placements, backward after evaluation."""

import numpy as np
import pytest

from dropkit import DropkitError, Key, keep
from dropkit.axes.noise import Alpha
from dropkit.axes.rate import Linear
from dropkit.numpy import Dense, Dropout, Sequential, SoftmaxCrossEntropy, alpha_dropout, dropout

RNG = np.random.Generator(np.random.Philox(4))


def finite_difference(loss, array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of a scalar function with respect to each entry of an array that it reads."""
    grad = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        up = loss()
        array[index] = kept - step
        down = loss()
        array[index] = kept
        grad[index] = (up - down) / (2 * step)
    return grad


@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
def test_dense_gradients(activation: str | None, placement: str) -> None:
    drop = Dropout(0.4, seed=1, site="drop")
    layer = Dense(5, 7, activation, drop=drop, placement=placement, seed=1)
    layer.weight, layer.bias = layer.weight.astype(np.float64), RNG.normal(size=7)
    x, weights = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 7))

    def loss() -> float:
        drop.step = 0  # the same mask every time
        return float((layer.forward(x, training=True) * weights).sum())

    loss()
    grad_x = layer.backward(weights)
    grad_weight, grad_bias = layer.weight_grad, layer.bias_grad
    np.testing.assert_allclose(grad_x, finite_difference(loss, x), atol=1e-7)
    np.testing.assert_allclose(grad_weight, finite_difference(loss, layer.weight), atol=1e-7)
    np.testing.assert_allclose(grad_bias, finite_difference(loss, layer.bias), atol=1e-7)


def test_softmax_cross_entropy_gradient() -> None:
    logits, labels, loss = RNG.normal(size=(4, 6)) * 5, np.array([0, 5, 2, 2]), SoftmaxCrossEntropy()
    loss.forward(logits, labels)
    grad = loss.backward()
    np.testing.assert_allclose(grad, finite_difference(lambda: loss.forward(logits, labels), logits), atol=1e-7)
    large = SoftmaxCrossEntropy().forward(np.array([[1000.0, 0.0]]), np.array([1]))
    assert large == 1000.0


def test_network_gradient_through_two_dropouts() -> None:
    drops = [Dropout(0.3, seed=2, site=name) for name in ("a", "b")]
    net = Sequential(*(Dense(6, 6, "tanh", drop=drop, site=str(drop.key.site)) for drop in drops), Dense(6, 3))
    for layer in net.layers:
        layer.weight = layer.weight.astype(np.float64)
    x, labels, loss = RNG.normal(size=(5, 6)), np.array([0, 1, 2, 0, 1]), SoftmaxCrossEntropy()

    def forward() -> float:
        for drop in drops:
            drop.step = 0
        return loss.forward(net.forward(x, training=True), labels)

    forward()
    grad = net.backward(loss.backward())
    np.testing.assert_allclose(grad, finite_difference(forward, x), atol=1e-7)


def test_backward_is_the_forwards_mask_and_rate() -> None:
    drop = Dropout(0.5, seed=1, site="s")
    x = np.ones((4, 8), np.float32)
    y = drop.forward(x, training=True)
    drop.p = 0.9  # a rate that moves before backward changes nothing in it
    np.testing.assert_array_equal(drop.backward(x), y)
    assert drop.step == 1
    assert ((drop.forward(x, training=True) != 0) == keep(x.shape, 0.9, Key(1, "s", 1))).all()


def test_backward_after_an_evaluation_forward_is_the_identity() -> None:
    drop = Dropout(0.5, seed=1, site="s")
    x = np.ones((4, 8), np.float32)
    drop.forward(x, training=True)
    assert drop.forward(x, training=False) is x
    assert drop.backward(x) is x
    assert drop.step == 1  # evaluation does not move the clock
    layer = Dense(8, 3, "sigmoid", drop=Dropout(0.5))
    layer.forward(x, training=False)
    assert layer.backward(np.ones((4, 3), np.float32)).shape == x.shape


def test_what_a_dropped_unit_is_under_each_placement() -> None:
    x = RNG.normal(size=(50, 4)).astype(np.float32)
    values = {}
    for placement in ("post", "pre"):
        for activation in ("sigmoid", "relu", "tanh"):
            layer = Dense(4, 20, activation, drop=Dropout(0.5, seed=1), placement=placement, seed=3)
            values[placement, activation] = layer.forward(x, training=True)
    kept = keep((50, 20), 0.5, Key(1, 0, 0))
    assert (values["post", "sigmoid"][~kept] == 0).all()
    assert (values["pre", "sigmoid"][~kept] == 0.5).all()
    assert (values["pre", "tanh"][~kept] == 0).all()
    np.testing.assert_allclose(values["pre", "relu"], values["post", "relu"], rtol=1e-6)


def test_rows_and_shares() -> None:
    x = np.ones((3, 5), np.float32)
    drop = Dropout(0.5, seed=1, site="s")
    y = drop.forward(x, training=True, rows=[7, 2, 9])
    assert ((y != 0) == keep((10, 5), 0.5, Key(1, "s"))[[7, 2, 9]]).all()
    shared = Dropout(0.5, share=(0,), seed=1).forward(np.ones((3, 64)), training=True)
    assert (shared == shared[0]).all()


def test_when() -> None:
    x = np.ones((2, 50), np.float32)
    assert Dropout(0.5, when="never").forward(x, training=True) is x
    assert (Dropout(0.5, when="always").forward(x, training=False) == 0).any()


def test_initial_weights_follow_the_coordinates() -> None:
    one, same, other = Dense(4, 3, seed=1, site="a"), Dense(4, 3, seed=1, site="a"), Dense(4, 3, seed=1, site="b")
    assert (one.weight == same.weight).all()
    assert (one.weight != other.weight).all()
    assert one.weight.dtype == one.bias.dtype == np.float32
    wide = Dense(400, 300, std=0.01)
    assert abs(wide.weight.std() / 0.01 - 1) < 5 / np.sqrt(2 * 120_000)


def test_memory_order_of_the_input_is_kept() -> None:
    x = np.asfortranarray(np.ones((5, 6), np.float32))
    assert dropout(x, 0.5, training=True, key=Key()).flags.f_contiguous


def test_alpha_layer() -> None:
    drop = Dropout(0.4, seed=1, site="alpha", noise=Alpha())
    x, weights = RNG.normal(size=(6, 40)), RNG.normal(size=(6, 40))

    def loss() -> float:
        drop.step = 0
        return float((drop.forward(x, training=True) * weights).sum())

    loss()
    np.testing.assert_allclose(drop.backward(weights), finite_difference(loss, x), atol=1e-7)
    y = drop.forward(x, training=True)
    np.testing.assert_array_equal(y, alpha_dropout(x, 0.4, training=True, key=Key(1, "alpha", 1)))
    assert drop.forward(x, training=False) is x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dropout(np.ones(3), 0.5, training=True), "NumPy has no ambient generator to draw a key from"),
        (lambda: Dense(3, 2, "rellu"), "unknown activation 'rellu'; did you mean 'relu'"),
        (lambda: Dense(3, 2, placement="before"), "unknown placement 'before'"),
        (lambda: Dense(0, 2), "at least 1 input and 1 output, got 0 and 2"),
        (lambda: Dropout(2.0), r"p must lie in \[0, 1\], got 2.0"),
        (lambda: Dropout(0.5, site=1.5), "site must be an integer or a name"),
        (lambda: Dropout(0.5).backward(np.ones(3)), "Dropout.backward comes after a forward"),
        (lambda: Dense(3, 2).backward(np.ones(3)), "Dense.backward comes after a forward"),
        (lambda: SoftmaxCrossEntropy().backward(), "comes after a forward"),
        (
            lambda: SoftmaxCrossEntropy().forward(np.zeros((2, 3)), np.array([0, 3])),
            "2 class numbers below 3, got 2 of",
        ),
        (lambda: SoftmaxCrossEntropy().forward(np.zeros((2, 3)), np.array([0])), "got 1 of them from 0 to 0"),
    ],
)
def test_refusals(make: object, message: str) -> None:
    with pytest.raises(DropkitError, match=message):
        make()  # type: ignore[operator]


def test_dropout_follows_a_rate_until_another_is_assigned() -> None:
    layer = Dropout(Linear(0.5, 0.0, 2), seed=1, site="drop")
    x, seen = np.ones((4, 8), np.float32), []
    for step in range(3):
        seen.append(layer.p)
        y = layer.forward(x, training=True)
        np.testing.assert_array_equal(y, dropout(x, seen[-1], training=True, key=Key(1, "drop", step)))
        np.testing.assert_array_equal(layer.backward(x), y)
    assert seen == [0.5, 0.25, 0.0]
    layer.p = 0.9
    assert layer.p == 0.9


@pytest.mark.parametrize(
    ("asked", "threads"),
    [("1", 1), ("2", 2), ("1,4", 1), ("64", 3), ("0", 3), ("", 3), ("many", 3)],
)
def test_threads_as_told(asked: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from dropkit.numpy import ops

    monkeypatch.setattr(ops.os, "sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert ops._threads() == threads
