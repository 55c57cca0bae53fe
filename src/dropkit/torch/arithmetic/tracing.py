"""Where somebody writes down what runs: `torch.jit.trace`, `make_fx`, torch.export, ONNX."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from ...axes.noise import Alpha, Bernoulli
from ...axes.share import Refining
from ...drop import Lowered
from ...errors import DropkitRuntimeError, DropkitValueError
from ...threshold import ONE
from ..draw import Fresh


def shape_of(x: torch.Tensor) -> Sequence[int]:
    """The shape as numbers, which under `torch.jit.trace` are tensors: a trace holds for one shape past the batch."""
    state = torch._C._get_tracing_state()
    if state is None:
        return x.shape
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        return tuple(x.shape)
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


_is_compiling = torch.compiler.is_compiling
_tracing_state, _modes = torch._C._get_tracing_state, torch._C._len_torch_dispatch_stack  # this runs at each draw
_RECORDERS = {
    "make_fx": torch._C._TorchDispatchModeKey.PROXY,
    "aot_function": torch._C._TorchDispatchModeKey.FUNCTIONAL,
}


def refuse_to_record(bound: str) -> None:
    """Refuse the key of what is bound to whoever writes down values: one mask would be in the record for ever.

    Raises:
        DropkitRuntimeError: `torch.jit.trace`, `make_fx` or `aot_function` look on.
    """
    # Under a compiler seed and step are inputs of the graph.
    if _is_compiling() or (_tracing_state() is None and _modes() == 0):
        return
    if _tracing_state() is not None:
        recorder: str | None = "torch.jit.trace"
    else:
        found = (name for name, key in _RECORDERS.items() if torch._C._get_dispatch_mode(key) is not None)
        recorder = next(found, None)
    if recorder is None:
        return
    raise DropkitRuntimeError(
        f"{recorder} would bake the masks of one step in for ever, since {bound!r} is bound: record model.eval(), or a "
        "copy that draws afresh at each run, dropkit.torch.unbind(copy.deepcopy(model)); torch.export and "
        "torch.compile take the model as it is"
    )


exporting_to_onnx, _in_export = torch.onnx.is_in_onnx_export, torch.compiler.is_exporting


def exporting() -> bool:
    """Whether torch.export or ONNX records this call; both know dropout by torch's own operators only."""
    return _in_export() or exporting_to_onnx()


def has_torchs_own(x: torch.Tensor, share: Any, lowered: Lowered) -> bool:
    """Whether torch's operators can say it: inverted dropout; alpha dropout that shares all past the channels."""
    if isinstance(share, Refining):
        return False
    kind = type(lowered.law)
    return kind is Bernoulli or (kind is Alpha and (not share or _channels(x, share)))


def torchs_own(x: torch.Tensor, lowered: Lowered, share: Any, fresh: Fresh) -> torch.Tensor:
    """torch's dropout of the same law, for an exporter that has no other name for it.

    Warns:
        UserWarning: the draw `fresh` is that of a bound dropout, which the file cannot hold.
    """
    if hasattr(getattr(getattr(fresh, "__self__", None), "site", None), "clock"):
        warnings.warn(
            "the model is bound, but an ONNX file knows no seed and step: its dropout is ONNX's own, with other masks. "
            "For inference export model.eval()",
            stacklevel=2,
        )
    rate, alpha = lowered.t, type(lowered.law) is Alpha
    p = float(rate) if isinstance(rate, torch.Tensor) else 1 - rate / ONE
    if isinstance(share, Refining) or not (alpha or type(lowered.law) is Bernoulli):
        raise DropkitValueError(
            f"ONNX has no dropout of noise {lowered.law!r} and share {share!r}; export model.eval()"
        )
    if not has_torchs_own(x, share, lowered):
        raise DropkitValueError(
            f"ONNX has no alpha dropout that shares axes {tuple(share)} of {x.dim()}; leave share out, or share all "
            "axes past the channels"
        )
    if share and _channels(x, share) and (alpha or exporting_to_onnx()):
        return (functional.feature_alpha_dropout if alpha else torch.feature_dropout)(x, p, True)
    if share:
        shared = {axis % x.dim() for axis in share}
        if not exporting_to_onnx():
            return x * functional.dropout(x.new_ones([1 if i in shared else n for i, n in enumerate(x.shape)]), p, True)
        part = x
        for axis in shared:
            part = part.narrow(axis, 0, 1)
        # its optimizer would run a dropout of ones once and for all
        return x * (torch.rand_like(part) >= p).to(x.dtype) * (1 / (1 - p) if p < 1 else 0)
    return functional.alpha_dropout(x, p, True) if alpha else functional.dropout(x, p, True)


def _channels(x: torch.Tensor, share: Sequence[int]) -> bool:
    return x.dim() > 2 and {axis % x.dim() for axis in share} == set(range(2, x.dim()))


def switched(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y, or x once a pass has taken an exported graph from training to evaluation.

    Such passes rewrite torch's dropout and know no other. So the graph gets one of a single 1, which is 0 or 2 in
    training and 1 in evaluation.
    """
    switch = functional.dropout(torch.ones((), dtype=torch.float32, device=x.device), 0.5, True)
    return torch.where(switch == 1, x, y)
