"""State of a run in safetensors: tensors as they are, everything else as JSON in the file's own header.

One file, replaced atomically, so that tensors and numbers never belong to different epochs. Nothing is unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import DataError
from .files import write_bytes

HEADER = "dropkit"


@dataclass(slots=True)
class Progress:
    """What a run has done so far: one row an epoch, steps taken, and the epoch of the best checkpoint."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    best_epoch: int = 0
    best_loss: float | None = None


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any]) -> None:
    """The model's state_dict; `about` goes into the header as JSON."""
    _save(path, model.state_dict(), about)


def save_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Everything that the next epoch depends on: weights and mask coordinates, optimizer, progress."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    _save(
        path,
        tensors,
        {
            "rows": progress.rows,
            "step": progress.step,
            "best_epoch": progress.best_epoch,
            "best_loss": progress.best_loss,
            "optimizer": {"groups": state["param_groups"], "scalars": scalars},
        },
    )


def _save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(whole, {HEADER: json.dumps(header)}))


def load_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put a saved state back into model and optimizer, and return the progress that goes with it.

    Raises:
        DataError: the file is missing, damaged or belongs to another model.
    """
    try:
        tensors, header = _load(path)
        model.load_state_dict(_under("model/", tensors))
        entries: dict[int, dict[str, Any]] = {
            int(index): dict(scalars) for index, scalars in header["optimizer"]["scalars"].items()
        }
        for key, tensor in _under("optimizer/", tensors).items():
            index, _, name = key.partition("/")
            entries.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({"state": entries, "param_groups": header["optimizer"]["groups"]})
        return Progress(header["rows"], header["step"], header["best_epoch"], header["best_loss"])
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot resume from {path}: {error}; delete its folder and run again") from error


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return tensors, json.loads(file.metadata()[HEADER])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
