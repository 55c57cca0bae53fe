"""Noise: what multiplies the activations."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Keep with probability 1 - p and divide by it (inverted dropout): `y = x * m / (1 - p)`, m in {0, 1}.

    E[y] = x and Var[y] = x^2 p / (1 - p); nothing is left to do at evaluation.

    Source: Hinton et al. 2012 (arXiv:1207.0580); Srivastava et al. 2014 (JMLR 15:1929).

    >>> Bernoulli()
    Bernoulli()
    """


Noise = Bernoulli
