"""What a function of one's own returned: one number, or several by name, each a number or one for each test sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DropkitTypeError, DropkitValueError
from ...visible import a_type, one_line

SCORE = "score"
TAKEN = ("epoch", "step", "seconds")
WANTED = "a number, or a dict of numbers or of arrays with one for each test sample"
LOWER = {
    *("loss", "error", "err", "mse", "rmse", "mae", "mape", "nll", "ece", "brier", "perplexity", "ppl", "entropy"),
    *("deviance", "fid", "kl", "wer", "cer", "distance", "regret", "bpb", "bpc"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Returned:
    """Figures by name, and the numbers of each test sample of those that have them.

    >>> found = Returned.of({"accuracy": [1, 0, 1, 1]}, "f('none', 0)")
    >>> found.figures, found.samples["accuracy"].tolist()
    ({'accuracy': 0.75}, [1.0, 0.0, 1.0, 1.0])
    """

    figures: dict[str, float]
    samples: dict[str, NDArray[np.float32]]

    @classmethod
    def of(cls, found: Any, where: str) -> "Returned":
        """Check what was returned.

        Args:
            found: by the function.
            where: the call, for messages.

        Raises:
            DropkitTypeError: something else than numbers.
            DropkitValueError: NaN or infinity, or no figures at all.
        """
        named = found if isinstance(found, Mapping) else {SCORE: found}
        if not named:
            raise DropkitValueError(f"{where} returned an empty dict; it must return {WANTED}")
        figures: dict[str, float] = {}
        samples: dict[str, NDArray[np.float32]] = {}
        for name, value in named.items():
            if not isinstance(name, str) or name != one_line(name) or not name or name in TAKEN:
                raise DropkitTypeError(
                    f"{where} returned a figure called {name!r}; name it by a word such as 'accuracy'"
                )
            array = _numbers(value, f"{where} returned {_shown(value)}" + (f" for {name!r}" if named is found else ""))
            figures[name] = float(array.mean())
            if array.ndim:
                samples[name] = array.astype(np.float32)
        return cls(figures, samples)

    def light(self) -> "Returned":
        """The same with the number of its samples in place of them: they are read from files where they are needed."""
        samples = {name: np.broadcast_to(np.float32(0), array.shape) for name, array in self.samples.items()}
        return Returned(self.figures, samples)

    def check_like(self, other: "Returned", where: str) -> None:
        """Refuse other figures, or of other samples, than another call returned.

        Raises:
            DropkitValueError: they are.
        """
        if set(self.figures) != set(other.figures):
            raise DropkitValueError(
                f"{where} returned the figures {', '.join(self.figures)}, and the call before "
                f"{', '.join(other.figures)}; all must return the same"
            )
        counts, before = ({name: len(array) for name, array in one.samples.items()} for one in (self, other))
        if counts != before:
            name = next(name for name in self.figures if counts.get(name) != before.get(name))
            raise DropkitValueError(
                f"{where} returned {_count(counts.get(name))} for {name!r}, and the call before "
                f"{_count(before.get(name))}; all must score the same test samples"
            )


def _count(samples: int | None) -> str:
    return "one number" if samples is None else f"{samples} numbers"


def _shown(value: Any) -> str:
    text = one_line(repr(value))
    return text if len(text) <= 60 else f"{a_type(value)}"


def _numbers(value: Any, what: str) -> NDArray[np.float64]:
    """A number, or a row of them."""
    if hasattr(value, "detach"):  # a tensor of torch
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except Exception:  # a ragged list, or an object whose conversion fails
        array = np.asarray(None)
    if array.dtype.kind not in "biuf" or isinstance(value, bool) or array.ndim > 1:
        raise DropkitTypeError(f"{what}; it must return {WANTED}")
    if not array.size:
        raise DropkitTypeError(f"{what}, which holds nothing; it must return {WANTED}")
    wrong = [float(number) for number in array.ravel() if not math.isfinite(number)]
    if wrong:
        raise DropkitValueError(
            f"{what}, and {wrong[0]} cannot be compared; return a number for a run that failed too, such as the worst "
            "score"
        )
    return array.astype(np.float64)


def is_lower_better(metric: str) -> bool:
    """What a figure's name says: of losses and errors less is better.

    >>> is_lower_better("val_loss"), is_lower_better("RMSE"), is_lower_better("accuracy")
    (True, True, False)
    """
    words = metric.lower().replace("-", "_").replace(" ", "_").replace(":", "_").split("_")
    return bool(LOWER & set(words)) and words[0] != "neg"


def is_share(metric: str) -> bool:
    """What a figure's name says: accuracies are shares of the samples, told in percent.

    >>> is_share("val_acc"), is_share("balanced accuracy"), is_share("f1")
    (True, True, False)
    """
    return bool({"accuracy", "acc"} & set(metric.lower().replace("-", "_").replace(" ", "_").split("_")))
