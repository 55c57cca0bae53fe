"""What the labels of several inputs say together, exact while they are few and sampled beyond."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...counter import Key
from ...mask import uniform
from .reading import entropy

SITE = "batchbald"
BLOCK = 1 << 20  # numbers at a time: what fits a cache


class Joint:
    """The labels of the inputs chosen: which configurations of them there are, and what each says of the pass.

    Of a configuration m the passes have the posterior r[m, s], which is p(configuration | s) normalised. Then
    `I(labels; pass) = sum_m w_m KL(r[m] | uniform)`, and by the chain rule one label more adds
    `sum_m w_m (H[sum_s r[m, s] p[s]] - sum_s r[m, s] H[p[s]])`. Exact, the configurations are all C^b there are, and
    w_m is how likely each is. Sampled, they are some that were drawn from the passes, as many from each, of equal
    weight. No term is below 0 or above ln S, where joint entropies grow with b, and so do their errors.

    Args:
        p: probabilities of all inputs, (S, n, classes).
        most: how many configurations there are at most, at least S.
        seed: of the draws.

    >>> joint = Joint(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), 100, 0)
    >>> joint.with_each().round(6)
    array([0.693147])
    """

    def __init__(self, p: NDArray[np.float64], most: int, seed: int):
        self.p, self.most, self.seed = p, most, seed
        self.alone = entropy(p)  # of a label under each pass, (S, n)
        self.each = max(1, most // len(p))  # configurations drawn from each pass
        self.chosen: list[int] = []
        self.sampled = False
        self.posterior = np.full((1, len(p)), 1 / len(p))  # (configurations, S)
        self.weight = np.ones(1)

    def add(self, number: int) -> None:
        """Take an input into the batch."""
        self.chosen.append(number)
        if self.sampled:
            self._draw(len(self.chosen) - 1)
        elif len(self.posterior) * self.p.shape[2] <= self.most:
            p = self.p[:, number]  # (S, classes)
            self._take((self.posterior[:, None] * p.T).reshape(-1, len(p)), np.repeat(self.weight, p.shape[1]))
        else:
            self.sampled = True
            total = self.each * len(self.p)
            self.posterior, self.weight = np.full((total, len(self.p)), 1 / len(self.p)), np.full(total, 1 / total)
            for position in range(len(self.chosen)):
                self._draw(position)

    def _take(self, likely: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
        """What is to be normalised, and the weights before: of configurations that can be."""
        sums = likely.sum(1)
        there = sums > 0
        self.posterior = likely[there] / sums[there, None]
        self.weight = (weight * sums)[there]

    def _draw(self, position: int) -> None:
        """A label of one input for each configuration, from the pass that the configuration belongs to."""
        p = self.p[:, self.chosen[position]]
        u = uniform((self.each, len(p)), Key(self.seed, SITE, position)).astype(np.float64)
        ends = np.cumsum(p, axis=1)
        label = (u[..., None] * ends[:, -1:] >= ends).sum(-1).reshape(-1)  # below the end of its class
        likely = self.posterior * p.T[np.minimum(label, p.shape[1] - 1)]
        self.posterior = likely / likely.sum(1, keepdims=True)

    def with_each(self) -> NDArray[np.float64]:
        """The mutual information of the pass with the labels chosen and one more, for each input: (n,), in nats."""
        total, n, classes = self.p.shape
        known = self.weight @ (np.log(total) - entropy(self.posterior))
        found = known - self.weight @ self.posterior @ self.alone
        step = max(1, BLOCK // (len(self.weight) * classes))
        for start in range(0, n, step):
            part = self.p[:, start : start + step].reshape(total, -1)
            mean = (self.posterior @ part).reshape(len(self.weight), -1, classes)
            found[start : start + step] += self.weight @ entropy(mean)
        return found


def pairs(pool: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mutual information of the labels of an input of the pool and of a target, its mean over targets: (n,), in nats.

    >>> p = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    >>> pairs(p, p).round(6)
    array([0.693147])
    """
    total, n, classes = pool.shape
    theirs = targets.reshape(total, -1)
    found = np.zeros(n)
    step = max(1, BLOCK // (classes * theirs.shape[1]))
    for start in range(0, n, step):
        ours = pool[:, start : start + step].reshape(total, -1)
        both = ours.T @ theirs / total
        apart: Any = ours.mean(0)[:, None] * theirs.mean(0)
        ratio = np.where(both > 0, both, 1.0) / np.where(both > 0, apart, 1.0)
        found[start : start + step] = (both * np.log(ratio)).reshape(-1, classes * theirs.shape[1]).sum(1)
    return np.maximum(found / targets.shape[1], 0.0)
