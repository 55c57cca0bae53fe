"""What docs/tutorial-numpy-layer.md says of the tutorial's layer and loop: each mistake, shown by running."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import dropkit
import dropkit.numpy
from dropkit.axes.rate import Step
from dropkit.lab import load_data
from dropkit.lab.recipes import get
from dropkit.numpy import Dense, SoftmaxCrossEntropy

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial-numpy-layer.md").read_text()
DATA = load_data("digits")


def sigmoid(x: NDArray, deriv: bool = False) -> NDArray:
    """The function that the tutorial leaves out; it asks for the derivative with the output as its argument."""
    return x * (1 - x) if deriv else 1 / (1 + np.exp(-x))


class Layer:
    """The tutorial's layer: a mask, divided by 1 - ratio, in front of the activation."""

    def __init__(self, inputs: int, outputs: int, generator: np.random.Generator, dropout_ratio: float = 0.5) -> None:
        self.W = generator.normal(0, inputs**-0.5, (inputs, outputs))
        self.b = np.zeros(outputs)
        self.activation: Callable[..., NDArray] = sigmoid
        self.dropout_ratio, self.generator, self.mask = dropout_ratio, generator, None

    def forward(self, x: NDArray, is_train: bool = True) -> NDArray:
        self.x = x
        u = x @ self.W + self.b
        if is_train:
            self.mask: Any = self.generator.random(u.shape) > self.dropout_ratio
            u = u * self.mask / (1 - self.dropout_ratio)
        self.z = self.activation(u)
        return self.z

    def backward(self, dout: NDArray) -> NDArray:
        du = self.activation(self.z, deriv=True) * dout
        du = du * self.mask / (1 - self.dropout_ratio)
        self.dW, self.db = self.x.T @ du, du.sum(0)
        return du @ self.W.T


class Network:
    """What the tutorial leaves open: one such layer and an output. The ratio is handed to the layer, once."""

    def __init__(self, seed: int, dropout_ratio: float = 0.5) -> None:
        generator = np.random.default_rng(seed)
        self.dropout_ratio = dropout_ratio
        self.hidden = Layer(64, 32, generator, dropout_ratio)
        self.output = Dense(32, 10, seed=seed)
        self.loss = SoftmaxCrossEntropy()

    def step(self, x: NDArray, y: NDArray) -> None:
        self.loss.forward(self.output.forward(self.hidden.forward(x, is_train=True), training=True), y)
        self.hidden.backward(self.output.backward(self.loss.backward()))
        self.output.sgd(0.5)
        self.hidden.W -= 0.5 * self.hidden.dW
        self.hidden.b -= 0.5 * self.hidden.db

    def accuracy(self, x: NDArray, y: NDArray, is_train: bool = True) -> float:
        return float((self.output.forward(self.hidden.forward(x, is_train), training=False).argmax(1) == y).mean())


def trained(seed: int, decay: Callable[[Network], None], iterations: int = 60, interval: int = 10) -> Network:
    """Its loop; `decay` stands where it lowers the ratio."""
    network, draws = Network(seed), np.random.default_rng(seed + 100)
    x = DATA.train_x.reshape(-1, 64)
    for iteration in range(iterations):
        batch = draws.choice(len(x), 50)
        network.step(x[batch], DATA.train_y[batch])
        if (iteration + 1) % interval == 0:
            decay(network)
    return network


def of_the_network(network: Network) -> None:
    network.dropout_ratio = max(0.1, network.dropout_ratio - 0.1)


def of_the_layers(network: Network) -> None:
    of_the_network(network)
    network.hidden.dropout_ratio = network.dropout_ratio


@pytest.mark.parametrize("seed", range(3))
def test_the_ratio_that_decays_reaches_no_layer(seed: int) -> None:
    without, decayed, mended = (trained(seed, decay) for decay in (lambda _: None, of_the_network, of_the_layers))
    assert decayed.dropout_ratio == pytest.approx(0.1) and decayed.hidden.dropout_ratio == 0.5
    np.testing.assert_array_equal(decayed.hidden.W, without.hidden.W)  # as if it were not there, to the last bit
    assert mended.hidden.dropout_ratio == pytest.approx(0.1)
    assert not np.array_equal(mended.hidden.W, without.hidden.W)


def test_a_network_without_such_an_attribute_would_have_said_so() -> None:
    network = Network(0)
    del network.dropout_ratio
    with pytest.raises(AttributeError, match="dropout_ratio"):
        of_the_network(network)


def numeric_gradient(layer: Layer, x: NDArray, is_train: bool) -> NDArray:
    """Of the sum of the outputs in x, by central differences; the mask of each forward is the layer's last one."""
    found, mask = np.zeros_like(x), layer.mask

    def total(x: NDArray) -> float:
        u = x @ layer.W + layer.b
        return float(sigmoid(u * mask / (1 - layer.dropout_ratio) if is_train else u).sum())

    for place in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[place] = 1e-6
        found[place] = (total(x + moved) - total(x - moved)) / 2e-6
    return found


def test_backward_is_right_after_a_training_forward_alone() -> None:
    layer, x = Layer(4, 3, np.random.default_rng(0)), np.random.default_rng(1).normal(size=(2, 4))
    layer.forward(x, is_train=False)
    with pytest.raises(TypeError, match="NoneType"):
        layer.backward(np.ones((2, 3)))
    layer.forward(x)
    np.testing.assert_allclose(layer.backward(np.ones((2, 3))), numeric_gradient(layer, x, True), atol=1e-7)
    layer.forward(x, is_train=False)  # its backward takes the mask of the forward before
    assert np.abs(layer.backward(np.ones((2, 3))) - numeric_gradient(layer, x, False)).max() > 0.01
    layer.forward(x[:1], is_train=False)
    with pytest.raises(ValueError, match="mismatch"):  # a batch of another size has at least an error
        layer.backward(np.ones((1, 3)))


def test_dropkits_layer_has_a_backward_for_either_mode() -> None:
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    layer = Dense(4, 3, "sigmoid", drop=dropkit.numpy.Dropout(0.5), placement="pre")
    layer.forward(x, training=True)
    y = layer.forward(x, training=False)
    np.testing.assert_allclose(layer.backward(np.ones_like(y)), (y * (1 - y)) @ layer.weight, rtol=1e-6)


def test_ratio_1_is_nan_and_here_the_constant() -> None:
    x = np.ones((2, 4))
    with np.errstate(invalid="ignore"):
        assert np.isnan(Layer(4, 3, np.random.default_rng(0), dropout_ratio=1.0).forward(x)).all()
    layer = Dense(4, 3, "sigmoid", drop=dropkit.numpy.Dropout(1.0), placement="pre")
    assert (layer.forward(x.astype(np.float32), training=True) == 0.5).all()
    assert (layer.backward(np.ones((2, 3), np.float32)) == 0).all()


def test_sigmoid_is_asked_for_and_nowhere_defined() -> None:
    source = "def layer(activation_function=sigmoid):\n    pass\n"
    with pytest.raises(NameError, match="sigmoid"):
        exec(source, {})


def test_the_derivative_is_asked_of_the_output() -> None:
    """A sigmoid whose derivative takes the input, as others write it, gives another gradient here and no error."""
    layer, x = Layer(4, 3, np.random.default_rng(0)), np.random.default_rng(1).normal(size=(2, 4))
    layer.activation = lambda v, deriv=False: sigmoid(v) * (1 - sigmoid(v)) if deriv else sigmoid(v)
    layer.forward(x)
    assert np.abs(layer.backward(np.ones((2, 3))) - numeric_gradient(layer, x, True)).max() > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_without_its_flag_is_taken_with_dropout_on(seed: int) -> None:
    network, x = trained(seed, lambda _: None, iterations=200), DATA.test_x.reshape(-1, 64)
    on = [network.accuracy(x, DATA.test_y) for _ in range(5)]
    off = [network.accuracy(x, DATA.test_y, is_train=False) for _ in range(5)]
    assert len(set(off)) == 1 and len(set(on)) > 1
    assert max(on) < off[0]


def test_a_dropped_unit_is_a_half() -> None:
    layer = Layer(4, 30, np.random.default_rng(0))
    z = layer.forward(np.ones((20, 4)))
    assert (z[~layer.mask] == 0.5).all() and (layer.backward(np.ones((20, 30))).shape == (20, 4))
    model = nn.Sequential(nn.Linear(64, 100), nn.Dropout(0.5), nn.Sigmoid(), nn.Linear(100, 10))
    assert [finding.code for finding in dropkit.doctor(model, torch.randn(64, 64))] == ["DK119"]
    mended = nn.Sequential(nn.Linear(64, 100), nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(100, 10))
    assert dropkit.doctor(mended, torch.randn(64, 64)) == ()


def test_its_loop_lowers_the_rate_as_the_schedule_does_and_draws_with_replacement() -> None:
    ratio, rate = 0.5, Step(0.5, 0.1, every=100, floor=0.1)
    for iteration in range(700):
        assert rate.at(iteration) == pytest.approx(ratio)
        assert dropkit.mask.threshold(rate.at(iteration)) == dropkit.mask.threshold(ratio)
        if (iteration + 1) % 100 == 0:
            ratio = max(0.1, ratio - 0.1)
    assert 0.5 - 0.1 - 0.1 - 0.1 - 0.1 != 0.1  # 0.10000000000000003
    n, batch = len(DATA.train_x), 100
    assert len(set(np.random.default_rng(0).choice(n, batch).tolist())) < batch  # some twice
    epoch = np.random.default_rng(1).choice(n, n)
    assert abs(len(set(epoch.tolist())) / n - (1 - math.exp(-1))) < 0.03


def test_the_recipe_is_this_layer() -> None:
    recipe = get("numpy-layer")
    hidden = recipe.build(recipe.settings("tutorial", "digits"), (8, 8), 10, 0)["hidden1"]
    assert (hidden.placement, hidden.activation) == ("pre", "sigmoid")
    _, chinese, first = PAGE.split("\n\n")[:3]  # the command comes before any words
    assert chinese.startswith("[中文]") and "dropkit train numpy-layer --size tutorial" in first
