"""nanoGPT on characters, as its README trains it on CPUs; and over one and ten passes of the text at several rates."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ..torch import Dropout, bind
from .characters import Text, load_text

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
WARM, HIGH, LOW, DECAY, CLIP = 100, 1e-3, 1e-4, 0.1, 1.0
EVALUATED = 200  # batches of the text for validation; the README's figure is of 20


@dataclass(frozen=True, slots=True)
class Setting:
    """How long, and at which rate."""

    rate: float
    steps: int = 0
    passes: int = 0  # of the text for training, where steps do not say

    def length(self, text: Text) -> int:
        """In steps."""
        return self.steps or self.passes * len(text.train) // (BLOCK * BATCH)


SETTINGS = {
    "2,000 steps, p = 0": Setting(0.0, 2000),
    **{f"one pass, p = {rate:g}": Setting(rate, passes=1) for rate in (0, 0.1, 0.2, 0.3)},
    **{f"ten passes, p = {rate:g}": Setting(rate, passes=10) for rate in (0, 0.1, 0.2, 0.3)},
}


class Attention(nn.Module):
    """Causal attention with dropout of its weights and of its output."""

    later: torch.Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.attention_drop, self.drop = Dropout(rate), Dropout(rate)
        self.register_buffer("later", torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT / math.sqrt(k.shape[-1])).masked_fill(self.later[: x.shape[1], : x.shape[1]], -math.inf)
        mixed = self.attention_drop(scores.softmax(-1)) @ v
        return self.drop(self.out(mixed.transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Two residual branches, each normalised before."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.first, self.second = (nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.attention = Attention(rate)
        self.feed = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH, bias=False), Dropout(rate)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.first(x))
        return x + self.feed(self.second(x))


class GPT(nn.Module):
    """The network; its output layer is the table of its characters."""

    def __init__(self, alphabet: int, rate: float, random: torch.Generator) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(alphabet, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.drop = Dropout(rate)
        self.layers = nn.Sequential(*[Layer(rate) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:  # what closes a residual branch begins smaller, by the number of branches
                closes = name.endswith(("out.weight", "feed.2.weight"))
                weight.data.normal_(0, 0.02 / math.sqrt(2 * LAYERS) if closes else 0.02, generator=random)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.characters(numbers) + self.places.weight[: numbers.shape[1]])
        return F.linear(self.norm(self.layers(x)), self.characters.weight)


def prepare(data_dir: str | Path | None) -> Text:
    """The text."""
    return load_text(data_dir)


def train(text: Text, row: str, seed: int) -> float:
    """Train once; the validation loss in nats a character."""
    setting = SETTINGS[row]
    with torch.random.fork_rng(devices=[]):  # layers draw weights, which are drawn again
        model = GPT(text.alphabet, setting.rate, torch.Generator().manual_seed(seed))
    bind(model, seed)
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    rest = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=HIGH, betas=(0.9, 0.99))
    steps, random = setting.length(text), torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = loss_of(model, text.train, random)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
    return evaluated(model, text.val)


def learning_rate(step: int, steps: int) -> float:
    """Up in a line, then down a cosine.

    >>> learning_rate(99, 2000), round(learning_rate(2000, 2000), 6)
    (0.0009900990099009901, 0.0001)
    """
    if step < WARM:
        return HIGH * (step + 1) / (WARM + 1)
    return LOW + (HIGH - LOW) * (1 + math.cos(math.pi * (step - WARM) / max(steps - WARM, 1))) / 2


def loss_of(model: nn.Module, text: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Of one batch of places drawn at random."""
    begins = torch.randint(len(text) - BLOCK, (BATCH, 1), generator=random)
    numbers = text[begins + torch.arange(BLOCK + 1)]
    return F.cross_entropy(model(numbers[:, :-1]).flatten(0, 1), numbers[:, 1:].flatten())


def evaluated(model: nn.Module, text: torch.Tensor) -> float:
    """The mean loss of batches that are the same for all."""
    model.eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return sum(loss_of(model, text, random).item() for _ in range(EVALUATED)) / EVALUATED
