"""Every place where dropout happens is found, none is invented, and the model is left as it was."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropkit.errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from dropkit.torch import Dropout, bind
from dropkit.torch.finding.intercept import Intercept
from dropkit.torch.finding.inventory import Site, sites, table
from dropkit.torch.finding.trace import Tagged
from dropkit.torch.reading.structure import config_numbers, numbers

from . import zoo
from .test_intercept import Recorder
from .zoo import CASES

X = torch.ones(2, 3, 8)


def rows(found: list[Site]) -> list[zoo.Row]:
    return [(s.name, s.kind, s.p, s.mask_shape, s.train, s.eval, s.attribute) for s in found]


def note(found: list[Site], name: str) -> str:
    return next(site.note for site in found if site.name == name)


# Finding


@pytest.mark.parametrize("name", CASES)
def test_all_are_found_and_none_is_invented(name: str) -> None:
    case = CASES[name]
    model = case.make()
    first = sites(model, *case.inputs)
    assert rows(first) == case.rows
    model.eval()
    assert sites(model, *case.inputs) == first  # the mode it is in does not matter; names are stable
    assert sites(case.make(), *case.inputs) == first


def test_deep_names() -> None:
    model = nn.Sequential(nn.ModuleDict({"a": zoo.Attention(True)})["a"], nn.Sequential(nn.Identity(), zoo.Loop()))
    names = [site.name for site in sites(model, X)]
    assert names == ["0:scaled_dot_product_attention", *(f"1.1:alpha_dropout{n}" for n in ("", "#1", "#2"))]


def test_functional_calls_say_where_they_stand() -> None:
    site = sites(zoo.MadeInside(), X)[0]
    filename, line = site.source.rsplit(":", 1)
    assert filename == zoo.__file__
    assert "nn.Dropout(0.5)(x)" in Path(filename).read_text().splitlines()[int(line) - 1]


def test_notes() -> None:
    assert "eval() does not reach it" in note(sites(zoo.MadeInside(), X), ":dropout")
    shared = sites(zoo.Shared(), X)
    assert note(shared, "first") == "called 2 times in a forward"
    assert note(shared, "idle") == "not reached with these inputs"
    with pytest.warns(UserWarning, match="num_layers"):
        one = nn.Sequential(nn.LSTM(8, 8, dropout=0.5))
    for found in (sites(one), sites(one, X)):
        assert [(s.name, s.p, s.train, s.mask_shape) for s in found] == [("0", 0.5, False, None)]
        assert found[0].note == "one layer: there is nothing between layers to drop"
    assert sites(nn.LSTM(8, 8), X) == sites(nn.LSTM(8, 8)) == numbers(nn.LSTM(8, 8)) == []


def test_fast_path_is_told() -> None:
    encoder = CASES["encoder"].make()
    assert all("fast path" in site.note for site in sites(encoder, X))
    slow = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=False)
    assert all(site.note == "" for site in sites(slow, X))
    # What the note says is so: switched on inside a layer in eval, they drop with gradient and not without.
    for module in encoder.eval().modules():
        if isinstance(module, nn.Dropout):
            module.train()
    x = torch.randn(2, 3, 8)
    assert not torch.equal(encoder(x), encoder(x))
    with torch.no_grad():
        assert torch.equal(encoder(x), encoder(x))


def test_structure_alone() -> None:
    found = {site.name: site for site in sites(zoo.Bart())}
    assert set(found) == {
        "layerdrop",
        *(f"layers.0.{n}dropout" for n in ("", "activation_", "attention_", "classifier_")),
    }
    assert {site.kind for site in found.values()} == {"number"}
    assert {(site.train, site.eval, site.mask_shape) for site in found.values()} == {(None, None, None)}
    layers = sites(CASES["encoder"].make())
    assert [(s.name, s.train, s.eval) for s in layers] == [(row[0], True, False) for row in CASES["encoder"].rows]
    monte_carlo = nn.Sequential(Dropout(0.5, when="always"), Dropout(0.5, when="never"), Dropout(0.0))
    modes = [(True, True), (False, False), (False, False)]
    assert [(s.train, s.eval) for s in sites(monte_carlo)] == modes
    assert [(s.train, s.eval) for s in sites(monte_carlo, X)] == modes


def test_numbers_given_to_layers_are_not_listed_twice() -> None:
    model = nn.Sequential(nn.Dropout(0.1))
    model.drop_rate = 0.1
    assert [site.name for site in sites(model)] == ["0"]
    model.drop_rate = 0.2
    assert [site.name for site in sites(model)] == ["drop_rate", "0"]
    assert [site.name for site in sites(model, X)] == ["0"]


def test_our_own_layers() -> None:
    model = nn.Sequential(Dropout(0.5, share=(1,)), bind(nn.Sequential(Dropout(0.25))))
    assert [(s.name, s.p, s.mask_shape, s.train, s.eval) for s in sites(model, X)] == [
        ("0", 0.5, (2, 1, 8), True, False),
        ("1.0", 0.25, (2, 3, 8), True, False),
    ]

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Dropout(0.5)(x)

    inside = sites(nn.Sequential(Inside()), X)
    assert rows(inside) == [("0:Dropout", "dropkit.Dropout", 0.5, (2, 3, 8), True, True, None)]
    assert "eval() does not reach it" in inside[0].note
    root = sites(nn.Dropout(0.5), X)
    assert [(s.name, s.mask_shape) for s in root] == [("", (2, 3, 8))]
    assert "(the model)" in table(root)


def test_keyword_and_nested_inputs() -> None:
    class Net(nn.Module):
        def forward(self, batch: dict[str, Any], *, scale: list[float]) -> dict[str, Tensor]:
            return {"y": F.dropout(batch["x"][0] * scale[0], 0.5, self.training)}

    assert [s.mask_shape for s in sites(Net(), {"x": [X], "id": "a"}, scale=[2.0])] == [(2, 3, 8)]
    assert [s.mask_shape for s in sites(Net(), batch={"x": [X]}, scale=[2.0])] == [(2, 3, 8)]


def test_exported_graph_keeps_its_dropout() -> None:
    graph = torch.export.export(nn.Sequential(nn.Dropout(0.5)).train(), (X,)).module(check_guards=False)
    with Intercept(graph, seen := Recorder()):
        graph(X)
    assert [(call.kind, call.drops) for call in seen.calls] == [("torch.dropout", True)]


def test_errors() -> None:
    with pytest.raises(DropkitTypeError, match=r"sites needs a torch.nn.Module, got function"):
        sites(F.dropout)  # type: ignore[arg-type]
    with pytest.raises(
        DropkitRuntimeError, match=r"cannot be run in training mode with these inputs \(RuntimeError: "
    ) as e:
        sites(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), X)
    assert isinstance(e.value.__cause__, RuntimeError)
    with pytest.raises(DropkitValueError, match=r"parameters 0.weight, 0.bias are not there"):
        sites(nn.Sequential(nn.LazyLinear(2), nn.Dropout()), X)


def test_table_has_aligned_columns() -> None:
    text = table(sites(zoo.Functional(), torch.ones(6, 4))).splitlines()
    assert len({line.index(word) for line, word in zip(text, ("mask", *["6x4"] * 4), strict=True)}) == 1


def test_shapes_without_data() -> None:
    with torch.device("meta"):
        model = zoo.Functional()
        found = sites(model, torch.empty(6, 4))
    assert rows(found) == CASES["functional"].rows


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_the_inside_of_torchscript_is_passed_over() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5)))
    model = nn.Sequential(scripted, nn.Dropout(0.25))
    assert [s.name for s in sites(model, torch.ones(4, 8))] == ["1"]
    assert int(scripted[0].num_batches_tracked) == 0


def test_looking_while_another_look_is_on() -> None:
    model = nn.Sequential(zoo.Loop())
    with Intercept(model, Recorder((0.5, False))):
        assert [s.train for s in sites(model, X)] == [True] * 3


# Numbers


def test_numbers() -> None:
    model = zoo.Bart()
    assert {n.name: n.value for n in numbers(model)} == {
        "layerdrop": 0.4,
        **{f"layers.0.{n}dropout": 0.1 for n in ("", "activation_", "attention_", "classifier_")},
    }
    assert all(number.module is model.get_submodule(number.path) for number in numbers(model))
    assert [n.name for n in numbers(zoo.Paths())] == ["path.drop_prob", "none.drop_prob", "depth.p"]
    assert numbers(zoo.Bert()) == []
    shared = nn.Sequential(zoo.DropPath(0.1))
    shared.append(shared[0])
    assert [n.name for n in numbers(shared)] == ["0.drop_prob", "1.drop_prob"]


def test_config_numbers() -> None:
    model = zoo.Bert()
    found = {n.name: n for n in config_numbers(model)}
    assert {name: n.value for name, n in found.items()} == {
        "config.attention_probs_dropout_prob": 0.1,
        "config.hidden_dropout_prob": 0.2,
        "config.text.dropout": 0.3,
    }
    assert found["config.text.dropout"].module is model.config.text
    model.config.itself = model.config  # configs may go round in circles
    assert len(config_numbers(model)) == 3


# Leaving no trace


class Restless(nn.Module):
    """Changes whatever a forward may change."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)
        self.linear = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.drop_rate = 0.3
        self.calls = 0
        self.fail_in_eval = False
        self.register_buffer("nan", torch.full((2,), float("nan")))
        self.register_buffer("count", torch.zeros(()))
        self.config = {"dropout": 0.2}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache = x
        self.count = self.count + 1
        self.nan.add_(1)
        random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
        x = self.norm(x.mul_(2))
        self.linear(x).sum().backward()
        if self.fail_in_eval and not self.training:
            raise KeyError("eval")
        return F.dropout(self.drop(x), self.drop_rate) * self.config["dropout"]


def state(model: Restless) -> Any:
    buffers = [
        (name, id(b), b.view(torch.uint8).tolist() if b.dim() else b.item()) for name, b in model.named_buffers()
    ]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    rng = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    own = {k: (id(v), type(v)) for k, v in vars(model).items() if k != "_buffers"}
    grads = [(None if p.grad is None else (id(p.grad), p.grad.tolist()), p.requires_grad) for p in model.parameters()]
    return [m.training for m in model.modules()], buffers, hooks, rng, own, grads, type(model.config["dropout"])


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(fail: bool) -> None:
    model = Restless()
    model.fail_in_eval = fail
    model.drop.eval()  # modes that differ come back one by one
    model.linear.weight.grad = torch.ones(8, 8)
    model.linear.bias.requires_grad_(False)
    x = torch.randn(4, 8)
    before, given = state(model), x.clone()
    if fail:
        with pytest.raises(DropkitRuntimeError, match="evaluation mode"):
            sites(model, x)
    else:
        assert [s.name for s in sites(model, x)] == [":dropout", "drop"]
    assert state(model) == before
    assert torch.equal(x, given)
    assert torch.overrides._get_current_function_mode_stack() == []


def test_a_graph_that_waits_for_its_backward_survives() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8).eval(), nn.Dropout(0.5))
    x = torch.randn(4, 8, requires_grad=True)
    y = model(x).sum()
    model[0].requires_grad_(False)
    versions = [b._version for b in model.buffers()]
    model[0].train = lambda mode=True: model[0]  # type: ignore[method-assign]  # frozen: stays in eval
    sites(model, x)
    assert [b._version for b in model.buffers()] == versions
    y.backward()
    assert x.grad is not None


def test_a_bound_model_keeps_its_clock() -> None:
    with pytest.warns(UserWarning, match=r"1 \(F.alpha_dropout\)"):
        model, twin = (bind(nn.Sequential(Dropout(0.5), zoo.Loop()), seed=3) for _ in range(2))
    model(X), twin(X)
    assert [s.name for s in sites(model, X)] == ["0", *(f"1:alpha_dropout{n}" for n in ("", "#1", "#2"))]
    assert int(model.dropkit_step) == 1
    torch.manual_seed(0)
    y = model(X)
    torch.manual_seed(0)
    assert torch.equal(y, twin(X))


def test_compiled_parts_are_looked_into() -> None:
    model = nn.Sequential(torch.compile(zoo.Loop(), backend="eager"))
    assert [s.name.partition(":")[2] for s in sites(model, X)] == [f"alpha_dropout{n}" for n in ("", "#1", "#2")]


def test_tags_are_numbers_to_everyone_else() -> None:
    tag = Tagged(0.5)
    assert (tag, 1 - tag, repr(tag)) == (0.5, 0.5, "0.5")
    assert type(torch.full((2,), tag).tolist()[0]) is float


class SkippedInTraining(nn.Module):
    """LayerDrop, as unlucky as can be."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3))
        self.outer = Functional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else self.outer(self.inner(x))


class Functional(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.2, training=self.training)


def test_what_training_skipped_is_not_called_off() -> None:
    found = {site.name: site for site in sites(SkippedInTraining(), torch.ones(2, 4))}
    assert set(found) == {"inner.1", "outer:dropout"}
    for site in found.values():
        assert (site.train, site.eval) == (None, False)
        assert site.note == "its layer did not run in training: the model skips it, always or at random"
