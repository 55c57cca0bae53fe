"""How good generated images are, in the features of a classifier that never saw them."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from ...errors import DropkitValueError

NEIGHBOUR = 3  # whose distance is a sample's radius


def frechet_distance(real: ArrayLike, made: ArrayLike) -> float:
    """The squared Frechet distance between the normal laws that have the means and covariances of two samples.

        |m - n|^2 + tr(S + T - 2 (S T)^(1/2))

    The trace of the root is the sum of the square roots of the eigenvalues of `S^(1/2) T S^(1/2)`, which is symmetric,
    so that no imaginary parts arise where a covariance is singular. Depends on the number of samples: the fewer, the
    larger. It is the formula of FID, and the features decide what it measures.

    Args:
        real, made: shape (samples, features), at least two samples each.

    Returns:
        0 or more, in squared units of the features; NaN where a feature is not finite.

    Raises:
        DropkitValueError: other shapes.

    Source: Dowson and Landau 1982 (J. Multivar. Anal. 12:450); Heusel et al. 2017 (arXiv:1706.08500).

    >>> frechet_distance([[0.0], [2.0]], [[3.0], [5.0]])
    9.0
    """
    x, y = _samples(real, made)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    s, t = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (x, y))
    values, vectors = np.linalg.eigh(s)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ t @ root).clip(0)).sum()
    distance = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * shared
    return max(0.0, float(distance))


def precision_recall(real: ArrayLike, made: ArrayLike, k: int = NEIGHBOUR) -> tuple[float, float]:
    """Improved precision and recall: how many made samples look real, and how much of what is real is made.

    A sample lies in another set if it is no farther from one of its members than that member from its k-th neighbour
    in its own set.

    Args:
        real, made: shape (samples, features), more than k samples each.
        k: which neighbour.

    Returns:
        (share of made samples in the real set, share of real samples in the made set); NaN where a feature is not
        finite.

    Raises:
        DropkitValueError: other shapes, or too few samples.

    Source: Kynkäänniemi et al. 2019 (arXiv:1904.06991).

    >>> precision_recall([[0.0], [1.0], [2.0], [3.0]], [[0.5], [1.5], [99.0], [98.0]], k=1)
    (0.5, 0.75)
    """
    x, y = _samples(real, made)
    if min(len(x), len(y)) <= k:
        raise DropkitValueError(f"precision and recall need more than k={k} samples, got {len(x)} and {len(y)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan, math.nan
    distances = pairwise_distances(x, y)
    precision = (distances <= _radii(x, k)[:, None]).any(0).mean()
    recall = (distances <= _radii(y, k)[None, :]).any(1).mean()
    return float(precision), float(recall)


def _radii(samples: NDArray, k: int) -> NDArray:
    # The first neighbour of a member is itself.
    found: NDArray = NearestNeighbors(n_neighbors=k + 1).fit(samples).kneighbors(samples)[0]
    return found[:, k]


def _samples(real: ArrayLike, made: ArrayLike) -> tuple[NDArray, NDArray]:
    x, y = (np.asarray(part, np.float64) for part in (real, made))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DropkitValueError(
            f"two samples of features are needed, of shape (samples, features), got {x.shape} and {y.shape}"
        )
    return x, y


def spread(images: ArrayLike) -> float:
    """How much images differ from one another: the standard deviation of each pixel over the images, mean over pixels.

        mean_j sqrt(mean_i (x_ij - mean_i x_ij)^2)

    It is 0 where all images are one, whatever that image is, and says nothing about their quality.

    Args:
        images: shape (images, ...), at least one.

    Returns:
        0 or more, in the unit of a pixel; NaN where a pixel is not finite.

    Raises:
        DropkitValueError: no images.

    >>> spread([[0.0, 0.5], [1.0, 0.5]])
    0.25
    """
    x = np.asarray(images, np.float64)
    if x.ndim < 1 or not len(x):
        raise DropkitValueError(f"a spread needs images, of shape (images, ...), got {x.shape}")
    return float(x.std(axis=0).mean()) if np.isfinite(x).all() else math.nan


def class_shares(labels: ArrayLike, classes: int) -> tuple[float, ...]:
    """The share of each class among labels.

    >>> class_shares([0, 0, 2, 1], 3)
    (0.5, 0.25, 0.25)
    """
    found = np.asarray(labels)
    return tuple((np.bincount(found, minlength=classes) / len(found)).tolist())
