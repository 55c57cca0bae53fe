"""KL divergence of N(w, a w^2) from the log-uniform prior, as a function of ln a, for one weight, in nats.

The exact value, 0 at a = infinity, is `v 2F2(1, 1; 3/2, 2; -v)` with v = 1/(2a); its derivative in ln a is
`-sqrt(v) F(sqrt v)` with Dawson's F. Torch has neither, so training takes one of the closed forms below.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import softplus

from ...errors import UnknownNameError

CONSTANT = 0.6696  # what the polynomial lacks to be 0 at a = infinity like the others; no gradient depends on it


def sigmoidal(log_alpha: torch.Tensor) -> torch.Tensor:
    """`k1 - k1 s(k2 + k3 ln a) + ln(1 + 1/a) / 2`: within 0.0095 of the exact value for ln a in [-10, 10].

    Source: Molchanov, Ashukha, Vetrov 2017 (ICML), equation 14.

    >>> round(sigmoidal(torch.tensor(0.0)).item(), 3)
    0.431
    """
    k1, k2, k3 = 0.63576, 1.87320, 1.48695
    return k1 * torch.sigmoid(-(k2 + k3 * log_alpha)) + softplus(-log_alpha) / 2


def polynomial(log_alpha: torch.Tensor) -> torch.Tensor:
    """`-(ln a)/2 - c1 a - c2 a^2 - c3 a^3 + const`, for a <= 1 only.

    Source: Kingma, Salimans, Welling 2015 (NeurIPS), appendix C.

    >>> round(polynomial(torch.tensor(0.0)).item(), 3)
    0.424
    """
    a = log_alpha.exp()
    return CONSTANT - log_alpha / 2 - 1.16145124 * a + 1.50204118 * a**2 - 0.58629921 * a**3


def ard(log_alpha: torch.Tensor) -> torch.Tensor:
    """`ln(1 + 1/a) / 2`: a normal prior whose variance is optimised out; proper, exact and closed.

    Source: Kharitonov, Molchanov, Vetrov 2018 (arXiv:1811.00596).

    >>> round(ard(torch.tensor(0.0)).item(), 4)
    0.3466
    """
    return softplus(-log_alpha) / 2


KINDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sigmoidal": sigmoidal,
    "polynomial": polynomial,
    "ard": ard,
}


def kl(kind: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The KL of a name.

    Raises:
        UnknownNameError: none of that name.

    >>> kl("ard") is ard
    True
    """
    if kind not in KINDS:
        raise UnknownNameError("kl", kind, KINDS)
    return KINDS[kind]
