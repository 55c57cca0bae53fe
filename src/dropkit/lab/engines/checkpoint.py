"""State of a run in safetensors: tensors as they are, everything else as JSON in the file's own header.

One file, replaced atomically, so that tensors and numbers never belong to different epochs. Nothing is unpickled.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ...errors import DataError, DropkitValueError
from ..files import write_bytes
from ..files.sealed import SUM, UNSEALED, header_text, read_sealed, seal
from .moves import Sites

Optimizers = Mapping[str, torch.optim.Optimizer]


@dataclass(slots=True)
class Progress:
    """What a run has done so far: one row an epoch, steps taken, the epoch of the best checkpoint, and whose it is."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    run: str = ""

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "Progress":
        """What a state's header says.

        Raises:
            DropkitValueError: the file has no sum, so that nobody knows whether this is what was written.
        """
        if SUM not in header:
            raise DropkitValueError(UNSEALED)
        return cls(header["rows"], header["step"], header["best_epoch"], header["best_loss"], header["run"])


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any]) -> None:
    """The model's state_dict; `about` goes into the header as JSON."""
    _save(path, model.state_dict(), about)


def save_state(path: Path, model: nn.Module, optimizers: Optimizers, sites: Sites, progress: Progress) -> None:
    """Everything that the next epoch depends on: weights, learned rates and mask coordinates, optimizers, controllers,
    progress. Schedules follow from the step.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    header: dict[str, Any] = {"controllers": sites.state(), "optimizers": {}, **asdict(progress)}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            for entry, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{name}/{index}/{entry}"] = value
                else:
                    scalars.setdefault(str(index), {})[entry] = value
        header["optimizers"][name] = {"groups": state["param_groups"], "scalars": scalars}
    _save(path, tensors, header)


def _save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, seal(save(whole, header_text(header))))


def load_state(path: Path, model: nn.Module, optimizers: Optimizers, sites: Sites) -> Progress:
    """Put a saved state back into model, optimizers and controllers, and return the progress that goes with it.

    Raises:
        DataError: the file is missing, damaged or belongs to another model or strategy.
    """
    try:
        content, header = read_sealed(path)
        tensors = load(content)
        model.load_state_dict(_under("model/", tensors))
        for name, optimizer in optimizers.items():
            _load_optimizer(optimizer, _under(f"optimizer/{name}/", tensors), header["optimizers"][name])
        sites.load(header["controllers"])
        return Progress.of(header)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot resume from {path}: {error}; delete its folder and run again") from error


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, Any]] = {int(index): dict(scalars) for index, scalars in header["scalars"].items()}
    for key, tensor in tensors.items():
        index, _, name = key.partition("/")
        parameter = parameters[int(index)]
        # A file has one memory format; in the parameter's own, the next step does the same sums in the same order.
        like = torch.empty_like(parameter, dtype=tensor.dtype) if tensor.shape == parameter.shape else tensor
        entries.setdefault(int(index), {})[name] = like.copy_(tensor)
    optimizer.load_state_dict({"state": entries, "param_groups": header["groups"]})


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
