"""A character-level LSTM with the dropouts of AWD-LSTM: on weights, locked in time, and on the embedding."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ..torch import EmbeddingDropout, LockedDropout, WeightDrop, bind
from .characters import Text, load_text

States = list[tuple[torch.Tensor, torch.Tensor] | None]
EMBEDDED, WIDTH, LAYERS = 64, 128, 2
BATCH, BLOCK, PASSES, PART = 20, 50, 20, 100_000  # of the first characters for training
HIGH, CLIP = 3e-3, 0.25


@dataclass(frozen=True, slots=True)
class Setting:
    """Rates: of words, of what goes in, between layers and out, and of weights from state to state."""

    words: float = 0.0
    into: float = 0.0
    between: float = 0.0
    out: float = 0.0
    weights: float = 0.0


SETTINGS = {
    "no dropout": Setting(),
    "locked and embedding dropout": Setting(0.05, 0.1, 0.25, 0.4),
    "weight drop alone": Setting(weights=0.5),
    "weight drop, locked and embedding dropout": Setting(0.05, 0.1, 0.25, 0.4, 0.5),
}


class Network(nn.Module):
    """Embedding, LSTMs and an output layer."""

    def __init__(self, alphabet: int, setting: Setting, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.words = EmbeddingDropout(nn.Embedding(alphabet, EMBEDDED), setting.words)
            nets = [nn.LSTM(EMBEDDED if number == 0 else WIDTH, WIDTH) for number in range(LAYERS)]
            self.out = nn.Linear(WIDTH, alphabet)
        self.lstms = nn.ModuleList([WeightDrop(net, "weight_hh_l0", setting.weights) for net in nets])
        rates = [setting.into, *[setting.between] * (LAYERS - 1), setting.out]
        self.drops = nn.ModuleList([LockedDropout(rate) for rate in rates])

    def forward(self, numbers: torch.Tensor, states: States) -> torch.Tensor:
        """Logits of time x batch; the states are written over."""
        x = self.drops[0](self.words(numbers))
        for number, lstm in enumerate(self.lstms):
            x, (h, c) = lstm(x, states[number])
            states[number] = (h.detach(), c.detach())
            x = self.drops[number + 1](x)
        return self.out(x)


def prepare(data_dir: str | Path | None) -> Text:
    """The text."""
    return load_text(data_dir)


def train(text: Text, row: str, seed: int) -> float:
    """Train once; the validation loss of the best pass, in nats a character."""
    model = Network(text.alphabet, SETTINGS[row], seed)
    bind(model, seed)
    adam = torch.optim.Adam(model.parameters(), lr=HIGH)
    columns, best = side_by_side(text.train[:PART], BATCH), float("inf")
    per_pass = (len(columns) - 1) // BLOCK
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, PASSES * per_pass, eta_min=HIGH / 100)
    for _ in range(PASSES):
        states: States = [None] * LAYERS
        model.train()
        for number in range(per_pass):
            loss = loss_of(model, columns[number * BLOCK : (number + 1) * BLOCK + 1], states)
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            adam.step()
            fall.step()
        best = min(best, evaluated(model, text.val))
    return best


def side_by_side(text: torch.Tensor, columns: int) -> torch.Tensor:
    """The text in as many pieces, each a column.

    >>> side_by_side(torch.arange(6), 2).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    return text[: len(text) // columns * columns].view(columns, -1).t().contiguous()


def loss_of(model: nn.Module, numbers: torch.Tensor, states: States) -> torch.Tensor:
    """Of some steps of all columns."""
    return F.cross_entropy(model(numbers[:-1], states).flatten(0, 1), numbers[1:].flatten())


def evaluated(model: nn.Module, text: torch.Tensor) -> float:
    """The mean loss over a text, read in order."""
    model.eval()
    columns = side_by_side(text, 10 * BATCH)
    states: States = [None] * LAYERS
    with torch.no_grad():
        return float(loss_of(model, columns, states))
