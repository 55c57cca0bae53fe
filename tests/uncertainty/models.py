"""Models of torch that drop in one way or another, each with the shape of an input."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import dropkit.torch as ours


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(F.dropout(F.relu(self.a(x)), 0.4, self.training))


def _dropped(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x, 0.3, training=True)


class Normed(Functional):
    """Cannot train on a single row."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(self.a, nn.BatchNorm1d(16))


class Elsewhere(Functional):
    """Calls a function that drops, which its own source does not show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(_dropped(self.a(x)))


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.net, self.out = nn.LSTM(6, 8, 2, dropout=0.3, batch_first=batch_first), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.net.batch_first:
            return self.out(self.net(x)[0][:, -1])
        return self.out(self.net(x.transpose(0, 1))[0][-1])


class Encoder(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(6, 16), nn.Linear(16, 3)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.2, batch_first=batch_first)
        self.net, self.batch_first = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), batch_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.out(self.net(x).mean(1) if self.batch_first else self.net(x.transpose(0, 1)).mean(0))


class Positions(nn.Module):
    """As many positions as a pass has rows: which axis is that of the batch cannot be told from one shape."""

    def __init__(self, of_positions: bool = False) -> None:
        super().__init__()
        self.p, self.n, self.d, self.o = nn.Embedding(8, 6), nn.LayerNorm(6), nn.Dropout(0.2), nn.Linear(6, 2)
        self.of_positions = of_positions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = self.p(torch.arange(x.shape[1]))
        if self.of_positions:
            return self.o((self.n(x) + self.d(positions)).mean(1))
        return self.o(self.d(self.n(x) + positions).mean(1))


class Residual(nn.Module):
    """Several outputs pass the first dropout, one of them written into."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.d, self.b, self.c = (
            nn.Linear(6, 6), nn.LayerNorm(6), nn.Dropout(0.5), nn.Linear(6, 6), nn.Linear(6, 2),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu_(self.a(x))
        g = self.n(h)
        return self.c(h + self.d(self.b(g)))


class Flattened(nn.Module):
    """Drops tokens of all rows as one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d, self.c = nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        return self.c(self.d(self.a(x).reshape(n * t, 6))).reshape(n, t, 2)


def _net(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 2))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "functional": (Functional, (6,)),
    "functional, batch norm": (Normed, (6,)),
    "elsewhere": (Elsewhere, (6,)),
    "batch norm, in place": (
        lambda: _net(nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.3, inplace=True)),
        (6,),
    ),
    "lstm": (lambda: Recurrent(True), (5, 6)),
    "lstm, time first": (lambda: Recurrent(False), (8, 6)),
    "encoder": (Encoder, (8, 6)),
    "encoder, time first": (lambda: Encoder(False), (5, 6)),
    "positions": (Positions, (8, 6)),
    "dropped positions": (lambda: Positions(True), (8, 6)),
    "residual": (Residual, (6,)),
    "flattened": (Flattened, (4, 6)),
    "images": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.Dropout2d(0.5), nn.ReLU(), ours.DropBlock2d(0.2, 2), nn.Flatten(), nn.Linear(144, 2)
        ),
        (1, 8, 8),
    ),
    "weights": (lambda: nn.Sequential(ours.WeightDrop(nn.Linear(6, 8), "weight", 0.4), nn.Dropout(0.2)), (6,)),
    "depth": (lambda: _net(ours.StochasticDepth(0.5, "row"), nn.ReLU()), (6,)),
    "layers": (lambda: _net(ours.LayerDrop([nn.Linear(8, 8), nn.Linear(8, 8)], 0.5)), (6,)),
    "alpha": (lambda: _net(nn.SELU(), nn.AlphaDropout(0.3)), (6,)),
    "gaussian": (lambda: _net(ours.GaussianDropout(0.3)), (6,)),
    "concrete": (lambda: _net(ours.learned.ConcreteDropout(0.3)), (6,)),
    "always on": (lambda: _net(ours.Dropout(0.3, when="always")), (6,)),
    "one dropout twice": (lambda: _twice(), (6,)),
}


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.d = nn.Linear(6, 8), nn.Linear(8, 2), nn.Dropout(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.d(F.relu(self.d(self.a(x)))))


def _twice() -> nn.Module:
    return _Twice()
