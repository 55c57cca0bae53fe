"""What a trained trunk is worth: transfer-pretrained against transfer-random, with and without dropout.

    python benchmarks/pretrained.py --data cifar10 --data-dir DIR

Each seed has a trunk of its own, first weights of the top, order and masks: the intervals are over all of these. The
trunks are kept in DROPKIT_CACHE. An hour of one core and more at the defaults, of which training the trunks is half.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from dropkit.lab import Data, Recipe, load_data, train
from dropkit.lab.recipes import get
from dropkit.lab.statistics.interval import Interval, mean_interval, paired_difference

TRUNKS = {"trained": "transfer-pretrained", "random": "transfer-random"}
LAST = 3  # epochs whose mean counts


def with_trunk(name: str, seed: int, images: int) -> Recipe:
    """A recipe whose trunk has this seed, and whose top so many images."""
    recipe = get(name)
    return replace(
        recipe,
        settings=lambda size, data: replace(recipe.settings(size, data), trunk_seed=seed, train_samples=images),  # type: ignore[call-arg]
    )


def accuracy(name: str, strategy: str, seed: int, images: int, data: Data) -> float:
    """On the test set, mean of the last epochs."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            with_trunk(name, seed, images), strategy=strategy, seed=seed, data=data, device="cpu", out=Path(folder)
        )
    return sum(row["test_accuracy"] for row in run.rows[-LAST:]) / LAST


def written(found: Interval, sign: str = "") -> str:
    """A mean and the half width of its interval."""
    return f"{found.mean:{sign}.4f}" + ("" if found.half is None else f" ± {found.half:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--images", type=int, nargs="+", default=[200])
    parser.add_argument("--strategies", default="none,fixed,fixed:0.5")
    arguments = parser.parse_args()
    strategies = arguments.strategies.split(",")
    data = load_data(arguments.data, arguments.data_dir)
    found: dict[tuple[int, str, str], list[float]] = {}
    for seed in arguments.seeds:
        for images in arguments.images:
            for trunk, name in TRUNKS.items():
                for strategy in strategies:
                    score = accuracy(name, strategy, seed, images, data)
                    found.setdefault((images, trunk, strategy), []).append(score)
                    print(f"seed {seed}, {images} images, {trunk} trunk, {strategy}: {score:.4f}", flush=True)
    print("\n| images | trunk | strategy | test accuracy | more than the random trunk | more than none |")
    print("| ---: | --- | --- | ---: | ---: | ---: |")
    for (images, trunk, strategy), scores in found.items():
        other, none = found[images, "random", strategy], found[images, trunk, strategies[0]]
        transfer = written(paired_difference(scores, other), "+") if trunk == "trained" else "-"
        dropout = written(paired_difference(scores, none), "+") if strategy != strategies[0] else "-"
        print(f"| {images} | {trunk} | {strategy} | {written(mean_interval(scores))} | {transfer} | {dropout} |")


if __name__ == "__main__":
    main()
