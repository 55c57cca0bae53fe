"""Hugging Face's eager attention, through Hugging Face's own attention interface, where it is called "dropkit".

    config._attn_implementation_internal = "dropkit"  ->  a module's forward asks the interface  ->  `forward` here

The model's eager function decides. Where that computes softmax(scale q k' + mask) v, which `plain` tries, it is one
call of torch's attention, and the module's site draws it without storing weights. Else (a soft cap, sinks), and where
the weights are asked for, the function itself runs, and the same site draws its dropout: the same mask.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..errors import DropkitTypeError
from ..visible import a_type
from .reading.structure import CALLS
from .taken import weights_of

NAME = "dropkit"
KEPT = "_attn_implementation_internal"
_QUERIES, _KEYS = 5, 7  # of a trial
_SPREADS = (1.0, 30.0)  # of its scores: sinks are seen in small ones, a soft cap in large ones


@dataclass
class Eager:
    """A module's eager function, and whether it computes what torch's attention does; None until it was tried."""

    function: Callable[..., Any]
    plain: bool | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        register()  # a process that has loaded a model has not heard of the name


def eager_config(module: nn.Module) -> Any:
    """The config by which a module chooses its attention, if that is the eager function or ours; else None.

    >>> eager_config(nn.Linear(2, 2)) is None
    True
    """
    config = module.__dict__.get("config")
    return config if getattr(config, KEPT, None) in ("eager", NAME) and eager_of(module) is not None else None


def known_of(module: nn.Module) -> Eager | None:
    """What is known of a module's eager function before it was tried; None if it has none.

    >>> known_of(nn.Linear(2, 2)) is None
    True
    """
    function = eager_of(module)
    return None if function is None else Eager(function)


def eager_of(module: Any) -> Callable[..., Any] | None:
    """The function that modules of its class hand to the interface for "eager"; None where they ask for none.

    >>> eager_of(nn.Linear(2, 2)) is None
    True
    """
    kind: Any = type(module)
    found: Callable[..., Any] | None = _eager_of(kind)
    return found


@cache
def _eager_of(kind: Any) -> Callable[..., Any] | None:
    for member in (member for owner in kind.__mro__ for member in vars(owner).values() if inspect.isfunction(member)):
        asking = inspect.unwrap(member)
        names = asking.__code__.co_names if inspect.isfunction(asking) else ()
        if "ALL_ATTENTION_FUNCTIONS" in names:
            found = [asking.__globals__.get(name) for name in names if "eager" in name]
            functions = [function for function in found if inspect.isfunction(function)]
            return functions[0] if len(functions) == 1 else None
    return None


def register() -> str:
    """Have the interface know the name; why it cannot, or "" where it does.

    >>> isinstance(register(), str)
    True
    """
    if "transformers" not in sys.modules:
        return "no transformers"
    attention = getattr(sys.modules.get("transformers.modeling_utils"), "AttentionInterface", None)
    masks = getattr(sys.modules.get("transformers.masking_utils"), "AttentionMaskInterface", None)
    if attention is None or masks is None or "eager" not in masks():
        version = getattr(sys.modules["transformers"], "__version__", "?")
        return f"transformers {version} lets no attention and no mask be registered; version 5 does"
    attention.register(NAME, forward)
    masks.register(NAME, masks()["eager"])
    return ""


def forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What the interface calls, with the arguments and results of an eager function; no weights unless asked for.

    Raises:
        DropkitTypeError: the module's own eager function cannot be found.
    """
    sites: Any = module._modules.get(CALLS)
    known: Eager | None = None if sites is None else sites.eager
    eager = eager_of(module) if known is None else known.function
    if eager is None:
        raise DropkitTypeError(
            f"{a_type(module)} does not show which function is its eager attention: say "
            'model.set_attn_implementation("eager"), or "sdpa"'
        )
    if known is None:  # nobody has taken it over
        return eager(module, query, key, value, attention_mask, *args, **kwargs)
    if known.plain is None and not torch.compiler.is_compiling():
        known.plain = plain(eager, module, query, key, *args, **kwargs)
    if known.plain and not args and not _asked(module, kwargs) and _fits(query, key, value, attention_mask, kwargs):
        return _attention(module, query, key, value, attention_mask, **kwargs), None
    with weights_of(sites):
        return eager(module, query, key, value, attention_mask, *args, **kwargs)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **rest: Any,  # which an eager function that is plain does not heed
) -> torch.Tensor:
    if position_bias is not None:
        mask = position_bias if mask is None else position_bias + mask
    p = dropout if module.training else 0.0
    shared = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    out = functional.scaled_dot_product_attention(query, key, value, mask, p, scale=scaling, **shared)
    return out.transpose(1, 2).contiguous()


def _fits(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, kwargs: dict[str, Any]
) -> bool:
    """Whether torch's attention takes these as an eager function does, which multiplies and adds whatever it gets."""
    added = [x for x in (mask, kwargs.get("position_bias")) if x is not None]
    alike = query.dim() == key.dim() == value.dim() == 4 and query.shape[0] == key.shape[0] == value.shape[0]
    return alike and all(x.dtype == query.dtype and x.shape[-1] in (1, key.shape[2]) for x in added)


def _asked(module: Any, kwargs: dict[str, Any]) -> bool:
    """Whether somebody wants the weights: the call, the config, or what collects them for the model."""
    if kwargs.get("output_attentions") or getattr(module.config, "output_attentions", False):
        return True
    collecting = getattr(sys.modules.get("transformers.utils.output_capturing"), "_active_collector", None)
    collected = collecting.get() if collecting is not None else None
    return collected is not None and any("attentions" in name for name in collected)


def plain(
    eager: Callable[..., Any], module: nn.Module, query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any
) -> bool:
    """Whether an eager function computes attention as torch does, by trials with the arguments of a call.

    Args:
        eager: the function.
        module: which calls it, and holds what it may heed: sinks, groups of heads.
        query, key: of the call: heads, features, dtype, device.
        args, kwargs: what follows its mask.
    """
    kwargs = {**kwargs, "dropout": 0.0}
    biased = kwargs.pop("position_bias", None) is not None
    told = kwargs.get("scaling")
    scale = query.shape[-1] ** -0.5 if told is None else told
    draw = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=draw).to(query.device, query.dtype)

    close = 1e-3 if query.dtype in (torch.float32, torch.float64) else 5e-2
    with torch.no_grad(), torch._C.DisableTorchFunction():  # nobody listens
        for spread in _SPREADS:
            q = random(2, query.shape[1], _QUERIES, query.shape[-1]) * (spread * query.shape[-1] ** -0.5 / scale)
            k, v = (random(2, key.shape[1], _KEYS, query.shape[-1]) for _ in range(2))
            mask = random(2, 1, _QUERIES, _KEYS)
            mask[..., -2:] = torch.finfo(mask.dtype).min
            if biased:
                kwargs["position_bias"] = random(1, query.shape[1], _QUERIES, _KEYS)
            try:
                wanted = eager(module, q, k, v, mask, *args, **kwargs)[0]
                found = _attention(module, q, k, v, mask, **kwargs)
            except Exception:  # whatever a function of somebody's says to a trial
                return False
            if wanted.shape != found.shape or not torch.allclose(wanted, found, rtol=close, atol=close):
                return False
    return True
