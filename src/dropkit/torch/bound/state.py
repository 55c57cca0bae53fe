"""The seed and the step of a bound model in a `state_dict`, and apart from averages of weights.

Both are int64 buffers, so that wrappers, compilers and checkpoints treat them as they treat any state. But state that
is loaded from elsewhere may not have them, and what averages the state of two models must not average them:

- a `state_dict` without them loads, strictly too, and leaves them as they are; so does one that holds their average;
- a `state_dict` holds copies of them, so nobody who writes into its tensors writes into the model;
- so do the `buffers()` of a copy of a bound model, where an average of weights lives (`bond.py`);
- where such a copy is a part of a larger one, a third buffer helps, which is not saved and holds a number that is
  the model's own: an average of two models' buffers leaves no such number, and neither does memory that nobody has
  filled. The clock then writes its two integers again.
"""

import itertools
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from ...counter import MASK64
from ...errors import DropkitTypeError
from .bond import MARK, SEED, STEP, clock_of

_numbers = itertools.count(1)


def _mark(number: int) -> int:
    """31 bits that look random, and their checksum: neither an average of two marks nor anything else is one."""
    bits = zlib.crc32(number.to_bytes(8, "little")) >> 1
    return bits << 32 | zlib.crc32(bits.to_bytes(8, "little"))


def _is_mark(value: int) -> bool:
    bits = value >> 32
    return bits >= 0 and value == bits << 32 | zlib.crc32(bits.to_bytes(8, "little"))


def tensor_of(value: int, device: torch.device | str) -> torch.Tensor:
    """A 0-dim int64 tensor with the bits of an integer in [0, 2**64)."""
    with torch.inference_mode(False):
        return torch.tensor(_signed(value), dtype=torch.int64, device=device)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def readable(tensor: torch.Tensor) -> bool:
    """Whether the value is to be had: not on the meta device, nor where an exporter or a transform looks on."""
    plain = type(tensor) is torch.Tensor and not tensor.is_meta
    return plain and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


class Own:
    """The two integers of one model as Python last knew them, and whether its buffers still hold what is its own."""

    def __init__(self, seed: int):
        self.values = {SEED: seed, STEP: 0}
        # One mark for all that were bound, so that those of several ranks are equal; each copy has another.
        self.mark = _mark(0)
        self._tensor: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tensor": None}

    def differ(self) -> None:
        """Be another model's from here on: a copy of it, which an average of both must not take for either."""
        self.mark = _mark(next(_numbers))

    def write_mark(self, buffers: dict[str, torch.Tensor | None], device: torch.device | None = None) -> None:
        """Put the mark among the buffers; in a new tensor, for a process that got them may share their memory."""
        old = buffers.get(MARK)
        if device is None:
            device = torch.device("cpu") if old is None else old.device
        self._tensor = buffers[MARK] = tensor_of(self.mark, device)

    def mixed(self, buffers: dict[str, torch.Tensor | None]) -> bool:
        """Whether the buffers hold an average of two models', or memory that was never written."""
        mark = buffers.get(MARK)
        if mark is None or not readable(mark):
            return False
        value = int(mark)
        if value == self.mark:
            self._tensor = mark  # perhaps moved to another device
            return False
        return mark is self._tensor or not _is_mark(value)  # the whole state of another model, as for functional_call


def fill_in(
    module: torch.nn.Module,
    state_dict: dict[str, Any],
    prefix: str,
    local_metadata: dict[str, Any],
    *rest: Any,
) -> None:
    """Before a bound model loads: what the state does not have stays as it is."""
    clock = clock_of(module)
    clock.settle()
    assigned = local_metadata.get("assign_to_params_buffers", False)
    keys = {name: prefix + name for name in (SEED, STEP)}
    given = {name: state_dict[key] for name, key in keys.items() if isinstance(state_dict.get(key), torch.Tensor)}
    floating = [keys[name] for name, value in given.items() if value.is_floating_point()]
    if floating:
        warnings.warn(
            f"{' and '.join(floating)} of the state dict are {given[SEED if SEED in given else STEP].dtype}, so they "
            "were averaged or cast: the model keeps its own; take averages of dropkit.torch.plain_state_dict(model)",
            stacklevel=4,
        )
    buffers, values = clock.buffers, clock.own.values
    if assigned and buffers[MARK].is_meta:
        clock.own.write_mark(buffers, next((value.device for value in given.values()), torch.device("cpu")))
    if floating or not given:
        for name, key in keys.items():
            lost = assigned and buffers[name].is_meta
            state_dict[key] = tensor_of(values[name], "cpu") if lost else buffers[name].detach().clone()
        return
    for name, value in given.items():
        state_dict[keys[name]] = value.detach().clone()  # or assign=True would share it between models
        if readable(value):
            values[name] = int(value) & MASK64


def set_apart(module: torch.nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    """After a bound model gave its state: copies of the two integers, which nobody can write into the model."""
    clock = clock_of(module)
    clock.settle()
    for name in (SEED, STEP):
        value = state_dict.get(prefix + name)
        if value is not None and value is not module._buffers[name]:  # with keep_vars it is the buffer itself
            state_dict[prefix + name] = value.clone()


def left_out(unexpected: list[str], bound: bool) -> None:
    """Take the two integers of a bound model from the keys that another model does not expect.

    Warns:
        UserWarning: there were any.
    """
    found = [key for key in unexpected if _is_ours(key)]
    if found:
        unexpected[:] = [key for key in unexpected if key not in found]
        here = "bound at another level" if bound else "not bound"
        warnings.warn(
            f"{' and '.join(found)} of the state dict are left out, since the model that loads it is {here}: its masks "
            "do not go on as those of the model that was saved. dropkit.torch.bind it before it loads; for deployment "
            "save dropkit.torch.plain_state_dict(model)",
            stacklevel=5,
        )


def plain_state_dict(
    model: torch.nn.Module | Mapping[str, Any], *, prefix: str = "", keep_vars: bool = False
) -> dict[str, Any]:
    """`model.state_dict()` without seed and step: the keys that the model has when it is not bound.

    For deployment, for a model with torch's own dropouts, and for averages of several models' weights.

    Args:
        model: a module, bound or not, with bound parts or inside wrappers; or a state dict that one gave.
        prefix, keep_vars: as `torch.nn.Module.state_dict` takes them.

    Returns:
        An OrderedDict; its tensors are those of `state_dict()`, so they share memory with the model.

    Raises:
        DropkitTypeError: neither a module nor a mapping.

    >>> from torch import nn
    >>> from dropkit.torch import Dropout, bind
    >>> model = bind(nn.Sequential(nn.Linear(4, 4), Dropout(0.5)), seed=1)
    >>> list(plain_state_dict(model))
    ['0.weight', '0.bias']
    >>> nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).load_state_dict(plain_state_dict(model))
    <All keys matched successfully>
    """
    if isinstance(model, torch.nn.Module):
        state: Mapping[str, Any] = model.state_dict(prefix=prefix, keep_vars=keep_vars)
    elif isinstance(model, Mapping):
        state = {prefix + key: value for key, value in model.items()}
    else:
        raise DropkitTypeError(f"plain_state_dict needs a torch.nn.Module or a state dict, got {type(model).__name__}")
    plain = OrderedDict((key, value) for key, value in state.items() if not _is_ours(key))
    if (metadata := getattr(state, "_metadata", getattr(model, "_metadata", None))) is not None:
        plain._metadata = metadata  # type: ignore[attr-defined]
    return plain


def _is_ours(key: str) -> bool:
    return key.rpartition(".")[2] in (SEED, STEP)
