"""gan: the first generative adversarial network of many a tutorial, two dense networks on MNIST.

    generator        100-256-512-1024-784, leaky ReLU 0.2, tanh
    discriminator    784-1024-512-256-1, leaky ReLU 0.2, dropout 0.1 after each hidden layer, sigmoid

Binary cross-entropy, Adam at 3e-4, pixels p entering as 2 p - 1, the range of tanh. The discriminator ends in a logit,
and the sigmoid is in the loss, which is the same function and does not overflow.

Other than in the tutorial, at every size but that of this name: Adam's betas 0.5 and 0.999, since the default 0.9 keeps
up a discriminator's push after it has been answered; first weights N(0, 2 / fan-in) and zero biases in place of torch's
own; the generator learns from the images of the discriminator's step, not from fresh ones; 25 epochs for 200. Size
"tutorial" keeps all of these, and the sigmoid in the discriminator. What the tutorial leaves open is chosen here:
batches of 128, and the range of the pixels.
"""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from ...language import say
from .engine import ADVERSARIAL
from .measures import Chart, Column, Count, Figures, Line
from .recipe import LATER, Recipe, Settings
from .strategies import scheduled

if TYPE_CHECKING:
    from torch import nn

FIXED = {"dropout1": 0.1, "dropout2": 0.1, "dropout3": 0.1}
SLOPE = 0.2  # of the leaky ReLU


@dataclass(frozen=True, slots=True, kw_only=True)
class GanSettings(Settings):
    """Settings of two networks; `hidden` are the discriminator's widths.

    Args:
        latent: how many normal numbers an image is made from.
        generator: widths of its hidden layers.
        betas: of Adam, in both networks.
        scored: how many generated images are judged after an epoch.
        fresh: whether the generator's step makes images of its own, and does not learn from those of the
            discriminator's.
        logits: whether the discriminator ends in a logit, with the sigmoid in the loss, or in the sigmoid.
    """

    latent: int = 100
    generator: tuple[int, ...] = (256, 512, 1024)
    betas: tuple[float, float] = (0.5, 0.999)
    scored: int = 10_000
    fresh: bool = field(default=False, metadata=LATER)
    logits: bool = field(default=True, metadata=LATER)


FULL = GanSettings(
    epochs=25,
    seeds=3,
    batch_size=128,
    learning_rate=3e-4,
    hidden=(1024, 512, 256),
    step_epochs=5,
    optimizer="adam",
)
TUTORIAL = replace(
    FULL, epochs=200, seeds=5, step_epochs=40, betas=(0.9, 0.999), first_weights="torch", fresh=True, logits=False
)
SMALL = replace(
    FULL,
    epochs=15,
    batch_size=64,
    hidden=(512, 256, 128),
    generator=(128, 256, 512),
    step_epochs=3,
    train_samples=20_000,
    scored=5_000,
    threads=1,
)
DIGITS = replace(
    SMALL,
    epochs=60,
    seeds=5,
    hidden=(256, 128, 64),
    generator=(64, 128, 256),
    latent=32,
    step_epochs=12,
    scored=2_000,
)
TINY = replace(DIGITS, epochs=3, seeds=2, step_epochs=1, train_samples=512, scored=256)


def settings(size: str, data: str) -> GanSettings:
    """The settings at a size: the published networks at the full one, narrower ones below it."""
    if size == "tiny":
        return TINY
    if size == "tutorial":
        return TUTORIAL
    if data == "digits":
        return DIGITS if size == "small" else replace(FULL, epochs=100, batch_size=64, step_epochs=20, scored=2_000)
    return SMALL if size == "small" else FULL


def build(settings: GanSettings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """Both networks, as `generator` and `discriminator` of one module; first weights by (seed, parameter name) alone.

    The generator takes (samples, latent) and gives images in [-1, 1]; the discriminator takes such images and gives
    logits (samples, 1), of their being real, or their sigmoid.
    """
    from torch import nn

    from .weights import set_first_weights

    pixels = prod(shape)
    generator = _dense((settings.latent, *settings.generator, pixels), dropout=False)
    generator.add_module("tanh", nn.Tanh())
    generator.add_module("image", nn.Unflatten(1, shape))
    model = nn.Module()
    model.generator = generator
    discriminator = _dense((pixels, *settings.hidden, 1), dropout=True)
    if not settings.logits:
        discriminator.add_module("sigmoid", nn.Sigmoid())
    model.discriminator = discriminator
    return set_first_weights(model, seed, settings.weight_std, settings.first_weights)


def _dense(widths: tuple[int, ...], dropout: bool) -> "nn.Sequential":
    """Dense layers with leaky ReLU between them, each hidden one followed by a dropout or none."""
    from torch import nn

    from ...torch import Dropout

    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (inputs, width) in enumerate(pairwise(widths[:-1]), start=1):
        # skip_init leaves torch's own generator alone: nothing here depends on it, or moves it.
        layers[f"hidden{number}"] = nn.utils.skip_init(nn.Linear, inputs, width)
        layers[f"leaky{number}"] = nn.LeakyReLU(SLOPE)
        if dropout:
            layers[f"dropout{number}"] = Dropout(0.0)
    layers["output"] = nn.utils.skip_init(nn.Linear, widths[-2], widths[-1])
    return nn.Sequential(layers)


# What collapsed in this sense makes one image, whatever its latent vector is.
COLLAPSED = Count(
    say("collapsed"),
    "spread",
    0.1,
    say("ended with generated images of less than a tenth of the real ones' spread"),
    narrow=True,
)

FIGURES = Figures(
    compared="frechet",
    title=say("Frechet distance"),
    lower_is_better=True,
    loss="generator_loss",
    rows=(
        "frechet",
        "precision",
        "recall",
        "smallest_share",
        "largest_share",
        "generator_loss",
        "discriminator_loss",
        "real_probability",
        "fake_probability",
        "spread",
    ),
    gaps={"margin": ("real_probability", "fake_probability")},
    gap_words={"margin": say("The discriminator's margin, D(x) - D(G(z)),")},
    counts=(COLLAPSED,),
    printed=(
        ("D_loss", "discriminator_loss"),
        ("G_loss", "generator_loss"),
        ("D(x)", "real_probability"),
        ("D(G(z))", "fake_probability"),
        (say("spread"), "spread"),
        (say("Frechet distance"), "frechet"),
    ),
    columns=(
        Column(say("precision"), "precision", narrow=True),
        Column(say("recall"), "recall", narrow=True),
        Column(say("smallest class"), "smallest_share"),
        Column(say("largest class"), "largest_share"),
        Column(say("spread"), "spread"),
        Column("D(x)", "real_probability"),
        Column("D(G(z))", "fake_probability"),
        Column("D(x) - D(G(z))", "margin", signed=True),
        Column(say("generator loss"), "generator_loss"),
        Column(say("discriminator loss"), "discriminator_loss"),
    ),
    charts=(
        Chart(
            say("Frechet distance"),
            say("in a classifier's features; lower is better"),
            (Line("frechet", say("generated")),),
        ),
        Chart(
            say("Loss"),
            say("solid: generator, dotted: discriminator"),
            (Line("generator_loss", say("generator")), Line("discriminator_loss", say("discriminator"), dotted=True)),
        ),
        Chart(
            say("What the discriminator says"),
            say("solid: D(x), mean over real images, dotted: D(G(z)), over generated ones; dropout on"),
            (Line("real_probability", say("real")), Line("fake_probability", say("generated"), dotted=True)),
        ),
        Chart(
            say("Spread"),
            say("of generated images, 1 is that of the test set"),
            (Line("spread", say("generated")),),
        ),
        Chart(
            say("Precision and recall"),
            say("solid: precision, generated images that look real; dotted: recall, real ones that are generated"),
            (Line("precision", say("precision")), Line("recall", say("recall"), dotted=True)),
        ),
        Chart(
            say("Share of a class"),
            say("solid: largest, dotted: smallest, among generated images as a classifier sees them"),
            (Line("largest_share", say("largest")), Line("smallest_share", say("smallest"), dotted=True)),
        ),
    ),
    notes=(
        say(
            "Frechet distance, precision and recall are taken in the features of a small classifier trained on the "
            "real images; so these are not figures of FID, which takes Inception's, and only compare within one "
            "data set."
        ),
        say("Smallest and largest class: share of the generated images that this classifier puts there."),
        say(
            "Spread: the standard deviation of a pixel over generated images, mean over pixels, as a part of that of "
            "the test set. Collapsed: runs whose spread after the last epoch is below 0.1; they make much the same "
            "image of any latent vector."
        ),
        say(
            "D(x) and D(G(z)): what the discriminator says on average of real and of generated images, running "
            "averages over the epoch with dropout on; where it cannot tell them apart, both are one half."
        ),
        say(
            "Losses are binary cross-entropies, running averages over the epoch with dropout on; the discriminator's "
            "is the sum over real and generated images. They are no measure of quality."
        ),
    ),
    pictures=True,
    validated=False,
)

GAN = Recipe(
    name="gan",
    summary="GAN of two dense networks, dropout 0.1 after each hidden layer of the discriminator, quality by Frechet "
    "distance; none, fixed, step",
    settings=settings,
    strategies=scheduled(FIXED),
    feeds={"dropout1": "hidden2", "dropout2": "hidden3", "dropout3": "output"},
    build=build,  # type: ignore[arg-type]  # its settings are those that it makes
    compared=("none", "fixed", "fixed:0.3"),
    engine=ADVERSARIAL,
    tutorial_data="mnist",
    needs=(("PIL", "pillow"),),
    figures=FIGURES,
)
