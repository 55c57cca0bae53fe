"""Layers with their own backward pass: enough to train a network by hand with nothing but NumPy.

Every layer has `forward(x, *, training)` and `backward(grad)`, which takes the loss's gradient with respect to the
layer's output and returns the one with respect to its input. Arrays are batch x features.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..axes.noise import Bernoulli, Noise
from ..axes.rate import Rate
from ..axes.share import Sharing
from ..counter import Key
from ..drop import Drop, checked_other
from ..errors import DropkitRuntimeError, DropkitValueError, UnknownNameError
from ..mask import normal
from ..place import Part
from .ops import check_dtype, gradients, of_lowered


class Layer(Protocol):
    """What `Sequential` needs of a layer."""

    def forward(self, x: NDArray, *, training: bool) -> NDArray:
        """The layer's output."""

    def backward(self, grad: NDArray) -> NDArray:
        """The gradient with respect to the input of the last forward."""


class Dropout:
    """Dropout with its backward pass: `y = x * m / (1 - p)`, `dx = dy * m / (1 - p)` with the same mask m.

    With another noise it is that law, with `dropout_backward`.

    The mask is a function of (seed, site, step), and the step counts the forwards that drop. Backward computes the mask
    again; after an evaluation forward it is the identity, as that forward was.

    Args:
        p: drop probability in [0, 1], or a rate of `dropkit.axes.rate`, which then moves with the layer's step; may be
            assigned between forwards (backward uses the forward's).
        share: axes along which one draw is shared, or a value of `dropkit.axes.share`.
        when: "train", "always" or "never".
        seed, site: coordinates of the mask; give each layer of a network a site of its own.
        noise: a value of `dropkit.axes.noise`.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a bad share, when, noise, seed or site.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> layer = Dropout(0.5, seed=1, site="drop")
    >>> layer.forward(np.ones((2, 8), np.float32), training=True)
    array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    >>> layer.backward(np.full((2, 8), 10, np.float32))
    array([[ 0.,  0.,  0.,  0., 20., 20., 20.,  0.],
           [ 0., 20., 20., 20.,  0.,  0., 20.,  0.]], dtype=float32)
    """

    def __init__(
        self,
        p: float | Rate = 0.5,
        *,
        share: Sequence[int] | Sharing = (),
        when: str = "train",
        seed: int = 0,
        site: int | str = 0,
        noise: Noise | None = None,
    ):
        self.drop = Drop(p, share=share, when=when, noise=Bernoulli() if noise is None else noise)
        self.key = Key(seed, site)  # checks them
        self.step = 0
        self._p: float | None = None  # what was assigned
        self._backward: Callable[[NDArray], NDArray] | None = None

    @property
    def p(self) -> float:
        """The drop probability of the next forward: what was assigned last, or else what the rate says at this step."""
        return self.drop.p(self.step) if self._p is None else self._p

    @p.setter
    def p(self, value: float) -> None:
        self._p = value

    def forward(
        self, x: NDArray, *, training: bool, rows: ArrayLike | None = None, other: NDArray | None = None
    ) -> NDArray:
        """x with elements dropped, or x itself.

        Args:
            x: floating array.
            training: the mode of the pass.
            rows: each sample's own row number in the data set.
            other: the second array of a noise that needs one; `backward` then gives a pair of gradients.

        Raises:
            DropkitTypeError: in training x of another dtype, at any p.
        """
        drop, key, active = self.drop, Key(self.key.seed, self.key.site, self.step), self.drop.active(training)
        lowered = drop.lower(self.step, training, self._p)
        if active:
            check_dtype(x)
        self.step += active
        part = Part.of(None, None, rows)
        checked_other(drop.noise, other)

        def backward(grad: NDArray) -> NDArray:
            if active:
                check_dtype(grad)
            return gradients(grad, drop.noise, lowered, key, drop.share, part)

        self._backward = backward
        return x if lowered is None else of_lowered(x, lowered, key, drop.share, part, other)

    def backward(self, grad: NDArray) -> NDArray:
        """The gradient through the mask of the last forward."""
        if self._backward is None:
            raise DropkitRuntimeError("Dropout.backward comes after a forward; call forward first")
        return self._backward(grad)


def _relu(z: NDArray) -> NDArray:
    return np.maximum(z, 0)


def _sigmoid(z: NDArray) -> NDArray:
    return (0.5 * (1 + np.tanh(0.5 * z))).astype(z.dtype)  # this form never overflows


def _identity(z: NDArray) -> NDArray:
    return z


# name: the function, and its derivative from its own output y
ACTIVATIONS: dict[str | None, tuple[Callable[[NDArray], NDArray], Callable[[NDArray], NDArray]]] = {
    None: (_identity, np.ones_like),
    "relu": (_relu, lambda y: (y > 0).astype(y.dtype)),
    "sigmoid": (_sigmoid, lambda y: y * (1 - y)),
    "tanh": (np.tanh, lambda y: 1 - y * y),
}


class Dense:
    """A fully connected layer with activation and, where given, dropout: `y = drop(f(x W^T + b))`.

    Placement of the dropout, and what it does:

    - "post" (the usual one), `drop(f(z))`: a dropped unit is 0, so it is gone from the next layer, and E[y] = f(z).
    - "pre", `f(drop(z))`: the activation sees z / (1 - p) or 0. With ReLU the two are the same, since ReLU(0) = 0
      and ReLU(c z) = c ReLU(z). With a sigmoid a dropped unit is not 0 but sigmoid(0) = 0.5: it goes on feeding a
      constant into the next layer, only its gradient is gone; kept ones are pushed towards saturation, and
      E[y] = p / 2 + (1 - p) sigmoid(z / (1 - p)), not sigmoid(z), so evaluation sees other activations than training.
      With tanh a dropped unit is 0, but E[y] is off in the same way.

    Args:
        inputs, outputs: number of features.
        activation: None, "relu", "sigmoid" or "tanh".
        drop: a `Dropout`, or None.
        placement: "post" or "pre".
        std: standard deviation of the initial weights; by default sqrt(2 / inputs) for ReLU and sqrt(1 / inputs) else.
        seed, site: coordinates of the initial weights.

    Attributes: weight (outputs x inputs, as torch has it), bias (outputs), and after a backward weight_grad, bias_grad;
    all float32.

    Raises:
        UnknownNameError, DropkitValueError: an unknown activation or placement; sizes below 1.

    >>> layer = Dense(3, 2, "relu", seed=1, site="hidden")
    >>> y = layer.forward(np.ones((4, 3), np.float32), training=True)
    >>> y.shape, layer.backward(np.ones_like(y)).shape, layer.weight_grad.shape
    ((4, 2), (4, 3), (2, 3))
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        activation: str | None = None,
        *,
        drop: Dropout | None = None,
        placement: str = "post",
        std: float | None = None,
        seed: int = 0,
        site: str = "dense",
    ):
        if activation not in ACTIVATIONS:
            raise UnknownNameError("activation", str(activation), (name for name in ACTIVATIONS if name))
        if placement not in ("post", "pre"):
            raise UnknownNameError("placement", placement, ("post", "pre"))
        if inputs < 1 or outputs < 1:
            raise DropkitValueError(f"a Dense layer needs at least 1 input and 1 output, got {inputs} and {outputs}")
        self.activation = activation
        self.drop = drop
        self.placement = placement
        std = float(np.sqrt((2 if activation == "relu" else 1) / inputs)) if std is None else std
        self.weight: NDArray = np.float32(std) * normal((outputs, inputs), Key(seed, f"{site}.weight"))
        self.bias: NDArray = np.zeros(outputs, np.float32)
        self.weight_grad: NDArray = np.zeros_like(self.weight)
        self.bias_grad: NDArray = np.zeros_like(self.bias)
        self._x: NDArray | None = None
        self._y: NDArray | None = None

    def forward(self, x: NDArray, *, training: bool) -> NDArray:
        """The activations, batch x outputs."""
        self._x = x
        z = x @ self.weight.T + self.bias
        if self.drop is not None and self.placement == "pre":
            z = self.drop.forward(z, training=training)
        self._y = y = ACTIVATIONS[self.activation][0](z)
        if self.drop is not None and self.placement == "post":
            y = self.drop.forward(y, training=training)
        return y

    def backward(self, grad: NDArray) -> NDArray:
        """The gradient with respect to the input; sets weight_grad and bias_grad."""
        if self._x is None or self._y is None:
            raise DropkitRuntimeError("Dense.backward comes after a forward; call forward first")
        if self.drop is not None and self.placement == "post":
            grad = self.drop.backward(grad)
        grad = grad * ACTIVATIONS[self.activation][1](self._y)
        if self.drop is not None and self.placement == "pre":
            grad = self.drop.backward(grad)
        self.weight_grad = grad.T @ self._x
        self.bias_grad = grad.sum(axis=0)
        return grad @ self.weight

    def sgd(self, lr: float) -> None:
        """One step of gradient descent with the gradients of the last backward."""
        self.weight -= np.float32(lr) * self.weight_grad
        self.bias -= np.float32(lr) * self.bias_grad


class SoftmaxCrossEntropy:
    """Mean cross-entropy of softmax(logits): `loss = mean_n(logsumexp(z_n) - z_n[label_n])`.

    >>> loss = SoftmaxCrossEntropy()
    >>> round(float(loss.forward(np.zeros((2, 4), np.float32), np.array([0, 3]))), 6)
    1.386294
    >>> loss.backward()
    array([[-0.375,  0.125,  0.125,  0.125],
           [ 0.125,  0.125,  0.125, -0.375]], dtype=float32)
    """

    def __init__(self) -> None:
        self._softmax: NDArray | None = None
        self._labels: NDArray | None = None

    def forward(self, logits: NDArray, labels: NDArray) -> float:
        """The loss; logits are batch x classes, labels batch class numbers."""
        if len(labels) != len(logits) or (len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]):
            raise DropkitValueError(
                f"labels must be {len(logits)} class numbers below {logits.shape[1]}, got {len(labels)} of them"
                + (f" from {labels.min()} to {labels.max()}" if len(labels) else "")
            )
        shifted = logits - logits.max(axis=1, keepdims=True)
        exp = np.exp(shifted)
        total = exp.sum(axis=1, keepdims=True)
        self._softmax, self._labels = exp / total, labels
        return float(np.mean(np.log(total[:, 0]) - shifted[np.arange(len(labels)), labels]))

    def backward(self) -> NDArray:
        """The gradient with respect to the logits, batch x classes."""
        if self._softmax is None or self._labels is None:
            raise DropkitRuntimeError("SoftmaxCrossEntropy.backward comes after a forward; call forward first")
        grad = self._softmax.copy()
        grad[np.arange(len(self._labels)), self._labels] -= 1
        return grad / np.float32(len(self._labels))


class Sequential:
    """Layers one after the other.

    >>> net = Sequential(Dense(3, 8, "relu", drop=Dropout(0.5, site="drop1"), site="hidden"), Dense(8, 2, site="head"))
    >>> net.forward(np.ones((4, 3), np.float32), training=False).shape
    (4, 2)
    """

    def __init__(self, *layers: Layer):
        self.layers = layers

    def forward(self, x: NDArray, *, training: bool) -> NDArray:
        """The last layer's output."""
        for layer in self.layers:
            x = layer.forward(x, training=training)
        return x

    def backward(self, grad: NDArray) -> NDArray:
        """The gradient with respect to the first layer's input."""
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad

    def sgd(self, lr: float) -> None:
        """One step of gradient descent in every layer that has parameters."""
        for layer in self.layers:
            if isinstance(layer, Dense):
                layer.sgd(lr)
