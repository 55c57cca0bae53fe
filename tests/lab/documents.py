"""What the tutorials say, number by number, and what `--size tutorial` makes of it: docs/tutorial-settings.md.

`python -m tests.lab.documents` writes that page anew.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dropkit.axes.rate import Step
from dropkit.lab.recipes import RECIPES, Recipe, get
from dropkit.lab.recipes.recipe import Settings
from dropkit.lab.recipes.strategies import BOUNDS

PAGE = Path(__file__).parents[2] / "docs" / "tutorial-settings.md"
OPEN = ""  # what a tutorial leaves open
MEANS = "mean of the batches' losses"

D2L = {
    "data": "fashion-mnist",
    "pixels": OPEN,
    "network": "784-256-256-10",
    "first weights": "N(0, 0.01²), zero biases",
    "dropout": "0.2, 0.5",
    "optimizer": "SGD 0.5",
    "L2": "none",
    "batch": "256",
    "epochs": "5",
    "printed": "each epoch: loss, train accuracy, test accuracy",
}
VGG = {
    "data": OPEN,
    "pixels": OPEN,
    "held out": OPEN,
    "network": "convolutions 64-64-128-128-256-256-256-512-512-512-512-512-512, dense 4096-4096-10",
    "first weights": "uniform by Glorot, zero biases",
    "dropout": "0.5, 0.5",
    "bounds of rates that adapt": "0 to 0.5",
    "Adam of learned rates": "0.001",
    "optimizer": "Adam 0.001, betas 0.9 and 0.999",
    "epsilon of Adam": "1e-08, after lasagne's correction",
    "L2": "0.0001 x the sum of squared weights, biases left out",
    "batch": "128",
    "epochs": "100",
    "printed": "each epoch: training loss with L2, validation loss",
    "loss of an epoch": MEANS,
}
GAN = {
    "data": OPEN,
    "pixels": OPEN,
    "discriminator": "784-1024-512-256-1, leaky ReLU 0.2, sigmoid",
    "generator": "100-256-512-1024-784, leaky ReLU 0.2, tanh",
    "first weights": "uniform within 1 / sqrt(inputs), biases too",
    "dropout": "0.1 after each hidden layer of the discriminator",
    "modules of dropout": "one, called three times",
    "labels": "(N,) against outputs (N, 1)",
    "optimizer": "Adam 0.0003, betas 0.9 and 0.999",
    "L2": "none",
    "images of the generator's step": "fresh",
    "batch": OPEN,
    "epochs": "200",
    "printed": "each epoch: D_loss, G_loss",
    "loss of an epoch": MEANS,
}
DOCUMENTS: dict[str, dict[str, str]] = {
    "mlp": D2L,
    "mlp-functional": {
        "data": OPEN,
        "pixels": OPEN,
        "network": "784-512-256-10",
        "first weights": "uniform within 1 / sqrt(inputs), biases too",
        "dropout": "0.2, 0.2",
        "optimizer": OPEN,
        "L2": OPEN,
        "batch": OPEN,
        "epochs": OPEN,
        "printed": OPEN,
    },
    "numpy-mlp": D2L,
    "numpy-layer": {
        "data": OPEN,
        "pixels": OPEN,
        "network": OPEN,
        "first weights": OPEN,
        "hidden layer": "mask, then sigmoid",
        "dropout": "0.5",
        "strategy step": "from 0.5, 0.1 less each interval, at least 0.1",
        "dropout_interval": OPEN,
        "optimizer": OPEN,
        "L2": "none",
        "batch": OPEN,
        "batches": "drawn with replacement",
        "iterations": OPEN,
        "printed": "each iteration: train loss, train accuracy, test loss, test accuracy",
        "mode of the accuracies": "probably with dropout on: is_train defaults to True",
    },
    "vgg-adaptive": VGG,
    "vgg-everywhere": {**VGG, "after each convolution": OPEN},
    "vgg-channels": {**VGG, "after each convolution": OPEN},
    "dense": {
        "data": OPEN,
        "pixels": OPEN,
        "network": "100-64-64-10",
        "first weights": "uniform by Glorot, zero biases",
        "dropout": "0.5, 0.5",
        "optimizer": OPEN,
        "L2": "none",
        "batch": OPEN,
        "epochs": OPEN,
        "printed": OPEN,
    },
    "transfer": {
        "data": OPEN,
        "images": "150 x 150",
        "pixels": OPEN,
        "frozen weights": "a file of pretrained ones",
        "network": "InceptionV3 to mixed7, 512-1024-1",
        "first weights": "uniform by Glorot, zero biases",
        "dropout": "0.2",
        "optimizer": "RMSprop 0.0001",
        "L2": "none",
        "batch": OPEN,
        "epochs": OPEN,
        "printed": OPEN,
    },
    "gan": GAN,
    "gan-functional": GAN,
}
VGGS = ("vgg-adaptive", "vgg-everywhere", "vgg-channels")
WHY: dict[tuple[str, str], str] = {
    ("numpy-layer", "mode of the accuracies"): "with dropout on, the accuracies are those of thinned networks",
    **{(name, "epsilon of Adam"): "torch's place for it; matters only for gradients below 1e-8" for name in VGGS},
    **{(name, "loss of an epoch"): "so that the smaller last batch counts less" for name in VGGS},
    ("transfer", "frozen weights"): "the tutorial's file is not included; pass one with `--weights`",
    ("gan", "modules of dropout"): "so that each rate can move; the masks follow the same law",
    ("gan", "labels"): "the tutorial's labels raise a ValueError, so it cannot run",
    ("gan", "loss of an epoch"): "so that the smaller last batch counts less",
    ("gan-functional", "labels"): "the tutorial's labels raise a ValueError, so it cannot run",
    ("gan-functional", "loss of an epoch"): "so that the smaller last batch counts less",
}
LAWS = {
    "normal": "N(0, {std:g}²), zero biases",
    "glorot": "uniform by Glorot, zero biases",
    "torch": "uniform within 1 / sqrt(inputs), biases too",
}
PIXELS = {
    **dict.fromkeys(VGGS, "in [-2, 2]"),
    "transfer": "in [-1, 1]",
    "gan": "in [-1, 1]",
    "gan-functional": "in [-1, 1]",
}
PRINTED = {
    **dict.fromkeys(VGGS, "each epoch: training loss with L2, validation loss"),
    "gan": "each epoch: D_loss, G_loss",
    "gan-functional": "each epoch: D_loss, G_loss",
}


@dataclass(frozen=True)
class Row:
    """A setting: what the tutorial says, what we do, and what becomes of it."""

    recipe: str
    name: str
    tutorial: str
    here: str

    @property
    def verdict(self) -> str:
        """In words."""
        if self.tutorial == OPEN:
            return "chosen here"
        return "kept" if self.tutorial == self.here else f"**changed**: {WHY[self.recipe, self.name]}"


def tutorial_settings(recipe: Recipe) -> Any:
    """A recipe's settings at size tutorial, on its tutorial's data."""
    return recipe.settings("tutorial", recipe.data_at("tutorial"))


def here(recipe: Recipe) -> dict[str, str]:
    """What a recipe does at size tutorial, in the words of DOCUMENTS."""
    settings = tutorial_settings(recipe)
    rates = {site: rate.at(0) for site, rate in recipe.strategies["fixed"](settings, 1, ()).items()}
    optimizer = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop"}[settings.optimizer]
    betas = ", betas 0.9 and 0.999" if recipe.name in VGGS else ""
    found = {
        "data": recipe.data_at("tutorial"),
        "pixels": PIXELS.get(recipe.name, "in [0, 1]"),
        "first weights": LAWS[settings.first_weights].format(std=settings.weight_std or 0),
        "dropout": ", ".join(f"{rate:g}" for site, rate in rates.items() if not site.startswith("conv")),
        "after each convolution": ", ".join(sorted({f"{p:g}" for site, p in rates.items() if site.startswith("conv")}))
        + (", whole channels" if recipe.name == "vgg-channels" else ", single elements"),
        "optimizer": f"{optimizer} {settings.learning_rate:g}{betas}",
        "L2": f"{settings.l2:g} x the sum of squared weights, biases left out" if settings.l2 else "none",
        "batch": str(settings.batch_size),
        "epochs": str(settings.epochs),
        "printed": PRINTED.get(recipe.name, "each epoch: loss, train accuracy, test accuracy"),
        "network": _network(recipe.name, settings),
        "loss of an epoch": "mean of the samples' losses",
        "held out": f"{settings.validation:g} of the training set",
        "bounds of rates that adapt": "{:g} to {:g}".format(*BOUNDS),
        "Adam of learned rates": f"{settings.rate_learning_rate:g}",
        "epsilon of Adam": "1e-08, before torch's correction",
        "images": f"{settings.image_size} x {settings.image_size}",
        "frozen weights": "a file of pretrained ones, or random ones",
    }
    if recipe.name == "numpy-layer":
        found |= _layer(settings)
    return found | (_gan(recipe, settings) if recipe.engine.name == "adversarial" else {})


def _network(name: str, settings: Settings) -> str:
    """Widths, from the settings; tests hold them against the models."""
    dense = "-".join(map(str, settings.hidden))
    if settings.channels:
        widths = [c for count, c in zip((2, 2, 3, 3, 3), settings.channels, strict=True) for _ in range(count)]
        return f"convolutions {'-'.join(map(str, widths))}, dense {dense}-10"
    if name == "transfer":
        return f"InceptionV3 to mixed7, {dense}-1"
    return f"{100 if name == 'dense' else 784}-{dense}-10"


def _layer(settings: Settings) -> dict[str, str]:
    """What the layer by hand has of its own."""
    layers = get("numpy-layer").build(settings, (8, 8), 10, 0)
    hidden = layers["hidden1"]
    assert settings.iterations == 1
    rate = get("numpy-layer").strategies["step"](settings, settings.iterations, ())["dropout1"]
    assert isinstance(rate, Step)
    return {
        "network": "64-" + "-".join(str(len(layer.bias)) for layer in layers.values()),
        "first weights": "N(0, 1 / inputs), zero biases",
        "hidden layer": f"mask, then {hidden.activation}" if hidden.placement == "pre" else "mask last",
        "strategy step": f"from {rate.start:g}, {rate.drop:g} less each interval, at least {rate.floor:g}",
        "dropout_interval": f"{rate.every} iterations",
        "batches": "drawn with replacement",
        "iterations": str(settings.epochs * settings.iterations),
        "printed": "each iteration: " + ", ".join(word for word, _ in get("numpy-layer").figures.printed),
        "mode of the accuracies": "with dropout off",
    }


def _gan(recipe: Recipe, settings: Any) -> dict[str, str]:
    return {
        "discriminator": f"784-{'-'.join(map(str, settings.hidden))}-1, leaky ReLU 0.2, sigmoid",
        "generator": f"{settings.latent}-{'-'.join(map(str, settings.generator))}-784, leaky ReLU 0.2, tanh",
        "dropout": "0.1 after each hidden layer of the discriminator",
        "modules of dropout": "three" if len(recipe.feeds) == 3 else "one, called three times",
        "labels": "(N, 1)",
        "images of the generator's step": "fresh" if settings.fresh else "those of the discriminator's step",
        "optimizer": f"Adam {settings.learning_rate:g}, betas {settings.betas[0]:g} and {settings.betas[1]:g}",
    }


def rows() -> list[Row]:
    """Every setting of every recipe."""
    return [
        Row(name, setting, said, here(RECIPES[name])[setting])
        for name, document in DOCUMENTS.items()
        for setting, said in document.items()
    ]


HEAD = """# Settings of the tutorials, kept and changed

`dropkit train RECIPE --size tutorial` trains a tutorial's network with the tutorial's own settings, on its own data
set:

    dropkit train mlp --size tutorial                    # downloads, checked by sha256; or --data-dir
    dropkit train dense --size tutorial                  # digits, embedded
    dropkit compare gan --size tutorial --seeds 5 --epochs 25

The tables below are generated from the recipes, and tests compare them with the tutorials' numbers. Each setting that
a tutorial states is either kept or listed as changed, with the reason. Settings that a tutorial leaves open are chosen
here. The other sizes are ours: narrower networks, other budgets and, where a tutorial's own settings fail, better ones.

As at every size, the order of the data and the masks follow from the seed. Seeds, the intervals of `step`, the number
of training samples that are scored with dropout off, and the settings of the adaptive strategies are ours at every
size.
"""


def page() -> str:
    """The page, from the recipes."""
    parts = [HEAD]
    for name in DOCUMENTS:
        parts.append(f"## {name}\n\n| setting | the tutorial | `--size tutorial` | |\n| --- | --- | --- | --- |")
        parts[-1] += "".join(
            f"\n| {row.name} | {row.tutorial or 'left open'} | {row.here} | {row.verdict} |"
            for row in rows()
            if row.recipe == name
        )
        parts[-1] += "\n"
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
