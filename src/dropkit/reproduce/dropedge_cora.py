"""DropEdge on Cora, as the authors' scripts semi-supervised/cora_GCN.sh and supervised/cora_GCN.sh train it."""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ..torch import DropEdge, Dropout, bind
from ..torch.graphs import normalized
from .cora import load_cora
from .threads import one_thread

EPOCHS = 400
WIDTH, CLASSES = 128, 7
DROPOUT = 0.8


@dataclass(frozen=True, slots=True)
class Setting:
    """What a script says: how deep, what is left of the edges, and how it is normalised and trained."""

    layers: int
    kept: float
    form: str
    learning_rate: float
    decay: float
    full: bool = False  # all papers but those of validation and test are labelled


SETTINGS = {
    "semi-supervised, 2 layers, all edges": Setting(2, 1.0, "symmetric", 0.007, 1e-5),
    "semi-supervised, 2 layers, DropEdge": Setting(2, 0.4, "symmetric", 0.007, 1e-5),
    "full-supervised, 4 layers, all edges": Setting(4, 1.0, "first-order", 0.01, 0.005, full=True),
    "full-supervised, 4 layers, DropEdge": Setting(4, 0.7, "first-order", 0.01, 0.005, full=True),
}


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Cora as tensors: words of each paper, each row of sum 1, sparse; classes; citations; the split of each task."""

    x: torch.Tensor
    y: torch.Tensor
    edges: torch.Tensor
    split: dict[bool, tuple[torch.Tensor, torch.Tensor]]  # full or not -> train, validation
    test: torch.Tensor


def prepare(data_dir: str | Path | None) -> Graph:
    """The data."""
    cora = load_cora(data_dir)
    x = torch.from_numpy(cora.x).float()
    numbers = torch.arange(len(x))
    train, val, test = (torch.from_numpy(index).long() for index in (cora.train, cora.val, cora.test))
    rest = numbers[~torch.isin(numbers, test)]  # as FastGCN split it: the last 500 of these are for validation
    split = {False: (train, val), True: (rest[:-500], rest[-500:])}
    x = (x / x.sum(1, keepdim=True)).to_sparse()
    return Graph(x, torch.from_numpy(cora.y).long(), torch.from_numpy(cora.edges).long(), split, test)


class GCN(nn.Module):
    """Graph convolutions, `A x W + b`, with relu and dropout behind all but the last."""

    def __init__(self, features: int, setting: Setting, random: torch.Generator) -> None:
        super().__init__()
        self.edges = DropEdge(1 - setting.kept, exact=True)  # int(0.4 E) is the same as of the authors' 0.4
        self.form = setting.form
        sizes = [features, *[WIDTH] * (setting.layers - 1), CLASSES]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for into, out in pairwise(sizes):
            bound = 1 / math.sqrt(out)  # of the outputs, as in the first implementation of graph convolutions
            self.weights.append(torch.empty(into, out).uniform_(-bound, bound, generator=random))
            self.biases.append(torch.empty(out).uniform_(-bound, bound, generator=random))
        self.drops = nn.ModuleList([Dropout(DROPOUT) for _ in sizes[2:]])

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """The logits of all papers; one draw of edges for all layers."""
        adjacency = normalized(self.edges(edges), len(x), form=self.form).coalesce()
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.sparse.mm(adjacency, x @ weight) + bias
            if number < len(self.drops):
                x = self.drops[number](torch.relu(x))
        return x


@one_thread()
def train(graph: Graph, row: str, seed: int) -> float:
    """Train once; the test accuracy in percent."""
    setting = SETTINGS[row]
    model = GCN(graph.x.shape[1], setting, torch.Generator().manual_seed(seed))
    bind(model, seed)
    adam = torch.optim.Adam(model.parameters(), lr=setting.learning_rate, weight_decay=setting.decay)
    labelled, val = graph.split[setting.full]
    best, kept = math.inf, model.state_dict()
    for _ in range(EPOCHS):
        logits = model(graph.x, graph.edges)
        adam.zero_grad()
        F.cross_entropy(logits[labelled], graph.y[labelled]).backward()
        adam.step()
        with torch.no_grad():
            loss = F.cross_entropy(logits[val], graph.y[val]).item()  # of the forward before the step
        if loss <= best:
            best, kept = loss, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    model.eval()
    with torch.no_grad():
        right = model(graph.x, graph.edges)[graph.test].argmax(1) == graph.y[graph.test]
    return 100 * right.float().mean().item()
