"""Exporters, scripts and tracers: in evaluation they find no dropout, in training they keep it, random at each call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from dropkit import Key
from dropkit.axes.noise import Alpha
from dropkit.torch import AlphaDropout, Dropout, at, bind, dropout, functional

from .families import FUNCTIONS, SHAPES, Family, dropped, function, layer, ones, whole

each = pytest.mark.parametrize("name", SHAPES)
each_kind = pytest.mark.parametrize("make", [layer, function], ids=["class", "function"])
# torch calls by these names what it deprecates itself
deprecated_spec = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
deprecated_script = pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated:DeprecationWarning")


def with_gradient(call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The result, after a look at whether its gradient is zero where it was dropped."""
    leaf = x.clone().requires_grad_()
    y = call(leaf)
    y.sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad == 0, dropped(y))
    return y.detach()


# ---------------------------------------------------------------------------------------------------------------------
# torch.export


def calls(program: torch.export.ExportedProgram) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@each
def test_export_in_evaluation_has_no_dropout(name: str) -> None:
    x = ones(name)
    program = torch.export.export(nn.Sequential(layer(name)).eval(), (x,))
    assert calls(program) == []
    assert torch.equal(program.module()(x), x)


@deprecated_spec
@each
def test_export_in_training_keeps_the_dropout(name: str) -> None:
    """torch's own operator, which draws a fresh mask at each call, also of a program that was lowered."""
    program = torch.export.export(nn.Sequential(layer(name)), (ones(name),))
    assert not any("dropkit" in call for call in calls(program))
    for lowered in (program, program.run_decompositions()):
        exported = lowered.module()
        first, second = exported(ones(name)), exported(ones(name))
        assert not torch.equal(first, second)
        assert whole(name, dropped(first))
    with_gradient(program.module(), ones(name))


def test_export_with_a_dynamic_batch_through_a_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 8), Dropout(0.5))
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(model, (torch.ones(4, 8),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for size in (2, 9):
        y = loaded(torch.ones(size, 8))
        assert y.shape == (size, 8)
        assert 0 < (y == 0).float().mean() < 1


def test_export_of_a_bound_model() -> None:
    model = bind(nn.Sequential(nn.Linear(8, 8), Dropout(0.5)), seed=3).eval()
    x = torch.ones(4, 8)
    program = torch.export.export(model, (x,))
    assert not any("dropkit" in call for call in calls(program))
    assert torch.equal(program.module()(x), model(x))


def moved(module: torch.fx.GraphModule, training: bool) -> torch.fx.GraphModule:
    """What torchao's move_exported_model_to_eval and _to_train do: they rewrite torch's dropout and know no other."""
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.dropout.default):
        node.args = (*node.args[:2], training)
    module.recompile()
    return module


class Draws(nn.Module):
    """What no module does: a number, a key, rows, and a share of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = dropout(x, 0.5, training=self.training, key=Key(1, "here"))
        with at(rows=[3, 4, 5, 6]):
            x = dropout(x, 0.5, training=self.training)
        with at(seed=1, site="there"):
            x = functional.dropout(x, 0.5, self.training)
        x = dropout(x, 0.5, training=self.training, share=(0,), noise=Alpha())
        return dropout(x, torch.full((8,), 0.5), training=self.training, share=(0,))


EXPORTED: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda name=name: layer(name) for name in SHAPES},  # type: ignore[misc]
    "in place": lambda: Dropout(0.5, inplace=True),
    "shared": lambda: Dropout(0.5, share=(-1,)),
    "bound": lambda: bind(nn.Sequential(Dropout(0.5), AlphaDropout(0.5)), seed=1),
    "functions": Draws,
    "always": lambda: Dropout(0.5, when="always"),
}


@deprecated_spec
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")  # the clock's
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", EXPORTED)
def test_an_exported_training_graph_switches_mode_as_torchs_do(kind: str, strict: bool) -> None:
    """Half of it stayed zero after the move to evaluation, without a word (G5)."""
    x = ones(kind) if kind in SHAPES else torch.ones(4, 8)
    model = EXPORTED[kind]()
    module: Any = torch.export.export(model, (x,), strict=strict).module()
    assert not torch.equal(module(x.clone()), x)
    assert torch.equal(moved(module, training=False)(x.clone()), x)
    assert not torch.equal(moved(module, training=True)(x.clone()), x)


def test_an_exported_bound_model_goes_on_with_its_masks() -> None:
    model = bind(nn.Sequential(Dropout(0.5)), seed=3)
    x = torch.ones(4, 8)
    module: Any = torch.export.export(model, (x,)).module()
    first = int(module.dropkit_step)
    for step in range(first, first + 2):
        with at(step=step):
            wanted = model(x)
        assert torch.equal(module(x), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# ONNX


def onnx_operators(model: nn.Module, x: torch.Tensor) -> list[str]:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    return [node.op_type for node in program.model_proto.graph.node]


def family_of(make: Callable[[str], nn.Module]) -> Family:
    """The family with other modules in the places of the six."""
    family = Family()
    for name in SHAPES:
        family.layers[name] = make(name)
    return family


@deprecated_spec
@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning")
def test_onnx_shares_what_is_shared() -> None:
    """torch's feature dropout shares all axes past the second, and no others."""
    assert "RandomUniformLike" in onnx_operators(nn.Sequential(Dropout(0.5, share=(0,))), torch.ones(4, 8))


@deprecated_spec
def test_onnx_in_evaluation_has_no_dropout() -> None:
    """The same operators as with nothing in the six places."""
    x = Family().inputs().detach()
    assert onnx_operators(Family().eval(), x) == onnx_operators(family_of(lambda name: nn.Identity()).eval(), x)
    assert onnx_operators(nn.Sequential(Dropout(0.5)).eval(), x) == ["Identity"]


@deprecated_spec
@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning")
def test_onnx_in_training_has_the_dropout() -> None:
    """The same operators as with torch's six: `Dropout`, and random numbers for the laws that ONNX does not know."""
    x = Family().inputs().detach()
    ours = onnx_operators(Family(), x)
    assert ours == onnx_operators(family_of(lambda name: getattr(nn, name)(0.5)), x)
    assert (ours.count("Dropout"), ours.count("RandomUniformLike")) == (1, 5)


# ---------------------------------------------------------------------------------------------------------------------
# torch.jit


@deprecated_script
@each
@each_kind
def test_jit_trace_in_training_keeps_the_dropout(name: str, make: Callable) -> None:
    traced = torch.jit.trace(make(name), ones(name), check_trace=False)
    assert "dropkit::dropout" in [node.kind() for node in traced.graph.nodes()]
    first, second = with_gradient(traced, ones(name)), traced(ones(name))
    assert not torch.equal(first, second)
    assert whole(name, dropped(first))


@deprecated_script
@each
def test_jit_trace_in_evaluation_has_no_dropout(name: str) -> None:
    traced = torch.jit.trace(layer(name).eval(), ones(name))
    assert list(traced.graph.nodes()) == []
    assert torch.equal(traced(ones(name)), ones(name))


@deprecated_script
@each
def test_jit_script(name: str) -> None:
    scripted, x = torch.jit.script(layer(name)), ones(name)
    torch.manual_seed(0)
    y = with_gradient(scripted, x)
    assert 0 < dropped(y).float().mean() < 1
    assert whole(name, dropped(y))
    assert not torch.equal(y, scripted(x))
    torch.manual_seed(0)
    assert torch.equal(y, scripted(x))
    scripted.eval()
    assert scripted(x) is x or torch.equal(scripted(x), x)


@deprecated_script
def test_jit_script_in_a_model_through_a_file(tmp_path: Path) -> None:
    torch.jit.script(nn.Sequential(nn.Linear(8, 8), Dropout(0.25, share=(-1,)), nn.ReLU())).save(tmp_path / "model.pt")
    loaded = torch.jit.load(tmp_path / "model.pt")
    y = loaded(torch.ones(1000, 8))
    rows = (y == 0).all(dim=1)
    assert rows.float().mean() == pytest.approx(0.25, abs=0.07)
    loaded.eval()
    assert torch.equal(loaded(torch.ones(3, 8)), loaded(torch.ones(3, 8)))


# ---------------------------------------------------------------------------------------------------------------------
# torch.fx


def test_fx_sees_a_module_as_one_leaf() -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(*(layer(name) for name in SHAPES)))
    assert [node.op for node in graph.graph.nodes] == ["placeholder", *["call_module"] * 6, "output"]
    nested = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 8), nn.Sequential(Dropout(0.5), nn.ReLU())))
    assert [node.target for node in nested.graph.nodes if node.op == "call_module"] == ["0", "1.0", "1.1"]
    nested.train()
    assert not torch.equal(nested(torch.ones(4, 8)), nested(torch.ones(4, 8)))


@each
def test_fx_sees_a_function_as_one_call(name: str) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return FUNCTIONS[name](x, 0.5, self.training) + 0

    graph = torch.fx.symbolic_trace(Model())
    assert next(node.target for node in graph.graph.nodes if node.op == "call_function") is FUNCTIONS[name]
    with_gradient(graph, ones(name))


@each
@each_kind
def test_make_fx_keeps_the_operator(name: str, make: Callable) -> None:
    call = make(name)
    graph = make_fx(lambda x: call(x))(ones(name))
    assert torch.ops.dropkit.dropout.default in [node.target for node in graph.graph.nodes]
    assert not torch.equal(graph(ones(name)), graph(ones(name)))
