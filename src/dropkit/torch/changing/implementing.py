"""The edit by which Hugging Face's eager attention runs by torch's attention, and which configs there are to edit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from .. import eager
from ..finding.trace import copied, undisturbed
from .overlay import Overlay
from .receipt import Overlaid, Receipt
from .taking import TakingOver

_CLOSE = 1e-3  # of the largest number that comes out, in single precision; that of another attention is off by far more
_CLOSE_IN_HALF = 5e-2


@dataclass(slots=True)
class Implementation(Overlaid):
    """A config that names our attention as its implementation."""

    path: str
    config: Any

    def __post_init__(self) -> None:
        self.over = Overlay(self.config, eager.KEPT, eager.NAME)

    @property
    def line(self) -> str:
        """The config, the old and the new name."""
        return f"{self.path}.config: attn_implementation 'eager' -> '{eager.NAME}', which stores no attention weights"


def implementations(
    model: nn.Module, calls: Sequence[TakingOver], inputs: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Implementation], list[str]]:
    """The edits for what calls an eager attention, tried on these inputs, and lines on what stays with that.

    The calls learn which eager function they have, and whether it is torch's attention.
    """
    asking = [call for call in calls if not call.recurrent and eager.eager_config(call.module) is not None]
    if not asking:
        return [], []
    configs = {id(call.module.config): call for call in reversed(asking) if _named(call) != eager.NAME}
    where = f"{asking[0].path}{' and others' if len(asking) > 1 else ''}"
    stored = f"{where}: the eager function stays, which stores its weights: "
    missing = eager.register()
    if missing:
        return [], [stored + missing]
    for call in asking:
        call.eager = eager.known_of(call.module)
    edits = [Implementation(call.path, call.module.config) for call in reversed(configs.values())]
    try:
        same = _tried(model, calls, edits, inputs, kwargs)
    except Exception as error:  # whatever a model says to a name that it does not know
        return [], [f"{stored}the model fails with an implementation of another name ({type(error).__name__}: {error})"]
    if not same:
        return [], [f"{stored}the model computes something else with an implementation of another name"]
    other = [call.path for call in asking if call.eager is None or not call.eager.plain]
    if len(other) == len(asking):
        return [], [f"{stored}it computes more than the softmax of scores and a mask"]
    told = "the eager function stays, which stores its weights: it computes more than the softmax of scores and a mask"
    return edits, [f"{path}: {told}" for path in other]


def _tried(
    model: nn.Module,
    calls: Sequence[TakingOver],
    edits: Sequence[Implementation],
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> bool:
    """Whether the model in evaluation gives the same with these edits; what is known of eager functions grows."""
    wanted = _outputs(model, inputs, kwargs)
    with Receipt([*calls, *edits], []):
        found = _outputs(model, inputs, kwargs)
    return len(wanted) == len(found) and all(map(_close, wanted, found))


def _named(call: TakingOver) -> Any:
    return getattr(call.module.config, eager.KEPT)


def _outputs(model: nn.Module, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    with undisturbed(model, inputs, kwargs), torch.no_grad():
        model.eval()
        torch.default_generator.manual_seed(0)
        out = model(*copied(inputs), **copied(dict(kwargs)))
    return [x for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.is_floating_point()]


def _close(wanted: torch.Tensor, found: torch.Tensor) -> bool:
    if wanted.shape != found.shape or not wanted.numel():
        return wanted.shape == found.shape
    close = _CLOSE if wanted.dtype in (torch.float32, torch.float64) else _CLOSE_IN_HALF
    most = float(wanted.detach().abs().nan_to_num().max())
    return torch.allclose(wanted, found, rtol=close, atol=close * most, equal_nan=True)
