"""What a model is, as far as it was looked at, whatever its framework."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..recipes.objective import Objective


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A site of a model.

    Args:
        p: its rate in the model as it is, or as inserted.
        inserted: whether it was put in.
        shape: of the tensor that is dropped in, the batch first, as far as it is known.
        number: whether it is a number that a module hands over, so that its kind cannot be changed and it cannot learn.
        variant: its kind, by name; "" for what is there.
        feeds: path of the layer behind it, whose weights a learned rate's penalty is about; "" where none is known.
    """

    p: float
    inserted: bool = False
    shape: tuple[int, ...] | None = None
    number: bool = False
    variant: str = ""
    feeds: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a model is, as far as it was looked at.

    Args:
        places: its sites by name, in their order.
        objective: what it is trained for; with one output for two classes it is "binary".
        entering: how a batch enters: "", or what is done to it before.
        left: dropouts that no rate reaches, as a reader finds them; they stay on or off as written.
        drawn: sites whose masks the framework's own generator draws.
        sum: over names and shapes of the weights.
        sample: shape and dtype of a sample as the model gets it, where that is needed to build it.
        probabilities: whether it ends in a softmax or a sigmoid, where its framework trains such models.
        takes: the shape of a batch that it was run on, and whether of numbers with a fraction.
    """

    places: Mapping[str, Place]
    objective: Objective
    entering: str = ""
    left: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    sum: str = ""
    sample: tuple[tuple[int, ...], str] = ((), "float32")
    probabilities: bool = False
    takes: tuple[tuple[int, ...], bool] = ((), True)
