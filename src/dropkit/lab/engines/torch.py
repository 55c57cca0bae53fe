"""The engine over torch: classifiers, an epoch at a time."""

import warnings
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...torch import bind, disabled
from ..imported import seed_all
from ..order import CHUNK
from ..plan import Plan
from ..recipes.learning_rate import CONSTANT, factor
from .calibration import Calibration, calibrated, figures
from .gradients import Antithetic, Gradients, Hypergradient, Part, held_out_batches
from .loop import Loop, Row
from .losses import Score, losses, outputs_of
from .moves import Sites
from .optimizing import optimizer, penalized, set_rate

TEST = "test"


class Trainer(Loop):
    """A classifier and its data on a device, trained an epoch at a time."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.objective = plan.choices.recipe.objective
        self.losses = losses(self.objective)
        self.last_scores: NDArray[np.float32] | None = None
        choices, settings = plan.choices, plan.choices.settings
        model = choices.recipe.build(settings, choices.data.shape, choices.data.classes, plan.seed)
        self.sites = Sites(model, plan.rates, choices.recipe.feeds)
        if self.sites.modules:  # the calls of a function get their keys from the model
            with warnings.catch_warnings():
                if choices.recipe.own_draws:  # what torch draws is told in another way
                    warnings.simplefilter("ignore", UserWarning)
                bind(model, seed=plan.seed)
        learned = {id(rate) for rate in self.sites.parameters}
        named = {name: weight for name, weight in model.named_parameters() if id(weight) not in learned}
        optimizers = {"weights": optimizer(settings, named), "rates": self.sites.optimizer()}
        found = {name: each for name, each in optimizers.items() if each is not None}
        self.module = model
        self.model, *ready = self._set_up(model, *found.values())
        self.optimizers = dict(zip(found, ready, strict=True))
        self.gradients = self._gradients()
        weights = [weight for weight in penalized(dict(model.named_parameters())).values() if weight.dim() > 1]
        self.weights = weights if settings.l2 else []
        schedule = getattr(settings, "schedule", CONSTANT)  # of a task
        self.rate = settings.learning_rate
        self.factor = None if schedule == CONSTANT else factor(schedule)
        self.off = getattr(settings, "literal", "") == "off" and choices.recipe.own_draws

    def _gradients(self) -> Gradients:
        place = (self.place, self.model, self.module, self.sites, len(self.parts["train"].x), self.objective)
        if self.sites.method == "disarm":
            return Antithetic(*place)
        if self.sites.method != "hypergradient":
            return Gradients(*place)
        held, settings = self.parts["validation"], self.plan.choices.settings
        batches = held_out_batches(len(held.x), settings.batch_size, self.plan.seed)
        return Hypergradient(*place, held, batches, settings.learning_rate)

    def epoch(self, number: int, step: int) -> Row:
        """Train one epoch; what others' code draws in it follows from the seed and the epoch, so that it can go on."""
        if self.plan.choices.recipe.own_draws:
            seed_all(int(np.random.SeedSequence((self.plan.seed, number)).generate_state(1, np.uint64)[0]))
        with disabled(self.module) if self.off else nullcontext():
            return super().epoch(number, step)

    def _batches(self, order: Tensor) -> list[Tensor]:
        batches = super()._batches(order)
        # A last batch of one sample has no variance, which a BatchNorm refuses.
        if self.plan.choices.recipe.own_draws and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def _begin(self) -> None:
        self.score = Score("train", self.objective, self.place.device, training=True)
        self.l2_loss = torch.zeros((), dtype=torch.float64, device=self.place.device)
        self.model.train()

    def _train(self, batch: Part, step: int) -> None:
        if self.factor is not None:
            steps = self.plan.choices.steps * self.plan.choices.settings.epochs
            set_rate([self.optimizers["weights"]], self.rate * self.factor(step, steps))
        for each in self.optimizers.values():
            each.zero_grad()
        loss, logits = self.gradients.backward(batch, step)
        if self.weights:
            squares = torch.stack([weight.detach().pow(2).sum() for weight in self.weights]).sum()
            self.l2_loss += len(batch.y) * (loss.detach().double() + self.plan.choices.settings.l2 * squares.double())
        for each in self.optimizers.values():
            each.step()
        self.score.add(loss, logits, batch.y)

    def _scores(self) -> Row:
        row = self.score.row()
        if self.weights:
            row["train_objective"] = float(self.l2_loss) / self.score.samples
        for name, part in self.parts.items():
            if name != "train":
                row |= self._evaluate(name, part)
        return row

    @torch.no_grad()
    def _evaluate(self, name: str, part: Part) -> Row:
        self.model.eval()
        score = Score(name, self.objective, self.place.device, kept=name == TEST)
        calibration = Calibration() if name == TEST and calibrated(self.objective) else None
        for index in torch.arange(len(part.x), device=self.place.device).split(CHUNK):
            chunk = part.rows(index)
            outputs = outputs_of(self.model(chunk.x), self.objective.kind)
            score.add(self.losses.mean(outputs, chunk.y), outputs, chunk.y)
            if calibration is not None:
                calibration.add(outputs, chunk.y)
        if name == TEST:
            self.last_scores = score.of_samples()
        return score.row() | figures(calibration)

    def sample_scores(self) -> NDArray[np.float32] | None:
        """The compared figure of each test sample after the last epoch; None where it is no mean over samples."""
        return self.last_scores
