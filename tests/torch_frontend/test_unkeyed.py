"""What stays on torch's generator is named, once, by bind and swap; nothing is said where nothing stays."""

import random
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt
from dropkit.torch.layers import Drawn
from dropkit.torch.reading.unkeyed import unkeyed


class Base(nn.Module):
    """Holds one keyed dropout and whatever a case reads."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.drop = dt.Dropout(p)
        self.p = self.drop_rate = p
        self.config = SimpleNamespace(dropout=p, layerdrop=p)
        self.layers = nn.ModuleList([nn.Linear(4, 4)])


class Functional(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.drop(x), 0.5, self.training)


class ByAttribute(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.drop(x), p=self.p, training=self.training)


class Aliased(Base):
    def forward(self, x: Tensor) -> Tensor:
        config = self.config
        return nn.functional.dropout2d(self.drop(x), config.dropout, training=self.training)


class InAMethod(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.rest(x, self.p)

    def rest(self, x: Tensor, p: float) -> Tensor:
        return torch.dropout(self.drop(x), p, self.training)


def outside(x: Tensor, p: float, training: bool = True) -> Tensor:
    return F.dropout(x, p=p, training=training)


class InAFunction(Base):
    def forward(self, x: Tensor) -> Tensor:
        return outside(self.drop(x), self.config.dropout, self.training)


class Attention(Base):
    def forward(self, x: Tensor) -> Tensor:
        p = self.drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(x, x, x, dropout_p=p)


class HandedOn(Base):
    """As in transformers: which attention it is, a setting decides."""

    def forward(self, x: Tensor) -> Tensor:
        interface = {"sdpa": partial(outside)}["sdpa"]
        return interface(self.drop(x), dropout=0.0 if not self.training else self.drop.p)


class LayerDrop(Base):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not (self.training and torch.rand([]) < self.config.layerdrop):
                x = layer(x)
        return self.drop(x)


class LayerDropByPython(Base):
    def forward(self, x: Tensor) -> Tensor:
        skipped = self.training and random.uniform(0, 1) < self.drop_rate
        return x if skipped else self.drop(x)


class Ours(Base):
    def forward(self, x: Tensor) -> Tensor:
        return dt.functional.dropout(dt.dropout(self.drop(x), self.p, training=self.training), self.p, self.training)


class MadeInside(Base):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Dropout(self.p)(self.drop(x))


class DropPath(nn.Module):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.drop_prob = p

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.empty(len(x), 1).bernoulli_(1 - self.drop_prob) if self.training else x


def beside(make: Callable[[float], nn.Module]) -> Callable[[float], nn.Module]:
    return lambda p: nn.Sequential(dt.Dropout(0.5), make(p))


STAY = {
    "functional": (Functional, ["the model itself (F.dropout)"]),
    "by attribute": (ByAttribute, ["the model itself (F.dropout)"]),
    "aliased": (Aliased, ["the model itself (F.dropout2d)"]),
    "in a method": (InAMethod, ["the model itself (torch.dropout)"]),
    "in a function": (InAFunction, ["the model itself (F.dropout)"]),
    "attention": (Attention, ["the model itself (scaled_dot_product_attention)"]),
    "handed on": (HandedOn, ["the model itself (interface)"]),
    "LayerDrop": (LayerDrop, ["config.layerdrop (number)"]),
    "LayerDrop by Python": (LayerDropByPython, ["drop_rate (number)"]),
    "ours without a key": (
        Ours,
        ["the model itself (dropkit.dropout)", "the model itself (dropkit.functional.dropout)"],
    ),
    "made inside": (MadeInside, ["the model itself (Dropout(...))"]),
    "torch's layer": (beside(nn.Dropout2d), ["1 (Dropout2d)"]),
    "subclass": (beside(type("Mine", (nn.Dropout,), {})), ["1 (Mine)"]),
    "path": (beside(DropPath), ["1 (DropPath)"]),
    "multi-head attention": (beside(lambda p: nn.MultiheadAttention(4, 2, dropout=p)), ["1 (MultiheadAttention)"]),
    "recurrent": (beside(lambda p: nn.GRU(4, 4, 2, dropout=p)), ["1 (GRU)"]),
    "transformer": (
        beside(lambda p: nn.TransformerEncoderLayer(4, 2, 8, dropout=p)),
        ["1.self_attn (MultiheadAttention)", "1.dropout (Dropout)", "1.dropout1 (Dropout)", "1.dropout2 (Dropout)"],
    ),
}


@pytest.mark.parametrize("case", STAY)
def test_bind_names_what_stays_once(case: str) -> None:
    make, expected = STAY[case]
    model = make(0.5)
    with pytest.warns(UserWarning, match="bind leaves torch's own dropouts unbound: ") as caught:
        dt.bind(model, seed=0)
    (warning,) = caught
    named = str(warning.message).partition("unbound: ")[2].partition(". They")[0]
    assert sorted(named.split(", ")) == sorted(expected)
    assert "torch.manual_seed and inside dropkit.torch.replay" in str(warning.message)
    assert ("dropkit.torch.swap(model)" in str(warning.message)) == ("(Dropout" in named and "(..." not in named)
    assert warning.filename == __file__


@pytest.mark.parametrize("case", [case for case in STAY if case != "functional"])
def test_a_rate_of_zero_is_not_named(case: str) -> None:
    if case == "subclass":
        pytest.skip("covered by torch's layer")
    assert unkeyed(STAY[case][0](0.0), Drawn) == []


class Keyed(Base):
    """Looks at rates, and hands none to anybody."""

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_rate > 0 and self.config.dropout != 0.0 and self.drop.p:
            x = self.drop(x)
        x = dt.dropout(x, self.p, training=self.training, key=dropkit.Key(1, "a", 2))
        x = F.dropout(x, self.p, training=False)
        return F.scaled_dot_product_attention(x, x, x)


def test_nothing_is_said_where_nothing_stays() -> None:
    for model in (Keyed(), nn.Sequential(dt.Dropout(0.5), nn.MultiheadAttention(4, 2), nn.LSTM(4, 4, 2))):
        dt.bind(model, seed=0)
    dt.swap(nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)))


def test_swap_names_what_it_cannot_swap() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.MultiheadAttention(4, 2, dropout=0.1), LayerDrop(), DropPath())
    with pytest.warns(UserWarning, match="swap leaves dropouts") as caught:
        receipt = dt.swap(model)
    (warning,) = caught
    named = "1 (MultiheadAttention), 2.config.layerdrop (number), 3 (DropPath). They"
    assert named in str(warning.message)
    assert "dropkit.torch.swap" not in str(warning.message)
    assert [line for line in receipt.lines if "left alone" in line] == [
        "1: left alone, torch draws what MultiheadAttention drops",
        "2.config.layerdrop: left alone, torch draws what it drops",
        "3: left alone, torch draws what DropPath drops",
    ]


def test_code_without_source_is_passed_over() -> None:
    space: dict[str, Any] = {"Base": Base, "F": F}
    exec("class Net(Base):\n    def forward(self, x):\n        return F.dropout(self.drop(x), 0.5)", space)
    dt.bind(space["Net"](), seed=0)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_of_bert_is_named(implementation: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                                     vocab_size=50, attn_implementation=implementation)  # fmt: skip
    model = transformers.BertModel(config)
    for change in (dt.swap, dt.bind):
        with pytest.warns(UserWarning) as caught:
            change(model)
        text = str(caught[0].message)
        assert all(f"encoder.layer.{number}.attention.self (attention_interface)" in text for number in (0, 1))
        assert len(caught) == 1
    # What the warning offers holds.
    ids = torch.arange(8).view(1, 8)
    dt.set_rate(model, "*.self.dropout", 0)

    def run() -> Tensor:
        with dt.at(step=0):
            return model(ids).last_hidden_state

    assert torch.equal(run(), run())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dt.bind(dt.unbind(model))


GLOBAL_KEY = dropkit.Key(1, "a", 2)


class Stating(nn.Module):
    """Calls of our functions with a key that is written in four ways, and one without."""

    key = GLOBAL_KEY


class ByGlobal(Stating):
    def forward(self, x: Tensor) -> Tensor:
        return dropkit.torch.dropout(x, 0.1, training=True, key=GLOBAL_KEY)


class ByAttribute(Stating):
    def forward(self, x: Tensor) -> Tensor:
        return dropkit.torch.attention(x, x, x, p=0.1, training=True, key=self.key)


class ByCall(Stating):
    def forward(self, x: Tensor) -> Tensor:
        return dropkit.torch.attention(x, x, x, p=0.1, training=True, key=dropkit.Key(1, "a", 2))


class ByNone(Stating):
    def forward(self, x: Tensor) -> Tensor:
        return dropkit.torch.dropout(x, 0.1, training=True, key=None)


class ByNothing(Stating):
    def forward(self, x: Tensor) -> Tensor:
        return dropkit.torch.attention(x, x, x, p=0.1, training=True)


@pytest.mark.parametrize("kind", [ByGlobal, ByAttribute, ByCall])
def test_a_key_that_is_stated_is_seen_however_it_is_written(kind: type[Stating]) -> None:
    assert not unkeyed(kind(), Drawn)


@pytest.mark.parametrize("kind, name", [(ByNone, "dropkit.dropout"), (ByNothing, "dropkit.attention")])
def test_a_call_of_ours_without_a_key_is_named(kind: type[Stating], name: str) -> None:
    assert [site.what for site in unkeyed(kind(), Drawn)] == [name]
