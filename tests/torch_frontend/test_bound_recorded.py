"""What cannot hold the clock of a bound model is refused in dropkit's words: no mask is baked in."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from functorch.compile import aot_module, nop
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations, parametrize, prune

from dropkit import DropkitError, Key, keep
from dropkit.torch import AlphaDropout, Dropout, Dropout2d, at, bind, unbind
from dropkit.torch.learned import ConcreteDropout

X = torch.ones(4, 8)
LAYERS: list[Callable[[], nn.Module]] = [
    lambda: Dropout(0.5),
    lambda: AlphaDropout(0.5),
    lambda: nn.Sequential(nn.Unflatten(1, (2, 4, 1)), Dropout2d(0.5)),
    lambda: ConcreteDropout(0.3, layer=nn.Linear(8, 8)),
]
quiet = pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated:DeprecationWarning")


def net(layer: Callable[[], nn.Module] = LAYERS[0]) -> nn.Module:
    return bind(nn.Sequential(nn.Linear(8, 8), layer()), seed=1)


@quiet
@pytest.mark.parametrize("layer", LAYERS)
def test_a_trace_of_training_is_refused(layer: Callable[[], nn.Module]) -> None:
    model = net(layer)
    with pytest.raises(DropkitError, match=r"torch.jit.trace would .* since 'Sequential' is bound: .*unbind\(copy"):
        torch.jit.trace(model, X)
    with at(step=3), pytest.raises(DropkitError, match=r"torch.jit.trace would .* since 'Sequential' is bound"):
        torch.jit.trace(model, X)
    assert int(model.dropkit_step) == 0
    model(X)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("record", [lambda model: make_fx(model)(X), lambda model: aot_module(model, nop)(X)])
def test_a_graph_of_training_is_refused(record: Callable, layer: Callable[[], nn.Module]) -> None:
    with pytest.raises(DropkitError, match=r"(make_fx|aot_function) would bake .* since 'Sequential' is bound"):
        record(net(layer))


@quiet
def test_evaluation_is_recorded(tmp_path: Path) -> None:
    model = copy.deepcopy(net()).eval()
    traced = torch.jit.trace(model, X)
    torch.jit.save(traced, tmp_path / "model.pt")
    for recorded in (traced, torch.jit.load(tmp_path / "model.pt"), make_fx(model)(X), aot_module(model, nop)):
        assert torch.equal(recorded(X), model(X))
    assert int(model.dropkit_step) == 0


@quiet
def test_an_unbound_copy_draws_afresh() -> None:
    """The remedy that the messages name."""
    model = net()
    for record in (
        lambda model: torch.jit.trace(model, X, check_trace=False),
        torch.jit.script,
        lambda model: make_fx(model)(X),
    ):
        recorded = record(unbind(copy.deepcopy(model)))  # type: ignore[no-untyped-call]
        assert not torch.equal(recorded(X), recorded(X))
    assert list(model.state_dict())[:2] == ["dropkit_seed", "dropkit_step"]


@quiet
@pytest.mark.parametrize("training", [True, False])
def test_scripts_are_refused(training: bool) -> None:
    """In evaluation too, for a script can be put into training mode."""
    model = net().train(training)
    for root in (model, nn.Sequential(model), model[1]):
        with pytest.raises(DropkitError, match=r"TorchScript knows no seed and step.*unbind\(copy.deepcopy\(model\)\)"):
            torch.jit.script(root)
    torch.jit.script(unbind(model))


def test_data_parallel_replicas_are_refused() -> None:
    with pytest.raises(DropkitError, match=r"torch.nn.DataParallel runs copies of a bound model in threads"):
        net()[1]._replicate_for_data_parallel()  # as `replicate` does with every part
    Dropout(0.5)._replicate_for_data_parallel()
    parallel = nn.DataParallel(net())  # on no accelerator or on one there are no replicas
    parallel(X)
    assert int(parallel.module.dropkit_step) == 1


@pytest.mark.filterwarnings("ignore:Exporting a model while it is in training mode:UserWarning")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
def test_onnx_of_training_says_that_its_masks_are_others() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    with pytest.warns(UserWarning, match="an ONNX file knows no seed and step: its dropout is ONNX's own"):
        program = torch.onnx.export(net(), (X,), dynamo=True, verbose=False)
    assert program is not None
    assert [node.op_type for node in program.model_proto.graph.node].count("Dropout") == 1


def test_torch_export_keeps_the_clock() -> None:
    model = net()
    program = torch.export.export(model, (X,), strict=False).module()
    step = int(program.dropkit_step)
    for count in range(3):
        kept = (program(X) != 0).numpy()
        assert (kept == keep(X.shape, 0.5, Key(1, "1", step + count))).all()


def test_weights_that_are_made_anew_in_forward() -> None:
    """Parametrized and pruned layers: masks and the count are those of the plain model."""
    model = net()
    parametrizations.weight_norm(model[0])
    prune.l1_unstructured(model[0], "bias", amount=0.5)
    for step in range(2):
        assert ((model(X) != 0).numpy() == keep(X.shape, 0.5, Key(1, "1", step))).all()


def test_dropout_on_a_weight_by_parametrization() -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    parametrize.register_parametrization(model[0], "weight", Dropout(0.5))
    bind(model, seed=1)
    weight = model[0].parametrizations.weight.original
    mask = torch.tensor(keep((8, 8), 0.5, Key(1, "0.parametrizations.weight.0", 0)))
    assert torch.equal(model(X), X @ (weight * mask * 2).T)
    mask = torch.tensor(keep((8, 8), 0.5, Key(1, "0.parametrizations.weight.0", 1)))
    assert torch.equal(model[0].weight, weight * mask * 2)  # outside a forward the look itself is the call
