"""CUDA tensors through the Triton kernels. Under `TRITON_INTERPRET=1 DROPKIT_CPU=off` CPU tensors take this way too."""

from typing import Any

import torch

from ... import choice
from ...layout import Layout
from .formula import BERNOULLI, Rate, device_factors, factors, plain


def usable(x: torch.Tensor, rate: Rate = 0, law: str = BERNOULLI) -> bool:
    """Whether a Triton kernel may take this tensor by its pointer, and knows the law."""
    known = law == BERNOULLI or isinstance(rate, int) or rate.numel() == 1
    return known and (x.is_cuda or (choice.OFF and choice.INTERPRET)) and plain(x) and choice.triton() is not None


def capturing() -> bool:
    """Whether a CUDA graph is being captured: what is read on the host now would be replayed for ever."""
    return _CAPTURES and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


_CAPTURES = torch.backends.cuda.is_built()


def stored_key(seed: torch.Tensor, site: int, step: torch.Tensor) -> Any:
    """A key that a kernel reads from the device's memory and folds by itself."""
    from ...kernels.triton.walk import StoredKey

    return StoredKey(seed, site, step)


def folded_key(state: torch.Tensor, site: int) -> torch.Tensor:
    """A folded key as two words in the device's memory, of seed and step that lie there."""
    from ...kernels.triton.fold import fold

    return fold(state, site)


def scale_kept(
    x: torch.Tensor, key: Any, rate: Rate, place: Layout, inplace: bool = False, law: str = BERNOULLI
) -> torch.Tensor:
    """What the law makes of x; its memory format is kept."""
    if law != BERNOULLI:
        from ...kernels.triton.affine import affine

        constants = factors(rate, law) if isinstance(rate, int) else device_factors(rate, x.device, law)
        return affine(x, key, rate, constants, *_where(x, place), inplace=inplace)
    from ...kernels.triton.dropout import dropout

    return dropout(x, key, rate, *_where(x, place), inplace=inplace)


def residual(x: torch.Tensor, r: torch.Tensor, key: Any, rate: Rate, place: Layout) -> torch.Tensor:
    """`r + (x * scale where kept)`."""
    from ...kernels.triton.residual import residual

    return residual(x, r, key, rate, *_where(x, place))


def activate(
    name: str, x: torch.Tensor, bias: torch.Tensor | None, key: Any, rate: Rate, place: Layout
) -> torch.Tensor:
    """`f(x + bias) * scale` where kept."""
    from ...kernels.triton.bias_activation import bias_activation

    return bias_activation(x, bias, key, rate, name, *_where(x, place))


def activate_grad(
    name: str, grad: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None, key: Any, rate: Rate, place: Layout
) -> torch.Tensor:
    """`grad * scale * f'(x + bias)` where kept."""
    from ...kernels.triton.bias_activation import bias_activation_backward

    return bias_activation_backward(grad, x, bias, key, rate, name, *_where(x, place))[0]


def norm(
    x: torch.Tensor,
    r: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    key: Any,
    rate: Rate,
    eps: float,
    rms: bool,
    place: Layout,
) -> Any:
    """`norm(r + (x * scale where kept))`: y, the sum, its mean and the inverse of its deviation, a number a row."""
    from ...kernels.triton.norm import norm

    return norm(x, r, weight, bias, key, rate, eps, rms, *_where(x, place))


def norm_grad(
    dy: torch.Tensor,
    dz: torch.Tensor,
    z: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    rstd: torch.Tensor,
    key: Any,
    rate: Rate,
    place: Layout,
) -> Any:
    """Gradients of x, r, weight and bias."""
    from ...kernels.triton.norm import norm_backward

    return norm_backward(dy, dz, z, weight, bias, mean, rstd, key, rate, *_where(z, place))


def _where(x: torch.Tensor, place: Layout) -> tuple[tuple[int, ...], int, torch.Tensor | None]:
    return place.strides, place.base, None if place.rows is None else place.rows.to(x.device)
