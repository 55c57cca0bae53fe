"""Three comparisons whose answer is known: does `dropkit compare` give it?

    python benchmarks/known_answers.py                 # about ten minutes on one core
    python benchmarks/known_answers.py maps --seeds 5

maps: on maps of convolutions neighbours hold the same, so that single values that are dropped are still there; whole
channels are the right kind (Tompson et al. 2015). residual: in a shallow residual network, whose blocks are few, to
drop whole blocks of a sample costs more than it brings, and none is best. wiring: a dropout behind the output layer,
which is no regulariser but a wrong answer in every step, is worse than none.
"""

import argparse
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from dropkit.lab import Data, compare, load_data


class Block(nn.Module):
    """x + f(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        return x + self.branch(x)


def maps() -> nn.Module:
    """A convolutional network on 8 x 8 images enlarged to 16 x 16, so that neighbours are nearly the same."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(up=nn.Upsample(scale_factor=2, mode="bilinear"))
    layers |= {"conv1": nn.Conv2d(1, 32, 5), "relu1": nn.ReLU(), "conv2": nn.Conv2d(32, 32, 5), "relu2": nn.ReLU()}
    return nn.Sequential(layers | {"flat": nn.Flatten(), "output": nn.Linear(32 * 64, 10)})


def residual() -> nn.Module:
    """Three residual blocks."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flat=nn.Flatten(), into=nn.Linear(64, 64))
    layers |= {f"block{number}": Block(64) for number in range(3)}
    return nn.Sequential(layers | {"output": nn.Linear(64, 10)})


def wiring() -> nn.Module:
    """A dense network."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flat=nn.Flatten(), hidden=nn.Linear(64, 64), relu=nn.ReLU())
    return nn.Sequential(layers | {"output": nn.Linear(64, 10)})


@dataclass(frozen=True)
class Question:
    """A comparison and what is known to come out.

    Args:
        make: the model.
        insert: where dropouts are put.
        strategies: that are compared.
        right: (better, worse): strategies by their names.
        samples: how many training samples there are; with few of them a network overfits.
        epochs: of each run.
    """

    make: Callable[[], nn.Module]
    insert: Sequence[str]
    strategies: Sequence[str]
    right: tuple[str, str]
    samples: int = 200
    epochs: int = 40
    options: dict[str, float] = field(default_factory=dict)


QUESTIONS = {
    "maps": Question(
        maps, ["relu*=0.3"], ["none", "element:0.3", "channel:0.3"], ("channel:0.3", "element:0.3"), samples=200
    ),
    "residual": Question(
        residual, ["block*.branch=sample:0.3"], ["none", "as-is"], ("none", "as-is"), samples=1000, epochs=30
    ),
    "wiring": Question(wiring, ["output=0.5"], ["none", "as-is"], ("none", "as-is"), samples=500, epochs=30),
}


def asked(question: Question, seeds: int, out: Path) -> bool:
    """Run a comparison; whether the difference has the side that is known, and excludes 0."""
    digits = load_data("digits")
    train = digits.train_x[: question.samples], digits.train_y[: question.samples]
    data = Data.of(train, (digits.test_x, digits.test_y), "classification", "digits")
    found = compare(
        question.make,
        data=data,
        insert=list(question.insert),
        strategies=list(question.strategies),
        seeds=seeds,
        epochs=question.epochs,
        out=out,
    )
    for line in found.lines:
        print(f"  {line.strategy}: {line.compared.mean:.4f}")
    print("  " + found.verdict[0])
    better, worse = (next(line for line in found.lines if line.strategy == name) for name in question.right)
    pairs = np.subtract(better.values["test_accuracy"], worse.values["test_accuracy"])
    half = 2.0 * pairs.std(ddof=1) / np.sqrt(len(pairs))
    return bool(pairs.mean() > half)


def main() -> None:
    """Ask those that are named, or all."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    words.add_argument("--seeds", type=int, default=10)
    given = words.parse_args()
    for name in given.questions or QUESTIONS:
        print(f"{name}:")
        with tempfile.TemporaryDirectory() as out:
            right = asked(QUESTIONS[name], given.seeds, Path(out) / name)
        print(f"  {'as known' if right else 'NOT as known, or not told apart'}: {' over '.join(QUESTIONS[name].right)}")


if __name__ == "__main__":
    main()
