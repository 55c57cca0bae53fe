"""An objective as functions of torch: outputs, the loss of a batch and of each sample, and running figures."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...errors import DropkitTypeError, DropkitValueError
from ...visible import a_type
from ..imported import failed, imported, is_named
from ..recipes.objective import BINARY, CLASSES, TOKENS, Metric, Objective
from .given import check_number, check_shape

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets) -> a number, or one for each sample."""

TOGETHER, MOST = 16, 1 << 20  # batches that are scored at once, unless one has more numbers
PADDING = -100  # what cross-entropy leaves out
NAMED: Mapping[str, Callable[..., Tensor]] = {
    "cross-entropy": functional.cross_entropy,
    "nll": functional.nll_loss,
    "binary-cross-entropy": functional.binary_cross_entropy_with_logits,
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "huber": functional.huber_loss,
}


@dataclass(frozen=True, slots=True)
class Losses:
    """An objective's loss.

    Args:
        mean: of a batch.
        each: of each sample of a batch; None where a loss of the user's gives a batch's mean alone.
    """

    mean: Loss
    each: Loss | None

    def of_each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample.

        Raises:
            DropkitValueError: the loss gives a batch's mean alone.
        """
        if self.each is None:
            raise DropkitValueError(
                "this needs the loss of each sample, and the loss gives one number for a batch: return one for each "
                "sample, or choose another loss"
            )
        return self.each(outputs, targets)


def losses(objective: Objective) -> Losses:
    """The functions of an objective.

    >>> losses(Objective()).of_each(torch.zeros(2, 4), torch.tensor([0, 1])).shape
    torch.Size([2])
    """
    if is_named(objective.loss):
        return _own(objective.loss, objective.kind)
    function = NAMED[objective.loss]
    if objective.kind == CLASSES:
        return Losses(function, lambda outputs, targets: function(outputs, targets, reduction="none"))
    if objective.kind == TOKENS:
        return Losses(_tokens_mean, _tokens_each)
    return Losses(
        lambda outputs, targets: function(outputs, targets.to(outputs.dtype)),
        lambda outputs, targets: _each(function(outputs, targets.to(outputs.dtype), reduction="none"), len(targets)),
    )


def _each(found: Tensor, samples: int) -> Tensor:
    """The mean of each sample over what else there is."""
    return found.reshape(samples, -1).mean(1)


def _padded(targets: Tensor) -> Tensor:
    return targets.masked_fill(targets < 0, PADDING).flatten()


def _tokens_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, -2), _padded(targets), ignore_index=PADDING)


def _tokens_each(outputs: Tensor, targets: Tensor) -> Tensor:
    found = functional.cross_entropy(outputs.flatten(0, -2), _padded(targets), ignore_index=PADDING, reduction="none")
    known = (targets >= 0).sum(1).clamp(min=1)
    return found.reshape(targets.shape).sum(1) / known


def _own(name: str, kind: str) -> Losses:
    """A loss of the user's, or a class or a function of torch's by its place."""
    function = imported(name)
    if inspect.isclass(function) and issubclass(function, nn.Module):
        takes = "reduction" in inspect.signature(function).parameters
        function = function(reduction="none") if takes else function()
    elif callable(function) and "reduction" in _parameters(function):
        reducing = function
        function = lambda outputs, targets: reducing(outputs, targets, reduction="none")  # noqa: E731
    if not callable(function):
        raise DropkitTypeError(f"loss {name} is {a_type(function)}: give a function (outputs, targets)")

    def found(outputs: Tensor, targets: Tensor) -> Tensor:
        try:
            value = function(outputs, targets)
        except Exception as error:
            raise DropkitValueError(failed(f"loss {name}", error)) from error
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise DropkitTypeError(f"loss {name} gave {a_type(value)}: it must give a tensor of numbers")
        check_shape(name, value.shape, len(targets))
        return value

    def each(outputs: Tensor, targets: Tensor) -> Tensor:
        value = found(outputs, targets)
        if value.dim() == 0:
            raise DropkitValueError(
                f"loss {name} gives one number for a batch, and one for each sample is needed here: return a tensor of "
                "as many as there are samples"
            )
        return _each(value, len(targets))

    return Losses(lambda outputs, targets: found(outputs, targets).mean(), each)


def _parameters(function: Any) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def outputs_of(found: Any, kind: str = CLASSES) -> Tensor:
    """What a model gave as the tensor of its outputs: the logits of an object, the first of several; where a sample has
    one number, without an axis for it.

    >>> outputs_of((torch.zeros(3, 1), None), "binary").shape
    torch.Size([3])
    """
    if not isinstance(found, Tensor):
        found = _within(found)
    if kind != CLASSES and kind != TOKENS and found.dim() == 2 and found.shape[1] == 1:
        return found.squeeze(1)
    return found


def _within(found: Any) -> Tensor:
    if isinstance(found, Mapping) and "logits" in found:
        found = found["logits"]
    elif hasattr(found, "logits"):
        found = found.logits
    elif isinstance(found, tuple | list) and found:
        found = found[0]
    if not isinstance(found, Tensor):
        raise DropkitTypeError(
            f"the model gives {type(found).__name__}: it must give a tensor, several of which the first counts, or an "
            "object with logits"
        )
    return found


class Score:
    """The mean loss and the metric over samples.

    Args:
        name: of the part, before the figures in a row.
        objective: what is scored.
        device: of the tensors.
        training: whether of batches as they are trained, of which a metric of the whole is not known.
        kept: whether the scores of the samples are kept.
    """

    def __init__(
        self, name: str, objective: Objective, device: torch.device, *, training: bool = False, kept: bool = False
    ) -> None:
        self.name, self.metric, self.kind = name, objective.measured, objective.kind
        self.whole = self.metric.whole is not None and not training
        self.counted = (objective.kind, objective.metric) == (CLASSES, "accuracy")
        self.losses = losses(objective)
        self.kept = kept and self.whole is False and (self.metric.each is not None or self.metric.key == "loss")
        self.loss = np.float32(0)  # a loss that is not a number shows
        self.figure = torch.zeros((), dtype=torch.float64, device=device)
        self.samples = 0
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.seen: list[tuple[NDArray, NDArray]] = []
        self.scores: list[Tensor] = []

    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """Take in a batch: its mean loss counts once for each sample."""
        self.waiting.append((loss.detach(), outputs.detach(), targets))
        if len(self.waiting) == TOGETHER or outputs.numel() > MOST:
            self._take_in()

    def _take_in(self) -> None:
        """Several batches at once: small operations cost more than what they compute, and each waits for a device."""
        if not self.waiting:
            return
        losses, outputs, targets = zip(*self.waiting, strict=True)
        self.waiting = []
        with np.errstate(all="ignore"):  # of a run that diverges
            for loss, batch in zip(torch.stack(losses).float().tolist(), targets, strict=True):
                self.loss = np.float32(self.loss + np.float32(loss) * np.float32(len(batch)))
                self.samples += len(batch)
        self._score(torch.cat(outputs), torch.cat(targets))

    def _score(self, outputs: Tensor, targets: Tensor) -> None:
        if self.whole:
            self.seen.append((outputs.float().cpu().numpy(), targets.cpu().numpy()))
        elif self.metric.each is not None:
            self._count(self._scored(self.metric, outputs, targets))
        elif self.kept:
            self.scores.append(self.losses.of_each(outputs, targets).detach().float())

    def _scored(self, metric: Metric, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.counted:
            return outputs.argmax(-1) == targets
        assert metric.each is not None
        found = metric.each(*((outputs, targets) if _ours(metric) else (outputs.float().cpu(), targets.cpu())))
        return torch.as_tensor(found)

    def _count(self, scores: Tensor) -> None:
        self.figure += scores.sum()
        if self.kept:
            self.scores.append(scores.float())

    def row(self) -> dict[str, float]:
        """The two figures, under the names of a row."""
        self._take_in()
        found = {f"{self.name}_loss": float(self.loss) / self.samples}
        key = f"{self.name}_{self.metric.key}"
        if self.whole:
            outputs, targets = (np.concatenate(arrays) for arrays in zip(*self.seen, strict=True))
            assert self.metric.whole is not None
            found[key] = self.metric.whole(outputs, targets) if np.isfinite(outputs).all() else float("nan")
        elif self.counted:  # as torchmetrics has it, in float32
            found[key] = float(np.float32(float(self.figure)) / np.float32(self.samples))
        elif self.metric.each is not None:
            found[key] = float(self.figure) / self.samples
        return found

    def of_samples(self) -> NDArray[np.float32] | None:
        """The scores of the samples, in their order; None where they were not kept."""
        self._take_in()
        return torch.cat(self.scores).cpu().numpy().astype(np.float32) if self.scores else None


def _ours(metric: Metric) -> bool:
    """Whether a formula takes tensors too."""
    return getattr(metric.each, "__module__", "").endswith("recipes.objective")


def check_loss(outputs: Tensor, targets: Tensor, objective: Objective) -> None:
    """Refuse a loss that cannot be trained by, tried on what the model gave.

    Raises:
        DropkitError: it fails, or gives no number with a gradient.
    """
    with torch.enable_grad():
        loss = losses(objective).mean(outputs.detach().clone().requires_grad_(), targets)
    if loss.dim():
        raise DropkitValueError(f"loss {objective.loss} gives a tensor of shape {tuple(loss.shape)}, not a number")
    if not loss.requires_grad:
        raise DropkitValueError(
            f"loss {objective.loss} has no gradient: compute it from the outputs by torch's functions, without detach, "
            "item or NumPy"
        )
    check_number(objective.loss, float(loss.detach()), len(targets))


def check_output(outputs: Tensor, targets: Tensor, objective: Objective, classes: int) -> None:
    """Refuse outputs that do not fit the targets.

    Raises:
        DropkitValueError: they have another shape than the kind needs.
    """
    samples = len(targets)
    wanted: tuple[int, ...] = tuple(targets.shape)
    if objective.kind in (CLASSES, TOKENS):
        fits = outputs.shape[:-1] == targets.shape and outputs.shape[-1] >= classes if outputs.dim() else False
        wanted = (*wanted, classes)
    else:
        fits = outputs.shape == targets.shape
    if fits and outputs.is_floating_point():
        if outputs.isnan().any():
            raise DropkitValueError(
                f"the model gives nan for the first {samples} samples, before any training: look at its first weights "
                "and for divisions by 0"
            )
        return
    given = f"{tuple(outputs.shape)} of {str(outputs.dtype).removeprefix('torch.')}"
    more = " or (samples, 1)" if objective.kind == BINARY else ""
    raise DropkitValueError(
        f"the model gives {given} for {samples} samples, and {objective.kind} needs numbers of the shape "
        f"{wanted}{more}: change its last layer, or say what the data are with --kind"
    )
