"""GRAND on Cora, as the authors' run_cora.sh trains it: features behind DropNode, propagated; draws have to agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ..torch import DropNode, Dropout, bind
from ..torch.graphs import normalized
from .cora import load_cora
from .threads import one_thread

EPOCHS, PATIENCE = 5000, 200
DRAWS, HOPS = 4, 8
WIDTH, CLASSES = 32, 7
DROPOUT, TEMPERATURE = 0.5, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Cora as tensors: words of each paper, each row of sum 1; classes; the adjacency; Planetoid's split."""

    x: torch.Tensor
    y: torch.Tensor
    adjacency: torch.Tensor
    train: torch.Tensor
    val: torch.Tensor
    test: torch.Tensor


def prepare(data_dir: str | Path | None) -> Graph:
    """The data."""
    cora = load_cora(data_dir)
    x = torch.from_numpy(cora.x).float()
    split = [torch.from_numpy(index).long() for index in (cora.train, cora.val, cora.test)]
    adjacency = normalized(torch.from_numpy(cora.edges).long(), len(x)).coalesce()
    return Graph(x / x.sum(1, keepdim=True), torch.from_numpy(cora.y).long(), adjacency, *split)


class Grand(nn.Module):
    """A dense network on features of which whole nodes are dropped, and which are then propagated."""

    def __init__(self, features: int, random: torch.Generator) -> None:
        super().__init__()
        self.nodes = DropNode(DROPOUT, scale=False)  # x m in training and x / 2 in evaluation, as the authors' code
        self.input, self.hidden = Dropout(DROPOUT), Dropout(DROPOUT)
        self.first, self.second = nn.Linear(features, WIDTH), nn.Linear(WIDTH, CLASSES)
        for layer in (self.first, self.second):
            spread = 1 / math.sqrt(layer.out_features)
            for parameter in (layer.weight, layer.bias):  # around -spread, which is what the authors' code draws
                nn.init.normal_(parameter, -spread, spread, generator=random)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """The logits of all nodes."""
        return self.behind(self.propagated(x, adjacency))

    def propagated(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """Mean of the features after 0 to 8 steps along the edges."""
        x = self.nodes(x)
        total = x.clone()
        for _ in range(HOPS):
            x = torch.sparse.mm(adjacency, x)
            total += x
        return total / (HOPS + 1)

    def behind(self, x: torch.Tensor) -> torch.Tensor:
        """What the dense layers make of propagated features."""
        return self.second(self.hidden(torch.relu(self.first(self.input(x)))))


def consistency(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """How far the predictions of all draws are from their mean, sharpened: squares summed over classes."""
    each = [torch.softmax(one, 1) for one in logits]
    mean = sum(each[1:], each[0]) / len(each)
    sharp = mean ** (1 / TEMPERATURE)
    sharp = (sharp / sharp.sum(1, keepdim=True)).detach()
    return torch.stack([(one - sharp).square().sum(1).mean() for one in each]).mean()


@one_thread()
def train(graph: Graph, row: str, seed: int) -> float:
    """Train once; the test accuracy in percent, by the weights of the lowest validation loss."""
    model = Grand(graph.x.shape[1], torch.Generator().manual_seed(seed))
    bind(model, seed)
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    with torch.no_grad():
        whole = model.eval().propagated(graph.x, graph.adjacency)
    best, right, since, kept = math.inf, 0.0, 0, model.state_dict()
    for _ in range(EPOCHS):
        model.train()
        _step(model, adam, graph)
        with torch.no_grad():
            logits = model.eval().behind(whole)[graph.val]
        loss = F.cross_entropy(logits, graph.y[graph.val]).item()
        accuracy = (logits.argmax(1) == graph.y[graph.val]).float().mean().item()
        if loss <= best:
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        since = 0 if loss <= best or accuracy >= right else since + 1
        best, right = min(best, loss), max(right, accuracy)
        if since == PATIENCE:
            break
    model.load_state_dict(kept)
    with torch.no_grad():
        found = model.behind(whole)[graph.test].argmax(1) == graph.y[graph.test]
    return 100 * found.float().mean().item()


def _step(model: Grand, adam: torch.optim.Optimizer, graph: Graph) -> None:
    logits = [model(graph.x, graph.adjacency) for _ in range(DRAWS)]
    adam.zero_grad()
    labelled = [F.cross_entropy(one[graph.train], graph.y[graph.train]) for one in logits]
    (torch.stack(labelled).mean() + consistency(logits)).backward()
    adam.step()
