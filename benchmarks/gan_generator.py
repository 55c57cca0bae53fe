"""Dropout in a GAN's generator, in its discriminator, in both, in neither: the digits of scikit-learn, paired seeds.

    python benchmarks/gan_generator.py OUT [--seeds 5] [--settings small tutorial] [--places none both]

`small` is the size of that name; `tutorial` has the same widths and epochs, and what the tutorial says of the rest:
torch's first weights, Adam's betas 0.9 and 0.999, fresh images for the generator's step, the sigmoid inside. Every rate
is 0.1; dropout is off where images are judged. Writes OUT/<settings>.md, and resumes.
"""

import argparse
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from dropkit.lab import Run, train
from dropkit.lab.recipes import get
from dropkit.lab.recipes.gan import GanSettings, build
from dropkit.lab.recipes.recipe import Recipe
from dropkit.lab.telling.table import lines, markdown
from dropkit.lab.telling.verdict import verdict
from dropkit.torch import Dropout, bind

TUTORIAL = {"betas": (0.9, 0.999), "first_weights": "torch", "fresh": True, "logits": False}
PLACES = {"none": (0.0, "none"), "discriminator": (0.0, "fixed"), "generator": (0.1, "none"), "both": (0.1, "fixed")}


def with_dropout(p: float, settings: GanSettings, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """The networks of `gan`, the generator with a dropout after each hidden layer; its masks follow from the seed."""
    model = build(settings, shape, classes, seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in model.generator.named_children():
        layers[name] = layer
        if name.startswith("leaky"):
            # Other names than in the discriminator, or both networks would have the same masks.
            layers[name.replace("leaky", "generator_dropout")] = Dropout(p)
    model.generator = nn.Sequential(layers)
    bind(model.generator, seed=seed)
    return model


def recipe(p: float, kind: str) -> Recipe:
    """The recipe of `gan` with such a generator, at these settings."""
    gan = get("gan")

    def settings(size: str, data: str) -> GanSettings:
        found = gan.settings(size, data)
        return replace(found, **TUTORIAL) if kind == "tutorial" else found

    return replace(gan, build=partial(with_dropout, p), settings=settings)


def runs(kind: str, places: Sequence[str], seeds: int, out: Path) -> dict[str, tuple[Run, ...]]:
    """The runs of each place, in the order of the seeds."""
    found: dict[str, tuple[Run, ...]] = dict.fromkeys(places, ())
    for seed in range(seeds):
        for place in places:
            p, strategy = PLACES[place]
            folder = out / kind / place / f"seed{seed}"
            made = train(
                recipe(p, kind), strategy=strategy, seed=seed, size="small", device="cpu", out=folder, resume=True
            )
            found[place] = (*found[place], made)
            print(kind, place, seed, made.rows[-1]["frechet"], made.rows[-1]["spread"], flush=True)
    return found


def main() -> None:
    """Train what is missing, and write a table for each of the settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=("small", "tutorial"), default=("small", "tutorial"))
    parser.add_argument("--places", nargs="+", choices=tuple(PLACES), default=tuple(PLACES))
    asked = parser.parse_args()
    for kind in asked.settings:
        made = runs(kind, asked.places, asked.seeds, asked.out)
        found = lines(made)
        text = "\n".join(
            [markdown(found, next(iter(made.values()))[0].config["epochs"]), *verdict(found, "digits"), ""]
        )
        (asked.out / f"{kind}.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
