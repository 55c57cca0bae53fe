"""How many sub-networks a step draws from: every call of a dropout draws a mask of its own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt
from dropkit.probe import Explanation


def told(explanation: Explanation) -> str:
    (sentence,) = [sentence for sentence in explanation.sentences if "sub-networks" in sentence]
    return sentence.partition("one of ")[2].partition(" = ")[0].removesuffix(" sub-networks.")


class Twice(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.one, self.two, self.drop, self.other = nn.Linear(4, 16), nn.Linear(16, 16), first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.two(self.drop(self.one(x))))


def test_one_module_called_twice_draws_twice() -> None:
    drop = nn.Dropout(0.5)
    explanation = dropkit.explain(Twice(drop, drop), torch.ones(3, 4))
    (site,) = explanation.sites
    assert (told(explanation), site.calls, site.all_draws) == ("2^32", 2, 32)
    assert "Active on average: 8 of 16 units in each of 2 calls at drop." in explanation.sentences
    two = dropkit.explain(Twice(nn.Dropout(0.5), nn.Dropout(0.5)), torch.ones(3, 4))
    assert told(two) == "2^32" and [site.calls for site in two.sites] == [1, 1]


def test_a_bound_dropout_called_twice_draws_twice() -> None:
    drop = dt.Dropout(0.5)
    model = dt.bind(Twice(drop, drop), seed=0)
    assert told(dropkit.explain(model, torch.ones(3, 4))) == "2^32"


class Shared(nn.Module):
    """A dropout behind activations of different sizes, as behind embedding and encoder of a small transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.drop, self.down = nn.Embedding(20, 16), nn.Dropout2d(0.2), nn.Linear(16, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.embed(ids))
        return self.drop(self.down(F.relu(x)))


def test_calls_on_different_sizes_count_their_own_draws() -> None:
    model = Shared()
    model.drop = nn.Dropout(0.2)
    assert told(dropkit.explain(model, torch.zeros(3, 7, dtype=torch.long))) == f"2^{7 * 16 + 7 * 8}"


def test_shared_axes_stay_shared_in_every_call() -> None:
    class Convs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.drop = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Dropout2d(0.2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(self.two(self.drop(self.one(x))))

    assert told(dropkit.explain(Convs(), torch.ones(2, 3, 9, 9))) == "2^14 = 16,384".partition(" = ")[0]


class Encoder(nn.Module):
    """Embedding and encoder with one dropout behind both; 2 layers of width 32 on 16 tokens, feed-forward of 64."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.embed, self.drop = nn.Embedding(50, 32), nn.Dropout(0.1)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.encoder(self.drop(self.embed(ids)))))


def test_a_small_transformer_counts_both_calls_of_its_dropout() -> None:
    explanation = dropkit.explain(Encoder(), torch.zeros(4, 16, dtype=torch.long))
    layer = 4 * 16 * 16 + 16 * 64 + 2 * 16 * 32
    assert told(explanation) == f"2^{2 * layer + 2 * 16 * 32}"


def test_a_block_called_twice_counts_its_calls_and_attention_twice() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.lin(x).unflatten(-1, (2, 4)).transpose(1, 2)
            y = F.scaled_dot_product_attention(q, q, q, dropout_p=0.1 if self.training else 0.0)
            return F.dropout(y.transpose(1, 2).flatten(2), 0.1, self.training)

    class Universal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = Attending(), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.block(self.block(x)))

    explanation = dropkit.explain(Universal(), torch.randn(3, 5, 8))
    assert told(explanation) == f"2^{2 * (2 * 5 * 5 + 5 * 8)}"


@pytest.mark.parametrize(("layers", "masks"), [(2, 1), (4, 3)])
def test_a_recurrent_network_draws_between_each_two_layers(layers: int, masks: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, layers, dropout=0.3, batch_first=True), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[0])

    assert told(dropkit.explain(Net(), torch.randn(3, 5, 4))) == f"2^{masks * 5 * 6}"


def test_a_vision_transformer_of_hugging_face_counts_the_shared_dropout_twice_in_each_layer() -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    model = ViTForImageClassification(config)
    tokens = 4 * 4 + 1
    whole, weights = tokens * 32, 4 * tokens * tokens
    explanation = dropkit.explain(model, torch.randn(4, 3, 32, 32))
    assert told(explanation) == f"2^{whole + 3 * (2 * whole + weights)}" == "2^7276"
