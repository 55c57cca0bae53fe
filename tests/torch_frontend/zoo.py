"""Small models, each with another way of dropping, and their sites counted by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dropkit.torch import functional as ours

# name, kind, p, mask shape, active in train, in eval, attribute
Row = tuple[str, str, float, tuple[int, ...] | None, bool | None, bool | None, tuple[str, str] | None]


class Functional(nn.Module):
    """Two literals in one line, one always on, one with a number."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop_rate = 0.25

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.dropout(x, 0.1, self.training), training=self.training)
        x = F.dropout(self.norm(x), 0.2)
        return torch.dropout(x, self.drop_rate, self.training)


class Branches(nn.Module):
    """A call in training only, before one in both modes: they must not be taken for each other."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = F.dropout(x, 0.3)
        return F.dropout(x, 0.1)


class Loop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = F.alpha_dropout(x, 0.3, self.training)
        return x


class Channels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Dropout1d(0.1), nn.Dropout2d(0.2), nn.Dropout3d(0.3)
        self.alpha, self.feature = nn.AlphaDropout(0.4), nn.FeatureAlphaDropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(x)
        x = self.one(x.flatten(2))
        return self.feature(self.alpha(self.three(x[..., None, None])))


class Attention(nn.Module):
    """Heads by reshaping; `dropout_p` as `rate()` says, which forgets about the mode or not."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.attention_dropout = 0.1
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        p = self.attention_dropout if self.training or not self.gated else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=p).transpose(1, 2).flatten(2)


class Plain(nn.Module):
    """Attention without dropout: no site."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, num_layers=2, dropout=0.3, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(12, 5, num_layers=2, dropout=0.2)
        self.rnn = nn.RNN(5, 4, num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.gru(self.lstm(x)[0])[0])[0]


class BertAttention(nn.Module):
    """As in transformers: a layer made from the configuration."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.query = nn.Linear(8, 8)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(torch.softmax(self.query(x) @ x.mT, -1)) @ x


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.2, text={"dropout": 0.3}, hidden_size=8
        )
        self.layer = nn.ModuleList(BertAttention(self.config) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = F.dropout(layer(x), self.config.hidden_dropout_prob, self.training)
        return x


class BartLayer(nn.Module):
    """As in transformers: three numbers of the same value, and one that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = self.activation_dropout = self.attention_dropout = self.classifier_dropout = 0.1
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.fc(x)), p=self.activation_dropout, training=self.training)
        return F.dropout(x, p=self.dropout, training=self.training)


class Bart(nn.Module):
    """A layer dropped whole at times, by a number that is compared and handed to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.layerdrop = 0.4
        self.layers = nn.ModuleList([BartLayer()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not (self.training and torch.rand(()) < self.layerdrop / 1e6):
                x = layer(x)
        return x


class DropPath(nn.Module):
    """As in timm."""

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep_prob = 1 - self.drop_prob
        random = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep_prob)
        return x * random.div_(keep_prob)


class StochasticDepth(nn.Module):
    """As in torchvision."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p = p
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        size = [x.shape[0]] + [1] * (x.ndim - 1) if self.mode == "row" else [1] * x.ndim
        return x * torch.empty(size).bernoulli_(1 - self.p).div_(1 - self.p)


class LockedDropout(nn.Module):
    """As in language models: one mask for all times; holds what is kept."""

    def __init__(self, keep_prob: float) -> None:
        super().__init__()
        self.keep_prob = keep_prob

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x[:, :1], self.keep_prob)) if self.training else x


class Paths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.path, self.none = DropPath(0.1), DropPath(0.0)
        self.depth, self.locked = StochasticDepth(0.2, "batch"), LockedDropout(0.75)

    def forward(self, x: Tensor) -> Tensor:
        return self.locked(self.depth(self.none(self.path(x))))


class Sampling(nn.Module):
    """Random numbers that are no dropout: a latent sample, and a masked token."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.1)
        self.mask_prob = 0.15

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.randn_like(x)
        return self.drop(x.masked_fill(torch.rand_like(x) < self.mask_prob, 0.0))


class MadeInside(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Dropout(0.5)(x)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dropout(0.5)
        self.second = self.first
        self.idle = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


class Checkpointed(nn.Module):
    """A part recomputed in backward, with a functional dropout in it and a layer."""

    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.drop = nn.Dropout(0.5)

    def part(self, x: Tensor) -> Tensor:
        return torch.sin(F.dropout(self.drop(x), 0.25, self.training))  # what sin saves is recomputed

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=self.reentrant)


class Ours(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ours.dropout2d(x, 0.2, training=self.training)


@dataclass
class Case:
    """A model, what it takes, and its sites in the order of its modules."""

    make: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    rows: list[Row]


def _sequence() -> Tensor:
    return torch.ones(2, 3, 8)


def _row(name: str, kind: str, p: float, shape: Any, attribute: Any = None, *, eval: bool = False) -> Row:
    return (name, kind, p, shape, p > 0, eval, attribute)


_SDPA = "scaled_dot_product_attention"
_ATTENTION = (2, 2, 3, 3)
_X, _XS = (2, 3, 8), (2, 3, 4)


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


def _encoder_rows(at: str) -> list[Row]:
    return [
        _row(f"{at}.self_attn", "MultiheadAttention", 0.1, _ATTENTION, (f"{at}.self_attn", "dropout")),
        _row(f"{at}.dropout", "Dropout", 0.1, (2, 3, 16), (f"{at}.dropout", "p")),
        _row(f"{at}.dropout1", "Dropout", 0.1, _X, (f"{at}.dropout1", "p")),
        _row(f"{at}.dropout2", "Dropout", 0.1, _X, (f"{at}.dropout2", "p")),
    ]


CASES = {
    "functional": Case(
        Functional,
        (torch.ones(6, 4),),
        [
            _row(":dropout", "F.dropout", 0.1, (6, 4)),
            _row(":dropout#1", "F.dropout", 0.5, (6, 4)),
            _row(":dropout#2", "F.dropout", 0.2, (6, 4), eval=True),
            _row(":dropout#3", "torch.dropout", 0.25, (6, 4), ("", "drop_rate")),
        ],
    ),
    "branches": Case(
        Branches,
        (_sequence(),),
        [_row(":dropout", "F.dropout", 0.3, _X), _row(":dropout#1", "F.dropout", 0.1, _X, eval=True)],
    ),
    "loop": Case(
        Loop,
        (_sequence(),),
        [_row(f":alpha_dropout{number}", "F.alpha_dropout", 0.3, _X) for number in ("", "#1", "#2")],
    ),
    "channels": Case(
        Channels,
        (torch.ones(2, 3, 4, 5),),
        [
            _row("one", "Dropout1d", 0.1, (2, 3, 1), ("one", "p")),
            _row("two", "Dropout2d", 0.2, (2, 3, 1, 1), ("two", "p")),
            _row("three", "Dropout3d", 0.3, (2, 3, 1, 1, 1), ("three", "p")),
            _row("alpha", "AlphaDropout", 0.4, (2, 3, 20, 1, 1), ("alpha", "p")),
            _row("feature", "FeatureAlphaDropout", 0.5, (2, 3, 1, 1, 1), ("feature", "p")),
        ],
    ),
    "attention, gated": Case(
        lambda: nn.Sequential(Attention(gated=True)),
        (_sequence(),),
        [_row(f"0:{_SDPA}", _SDPA, 0.1, _ATTENTION, ("0", "attention_dropout"))],
    ),
    "attention, not gated": Case(
        lambda: Attention(gated=False),
        (_sequence(),),
        [_row(f":{_SDPA}", _SDPA, 0.1, _ATTENTION, ("", "attention_dropout"), eval=True)],
    ),
    "attention without dropout": Case(Plain, (_sequence(),), []),
    "multi-head attention": Case(
        SelfAttention, (_sequence(),), [_row("mha", "MultiheadAttention", 0.1, _ATTENTION, ("mha", "dropout"))]
    ),
    "recurrent": Case(
        Recurrent,
        (_sequence(),),
        [
            _row("lstm", "LSTM", 0.3, (2, 3, 12), ("lstm", "dropout")),
            _row("gru", "GRU", 0.2, (2, 3, 5), ("gru", "dropout")),
            _row("rnn", "RNN", 0.0, (2, 3, 4), ("rnn", "dropout")),
        ],
    ),
    "encoder": Case(_encoder, (_sequence(),), _encoder_rows("layers.0")),
    "bert": Case(
        Bert,
        (_sequence(),),
        [
            _row(":dropout", "F.dropout", 0.2, _X, ("config", "hidden_dropout_prob")),
            _row(":dropout#1", "F.dropout", 0.2, _X, ("config", "hidden_dropout_prob")),
            _row("layer.0.dropout", "Dropout", 0.1, (2, 3, 3), ("layer.0.dropout", "p")),
            _row("layer.1.dropout", "Dropout", 0.1, (2, 3, 3), ("layer.1.dropout", "p")),
        ],
    ),
    "bart": Case(
        Bart,
        (_sequence(),),
        [
            _row(":rand", "random.rand", 0.4, (), ("", "layerdrop")),
            _row("layers.0:dropout", "F.dropout", 0.1, _X, ("layers.0", "activation_dropout")),
            _row("layers.0:dropout#1", "F.dropout", 0.1, _X, ("layers.0", "dropout")),
        ],
    ),
    "paths": Case(
        Paths,
        (_sequence(),),
        [
            _row("path", "DropPath", 0.1, (2, 1, 1), ("path", "drop_prob")),
            _row("none", "DropPath", 0.0, None, ("none", "drop_prob")),
            _row("depth", "StochasticDepth", 0.2, (1, 1, 1), ("depth", "p")),
            _row("locked", "LockedDropout", 0.25, (2, 1, 8)),
        ],
    ),
    "sampling": Case(Sampling, (_sequence(),), [_row("drop", "Dropout", 0.1, _X, ("drop", "p"))]),
    "made inside forward": Case(MadeInside, (_sequence(),), [_row(":dropout", "F.dropout", 0.5, _X, eval=True)]),
    "shared": Case(
        Shared,
        (_sequence(),),
        [
            _row("first", "Dropout", 0.5, _X, ("first", "p")),
            ("idle", "Dropout", 0.3, None, False, False, ("idle", "p")),
        ],
    ),
    "checkpointed": Case(
        Checkpointed,
        (torch.ones(2, 3, 8, requires_grad=True),),
        [_row(":dropout", "F.dropout", 0.25, _X), _row("drop", "Dropout", 0.5, _X, ("drop", "p"))],
    ),
    "ours": Case(
        Ours, (torch.ones(2, 3, 4, 4),), [_row(":dropout2d", "dropkit.functional.dropout2d", 0.2, (2, 3, 1, 1))]
    ),
    "nothing": Case(lambda: nn.Linear(8, 8), (_sequence(),), []),
}
