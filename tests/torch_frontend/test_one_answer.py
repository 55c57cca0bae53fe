"""One answer to "where does this model drop?": the same sites under the same names, whoever asks; configs included."""

import random
from collections import namedtuple
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit.torch as dt
from dropkit.axes.rate import Gap, Linear
from dropkit.errors import DropkitValueError
from dropkit.torch.learned import ConcreteDropout
from dropkit.torch.schedule import Schedule, site_rates

X = torch.ones(2, 3, 8)


class DropPath(nn.Module):
    """Holds its rate under one name or another."""

    def __init__(self, **rate: float) -> None:
        super().__init__()
        ((self.held, value),) = rate.items()
        self.__dict__[self.held] = value

    def forward(self, x: Tensor) -> Tensor:
        value = getattr(self, self.held)
        p = 1 - value if "surviv" in self.held or "keep" in self.held else value
        return x if p == 0 or not self.training else x * (torch.rand(len(x), 1, 1) >= p) / (1 - p)


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.ours, self.spatial = nn.Dropout(0.1), dt.Dropout(0.1), nn.Dropout1d(0.1)
        self.path, self.rate = DropPath(drop_prob=0.1), DropPath(rate=0.1)
        self.survival, self.keep = DropPath(survival_prob=0.9), DropPath(keep_prob=0.9)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.lstm = nn.LSTM(8, 8, 2, dropout=0.1, batch_first=True)
        self.drop_rate = 0.1
        self.p = 0.1
        self.config = SimpleNamespace(dropout=0.1, unread_dropout=0.1, text={"drop": 0.1, "hidden": 3})

    def forward(self, x: Tensor) -> Tensor:
        x = self.spatial(self.drop(self.ours(x)))
        x = self.keep(self.survival(self.rate(self.path(x))))
        x = self.lstm(self.attention(x, x, x)[0])[0]
        x = F.dropout(F.dropout(x, self.p, self.training), self.drop_rate, self.training)
        x = F.dropout(x, p=self.config.text["drop"], training=self.training)
        return F.dropout(x, p=self.config.dropout, training=self.training)


NAMES = {"drop", "ours", "spatial", "path", "rate", "survival", "keep", "attention", "lstm"}
NAMES |= {"drop_rate", "p", "config.dropout", "config.text.drop"}


def test_everybody_lists_the_same_sites_under_the_same_names() -> None:
    model = Everything()
    names = [site.name for site in dt.sites(model)]
    assert set(names) == NAMES
    assert len(names) == len(NAMES)
    assert list(site_rates(model)) == names
    assert list(Schedule(model, 0.1).rates()) == names
    assert [line.partition(":")[0] for line in dt.set_rate(model, "*", 0.2).lines] == names
    assert site_rates(model) == dict.fromkeys(names, 0.2)
    assert {site.name: site.p for site in dt.sites(model)} == dict.fromkeys(names, 0.2)
    assert model.survival.survival_prob == 0.8
    assert model.config.unread_dropout == 0.1


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_can_be_set_and_scheduled_under_its_name(name: str) -> None:
    model = Everything()
    with dt.set_rate(model, name, 0.25):
        assert site_rates(model) == {site: 0.25 if site == name else 0.1 for site in site_rates(model)}
    assert set(site_rates(model).values()) == {0.1}
    schedule = Schedule(model, {name: Linear(0.5, 0.0, steps=2)})
    for p in (0.5, 0.25, 0.0):
        assert schedule.rates() == {name: p}
        assert site_rates(model)[name] == p
        schedule.step()
    assert {p for site, p in site_rates(model).items() if site != name} == {0.1}


def test_disabled_and_enabled_know_them_all() -> None:
    model = Everything()
    names = list(site_rates(model))
    with dt.disabled(model):
        assert {name: p for name, p in site_rates(model).items() if p} == {"ours": 0.1}  # off by its `when`
        assert torch.equal(model.train()(X), model.eval()(X))
    assert site_rates(model) == dict.fromkeys(names, 0.1)
    for name in names:
        with dt.enabled(model.eval(), name):
            pass


def test_path_and_attribute_still_find_a_layer_and_a_saved_controller() -> None:
    model = nn.Sequential(DropPath(drop_prob=0.1), nn.MultiheadAttention(8, 2, dropout=0.1))
    assert list(Schedule(model, {"0.drop_prob": 0.2, "1.dropout": 0.3}).rates()) == ["0", "1"]
    assert dt.set_rate(model, "1.dropout", 0.5).lines == ("1: dropout 0.3 -> 0.5",)
    schedule = Schedule(model, {"0": Gap(0.1)})
    state = schedule.state_dict()
    state["controllers"] = {"0.drop_prob": {**state["controllers"]["0"], "p": 0.4}}
    schedule.load_state_dict(state)
    assert schedule.rates() == {"0": 0.4}


def test_learned_rates_are_sites_that_nobody_sets() -> None:
    model = nn.Sequential(nn.Dropout(0.5), ConcreteDropout(0.25))
    assert [(site.name, site.p, site.train, site.note) for site in dt.sites(model)] == [
        ("0", 0.5, True, ""),
        ("1", 0.25, True, "its rate is learned"),
    ]
    assert [site.name for site in dt.sites(model, torch.ones(4, 8))] == ["0", "1"]
    assert list(Schedule(model, 0.1).rates()) == ["0"]
    assert dt.set_rate(model, "*", 0.2).lines == ("0: p 0.1 -> 0.2",)
    with pytest.raises(DropkitValueError, match=r"it has '0'; the rates of '1' are learned"):
        Schedule(model, {"1": 0.5})
    with pytest.raises(DropkitValueError, match=r"it has 0 \(0.2\); the rate of 1 is learned"):
        dt.set_rate(model, "1", 0.5)


# Rates in configs


@dataclass
class Nested:
    layer_drop: float = 0.5
    name: str = "x"


@dataclass(frozen=True)
class Frozen:
    layer_drop: float = 0.5


class Slots:
    __slots__ = ("layer_drop",)

    def __init__(self) -> None:
        self.layer_drop = 0.5


class Mapped:
    """Another name for one that is held, as in transformers' configurations."""

    def __init__(self) -> None:
        self.drop = 0.5

    def __getattr__(self, name: str) -> Any:
        if name == "layer_drop":
            return self.drop
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("drop" if name == "layer_drop" else name, value)


class OnTheClass:
    layer_drop = 0.5


@dataclass
class Outer:
    inner: Nested = field(default_factory=Nested)


class Skipping(nn.Module):
    """LayerDrop as in Wav2Vec2, by whatever `drawn()` gives."""

    def __init__(self, settings: Any, reads: Any) -> None:
        super().__init__()
        self.settings, self.linear = settings, nn.Linear(8, 8)
        type(self).rate = property(reads) if reads else type(self).rate

    @property
    def rate(self) -> float:
        return self.settings.layer_drop

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand([]) < self.rate:
            return x
        return self.linear(x)


def by_attribute(self: Any) -> float:
    return self.settings.layer_drop


def by_item(self: Any) -> float:
    return self.settings["layer_drop"]


def by_get(self: Any) -> float:
    settings = self.settings
    return settings.get("layer_drop", 0.0)


def by_getattr(self: Any) -> float:
    return float(getattr(self.settings, "layer_drop", 0.0) or 0.0)


def through_a_function(self: Any) -> float:
    return given(self.settings)


def given(settings: Any) -> float:
    return settings.layer_drop


def nested(self: Any) -> float:
    return self.settings.inner.layer_drop


CONFIGS = {
    "namespace": (lambda: SimpleNamespace(layer_drop=0.5), by_attribute, "settings.layer_drop"),
    "dataclass": (Nested, by_getattr, "settings.layer_drop"),
    "frozen": (Frozen, by_attribute, "settings.layer_drop"),
    "slots": (Slots, by_attribute, "settings.layer_drop"),
    "mapped": (Mapped, by_attribute, "settings.layer_drop"),
    "on its class": (OnTheClass, by_attribute, "settings.layer_drop"),
    "dict": (lambda: {"layer_drop": 0.5}, by_item, "settings.layer_drop"),
    "dict by get": (lambda: {"layer_drop": 0.5}, by_get, "settings.layer_drop"),
    "through a function": (Nested, through_a_function, "settings.layer_drop"),
    "nested": (Outer, nested, "settings.inner.layer_drop"),
    "nested dict": (lambda: SimpleNamespace(inner=Nested()), nested, "settings.inner.layer_drop"),
}


def skipping(case: str) -> tuple[nn.Module, str]:
    make, reads, name = CONFIGS[case]
    kind = type("Case", (Skipping,), {})
    return kind(make(), reads), name


@pytest.mark.parametrize("case", CONFIGS)
def test_a_rate_in_a_config_is_found_switched_set_and_scheduled(case: str) -> None:
    model, name = skipping(case)
    rate: Any = type(model).rate.fget  # type: ignore[attr-defined]
    assert list(site_rates(model)) == [site.name for site in dt.sites(model)] == [name]
    (ran,) = dt.sites(model, X)
    assert (ran.kind, ran.p, ran.train, ran.eval) == ("random.rand", 0.5, True, False)
    assert ".".join(ran.attribute or ()) == name
    expected = model.eval()(X)
    with dt.disabled(model.train()):
        assert all(torch.equal(model(X), expected) for _ in range(8))
    assert rate(model) == 0.5
    assert not all(torch.equal(model(X), expected) for _ in range(16))
    with dt.set_rate(model, name, 1.0):
        assert torch.equal(model(X), X)
    assert rate(model) == 0.5
    schedule = Schedule(model, {"*layer_drop": Linear(1.0, 0.0, steps=1)})
    assert rate(model) == 1.0
    schedule.step()
    assert rate(model) == 0.0


def test_one_config_of_many_modules_is_one_rate_and_comes_back() -> None:
    class Layer(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.config = config

        def forward(self, x: Tensor) -> Tensor:
            cfg = self.config
            return F.dropout(x, cfg.hidden_dropout, training=self.training)

    config = SimpleNamespace(hidden_dropout=0.5, size=8)
    model = nn.Sequential(Layer(config), Layer(config))
    held = config.hidden_dropout
    assert [site.name for site in dt.sites(model)] == ["0.config.hidden_dropout"]
    assert [site.attribute for site in dt.sites(model, X)] == [("0.config", "hidden_dropout")] * 2
    with dt.disabled(model):
        assert config.hidden_dropout == 0.0
        assert torch.equal(model(X), X)
    assert config.hidden_dropout is held
    assert dt.set_rate(model, "1.config.*", 0.25).lines == ("0.config.hidden_dropout: hidden_dropout 0.5 -> 0.25",)


def test_what_a_forward_does_not_read_is_no_site() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(hidden_dropout=0.3, use_cache=True)
            self.hidden_dropout = self.config.hidden_dropout
            self.drop_rate = 0.1
            self.drop = nn.Dropout(self.drop_rate)

        def forward(self, x: Tensor) -> Tensor:
            if self.config.use_cache:
                return F.dropout(self.drop(x), self.hidden_dropout, self.training)
            return x

        def _init_weights(self) -> None:
            self.config.hidden_dropout += 0.0

    assert [site.name for site in dt.sites(Reads())] == ["hidden_dropout", "drop"]
    assert list(site_rates(Reads())) == ["hidden_dropout", "drop"]


def test_a_whole_number_is_a_rate_by_its_name_alone() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(layerdrop=0)
            self.dropped = 0
            self.drop_index = 1

        def forward(self, x: Tensor) -> Tensor:
            self.dropped = self.dropped + self.drop_index
            return x if self.training and torch.rand([]) < self.config.layerdrop else 2 * x

    assert list(site_rates(Counts())) == ["config.layerdrop"]


class Adapter(nn.Module):
    """LoRA as PEFT wraps it: the layer that it adapts, a dropout in a dict, and attributes of the layer by getattr."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(0.1)})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 8)})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_layer, name)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_A["default"](self.lora_dropout["default"](x))


def test_parts_and_adapters() -> None:
    class Gated(nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.config, self.linear = config, nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.linear(x), self.config.hidden_dropout, self.training)

    config = SimpleNamespace(hidden_dropout=0.5)
    model = nn.Sequential(Adapter(Gated(config)), Gated(config))
    names = ["0.base_layer.config.hidden_dropout", "0.lora_dropout.default"]
    assert list(site_rates(model)) == [site.name for site in dt.sites(model)] == names
    part = model[0]
    with pytest.warns(UserWarning, match=r"base_layer \(F.dropout\)"):
        receipt = dt.swap(part)
    assert type(part.lora_dropout["default"]) is dt.Dropout
    with dt.disabled(part):
        assert torch.equal(model.train()[0](X), model[0](X))
        assert config.hidden_dropout == 0.0
    receipt.restore()
    assert type(part.lora_dropout["default"]) is nn.Dropout
    assert dt.set_rate(part, "lora_dropout.*", 0.3).lines == ("lora_dropout.default: p 0.1 -> 0.3",)
    assert config.hidden_dropout == 0.5


def test_a_rate_that_python_draws_with_is_listed() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = SimpleNamespace(layerdrop=0.5)

        def forward(self, x: Tensor) -> Tensor:
            return x if self.training and random.random() < self.config.layerdrop else 2 * x

    (site,) = dt.sites(Skips(), X)
    assert (site.name, site.p) == ("config.layerdrop", 0.5)
    assert "draws by means that no run shows" in site.note


def test_a_gated_rate_in_a_config_can_be_enabled() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = {"attention_dropout": 0.5}

        def forward(self, x: Tensor) -> Tensor:
            p = self.config["attention_dropout"] if self.training else 0.0
            return F.scaled_dot_product_attention(x, x, x, dropout_p=p)

    model = Gated().eval()
    x = torch.randn(2, 3, 8)
    with dt.enabled(model):
        assert not torch.equal(model(x), model(x))
    assert torch.equal(model(x), model(x))


def test_code_without_source_and_rates_that_cannot_be_set_are_passed_over() -> None:
    space: dict[str, Any] = {"nn": nn, "F": F}
    text = (
        "class Net(nn.Module):\n    def forward(self, x):\n        return F.dropout(x, self.config.drop, self.training)"
    )
    exec(text, space)
    model = space["Net"]()
    model.config = SimpleNamespace(drop=0.5)
    model.drop = nn.Dropout(0.5)
    assert [site.name for site in dt.sites(model)] == ["drop"]
    fixed = skipping("namespace")[0]
    fixed.settings = namedtuple("Fixed", "layer_drop")(0.5)  # type: ignore[assignment]
    assert dt.sites(fixed) == []
    with dt.disabled(fixed):
        pass


@pytest.mark.parametrize("name", ["Wav2Vec2", "Falcon"])
def test_transformers_that_read_their_config_in_forward(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if name == "Wav2Vec2":
        convolutions = {
            "conv_dim": (8, 8),
            "conv_stride": (5, 2),
            "conv_kernel": (10, 3),
            "num_conv_pos_embeddings": 16,
        }
        config = transformers.Wav2Vec2Config(**small, **convolutions, num_conv_pos_embedding_groups=4,
                                             intermediate_size=32, layerdrop=0.5, apply_spec_augment=False)  # fmt: skip
        model, x, names = transformers.Wav2Vec2Model(config), torch.randn(2, 600), {"config.layerdrop"}
    else:
        config = transformers.FalconConfig(**small, vocab_size=50, attention_dropout=0.3, hidden_dropout=0.3)
        model, x = transformers.FalconModel(config), torch.arange(8).view(1, 8)
        names = {"config.attention_dropout", "config.hidden_dropout"}
    assert {name for name in site_rates(model) if "config" in name} == names
    with torch.no_grad():
        expected = model.eval()(x)[0]
        with dt.disabled(model.train()):
            assert all(torch.equal(model(x)[0], expected) for _ in range(8))
        assert not torch.equal(model(x)[0], expected)
