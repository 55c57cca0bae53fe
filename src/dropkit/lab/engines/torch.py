"""The engine over torch: classifiers, an epoch at a time."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional
from torchmetrics import SumMetric
from torchmetrics.classification import MulticlassAccuracy

from ...torch import bind
from ..order import CHUNK
from ..plan import Plan
from ..recipes.recipe import Settings
from .calibration import Calibration
from .gradients import Antithetic, Gradients, Hypergradient, Part, held_out_batches
from .loop import Loop, Row
from .moves import Sites


class Score:
    """Mean loss and accuracy over samples."""

    def __init__(self, name: str, classes: int, device: torch.device) -> None:
        self.name = name
        # torchmetrics leaves NaN out of a mean unless told not to, and a run that diverges must show; but told so, its
        # MeanMetric forgets the weights (1.9). So the sum, and the count beside it.
        self.loss = SumMetric(nan_strategy="disable").to(device)
        self.samples = 0
        self.accuracy = MulticlassAccuracy(classes, average="micro", validate_args=False).to(device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch: its mean loss counts once for each sample."""
        self.loss.update(loss.detach().float() * len(labels))
        self.samples += len(labels)
        self.accuracy.update(logits.detach(), labels)

    def row(self) -> Row:
        """The two figures, under the names of a row."""
        return {
            f"{self.name}_loss": float(self.loss.compute()) / self.samples,
            f"{self.name}_accuracy": float(self.accuracy.compute()),
        }


class Trainer(Loop):
    """A classifier and its data on a device, trained an epoch at a time."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        choices, settings = plan.choices, plan.choices.settings
        model = choices.recipe.build(settings, choices.data.shape, choices.data.classes, plan.seed)
        self.sites = Sites(model, plan.rates, choices.recipe.feeds)
        if self.sites.modules:  # the calls of a function get their keys from the model
            bind(model, seed=plan.seed)
        optimizers = {"weights": _optimizer(settings, model, self.sites), "rates": self.sites.optimizer()}
        found = {name: optimizer for name, optimizer in optimizers.items() if optimizer is not None}
        self.module = model
        self.model, *ready = self.fabric.setup(model, *found.values())
        self.optimizers = dict(zip(found, ready, strict=True))
        self.gradients = self._gradients()
        weights = [weight for weight in penalized(dict(model.named_parameters())).values() if weight.dim() > 1]
        self.weights = weights if settings.l2 else []

    def _gradients(self) -> Gradients:
        place = (self.fabric, self.model, self.module, self.sites, len(self.parts["train"].x))
        if self.sites.method == "disarm":
            return Antithetic(*place)
        if self.sites.method != "hypergradient":
            return Gradients(*place)
        held, settings = self.parts["validation"], self.plan.choices.settings
        batches = held_out_batches(len(held.x), settings.batch_size, self.plan.seed)
        return Hypergradient(*place, held, batches, settings.learning_rate)

    def _begin(self) -> None:
        self.score = self._score("train")
        self.objective = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        self.model.train()

    def _train(self, batch: Part, step: int) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        loss, logits = self.gradients.backward(batch, step)
        if self.weights:
            squares = torch.stack([weight.detach().pow(2).sum() for weight in self.weights]).sum()
            self.objective += len(batch.y) * (loss.detach().double() + self.plan.choices.settings.l2 * squares.double())
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.score.add(loss, logits, batch.y)

    def _scores(self) -> Row:
        row = self.score.row()
        if self.weights:
            row["train_objective"] = float(self.objective) / self.score.samples
        for name, part in self.parts.items():
            if name != "train":
                row |= self._evaluate(name, part)
        return row

    @torch.no_grad()
    def _evaluate(self, name: str, part: Part) -> Row:
        self.model.eval()
        score = self._score(name)
        calibration = Calibration()
        for index in torch.arange(len(part.x), device=self.fabric.device).split(CHUNK):
            chunk = part.rows(index)
            logits = self.model(chunk.x)
            score.add(functional.cross_entropy(logits, chunk.y), logits, chunk.y)
            if name == "test":
                calibration.add(logits, chunk.y)
        return score.row() | ({"test_ece": calibration.error()} if name == "test" else {})

    def _score(self, name: str) -> Score:
        return Score(name, self.plan.choices.data.classes, self.fabric.device)


def _optimizer(settings: Settings, model: nn.Module, sites: Sites) -> torch.optim.Optimizer:
    """Of the weights: all parameters but the learned rates, in the model's order; with L2, weights before biases."""
    learned = {id(rate) for rate in sites.parameters}
    found = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in learned}
    family = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.SGD
    groups: Any = list(found.values())
    if settings.l2:
        decay = settings.weight_decay + 2 * settings.l2  # torch's is of the gradient, l2 of the loss
        weights = penalized(found)
        biases = [parameter for name, parameter in found.items() if name not in weights]
        groups = [{"params": list(weights.values()), "weight_decay": decay}, {"params": biases}]
    return family(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def penalized(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Those that L2 is about: weights, not biases.

    >>> list(penalized(dict(nn.Linear(2, 3).named_parameters())))
    ['weight']
    """
    return {name: parameter for name, parameter in parameters.items() if not name.endswith("bias")}
