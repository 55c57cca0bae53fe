"""swap, insert, set_rate, strip: what changes, what does not, and that a receipt gives everything back."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import dropkit.torch as dt
from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.torch import layers
from dropkit.torch.changing.receipt import Receipt
from dropkit.torch.changing.surgery import insert, set_rate, strip, swap

from .architectures import MODELS, Bert, Owner, encoder, snapshot, zeros

# What it names there is tested in test_unkeyed.
pytestmark = pytest.mark.filterwarnings("ignore:swap leaves dropouts that it cannot replace")

KINDS = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_swap_takes_the_class_of_the_same_name(kind: str, training: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), getattr(nn, kind)(0.3, True)).train(training)
    receipt = swap(model)
    new = model[1]
    assert type(new) is getattr(layers, kind)
    assert (new.p, new.inplace, new.training) == (0.3, True, training)
    assert receipt.lines == (f"1: torch.nn {kind}(p=0.3, inplace=True) -> dropkit {kind}(p=0.3, inplace=True)",)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("operate", [swap, lambda m: set_rate(m, "*", 0.25), strip,
                                     lambda m: insert(m, nn.Linear, dt.Dropout(0.1))])  # fmt: skip
def test_restore_gives_the_original_back_bit_for_bit(make: Any, operate: Any) -> None:
    model = make()
    before, weights = snapshot(model), copy.deepcopy(model.state_dict())
    receipt = operate(model)
    assert list(model.state_dict()) == list(weights)
    assert snapshot(model) != before
    receipt.restore()
    assert snapshot(model) == before
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), weights.values(), strict=True))


def test_restore_twice_is_an_error_and_a_context_restores() -> None:
    model = Bert()
    before = snapshot(model)
    with swap(model) as receipt:
        assert isinstance(receipt, Receipt)
        assert "in force" in repr(receipt)
    assert snapshot(model) == before
    assert "restored" in repr(receipt)
    with pytest.raises(DropkitRuntimeError, match="was restored already; a receipt restores once"):
        receipt.restore()
    with swap(model) as receipt:
        receipt.restore()  # by hand, inside
    assert snapshot(model) == before


def test_a_context_restores_after_an_exception() -> None:
    model = Bert()
    before = snapshot(model)
    with pytest.raises(KeyError), strip(model):
        raise KeyError
    assert snapshot(model) == before


def test_surgeries_stack_and_are_taken_back_in_reverse() -> None:
    model = Bert()
    before = snapshot(model)
    swapped = swap(model)
    between = snapshot(model)
    stripped = strip(model)
    with pytest.raises(DropkitRuntimeError, match="restore what came later first"):
        swapped.restore()
    stripped.restore()
    assert snapshot(model) == between
    swapped.restore()
    assert snapshot(model) == before


def test_a_restored_module_takes_the_mode_of_its_place() -> None:
    model = Bert().train()
    receipt = swap(model)
    model.eval()
    receipt.restore()
    assert not any(module.training for module in model.modules())


def test_a_shared_module_becomes_one_new_module() -> None:
    owner = Owner()
    swap(owner)
    assert owner.first is owner.second
    assert owner.first is not owner.last
    assert list(owner._modules) == ["first", "second", "last"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_swapped_transformer_encoder(training: bool, grad: bool) -> None:
    """In evaluation with and without torch's fast path: equal outputs; in training masks of our own."""
    model, x = encoder().train(training), torch.randn(2, 5, 8)
    with torch.set_grad_enabled(grad):
        expected = model(x)
        receipt = swap(model)
        y = model(x)
    assert torch.equal(y, expected) is not training
    kinds = [type(module) for module in model.modules() if isinstance(module, nn.Dropout)]
    assert kinds == [layers.Dropout] * 6
    left = [line for line in receipt.lines if "left alone" in line]
    assert left == [f"layers.{i}.self_attn: left alone, torch draws what MultiheadAttention drops" for i in (0, 1)]


def test_swapped_model_can_be_bound_saved_and_trained() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    swap(model)
    dt.bind(model, seed=3)
    x = torch.randn(4, 8)
    with dt.at(step=0):
        assert torch.equal(model(x), model(x))
    model(x).sum().backward()
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    assert "dropkit_step" in model.state_dict()


def test_hooks_and_extra_attributes_come_along() -> None:
    model: Any = nn.Sequential(nn.Dropout(0.5))
    seen: list[str] = []
    old = model[0]
    handle = old.register_forward_hook(lambda m, a, y: seen.append("first"))
    old.register_forward_hook(lambda m, a, y: seen.append("always"), always_call=True)
    old.register_forward_pre_hook(lambda m, a, k: seen.append("before"), with_kwargs=True)
    old.register_full_backward_hook(lambda m, gi, go: seen.append("backward"))
    old.tag = "head"
    before = snapshot(model)
    receipt = swap(model)
    assert model[0].tag == "head"
    model(torch.ones(2, requires_grad=True)).sum().backward()
    assert seen == ["before", "first", "always", "backward"]
    handle.remove()
    seen.clear()
    model(torch.ones(2))
    assert seen == ["before", "always"]
    receipt.restore()
    assert model[0] is old
    assert len(old._forward_hooks) == 1
    assert len(snapshot(model)) == len(before)


def unusual(what: str) -> nn.Module:
    drop: Any = nn.Dropout(0.5)
    if what == "parameters, buffers or submodules":
        drop.register_buffer("count", torch.zeros(()))
    elif what == "forward was replaced":
        drop.forward = lambda x: x
    elif what == "compiled by itself":
        drop.compile(backend="eager")
    else:
        drop.p = 1.5
    return drop


@pytest.mark.parametrize(
    "what", ["parameters, buffers or submodules", "forward was replaced", "compiled by itself", "but got 1.5"]
)
def test_what_cannot_be_swapped_alike_is_refused_before_anything_changes(what: str) -> None:
    model = nn.Sequential(nn.Dropout(0.1), unusual(what))
    before = snapshot(model)
    with pytest.raises(DropkitValueError, match=f"1.*{what}"):
        swap(model)
    assert snapshot(model) == before


def test_subclasses_are_left_alone_and_named() -> None:
    class Mine(nn.Dropout):
        pass

    model = nn.Sequential(nn.Dropout(0.1), Mine(0.2), dt.Dropout(0.3))
    receipt = swap(model)
    assert [type(module) for module in model] == [layers.Dropout, Mine, layers.Dropout]
    assert receipt.lines[1:] == ("1: left alone, Mine is a subclass of Dropout",)


def test_dropout_inside_a_parametrization() -> None:
    class Connect(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return self.drop(weight)

    model: Any = nn.Sequential(nn.Linear(16, 16))
    parametrize.register_parametrization(model[0], "weight", Connect())
    keys = list(model.state_dict())
    receipt = swap(model)
    assert receipt.lines[0].startswith("0.parametrizations.weight.0.drop: ")
    assert 0.2 < zeros(model[0].weight) < 0.8
    assert list(model.state_dict()) == keys


def test_swap_refusals() -> None:
    with pytest.raises(DropkitValueError, match=r"the model itself is a dropout.*put another module in its place"):
        swap(nn.Dropout(0.5))
    with pytest.raises(DropkitTypeError, match=r"swap needs a torch.nn.Module, got int"):
        swap(3)  # type: ignore[arg-type]
    with pytest.raises(DropkitValueError, match=r"no dropout of torch.nn to swap in LSTM: it has itself \(LSTM\)"):
        swap(nn.LSTM(2, 2, 2, dropout=0.1))
    with pytest.raises(DropkitValueError, match="it has no dropout module and no rate in an attribute"):
        swap(nn.Linear(2, 2))


def test_swapping_in_a_bound_model_warns() -> None:
    model = dt.bind(nn.Sequential(dt.Dropout(0.5)))
    model.append(nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="the model is bound and these are not: 1; dropkit.torch.bind"):
        swap(model)


def test_set_rate_reaches_modules_and_numbers() -> None:
    model = Bert()
    receipt = set_rate(model, "blocks.0.*", 0)
    assert receipt.lines == (
        "blocks.0.attention.attention_dropout: attention_dropout 0.3 -> 0.0",
        "blocks.0.attention.out_drop: p 0.1 -> 0.0",
        "blocks.0.mlp.2: p 0.2 -> 0.0",
        "blocks.0.path: drop_prob 0.2 -> 0.0",
    )
    block: Any = model.blocks[1]
    assert (block.attention.attention_dropout, block.path.drop_prob, block.mlp[2].p) == (0.3, 0.2, 0.2)


@pytest.mark.parametrize("pattern", ["*.self_attn", "*.self_attn.dropout", "layers.0.self_attn"])
def test_set_rate_by_owner_or_by_attribute(pattern: str) -> None:
    model: Any = encoder()
    set_rate(model, pattern, 0.9)
    assert model.layers[0].self_attn.dropout == 0.9
    assert model.layers[1].self_attn.dropout == (0.4 if "0" in pattern else 0.9)
    assert model.layers[0].dropout.p == 0.4


def test_set_rate_of_a_keep_probability_and_of_a_lone_module() -> None:
    class DropPathKeep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keep_prob = 0.8

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model: Any = nn.Sequential(DropPathKeep())
    set_rate(model, "*", 0.25)
    assert model[0].keep_prob == 0.75
    for drop in (nn.Dropout(0.5), dt.Dropout(0.5)):
        receipt = set_rate(drop, "*", 0.1)
        assert drop.p == 0.1
        assert receipt.lines == ("the model itself: p 0.5 -> 0.1",)
        receipt.restore()
        assert drop.p == 0.5


def test_set_rate_leaves_config_objects_alone() -> None:
    class Config:
        hidden_dropout_prob = 0.1

        def __init__(self) -> None:
            self.attention_dropout = 0.2

    model: Any = nn.Sequential(nn.Dropout(0.1))
    model.config = Config()
    receipt = set_rate(model, "*", 0.5)
    assert len(receipt.lines) == 1
    assert vars(model.config) == {"attention_dropout": 0.2}


def test_set_rate_refusals() -> None:
    model = Bert()
    with pytest.raises(DropkitValueError, match=r"dropout probability.*between 0 and 1.*1.5"):
        set_rate(model, "*", 1.5)
    with pytest.raises(DropkitTypeError, match=r"must be a number, but got '0.5'"):
        set_rate(model, "*", "0.5")  # type: ignore[arg-type]
    with pytest.raises(DropkitTypeError, match="pattern must be a str"):
        set_rate(model, 3, 0.5)  # type: ignore[arg-type]
    with pytest.raises(DropkitValueError, match=r"'x' matches no rate in Bert; it has blocks.0.attention"):
        set_rate(model, "x", 0.5)


@pytest.mark.parametrize("make", MODELS)
def test_stripped_models_drop_nothing_in_training(make: Any) -> None:
    model, x = make().train(), torch.randn(2, 5, 8)
    expected = copy.deepcopy(model).eval()(x)
    with strip(model):
        y = model(x)
        assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    for a, b in zip(tensors(y), tensors(expected), strict=True):
        torch.testing.assert_close(a, b)
    again = model(x)
    assert not all(torch.equal(a, b) for a, b in zip(tensors(again), tensors(expected), strict=True))


def tensors(y: Any) -> list[torch.Tensor]:
    return torch.utils._pytree.tree_leaves(y)


@pytest.mark.parametrize("make", [Bert, encoder])
@pytest.mark.parametrize("swapped", [False, True])
def test_an_exported_stripped_model_holds_no_dropout(make: Any, swapped: bool) -> None:
    """pytorch#103681: a graph exported in training mode keeps its dropouts, whatever mode it is put in later."""
    model = make().train()
    if swapped:
        swap(model)
    x = (torch.randn(2, 5, 8),)
    kept = str(torch.export.export(model, x, strict=False).graph)
    assert "drop" in kept
    with strip(model):
        graph = torch.export.export(model, x, strict=False).graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    assert calls
    assert not any("drop" in str(node.target) or "bernoulli" in str(node.target) for node in calls)
    attention = [node for node in calls if "attention" in str(node.target)]
    assert all(0.3 not in node.args for node in attention)


def test_strip_keeps_subclasses_at_rate_zero_and_silences_bound_clocks() -> None:
    class Noisy(nn.Dropout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x, self.p, self.training) + 1

    model: Any = nn.Sequential(Noisy(0.5), dt.Dropout(0.5, when="always"), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="unbound"):
        dt.bind(model)
    before = snapshot(model)
    with strip(model):
        assert torch.equal(model(torch.ones(64)), torch.full((64,), 2.0))
        assert int(model.dropkit_step) == 0
    assert snapshot(model) == before
    model(torch.ones(64))
    assert int(model.dropkit_step) == 1


def test_strip_with_inputs_refuses_what_it_cannot_reach() -> None:
    class Literal(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x, 0.5, self.training)

    model = nn.Sequential(nn.Dropout(0.5), Literal())
    before = snapshot(model)
    with pytest.raises(DropkitValueError, match=r"that no module shows: 1:dropout at .*test_surgery.py:\d+; trace"):
        strip(model, torch.ones(4))
    assert snapshot(model) == before
    with strip(Bert(), torch.ones(2, 5, 8)) as receipt:
        assert len(receipt.lines) == 9


def test_strip_refusals() -> None:
    with pytest.raises(DropkitValueError, match="nothing to strip in Linear: it has no dropout module"):
        strip(nn.Linear(2, 2))
    with pytest.raises(DropkitValueError, match="the model itself is a dropout"):
        strip(dt.Dropout(0.5))


def test_a_surgery_that_fails_halfway_leaves_nothing_behind() -> None:
    class Fussy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["dropout"] = 0.5

        def __setattr__(self, name: str, value: Any) -> None:
            if name == "dropout" and "_modules" in self.__dict__ and value != 0.5:
                raise AttributeError("read-only")
            super().__setattr__(name, value)

    model = nn.Sequential(nn.Dropout(0.3), Fussy())
    with pytest.raises(AttributeError, match="read-only"):
        set_rate(model, "*", 0.1)
    assert model[0].p == 0.3  # type: ignore[union-attr]
