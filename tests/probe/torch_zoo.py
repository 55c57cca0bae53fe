"""Small models of every kind, with inputs, for the probe of torch models."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import dropkit.torch as ours
from dropkit.torch.learned import ConcreteDropout

Made = tuple[nn.Module, tuple[Any, ...]]


def mlp(drop: type[nn.Module] = nn.Dropout) -> Made:
    layers = [nn.Linear(8, 64), nn.ReLU(), drop(0.5), nn.Linear(64, 32), nn.SELU(), drop(0.2), nn.Linear(32, 3)]
    return nn.Sequential(*layers), (torch.randn(16, 8),)


def bound() -> Made:
    model, inputs = mlp(ours.Dropout)
    return ours.bind(model, seed=3), inputs


def in_place(drop: type[nn.Module] = nn.Dropout) -> Made:
    layers = [nn.Linear(8, 64), drop(0.5, inplace=True), nn.ReLU(inplace=True), nn.Linear(64, 3)]
    return nn.Sequential(*layers), (torch.randn(16, 8),)


def transfer() -> Made:
    """A frozen trunk, two dense layers, and a dropout between them."""
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    trunk.requires_grad_(False)
    head = OrderedDict(dense=nn.Linear(8, 64), relu=nn.ReLU(), drop=nn.Dropout(0.2), last=nn.Linear(64, 2))
    return nn.Sequential(OrderedDict(trunk=trunk, head=nn.Sequential(head))), (torch.randn(8, 3, 6, 6),)


class Residual(nn.Module):
    def __init__(self, drop: type[nn.Module] = nn.Dropout) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2)
        self.drop = drop(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y: torch.Tensor = self.head(x + self.drop(self.inner(x)))
        return y


class Shared(nn.Module):
    """One Linear and one Dropout, each used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.drop, self.head = (
            nn.Linear(8, 16),
            nn.Linear(16, 16),
            nn.Dropout(0.5),
            nn.Linear(16, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.shared(self.first(x)))
        x = self.drop(self.shared(x))
        y: torch.Tensor = self.head(x)
        return y


class Branches(nn.Module):
    """Two heads, of which dropout is in one branch only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.drop, self.head_left, self.head_right = nn.Dropout(0.5), nn.Linear(16, 2), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = torch.relu(self.stem(x))
        return {"left": self.head_left(self.drop(torch.tanh(self.left(x)))), "right": self.head_right(self.right(x))}


class Packed(nn.Module):
    """A dropout of one half of a tensor, each half with a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.a, self.b = nn.Linear(8, 32), nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = self.both(x).chunk(2, -1)
        return self.a(F.dropout(left, 0.5, self.training)), self.b(right)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(11, 8), nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)
        self.gru, self.head = nn.GRU(8, 8, batch_first=True, dropout=0.3), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.gru(self.lstm(self.embed(x))[0])[0][:, -1])
        return y


class Attention(nn.Module):
    """Attention by torch's function, which knows no mode of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.p = nn.Linear(8, 24), nn.Linear(8, 8), 0.4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        y: torch.Tensor = self.out(F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0))
        return y


class WrittenOut(nn.Module):
    """Attention written out, with a dropout layer on its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.drop, self.out = (
            *(nn.Linear(8, 8) for _ in range(3)),
            nn.Dropout(0.4),
            nn.Linear(8, 8),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.q(x) @ self.k(x).transpose(-1, -2) / 8**0.5
        y: torch.Tensor = self.out(self.drop(F.softmax(scores, -1)) @ self.v(x))
        return y


class MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attend, self.head = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, dropout=0.4), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        y: torch.Tensor = self.head(x + self.attend(x, x, x)[0])
        return y


class Functional(nn.Module):
    """Every dropout a function; the second with p of an attribute, the third channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second, self.p = nn.Conv1d(2, 4, 3), nn.Linear(24, 32), nn.Linear(32, 2), 0.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout1d(self.conv(x), 0.5, self.training)
        x = F.gelu(self.first(x.flatten(1)))
        return F.log_softmax(self.second(F.dropout(x, self.p, self.training)), -1)


class DroppedLinear(nn.Linear):
    """A layer that drops its own output."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(F.relu(super().forward(x)), 0.5, self.training)


class Fused(nn.Module):
    """The functions that drop together with their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(8, 16, bias=False), nn.Linear(16, 8), nn.Linear(8, 2)
        self.bias, self.scale = nn.Parameter(torch.randn(16)), nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = ours.bias_act_dropout(self.inner(x), self.bias, 0.5, activation="gelu", training=self.training)
        x = ours.dropout_add(self.outer(y), x, 0.3, training=self.training)
        x, _ = ours.dropout_add_norm(x, x, self.scale, None, 0.2, training=self.training, norm="rms")
        z: torch.Tensor = self.head(x)
        return z


class Checkpointed(nn.Module):
    """A part that runs again in backward."""

    def __init__(self, drop: nn.Module, reentrant: bool = False, preserve: bool = True) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 2)
        self.part = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), drop, nn.Linear(64, 16))
        self.reentrant, self.preserve = reentrant, preserve

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(
            checkpoint(self.part, self.stem(x), use_reentrant=self.reentrant, preserve_rng_state=self.preserve)
        )
        return y


class DropPath(nn.Module):
    """Stochastic depth as timm and torchvision have it: whole samples of a branch."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        kept = 1 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(kept)
        return x * mask.div_(kept)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int, drop_prob: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(0.1 * torch.ones(width))
        self.drop_path = DropPath(drop_prob) if drop_prob > 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(self.act(self.pwconv1(y)))
        z: torch.Tensor = x + self.drop_path(y.permute(0, 3, 1, 2))
        return z


class ConvNeXt(nn.Module):
    """Two stages of two blocks; rates grow with depth: 0, 0.1, 0.2, 0.3."""

    def __init__(self) -> None:
        super().__init__()
        rates = [0.0, 0.1, 0.2, 0.3]
        self.stem = nn.Conv2d(3, 4, 2, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvNeXtBlock(4 * (stage + 1), rates[2 * stage]), ConvNeXtBlock(4 * (stage + 1), rates[2 * stage + 1])
            )
            for stage in range(2)
        )
        self.down, self.norm, self.head = nn.Conv2d(4, 8, 2, 2), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stages[0](self.stem(x))
        x = self.stages[1](self.down(x))
        y: torch.Tensor = self.head(self.norm(x.mean((-2, -1))))
        return y


class ByHand(nn.Module):
    """A branch that is dropped by hand, in a module that has weights as well."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head, self.drop_rate = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2), 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = F.relu(self.branch(x))
        if self.training and self.drop_rate > 0:
            kept = (torch.rand(x.shape[0], 1) >= self.drop_rate).float()
            y = y * kept / (1 - self.drop_rate)
        z: torch.Tensor = self.head(x + y)
        return z


class OwnWeights(nn.Module):
    """Linear layers as functions of parameters of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(32, 8)), nn.Parameter(torch.randn(2, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.dropout(F.relu(F.linear(x, self.first)), 0.5, self.training), self.second)


def concrete() -> Made:
    return nn.Sequential(nn.Linear(8, 16), ConcreteDropout(0.3), nn.Linear(16, 2)), (torch.randn(8, 8),)


def on_input() -> Made:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 2)), (torch.randn(16, 2, 4),)


def on_prediction() -> Made:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.3)), (torch.randn(16, 8),)


def sparse() -> Made:
    layers = [nn.Embedding(11, 8, sparse=True), nn.Flatten(), nn.Dropout(0.5), nn.Linear(40, 4)]
    return nn.Sequential(*layers), (torch.randint(11, (8, 5)),)


def half() -> Made:
    model = nn.Sequential(nn.Linear(8, 64), ours.Dropout(0.5), nn.Linear(64, 4)).bfloat16()
    return model, (torch.randn(16, 8).bfloat16(),)


def weight_norm() -> Made:
    first, last = parametrizations.weight_norm(nn.Linear(8, 64)), parametrizations.spectral_norm(nn.Linear(64, 4))
    return nn.Sequential(first, nn.Dropout(0.5), last), (torch.randn(16, 8),)


class Sequences(nn.Module):
    """Sequences of unlike length, both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 8, 2, dropout=0.5, bidirectional=True), nn.Linear(16, 2)

    def forward(self, x: PackedSequence) -> torch.Tensor:
        y: torch.Tensor = self.head(self.lstm(x)[0].data)
        return y


def sequences() -> Made:
    return Sequences(), (pack_padded_sequence(torch.randn(5, 3, 8), torch.tensor([5, 4, 2])),)


def transformer() -> Made:
    model = nn.Transformer(8, 2, 1, 1, 16, 0.2, batch_first=True)
    return model, (torch.randn(4, 5, 8), torch.randn(4, 5, 8))


def alpha(drop: type[nn.Module] = nn.AlphaDropout) -> Made:
    return nn.Sequential(nn.Linear(8, 32), nn.SELU(), drop(0.3), nn.Linear(32, 2)), (torch.randn(16, 8),)


def images(drop: type[nn.Module] = nn.Dropout2d) -> Made:
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), drop(0.5), nn.Conv2d(16, 4, 2), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 2)), (torch.randn(8, 3, 6, 6),)


def encoder(norm_first: bool = False) -> Made:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (torch.randn(4, 5, 8),)


def _of(kind: Callable[..., nn.Module], *shape: int, **kwargs: Any) -> Callable[[], Made]:
    return lambda: (kind(**kwargs), (torch.randn(*shape),))


ZOO: dict[str, Callable[[], Made]] = {
    "mlp": mlp,
    "mlp of ours": lambda: mlp(ours.Dropout),
    "bound": bound,
    "in place": in_place,
    "in place, ours": lambda: in_place(ours.Dropout),
    "transfer": transfer,
    "residual": _of(Residual, 16, 8),
    "shared": _of(Shared, 16, 8),
    "branches": _of(Branches, 16, 8),
    "packed": _of(Packed, 16, 8),
    "recurrent": lambda: (Recurrent(), (torch.randint(11, (8, 5)),)),
    "attention": _of(Attention, 4, 2, 6, 8),
    "attention written out": _of(WrittenOut, 4, 6, 8),
    "multi head": _of(MultiHead, 6, 4, 8),
    "functional": _of(Functional, 16, 2, 8),
    "checkpointed": lambda: (Checkpointed(nn.Dropout(0.5)), (torch.randn(16, 8),)),
    "reentrant": lambda: (Checkpointed(nn.Dropout(0.5), True), (torch.randn(16, 8),)),
    "checkpointed, ours": lambda: (Checkpointed(ours.Dropout(0.5), preserve=False), (torch.randn(16, 8),)),
    "reentrant, ours": lambda: (Checkpointed(ours.Dropout(0.5), True, False), (torch.randn(16, 8),)),
    "convnext": _of(ConvNeXt, 8, 3, 8, 8),
    "by hand": _of(ByHand, 16, 8),
    "own weights": _of(OwnWeights, 16, 8),
    "dropped linear": lambda: (nn.Sequential(DroppedLinear(8, 16), nn.Linear(16, 2)), (torch.randn(16, 8),)),
    "fused": _of(Fused, 16, 8),
    "concrete": concrete,
    "input": on_input,
    "prediction": on_prediction,
    "alpha": alpha,
    "alpha, ours": lambda: alpha(ours.AlphaDropout),
    "images": images,
    "images, ours": lambda: images(ours.Dropout2d),
    "sparse": sparse,
    "half": half,
    "weight norm": weight_norm,
    "sequences": sequences,
    "transformer": transformer,
    "encoder": encoder,
    "encoder, norm first": lambda: encoder(True),
}
