"""Two networks, one against the other: a generator that makes images, a discriminator that tells them from real ones.

A step sends three batches through the discriminator: real images, generated ones, and the same generated ones again, or
fresh ones, for the generator's own gradient. Each is a forward of the bound discriminator, so that the passes of step t
have the masks of the steps 3 t, 3 t + 1 and 3 t + 2 of its clock: no two passes share a mask, as no two samples do.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from ...counter import Key
from ...language import say
from ...mask import normal
from ...torch import bind
from .. import pictures
from ..order import CHUNK
from ..plan import Plan
from .gradients import Part
from .judge import Judge, judge
from .loop import Loop, Row
from .moves import Sites
from .quality import class_shares, frechet_distance, precision_recall, spread

SHOWN = 64  # images in a picture
NEIGHBOURHOOD = 2_000  # images of each kind between which distances are measured
AVERAGES = ("generator_loss", "discriminator_loss", "real_probability", "fake_probability")


class Adversarial(Loop):
    """A generator and a discriminator on a device, trained an epoch at a time."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        choices, settings = plan.choices, plan.choices.settings
        self.settings: Any = settings  # of a generator too
        self.module = choices.recipe.build(settings, choices.data.shape, choices.data.classes, plan.seed)
        parts = {name: self.module.get_submodule(name) for name in ("generator", "discriminator")}
        self.sites = Sites(parts["discriminator"], plan.rates, choices.recipe.feeds)
        bind(parts["discriminator"], seed=plan.seed)
        ready = {name: self._set_up(part, self._adam(part)) for name, part in parts.items()}
        self.generator, self.discriminator = (ready[name][0] for name in parts)
        self.optimizers = {name: optimizer for name, (_, optimizer) in ready.items()}
        self.judge: Judge = judge(choices.data)
        self.judge.model.to(self.place.device)
        test = self.parts["test"].x
        self.real = self.judge.look(test)[0]
        self.real_spread = spread(test.cpu())
        self.remarks = (self._about(len(test)),)

    def _adam(self, part: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(part.parameters(), lr=self.settings.learning_rate, betas=self.settings.betas)

    def _about(self, real: int) -> str:
        """What judges, how well, and how near real images come to real ones."""
        train = self.parts["train"].x[: self.settings.scored]
        floor = frechet_distance(self.real, self.judge.look(train)[0])
        return say(
            "Quality is judged after each epoch on {scored} generated images against the {real} of the test set, by a "
            "classifier of test accuracy {accuracy:.4f}; {train} real training images in their place would have a "
            "Frechet distance of {floor:.4f}.",
            scored=self.settings.scored,
            real=real,
            accuracy=self.judge.accuracy,
            train=len(train),
            floor=floor,
        )

    def _begin(self) -> None:
        self.module.train()
        self.sums = torch.zeros(len(AVERAGES), dtype=torch.float64, device=self.place.device)
        self.samples = 0

    def _train(self, batch: Part, step: int) -> None:
        fake = self.generator(self._latents(len(batch.x), "lab/latent", step))
        found = self._train_discriminator(2 * batch.x - 1, fake.detach())
        if self.settings.fresh:
            fake = self.generator(self._latents(len(batch.x), "lab/latent/generator", step))
        loss = self._train_generator(fake)
        self.sums += len(fake) * torch.stack([loss, *found]).to(torch.float64)
        self.samples += len(fake)

    def _train_discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
        """A step on -log D(x) - log(1 - D(G(z))); returns that, and the mean D of real and generated images."""
        self.optimizers["discriminator"].zero_grad()
        # Two forwards, so that each has masks of its own.
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        loss = self._cross_entropy(on_real, 1.0) + self._cross_entropy(on_fake, 0.0)
        self.place.backward(loss)
        self.optimizers["discriminator"].step()
        real, fake = (self._probabilities(found.detach()).mean() for found in (on_real, on_fake))
        return loss.detach(), real, fake

    def _train_generator(self, fake: Tensor) -> Tensor:
        """A step on -log D(G(z)), through a discriminator that stays as it is; returns that loss."""
        self.optimizers["generator"].zero_grad()
        self.discriminator.requires_grad_(False)
        loss = self._cross_entropy(self.discriminator(fake), 1.0)
        self.place.backward(loss)
        self.discriminator.requires_grad_(True)
        self.optimizers["generator"].step()
        return loss.detach()

    def _cross_entropy(self, found: Tensor, target: float) -> Tensor:
        """The mean binary cross-entropy of what the discriminator gave, against one target for all."""
        loss = binary_cross_entropy_with_logits if self.settings.logits else binary_cross_entropy
        return loss(found, torch.full_like(found, target))

    def _probabilities(self, found: Tensor) -> Tensor:
        return found.sigmoid() if self.settings.logits else found

    def _latents(self, count: int, site: str, step: int) -> Tensor:
        """Standard normal numbers of `Key(seed, site, step)`, of shape (count, latent)."""
        found = normal((count, self.settings.latent), Key(self.plan.seed, site, step))
        return self.place.to_device(torch.from_numpy(found.copy()))

    @torch.no_grad()
    def generated(self, count: int, site: str) -> Tensor:
        """Images in [0, 1] from latent vectors that are the same after each epoch."""
        self.module.eval()
        chunks = [self.generator(chunk) for chunk in self._latents(count, site, 0).split(CHUNK)]
        return ((torch.cat(chunks).float() + 1) / 2).clamp(0, 1)

    def _scores(self) -> Row:
        return dict(zip(AVERAGES, (self.sums / self.samples).tolist(), strict=True)) | self.quality()

    def quality(self) -> Row:
        """What the judge finds in images that the generator makes now."""
        images = self.generated(self.settings.scored, "lab/latent/scored")
        features, labels = self.judge.look(images)
        distance = frechet_distance(self.real, features)
        precision, recall = precision_recall(self.real[:NEIGHBOURHOOD], features[:NEIGHBOURHOOD])
        shares = class_shares(labels, self.plan.choices.data.classes)
        if math.isnan(distance):  # what a network makes that diverged belongs to no class
            shares = (math.nan,) * len(shares)
        row = {"frechet": distance, "precision": precision, "recall": recall}
        row["spread"] = spread(images.cpu()) / self.real_spread
        row |= {f"share_{number}": share for number, share in enumerate(shares)}
        return row | {"smallest_share": min(shares), "largest_share": max(shares)}

    def picture(self) -> bytes:
        """What the generator makes now of 64 latent vectors that stay the same, as a PNG file."""
        images = self.generated(SHOWN, "lab/latent/shown").cpu().numpy()
        return pictures.grid(images.astype(np.float64), columns=math.isqrt(SHOWN))
