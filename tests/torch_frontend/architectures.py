"""Small models of the kinds that people have, and what of a model a surgery may not change for good."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class DropPath(nn.Module):
    def __init__(self, drop_prob: float = 0.2) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.drop_prob)
        return x * keep / (1 - self.drop_prob)


class Attention(nn.Module):
    """As in BERT-like models: a float for the attention, a layer for the output."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.attention_dropout = 0.3
        self.out_drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attention_dropout if self.training else 0.0)
        return self.out_drop(self.out(y))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = Attention(), nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 8))
        self.path = DropPath()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x + self.path(self.attention(x)))
        return x + self.path(self.mlp(x))


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.heads = nn.ModuleDict({"a": nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.heads["a"](x)


def encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.4, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS = [Bert, encoder, lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.2), nn.LSTM(8, 8, 2, dropout=0.3))]


def snapshot(model: nn.Module) -> list[Any]:
    """Everything that a surgery may not change for good: identity and order of modules, attributes, reprs."""
    found: list[Any] = [repr(model), list(model.state_dict())]
    for path, module in model.named_modules(remove_duplicate=False):
        found.append((path, id(module), [(name, id(child)) for name, child in module._modules.items()]))
        for name, value in module.__dict__.items():
            hooks = list(value.items()) if isinstance(value, dict) else None
            found.append((path, name, id(value), type(value), hooks))
    return found


def zeros(y: torch.Tensor) -> float:
    return float((y == 0).float().mean())


class Owner(nn.Module):
    """Shares one dropout between two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Dropout(0.5)
        self.second = self.first
        self.last = nn.Dropout(0.1)
