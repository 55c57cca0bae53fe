"""What a prediction of many passes says of each input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import DropkitError, DropkitValueError
from .streaming import CLASSES

_NEEDS = {
    **dict.fromkeys(
        ("entropy", "expected_entropy", "mutual_information", "variation_ratio"),
        'probabilities: say outputs="logits" or what else the model puts out',
    ),
    **dict.fromkeys(
        ("epistemic", "aleatoric"), 'a model that puts out means and log variances: say outputs="gaussian"'
    ),
    "quantiles": "levels: say quantiles=(0.05, 0.95)",
    "samples": "them kept: say keep=True",
}


class NotAsked(DropkitError, AttributeError):
    """Something of a prediction that it was not asked for."""


@dataclass(frozen=True)
class Prediction:
    """What many passes say of each input, in the order of the inputs; arrays of the model's framework.

    Args:
        outputs: what the model puts out, as `predict` was told.
        axis: of the classes in the mean; of no meaning for values.
        share: "sample" or "pass", as `predict` was told.
        levels: of the quantiles.
        sites: the dropouts that were on.
        once: the parts of the model that ran once for each input, before any dropout.
        note: why not more of it did, or "".
        count: how many passes each input got; they differ where `stop=` ended some early.
        arrays: by name; its entries are attributes too: `mean`, `variance`, and where they can be had `entropy`,
            `expected_entropy`, `mutual_information`, `variation_ratio`, `epistemic`, `aleatoric`, `quantiles`,
            `samples`.

    `mean` and `variance` have the shape of the outputs, with probabilities in the place of logits; for classes the four
    measures are without the axis of the classes, in nats. `quantiles` has an axis of levels in front, `samples` one of
    passes, with NaN where `stop=` ended an input's. All judges of `dropkit.uncertainty` take a prediction.

    >>> from dropkit.uncertainty import predict
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(4, 3))
    >>> found = predict(model, torch.ones(2, 4), samples=20, outputs="logits", quantiles=(0.05, 0.95))
    >>> found.axes["quantiles"], found.count.tolist(), found.labels.shape
    (('level', 'input', 'output 0'), [20, 20], torch.Size([2]))
    """

    outputs: str
    axis: int
    share: str
    levels: tuple[float, ...]
    sites: tuple[str, ...]
    once: tuple[str, ...]
    note: str
    count: Any
    arrays: Mapping[str, Any] = field(repr=False)

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """The names of the axes of each array.

        "input" is the axis of the data set; "level" and "sample" stand in front of it; the others are the model's.
        """
        found = {}
        for name, array in self.arrays.items():
            front = {"quantiles": ("level", "input"), "samples": ("sample", "input")}.get(name, ("input",))
            found[name] = (*front, *(f"output {n}" for n in range(array.ndim - len(front))))
        return found

    def __getattr__(self, name: str) -> Any:
        arrays = self.__dict__.get("arrays", {})
        if name in arrays:
            return arrays[name]
        if name in _NEEDS:
            raise NotAsked(f"a prediction of {self.outputs!r} without {name}: it needs {_NEEDS[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __len__(self) -> int:
        return len(self.arrays["mean"])

    @property
    def labels(self) -> Any:
        """The class of the highest mean probability of each input.

        Raises:
            DropkitValueError: the outputs are no classes.
        """
        if self.outputs not in CLASSES:
            raise DropkitValueError(f"labels are of classes, and the outputs are {self.outputs!r}")
        return self.arrays["mean"].argmax(self.axis)
