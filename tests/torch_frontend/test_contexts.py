"""disabled and enabled: dropout off or on, whatever form it takes, and nothing else touched."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint

import dropkit.torch as dt
from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.torch import functional as ours
from dropkit.torch.changing.contexts import disabled, enabled
from dropkit.torch.changing.surgery import swap

from .architectures import Attention, Bert, DropPath, encoder, snapshot, zeros

X = torch.linspace(-1, 1, 2 * 5 * 8).view(2, 5, 8)


class Wild(nn.Module):
    """Dropout in every form at once."""

    def __init__(self) -> None:
        super().__init__()
        self.torchs, self.ours, self.always = nn.Dropout(0.5), dt.Dropout(0.5), dt.Dropout(0.5, when="always")
        self.alpha, self.attention = nn.AlphaDropout(0.3), Attention()
        self.mha = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)
        self.lstm, self.path = nn.LSTM(8, 8, 2, dropout=0.4, batch_first=True), DropPath()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.always(self.ours(self.torchs(self.alpha(x))))
        x = F.dropout(x, 0.3)  # whatever the mode, as many write it
        x = torch.dropout(x, 0.2, True)
        x = ours.dropout(x, 0.2, training=self.training)
        x = dt.dropout(x, 0.2, training=self.training)
        x = x + self.path(self.mha(x, x, x)[0]) + self.attention(x)
        x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
        x = self.lstm(x)[0]
        return self.norm(x.transpose(1, 2))


def sure(model: nn.Module) -> nn.Module:
    """The same model without any dropout, for comparison."""
    twin = copy.deepcopy(model)

    class Plain(Wild):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.mha(x, x, x)[0] + self.attention(x)
            x = self.lstm(F.scaled_dot_product_attention(x, x, x))[0]
            return self.norm(x.transpose(1, 2))

    twin.__class__ = Plain
    for part in (twin.mha, twin.lstm, twin.attention):
        part.eval()
    return twin


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_disabled_turns_everything_off_and_nothing_else(training: bool, grad: bool) -> None:
    model = Wild().train(training)
    twin = sure(model)
    before, modes = snapshot(model), [m.training for m in model.modules()]
    with torch.set_grad_enabled(grad):
        expected = twin(X)
        with disabled(model):
            y = model(X)
            assert [m.training for m in model.modules()] == modes
        torch.testing.assert_close(y, expected)
        assert not torch.allclose(model(X), expected)  # some are on in any mode
    torch.testing.assert_close(model.norm.running_mean.sum() != 0, torch.tensor(training))  # BatchNorm went on
    assert snapshot(model) == before


@pytest.mark.parametrize("make", [Bert, encoder])
def test_disabled_in_training_is_evaluation_of_all_but_batchnorm(make: Any) -> None:
    """trl#3500, LlamaFactory#10779: turning nn.Dropout off leaves the attention's."""
    model = make().train()
    expected = copy.deepcopy(model).eval()(X)
    with disabled(model):
        torch.testing.assert_close(model(X), expected)
    assert not torch.allclose(model(X), expected)


def test_disabled_restores_after_exceptions_and_nests() -> None:
    model = Wild().train()
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError), disabled(model), disabled(model):
        model(X)
        raise ZeroDivisionError
    assert snapshot(model) == before
    with disabled(model):
        inside = snapshot(model)
        with disabled(model):
            model(X)
        assert len(snapshot(model)) == len(inside)
        assert torch.equal(model(X), model(X))
    assert snapshot(model) == before


def test_modes_and_rates_set_inside_stay() -> None:
    model: Any = nn.Sequential(nn.Dropout(0.5), dt.Dropout(0.5), nn.BatchNorm1d(8)).train()
    with disabled(model):
        model.eval()
        model[0].p = 0.25
        model.train()
        assert zeros(model[:2](X)) == 0
        model.eval()
    assert not any(m.training for m in model.modules())
    assert model[0].p == 0.25
    assert model[1].when == "train"


def test_disabled_leaves_other_models_and_configs_alone() -> None:
    model: Any = nn.Sequential(nn.Dropout(0.5))
    model.config = type("Config", (), {})()
    model.config.dropout = 0.1
    other = nn.Sequential(nn.Dropout(0.5), dt.Dropout(0.5))
    with disabled(model):
        assert model.config.dropout == 0.1
        assert zeros(other(torch.ones(512))) > 0.5
        assert zeros(F.dropout(torch.ones(512))) > 0.3


def test_a_disabled_bound_model_stands_still() -> None:
    model: Any = dt.bind(nn.Sequential(dt.Dropout(0.5)))
    with disabled(model):
        assert zeros(model(X)) == 0
    assert int(model.dropkit_step) == 0
    assert zeros(model(X)) > 0
    assert int(model.dropkit_step) == 1


@pytest.mark.parametrize("reentrant", [True, False])
def test_disabled_with_checkpointing(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)

        def part(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(self.drop(self.linear(x)).sin(), 0.5, training=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.part, x, use_reentrant=reentrant).sin()

    model, x = Checkpointed(), X.clone().requires_grad_()
    with disabled(model):
        model(x).sum().backward()
    expected = X.clone().requires_grad_()
    model.linear(expected).sin().sin().sum().backward()
    torch.testing.assert_close(x.grad, expected.grad)


@pytest.mark.parametrize("packed", [False, True])
def test_disabled_and_enabled_recurrent_networks(packed: bool) -> None:
    model = nn.Sequential(nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True))
    x: Any = pack_sequence([X[0], X[1, :3]]) if packed else X

    def run() -> torch.Tensor:
        y = model(x)[0]
        return y.data if packed else y

    expected = copy.deepcopy(model).eval()(x)[0]
    expected = expected.data if packed else expected
    with disabled(model.train()):
        torch.testing.assert_close(run(), expected)
    with enabled(model.eval()):
        assert not torch.allclose(run(), expected)
    torch.testing.assert_close(run(), expected)


def swapped() -> nn.Module:
    model = encoder()
    with pytest.warns(UserWarning, match="self_attn"):
        swap(model)
    return model


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)
        self.ours = dt.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.ours(self.drop(self.linear(x)))
        return F.dropout(x, 0.5, training=self.training)


@pytest.mark.parametrize("fullgraph", [True, False])
def test_disabled_reaches_into_compiled_models(fullgraph: bool) -> None:
    torch.compiler.reset()
    model = Functional()
    compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
    assert zeros(compiled(X)) > 0.7
    for _ in range(2):
        with disabled(model):
            torch.testing.assert_close(compiled(X), model.linear(X))
            torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=fullgraph)(X), model.linear(X))
        assert zeros(compiled(X)) > 0.7
    with disabled(compiled):
        torch.testing.assert_close(compiled(X), model.linear(X))
    assert zeros(compiled(X)) > 0.7


def test_an_export_inside_disabled_holds_no_dropout() -> None:
    model = Functional().train()
    with disabled(model):
        graph = torch.export.export(model, (X,), strict=False).module()
    torch.testing.assert_close(graph(X), model.linear(X))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("make", [Bert, encoder, swapped, Functional, Attention])
def test_enabled_makes_passes_in_evaluation_differ(make: Any, grad: bool) -> None:
    model = make().eval()
    before = snapshot(model)
    with torch.set_grad_enabled(grad):
        expected = model(X)
        with enabled(model):
            first, second = model(X), model(X)
            assert not any(m.training for m in model.modules())
        assert not torch.equal(first, second)
        assert torch.equal(model(X), expected)
    assert snapshot(model) == before


def test_enabled_drops_at_the_rates_of_training() -> None:
    """The mean of many passes is the deterministic output of a linear model; as many zeros as in training."""
    model = nn.Sequential(nn.Dropout(0.25), dt.Dropout(0.5)).eval()
    x = torch.ones(100_000)
    with enabled(model):
        y = model(x)
    assert abs(zeros(y) - 0.625) < 4 * (0.625 * 0.375 / 1e5) ** 0.5
    assert abs(float(y.mean()) - 1) < 0.02
    torch.testing.assert_close(y[y != 0][0], torch.tensor(8 / 3))


@pytest.mark.parametrize("padded", [False, True])
def test_enabled_defeats_the_fast_path_of_the_transformer_encoder(padded: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.4, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2]) if padded else None
    with torch.no_grad(), enabled(model):
        assert not torch.equal(model(X, src_key_padding_mask=mask), model(X, src_key_padding_mask=mask))


@pytest.mark.parametrize("site", ["layers.0.self_attn", "layers.1.dropout2", "layers.0.*"])
def test_enabled_by_site(site: str) -> None:
    model: Any = encoder().eval()
    seen: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda m, a, y, path=path: seen.append(path) if y is not a[0] else None)
    with enabled(model, sites=site):
        first, second = model(X), model(X)
    assert not torch.equal(first, second)
    chosen = {"layers.0.self_attn": [], "layers.1.dropout2": [site], "layers.0.*": [
        "layers.0.dropout1", "layers.0.dropout", "layers.0.dropout2"]}  # fmt: skip
    assert seen[: len(seen) // 2] == chosen[site]


def test_enabled_by_the_name_of_a_call() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([F.dropout(x, 0.5, self.training), F.dropout(x, 0.5, self.training)])

    model = nn.Sequential(Twice()).eval()
    with enabled(model, ["0:dropout#1"]):
        first, second = model(torch.ones(512))
    assert zeros(first) == 0
    assert zeros(second) > 0.3
    with enabled(model, "0"):
        assert min(map(zeros, model(torch.ones(512)))) > 0.3


def test_enabled_survives_eval_and_leaves_batchnorm() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), dt.Dropout(0.5), DropPath(0.5)).train()
    with enabled(model):
        model.eval()
        assert zeros(model(torch.ones(64, 8))) > 0.7
        assert float(model[0].running_mean.sum()) == 0  # type: ignore[operator, union-attr]
    assert not any(m.training for m in model.modules())


def test_enabled_reaches_drop_path() -> None:
    model = nn.Sequential(DropPath(0.5)).eval()
    with enabled(model):
        y = model(torch.ones(256, 4))
        assert not model[0].training
    assert 0.3 < zeros(y) < 0.7
    assert zeros(model(torch.ones(256, 4))) == 0


def test_enabled_in_a_bound_model_counts_its_steps() -> None:
    model: Any = dt.bind(nn.Sequential(dt.Dropout(0.5))).eval()
    with enabled(model):
        first, second = model(X), model(X)
    assert not torch.equal(first, second)
    assert int(model.dropkit_step) == 2


@pytest.mark.parametrize("fullgraph", [True, False])
def test_enabled_reaches_into_compiled_models(fullgraph: bool) -> None:
    torch.compiler.reset()
    model = Functional().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
    expected = compiled(X)
    with enabled(model), torch.no_grad():
        assert zeros(compiled(X)) > 0.7
        assert not torch.equal(compiled(X), compiled(X))
    torch.testing.assert_close(compiled(X), expected)


def test_enabled_refuses_models_without_dropout() -> None:
    """deepchem#3115: a Monte Carlo loop over zero sites has variance 0."""
    for model in (nn.Linear(8, 8), nn.Dropout(0.0), dt.Dropout(0.5, when="never"), nn.LSTM(8, 8)):
        holder = nn.Sequential(model)
        before = snapshot(holder)
        with pytest.raises(DropkitValueError, match="no dropout became active"), enabled(holder):
            holder(X)
        assert snapshot(holder) == before


def test_enabled_finds_functional_dropout_that_no_module_shows() -> None:
    class Hidden(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x, 0.5, training=self.training)

    model = nn.Sequential(Hidden()).eval()
    with enabled(model):
        assert zeros(model(torch.ones(512))) > 0.3


def test_enabled_refusals() -> None:
    model = Bert()
    with pytest.raises(DropkitValueError, match=r"'encoder.\*' matches nothing in Bert; it has blocks.0.attention.att"):
        enabled(model, "encoder.*").__enter__()
    with pytest.raises(DropkitTypeError, match="sites must be a pattern"):
        enabled(model, []).__enter__()
    for context in (enabled, disabled):
        with pytest.raises(DropkitTypeError, match=f"{context.__name__} needs a torch.nn.Module, got str"):
            context("model").__enter__()  # type: ignore[arg-type]


class Gated(nn.Module):
    """Attention whose rate is one of several numbers, which only training shows."""

    def __init__(self, **rates: float) -> None:
        super().__init__()
        for name, p in rates.items():
            setattr(self, name, p)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate() if self.training else 0.0)


@pytest.mark.parametrize(
    "rates", [{"dropout": 0.5}, {"drop_one": 0.5, "drop_two": 0.5}, {"attn_drop": 0.5, "drop_path": 0.1}]
)
def test_a_gated_rate_is_read_from_the_only_number_that_it_can_be(rates: dict[str, float]) -> None:
    model = nn.Sequential(Gated(**rates)).eval()
    with enabled(model):
        assert not torch.equal(model(X), model(X))


def test_a_gated_rate_that_could_be_any_of_several_is_refused() -> None:
    model = nn.Sequential(Gated(drop_one=0.1, drop_two=0.2)).eval()
    message = r"0:scaled_dot_product_attention runs at rate 0 .* could be any of drop_one=0.1, drop_two=0.2: make them"
    with enabled(model), pytest.raises(DropkitValueError, match=message):
        model(X)


def test_a_rate_of_zero_stays_off() -> None:
    model = nn.Sequential(Gated(dropout=0.0), nn.Dropout(0.5)).eval()
    with enabled(model):
        assert torch.equal(model[:1](X), model[:1](X))


def test_disabled_wins_over_enabled() -> None:
    model = nn.Sequential(nn.Dropout(0.5), dt.Dropout(0.5)).eval()
    with enabled(model), disabled(model):
        assert zeros(model(X)) == 0
    with disabled(model), pytest.raises(DropkitValueError, match="no dropout became active"), enabled(model):
        model(X)
    with enabled(model):
        assert zeros(model(X)) > 0.5


def test_enabled_finds_a_gated_rate_in_the_source_of_its_module() -> None:
    """Its name says nothing of attention, and it is no number but a layer that is never called."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(x, x, x, dropout_p=self.dropout.p if self.training else 0.0)

    model, x = nn.Sequential(Gated()).eval(), torch.randn(1, 2, 16, 4)
    assert torch.equal(model(x), model(x))
    with enabled(model):
        assert not torch.equal(model(x), model(x))


def test_enabled_turns_learned_rates_on() -> None:
    model, x = nn.Sequential(dt.learned.ConcreteDropout(0.5)).eval(), torch.ones(8, 16)
    with enabled(model):
        assert not torch.equal(model(x), model(x))
    assert torch.equal(model(x), x)
