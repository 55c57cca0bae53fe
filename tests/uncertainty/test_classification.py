"""NLL, Brier, accuracy: by hand, against scikit-learn, and what they refuse."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.uncertainty import accuracy, brier, ece, nll
from dropkit.uncertainty.judging.classification import brier_of_each, nll_of_each, right

from .drawn import Result, predictions, softmax

P, Y = [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [0, 1]


def test_they_are_what_the_formulas_give_by_hand() -> None:
    assert nll(P, Y) == pytest.approx(-(math.log(0.7) + math.log(0.1)) / 2, abs=1e-15)
    assert brier(P, Y) == pytest.approx((0.3**2 + 0.2**2 + 0.1**2 + 0.1**2 + 0.9**2 + 0.8**2) / 2, abs=1e-15)
    assert accuracy(P, Y) == 0.5


def test_they_agree_with_scikit_learn() -> None:
    p, y = predictions(500, 4)
    assert nll(p, y) == pytest.approx(log_loss(y, p), rel=1e-12)
    assert brier(p, y) == pytest.approx(brier_score_loss(y, p, labels=range(4), scale_by_half=False), rel=1e-12)
    assert accuracy(p, y) == accuracy_score(y, p.argmax(1))


def test_of_two_classes_brier_is_twice_that_of_one() -> None:
    p, y = predictions(200, 2)
    assert brier(p, y) == pytest.approx(2 * brier_score_loss(y, p[:, 1]), rel=1e-12)


def test_of_equal_probabilities_the_first_class_is_predicted() -> None:
    assert accuracy([[0.5, 0.5], [0.4, 0.6]], [0, 1]) == 1.0
    assert accuracy([[0.5, 0.5]], [1]) == 0.0


def test_leading_axes_are_samples() -> None:
    p, y = predictions(60, 3)
    for score in (nll, brier, accuracy, ece):
        assert score(p.reshape(3, 4, 5, 3), y.reshape(3, 4, 5)) == pytest.approx(score(p, y), abs=1e-15)


def test_each_sample_has_its_share() -> None:
    p, y = predictions(50, 3)
    assert nll_of_each(p, y).mean() == nll(p, y)
    assert brier_of_each(p, y).mean() == brier(p, y)
    assert right(p, y).mean() == accuracy(p, y)
    assert nll_of_each(p, y).shape == brier_of_each(p, y).shape == right(p, y).shape == (50,)


def test_a_label_of_probability_0_costs_infinity_and_its_logarithm_what_it_should() -> None:
    z = np.array([[0.0, -2000.0], [0.0, 1.0]])
    assert nll(softmax(z), [1, 1]) == math.inf
    assert nll(z, [1, 1], log=True) == pytest.approx((2000 + math.log1p(math.exp(-1))) / 2, rel=1e-15)
    assert nll([[0.0, -np.inf]], [0], log=True) == 0
    assert str(nll([[1.0, 0.0]], [0])) == "0.0"


def test_logarithms_and_probabilities_say_the_same() -> None:
    p, y = predictions(100, 5)
    assert nll(np.log(p) + 3, y, log=True) == pytest.approx(nll(p, y), rel=1e-12)
    assert nll(Result(p), y, log=True) == pytest.approx(nll(p, y), rel=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_arrays_of_any_framework_and_precision_do(dtype: str) -> None:
    p, y = predictions(100, 5)
    tensor = torch.tensor(p, requires_grad=True).to(getattr(torch, dtype))
    loose = {"float64": 1e-12, "float32": 1e-6, "float16": 1e-3, "bfloat16": 2e-2}[dtype]
    assert nll(tensor, torch.tensor(y)) == pytest.approx(nll(p, y), rel=loose)
    assert nll(jnp.asarray(p, dtype if dtype != "float64" else "float32"), jnp.asarray(y)) == pytest.approx(
        nll(p, y), rel=max(loose, 1e-6)
    )
    assert nll(Result(tensor), y) == nll(tensor, y)


REFUSED = [
    ([[0.7, 0.7]], [0], r"probabilities at \[0\] are \[0.7, 0.7\] and sum to 1.4, not to one; give the softmax of"),
    ([[3.0, -2.0]], [0], r"are \[3, -2\] and sum to 1, not to one"),
    (
        [[0.5, 0.5], [np.nan, 0.5]],
        [0, 0],
        r"probabilities must be finite numbers, got nan at \[1, 0\], as 1 of 4 are; leave",
    ),
    ([0.5, 0.5], [0, 1], r"shape \(samples, classes\).*got \(2,\); of a binary"),
    ([[1.0], [1.0]], [0, 0], r"two classes or more, got \(2, 1\)"),
    (np.zeros((0, 3)), [], r"probabilities must hold at least one sample, got shape \(0, 3\)"),
    (P, [0, 3], r"labels hold 3 at \[1\], outside the 3 classes 0 to 2"),
    (P, [0, -1], r"labels hold -1 at \[1\], outside the 3 classes"),
    (P, [[0], [1]], r"shape \(2,\), got \(2, 1\).*y\[:, 0\]"),
    (P, np.eye(3, dtype=int)[:2], r"got \(2, 3\); of one-hot labels take argmax\(-1\)"),
    (P, [0], r"got \(1,\)"),
]


@pytest.mark.parametrize(("p", "y", "says"), REFUSED)
def test_bad_values_are_refused_in_one_line(p: object, y: object, says: str) -> None:
    for score in (nll, brier, accuracy, ece):
        with pytest.raises(DropkitValueError, match=says) as caught:
            score(p, y)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        (P, [0.0, 1.0], "labels must be class numbers, integers, got dtype float64"),
        ("abc", [0], "probabilities must be an array of real numbers, got dtype <U3"),
        ([[0.5, 0.5], [1.0]], [0, 0], "probabilities must be an array of numbers, got list"),
        (None, [0], "got NoneType"),
        ([[0.5 + 0j, 0.5]], [0], "got dtype complex128"),
    ],
)
def test_bad_types_are_refused(p: object, y: object, says: str) -> None:
    with pytest.raises(DropkitTypeError, match=says):
        nll(p, y)


def test_bad_logits_are_refused() -> None:
    with pytest.raises(DropkitValueError, match="logits must be numbers, got nan"):
        nll([[np.nan, 0.0]], [0], log=True)
    with pytest.raises(DropkitValueError, match="logits hold inf, or a sample of -inf alone"):
        nll([[np.inf, 0.0]], [0], log=True)
    with pytest.raises(DropkitValueError, match="a sample of -inf alone"):
        nll([[-np.inf, -np.inf]], [0], log=True)
    with pytest.raises(DropkitValueError, match=r"logits must have shape \(samples, classes\)"):
        nll([0.0, 1.0], [0, 1], log=True)
