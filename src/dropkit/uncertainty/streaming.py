"""What passes say together, taken in as they come: means, variances, entropies, votes.

Everything is float64. A mean is carried as a first value and the mean of what differs from it, so that equal samples
give exactly their value, a variance of exactly 0 and a mutual information of exactly 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DropkitValueError
from .acquiring.reading import entropy
from .temperature import softmax

Array = NDArray[np.float64]
KINDS = ("values", "logits", "probabilities", "binary_logits", "binary_probabilities", "gaussian")
BINARY = ("binary_logits", "binary_probabilities")
CLASSES = ("logits", "probabilities", *BINARY)  # kinds that are distributions over classes


class Mean:
    """The mean and the sum of squared deviations of samples, for each of several inputs.

    >>> mean = Mean()
    >>> mean.add(np.array([[1.0], [3.0]]), np.array([True]))
    >>> mean.add(np.array([[2.0], [6.0]]), np.array([True]))
    >>> mean.value.tolist(), mean.variance.tolist()
    ([3.0], [3.5])
    """

    def __init__(self) -> None:
        self.count: Array = np.zeros(0)

    def add(self, samples: Array, wanted: NDArray[np.bool_]) -> None:
        """Take in (samples, inputs, ...), of the inputs that are wanted."""
        first, number = samples[0], len(samples)
        own = first + (samples - first).mean(0)
        squares = ((samples - own) ** 2).sum(0)
        if not len(self.count):
            self.count = np.zeros(len(wanted))
            self.value, self.squares = np.zeros_like(own), np.zeros_like(own)
        where = wanted.reshape(-1, *[1] * (own.ndim - 1))
        before = self.count.reshape(where.shape)
        share = number / (before + number)
        change = np.where(before == 0, 0.0, own - self.value)
        value = np.where(before == 0, own, self.value + share * change)
        both = self.squares + squares + change**2 * before * share
        self.value, self.squares = np.where(where, value, self.value), np.where(where, both, self.squares)
        self.count = self.count + number * wanted

    @property
    def variance(self) -> Array:
        """Divided by the number of samples, as Gal and Ghahramani have it."""
        found: Array = self.squares / self._count
        return found

    @property
    def error(self) -> Array:
        """The standard error of the mean; infinite for one sample."""
        count = self._count
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(count > 1, np.sqrt(self.squares / (count - 1) / count), np.inf)

    @property
    def _count(self) -> Array:
        return self.count.reshape(-1, *[1] * (self.value.ndim - 1))


class Streaming:
    """The sums over passes of one block of inputs.

    Args:
        kind: what a model puts out, one of KINDS.
        axis: of the classes, or of means and logarithms of variances, counted in the output of the model.
        levels: of quantiles, for which the block's samples are held.
        keep: whether the samples are wanted too.
    """

    def __init__(self, kind: str, axis: int, levels: Sequence[float] = (), keep: bool = False) -> None:
        self.kind, self.axis, self.levels, self.keep = kind, axis, levels, keep
        self.mean, self.entropies, self.noise = Mean(), Mean(), Mean()
        self.votes: Array | None = None
        self.held: list[Array] = []
        self.wanted: list[NDArray[np.bool_]] = []

    def add(self, outputs: NDArray[Any], wanted: NDArray[np.bool_]) -> None:
        """Take in the outputs of some passes, (samples, inputs, ...), of the inputs that are wanted."""
        samples = self._read(np.asarray(outputs, dtype=np.float64), wanted)
        self.mean.add(samples, wanted)
        if self.kind in CLASSES:
            self.entropies.add(entropy(samples, -1), wanted)
            most = samples.argmax(-1)[..., None] == np.arange(samples.shape[-1])
            votes = (most * wanted.reshape(1, -1, *[1] * (most.ndim - 2))).sum(0).astype(np.float64)
            self.votes = votes if self.votes is None else self.votes + votes
        if self.levels or self.keep:
            self.held.append(samples)
            self.wanted.append(wanted)

    def _read(self, given: Array, wanted: NDArray[np.bool_]) -> Array:
        """As (samples, inputs, ..., classes), or values as they are."""
        if not np.isfinite(given).all():
            raise DropkitValueError(
                "the model put out NaN or infinity: look for it with a single pass, model(x), before asking for many"
            )
        if self.kind == "values":
            return given
        if self.kind in BINARY:
            if given.ndim > 2 and given.shape[-1] == 1:
                given = given[..., 0]
            p = _sigmoid(given) if self.kind == "binary_logits" else _probability(given)
            return np.stack([1 - p, p], -1)
        axis = self.axis if self.axis < 0 else self.axis + 1  # of the output of one pass
        if given.ndim < 2 or not -given.ndim < axis < given.ndim:
            raise DropkitValueError(
                f"{self.kind!r} needs an axis {self.axis}, and the model puts out {given.shape[1:]} for a batch: "
                'say axis=, or outputs="binary_logits" for one number an input'
            )
        if self.kind == "gaussian":
            return self._gaussian(given, axis, wanted)
        last = np.moveaxis(given, axis, -1)
        return softmax(last) if self.kind == "logits" else _distribution(last)

    def _gaussian(self, given: Array, axis: int, wanted: NDArray[np.bool_]) -> Array:
        size = given.shape[axis]
        if size % 2:
            raise DropkitValueError(
                f'"gaussian" takes means and then as many logarithms of variances along axis {self.axis}, got {size}'
            )
        means, logs = np.split(given, 2, axis)
        self.noise.add(np.exp(logs), wanted)
        return means

    def finish(self) -> dict[str, Array]:
        """What is known of the block, by name."""
        found = {"mean": self.mean.value, "variance": self.mean.variance, "count": self.mean.count}
        if self.kind in CLASSES and self.votes is not None:
            votes = self.votes.max(-1)
            total = entropy(self.mean.value, -1)
            expected = self.entropies.value
            found |= {
                "entropy": total,
                "expected_entropy": expected,
                "mutual_information": np.maximum(total - expected, 0.0),  # below 0 by rounding alone
                "variation_ratio": 1 - votes / self.mean.count.reshape(-1, *[1] * (votes.ndim - 1)),
            }
        if self.kind == "gaussian":
            found |= {"epistemic": found["variance"], "aleatoric": self.noise.value}
            found["variance"] = found["epistemic"] + found["aleatoric"]
        if self.levels:
            found["quantiles"] = self._quantiles()
        if self.keep:
            found["samples"] = self._samples()
        if self.kind in ("logits", "probabilities"):  # as the model has them
            for name, inputs in (("mean", 0), ("variance", 0), ("quantiles", 1), ("samples", 1)):
                if name in found:
                    axis = self.axis if self.axis < 0 else self.axis + inputs
                    found[name] = np.moveaxis(found[name], -1, axis)
        return found

    def _samples(self) -> Array:
        """(samples, inputs, ...); NaN where an input had stopped."""
        found = np.concatenate(self.held)
        wanted = np.concatenate([np.tile(w, (len(h), 1)) for h, w in zip(self.held, self.wanted, strict=True)])
        return np.where(wanted.reshape(*wanted.shape, *[1] * (found.ndim - 2)), found, np.nan)

    def _quantiles(self) -> Array:
        """(levels, inputs, ...), by linear interpolation."""
        samples = self._samples()
        found: Array = (np.nanquantile if np.isnan(samples).any() else np.quantile)(samples, self.levels, axis=0)
        return found


def _sigmoid(x: Array) -> Array:
    found: Array = np.exp(-np.logaddexp(0.0, -x))
    return found


def _probability(p: Array) -> Array:
    if ((p < 0) | (p > 1)).any():
        wrong = p[(p < 0) | (p > 1)].flat[0]
        raise DropkitValueError(
            f"{wrong:.6g} is no probability: where the model puts out logits, say outputs=...logits"
        )
    return p


def _distribution(p: Array) -> Array:
    sums = _probability(p).sum(-1)
    if (abs(sums - 1) > 1e-3).any():
        wrong = sums[abs(sums - 1) > 1e-3].flat[0]
        raise DropkitValueError(
            f'probabilities sum to {wrong:.6g} and not to 1 along their axis: say axis=, or outputs="logits"'
        )
    return p / sums[..., None]
