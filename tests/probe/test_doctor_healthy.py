"""Models that use dropout as one should, in train and in eval mode: the doctor finds nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt

Made = tuple[nn.Module, tuple[torch.Tensor, ...], dict[str, Any]]


def batch(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def mlp() -> Made:
    layers = (nn.Flatten(), nn.Dropout(0.1), nn.Linear(48, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))
    return nn.Sequential(*layers, nn.LogSoftmax(1)), (batch(16, 3, 4, 4),), {}


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(F.relu(self.one(x)), 0.2, training=self.training)
        x = dt.dropout(F.gelu(self.two(x)), 0.2, training=self.training)
        return self.three(x)


class Block(nn.Module):
    """Pre-norm: attention and two dense layers, each with dropout on its branch."""

    def __init__(self, width: int, heads: int, p: float):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(p))
        self.drop, self.heads, self.p = nn.Dropout(p), heads, p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        p = self.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + self.drop(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.feed(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.drop = nn.Embedding(20, 16), nn.Dropout(0.1)
        self.blocks = nn.Sequential(Block(16, 2, 0.1), Block(16, 2, 0.1))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 20, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.drop(self.tokens(ids)))))


def tokens() -> torch.Tensor:
    return torch.randint(20, (4, 7), generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.two, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.norm2(self.two(F.relu(self.norm1(self.one(x))))))


def resnet() -> Made:
    stem = (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 10))
    return nn.Sequential(*stem, Residual(8), Residual(8), *head), (batch(8, 3, 12, 12),), {}


def frozen_trunk() -> Made:
    """Transfer: the trunk rests, and only the head is trained."""
    model, inputs, _ = resnet()
    assert isinstance(model, nn.Sequential)
    body = model[:7].requires_grad_(False).eval()
    return nn.Sequential(body, nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10)), inputs, {}


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.drop = nn.Embedding(20, 16), nn.Dropout(0.3)
        self.lstm, self.head = nn.LSTM(16, 16, 2, batch_first=True, dropout=0.3, bidirectional=True), nn.Linear(32, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.lstm(self.drop(self.tokens(ids)))[0]))


def self_normalising() -> Made:
    layers = [nn.Flatten(), nn.AlphaDropout(0.05)]
    for width in (48, 32):
        layers += [nn.Linear(width, 32), nn.SELU(), nn.AlphaDropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(32, 10)), (batch(16, 3, 4, 4),), {}


def encoder() -> Made:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2), (batch(4, 6, 16),), {}


def pre_norm_encoder() -> Made:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
    stack = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16), enable_nested_tensor=False)
    return nn.Sequential(stack, nn.Linear(16, 3)), (batch(4, 6, 16),), {}


def swapped_and_bound() -> Made:
    model, inputs, rest = mlp()
    dt.swap(model)
    return dt.bind(model, seed=3), inputs, rest


def off_by_name() -> Made:
    layers = (nn.Linear(12, 24), nn.ReLU(), dt.Dropout(0.3, when="never"), nn.Linear(24, 3))
    return nn.Sequential(*layers), (batch(16, 12),), {}


def convolutions() -> Made:
    """Whole channels, of images and of sequences."""
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout2d(0.2), nn.Flatten(2), nn.Conv1d(8, 8, 3), nn.ReLU())
    head = (nn.Dropout1d(0.2), nn.Flatten(), nn.Linear(8 * 98, 4))
    return nn.Sequential(*layers, *head), (batch(4, 3, 12, 12),), {}


def bert() -> Made:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config).train(), (), {"input_ids": tokens()}


def gpt2() -> Made:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).train(), (), {"input_ids": tokens()}


HEALTHY: dict[str, Callable[[], Made]] = {
    "mlp": mlp,
    "functional": lambda: (Functional(), (batch(16, 12),), {}),
    "pre-norm transformer": lambda: (Transformer(), (tokens(),), {}),
    "resnet": resnet,
    "frozen trunk": frozen_trunk,
    "two-layer lstm": lambda: (Tagger(), (tokens(),), {}),
    "self-normalising": self_normalising,
    "nn.TransformerEncoder": encoder,
    "pre-norm nn.TransformerEncoder": pre_norm_encoder,
    "swapped and bound": swapped_and_bound,
    "convolutions": convolutions,
    "off by name": off_by_name,
    "bert": bert,
    "gpt2": gpt2,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found(name: str) -> None:
    torch.manual_seed(0)
    model, inputs, rest = HEALTHY[name]()
    assert dropkit.doctor(model, *inputs, **rest) == ()
    assert dropkit.doctor(model.eval(), *inputs, **rest) == ()
