"""Noise: what becomes of kept and of dropped activations."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Keep with probability 1 - p and divide by it (inverted dropout): `y = x * m / (1 - p)`, m in {0, 1}.

    E[y] = x and Var[y] = x^2 p / (1 - p); nothing is left to do at evaluation.

    Source: Hinton et al. 2012 (arXiv:1207.0580); Srivastava et al. 2014 (JMLR 15:1929).

    >>> Bernoulli()
    Bernoulli()
    """


@dataclass(frozen=True, slots=True)
class Alpha:
    """Drop to the value at which SELU saturates and rescale: `y = a x + b` if kept, `a alpha' + b` if dropped.

    alpha' = -1.7581 is SELU's limit at minus infinity, `a = ((1 - p)(1 + p alpha'^2))^(-1/2)` and `b = -a p alpha'`:
    inputs of mean 0 and variance 1 keep both, which zeros would not. For networks of SELU units; p = 1 gives 0.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> Alpha()
    Alpha()
    """


Noise = Bernoulli | Alpha
