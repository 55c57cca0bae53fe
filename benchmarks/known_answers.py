"""Three comparisons whose answer is known: does `dropkit compare` give it?

    python benchmarks/known_answers.py                 # about fifteen minutes on one core
    python benchmarks/known_answers.py maps --seeds 5

maps: on maps of convolutions neighbours hold the same, and single values that are dropped are averaged out by the next
layer; whole channels are the right kind (Tompson et al. 2015). The training labels are wrong in half of the cases, so
that there is something to be gained. residual: in a shallow residual network, trained for a few epochs, to drop whole
blocks of a sample costs more than it brings, and none is best. wiring: a dropout behind the output layer of a
regression is no regulariser: with squared errors the best prediction under it is (1 - p) times the right one.

An answer counts as right if the difference of the two strategies has the side that is known, by the comparison's own
test over all pairs (Holm, 5 %).
"""

import argparse
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from dropkit.lab import Data, compare, load_data
from dropkit.lab.telling.pairs import Status, judged


class Block(nn.Module):
    """x + f(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        return x + self.branch(x)


def maps() -> nn.Module:
    """A convolutional network on 8 x 8 images enlarged to 16 x 16, whose maps are averaged over 4 x 4."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(up=nn.Upsample(scale_factor=2, mode="bilinear"))
    layers |= {"conv": nn.Conv2d(1, 64, 5, padding=2), "relu": nn.ReLU(), "pool": nn.AvgPool2d(4)}
    return nn.Sequential(layers | {"flat": nn.Flatten(), "output": nn.Linear(64 * 16, 10)})


def residual() -> nn.Module:
    """Three residual blocks."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flat=nn.Flatten(), into=nn.Linear(64, 32))
    layers |= {f"block{number}": Block(32) for number in range(3)}
    return nn.Sequential(layers | {"output": nn.Linear(32, 10)})


def wiring() -> nn.Module:
    """A dense network with a dropout too many, behind its output."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(hidden=nn.Linear(10, 64), relu=nn.ReLU())
    layers |= {"dropout": nn.Dropout(0.1), "output": nn.Linear(64, 1), "behind": nn.Dropout(0.5)}
    return nn.Sequential(layers)


def wrong_labels() -> Data:
    """400 digits, of which half have a label drawn at random."""
    digits, random = load_data("digits"), np.random.default_rng(0)
    labels = digits.train_y[:400].copy()
    wrong = random.random(400) < 0.5
    labels[wrong] = random.integers(0, 10, int(wrong.sum()))
    train = digits.train_x[:400], labels
    return Data.of(train, (digits.test_x, digits.test_y), "classification", "digits, half of the labels wrong")


def diabetes() -> Data:
    """442 patients, of whom 100 test; the target has mean 0 and variance 1."""
    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (20 * x[order]).astype(np.float32), y[order].astype(np.float32)
    y = ((y - y[:-100].mean()) / y[:-100].std())[:, None]
    return Data.of((x[:-100], y[:-100]), (x[-100:], y[-100:]), "regression", "diabetes")


@dataclass(frozen=True)
class Question:
    """A comparison and what is known to come out.

    Args:
        make: the model.
        data: what it learns.
        insert: where dropouts are put.
        sites: what those are that the model has.
        strategies: that are compared.
        right: (better, worse): strategies by their names.
        epochs: of each run.
    """

    make: Callable[[], nn.Module]
    data: Callable[[], Data]
    strategies: Sequence[str]
    right: tuple[str, str]
    epochs: int
    insert: Sequence[str] = ()
    sites: Sequence[str] = ()


KINDS = ["none", "element:0.5", "channel:0.5"]
QUESTIONS = {
    "maps": Question(maps, wrong_labels, KINDS, ("channel:0.5", "element:0.5"), 60, insert=["relu=0.5"]),
    "residual": Question(
        residual,
        lambda: load_data("digits"),
        ["none", "as-is"],
        ("none", "as-is"),
        epochs=10,
        insert=["block*.branch=sample:0.5"],
    ),
    "wiring": Question(wiring, diabetes, ["none", "as-is"], ("none", "as-is"), 40, sites=["dropout=0.1"]),
}


def asked(question: Question, seeds: int, out: Path) -> bool:
    """Run a comparison; whether it finds the difference that is known."""
    found = compare(
        question.make,
        data=question.data(),
        insert=list(question.insert),
        sites=list(question.sites),
        strategies=list(question.strategies),
        seeds=seeds,
        epochs=question.epochs,
        out=out,
    )
    for line in found.lines:
        print(f"  {line.strategy}: {line.compared.mean:.4f}")
    print("  " + found.verdict[0])
    better, worse = (next(line for line in found.lines if line.strategy == name) for name in question.right)
    pair = judged(found.lines).of(better, worse)
    low, high = pair.difference.mean - pair.difference.half, pair.difference.mean + pair.difference.half
    print(f"  {better.strategy} over {worse.strategy}: {pair.difference.mean:.4f} ({low:.4f} to {high:.4f}, 95 %)")
    return pair.status is Status.BETTER


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
