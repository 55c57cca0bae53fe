"""Checkpoints between bound models, unbound ones and torch's own; strictly, as torch loads them."""

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import init_device_mesh
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard

from dropkit import DropkitError
from dropkit.torch import Dropout, at, bind, plain_state_dict, unbind

X = torch.ones(4, 8)
INTEGERS = ["dropkit_seed", "dropkit_step"]


def net(drop: Callable[[float], nn.Module] = Dropout) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), drop(0.5), nn.Sequential(nn.Linear(8, 8), drop(0.3)))


def plain() -> nn.Sequential:
    return net(nn.Dropout)


def bound(seed: int = 7, steps: int = 2) -> nn.Sequential:
    model = bind(net(), seed=seed)
    for _ in range(steps):
        model(X)
    return model


def clock(model: nn.Module) -> tuple[int, int]:
    return int(model.dropkit_seed) & (2**64 - 1), int(model.dropkit_step)


def masks_of(model: nn.Module, seed: int, step: int) -> None:
    """The model's next forward is this step of this seed, whatever its weights."""
    drops = [part for part in model.modules() if isinstance(part, Dropout)]
    twin = bind(net(), seed=seed)
    twin.load_state_dict(plain_state_dict(model))
    with at(step=step):
        wanted = twin(X)
    assert drops
    assert torch.equal(model(X), wanted)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    weights = [dict(model.named_parameters()).values() for model in (one, other)]
    return all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# into a bound model


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("source", [plain, net, lambda: unbind(bound())])
def test_a_checkpoint_without_seed_and_step_loads_strictly(source: Callable[[], nn.Module], assign: bool) -> None:
    """B6: seed and step are kept."""
    model, other = bound(seed=2**63 + 5), source()
    state = other.state_dict()
    keys = list(state)
    assert model.load_state_dict(state, assign=assign) == ([], [])
    assert list(state) == keys
    assert same_weights(model, other)
    masks_of(model, 2**63 + 5, 2)


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_of_a_bound_model_brings_both(assign: bool) -> None:
    model, saved = bound(seed=1, steps=5), bound(seed=9, steps=3)
    state = saved.state_dict()
    assert model.load_state_dict(state, assign=assign) == ([], [])
    masks_of(model, 9, 3)
    assert clock(saved) == (9, 3)  # assign=True shares weights between models, and no clock
    assert int(state["dropkit_step"]) == 3


def test_half_of_the_two_is_no_checkpoint() -> None:
    state = bound().state_dict()
    del state["dropkit_step"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"dropkit_step"'):
        bound().load_state_dict(state)


@pytest.mark.parametrize("source", [plain, lambda: bound(seed=9, steps=3)])
def test_a_model_bound_on_the_meta_device(source: Callable[[], nn.Module]) -> None:
    saved = source()
    with torch.device("meta"):
        model = bind(net(), seed=5)
    model.load_state_dict(saved.state_dict(), assign=True)
    assert not any(buffer.is_meta for buffer in model.buffers())
    assert clock(model) == ((9, 3) if "dropkit_seed" in saved.state_dict() else (5, 0))
    model.to("cpu")(X)


@pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning")  # in torch.compile itself
def test_parts_and_wrappers_and_prefixes() -> None:
    """A bound part of a larger model, torch.compile's `_orig_mod.`, DataParallel's `module.`."""
    for wrap, keys in [
        (lambda model: nn.ModuleDict({"body": model, "head": nn.Linear(8, 2)}), "body."),
        (torch.compile, "_orig_mod."),
        (nn.DataParallel, "module."),
    ]:
        outer, other = wrap(bound()), wrap(plain())  # type: ignore[operator]
        assert outer.load_state_dict(other.state_dict()) == ([], [])
        assert plain_state_dict(outer).keys() == other.state_dict().keys()
        assert other.load_state_dict(plain_state_dict(outer)) == ([], [])
        inner = outer.get_submodule(keys[:-1])
        masks_of(inner, 7, 2)


def test_two_bound_parts_keep_their_own() -> None:
    outer = nn.ModuleList([bound(seed=1, steps=1), bound(seed=2, steps=2)])
    outer.load_state_dict(nn.ModuleList([plain(), plain()]).state_dict())
    assert [clock(part) for part in outer] == [(1, 1), (2, 2)]


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel_and_distributed_checkpoints() -> None:
    other = plain()
    model = nn.parallel.DistributedDataParallel(bound())
    model.load_state_dict({"module." + key: value for key, value in other.state_dict().items()})
    assert same_weights(model, other)
    assert clock(model.module) == (7, 2)
    for options in (StateDictOptions(), StateDictOptions(full_state_dict=True)):
        state: dict[str, Any] = get_model_state_dict(other, options=options)
        assert set_model_state_dict(model.module, state, options=options) == ([], [])
        assert clock(model.module) == (7, 2)
        set_model_state_dict(model, get_model_state_dict(bound(9, 3), options=options), options=options)
        assert clock(model.module) == (9, 3)
        model.module.load_state_dict(bound().state_dict())


@pytest.mark.filterwarnings("ignore:`_get_pg_default_device` will be deprecated:UserWarning")  # torch calls it
@pytest.mark.filterwarnings("ignore:Multiple backends are registered:UserWarning")
@pytest.mark.usefixtures("one_process")
def test_fully_sharded_from_the_meta_device() -> None:
    mesh = init_device_mesh("cpu", (1,))
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    for state, wanted in ((plain().state_dict(), (5, 0)), (bound(9, 3).state_dict(), (9, 3))):
        with torch.device("meta"):
            model = bind(net(), seed=5)
        fully_shard(model, mesh=mesh)
        assert set_model_state_dict(model, state, options=options) == ([], [])
        assert clock(model) == wanted
        model(X)
        assert clock(model) == (wanted[0], wanted[1] + 1)


def test_safetensors(tmp_path: Path) -> None:
    files = pytest.importorskip("safetensors.torch")
    files.save_model(plain(), str(tmp_path / "plain"))
    files.save_model(bound(9, 3), str(tmp_path / "bound"))
    model = bound()
    assert files.load_model(model, str(tmp_path / "plain"), strict=True) == (set(), [])
    masks_of(model, 7, 2)
    files.load_model(model, str(tmp_path / "bound"), strict=True)
    masks_of(model, 9, 3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: torch.load(_saved(model), weights_only=False)])
def test_copies_load_as_their_model_does(copied: Callable) -> None:
    model = copied(bound())
    model.load_state_dict(plain().state_dict())
    masks_of(model, 7, 2)
    unbind(model)
    assert not model._load_state_dict_pre_hooks and not model._state_dict_hooks
    assert list(model.buffers()) == []


def _saved(model: nn.Module) -> Any:
    import io

    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


def test_conversion_by_swapping_tensors() -> None:
    """torch.__future__.set_swap_module_params_on_conversion"""
    model = bound()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        for assign in (False, True):
            model.load_state_dict(plain().state_dict(), assign=assign)
            assert clock(model) == (7, 2)
        model.load_state_dict(bound(9, 3).state_dict())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    masks_of(model, 9, 3)


# ---------------------------------------------------------------------------------------------------------------------
# out of a bound model


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential])
def test_a_checkpoint_of_a_bound_model_loads_into_an_unbound_one(wrap: Callable) -> None:
    """B6: as Lightning's `load_from_checkpoint` does with a module that was bound after it was made."""
    saved, model = wrap(bound(9, 3)), wrap(net())
    with pytest.warns(UserWarning, match=r"dropkit_seed and .*dropkit_step of the state dict are left out") as caught:
        assert model.load_state_dict(saved.state_dict()) == ([], [])
    assert len(caught) == 1
    assert same_weights(model, saved)
    with pytest.warns(UserWarning, match=r"not bound: .* dropkit.torch.bind it before it loads"):
        assert model.load_state_dict(saved.state_dict(), strict=False) == ([], [])


def test_what_is_unexpected_otherwise_stays_so() -> None:
    state = bound().state_dict() | {"more": torch.ones(1)}
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(RuntimeError, match=r"key\(s\) in state_dict: \"more\""),
    ):
        net().load_state_dict(state)


def test_a_part_of_a_bound_model_says_where_its_clock_is() -> None:
    outer = bind(nn.Sequential(net()), seed=1)
    with pytest.warns(UserWarning, match="bound at another level"):
        outer[0].load_state_dict(bound().state_dict())
    assert clock(outer) == (1, 0)


def test_a_plain_state_dict_is_that_of_the_unbound_model() -> None:
    model = bound()
    state = plain_state_dict(model)
    assert isinstance(state, OrderedDict)
    assert state._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]
    assert list(state) == list(plain().state_dict())
    assert plain().load_state_dict(state) == ([], [])
    assert state["0.weight"].data_ptr() == model[0].weight.data_ptr()
    assert list(plain_state_dict(model, prefix="a.b.")) == ["a.b." + key for key in state]
    assert plain_state_dict(model, keep_vars=True)["0.weight"] is model[0].weight
    assert list(plain_state_dict(model.state_dict())) == list(state)  # of a checkpoint that was saved before
    assert list(plain_state_dict(nn.Sequential(model, net()))) == list(nn.Sequential(net(), net()).state_dict())
    assert list(plain_state_dict(net())) == list(state)
    with pytest.raises(DropkitError, match=r"plain_state_dict needs a torch.nn.Module or a state dict, got str"):
        plain_state_dict("model.pt")  # type: ignore[arg-type]


def test_nothing_but_the_two_integers_is_saved() -> None:
    assert [key for key in bound().state_dict() if key not in net().state_dict()] == INTEGERS


# ---------------------------------------------------------------------------------------------------------------------
# averages, which other tools take of everything in a state


def averaged_checkpoints() -> dict[str, torch.Tensor]:
    states = [bound(9, 3).state_dict(), bound(9, 6).state_dict()]
    return {key: (states[0][key] + states[1][key]) / 2 for key in states[0]}


def test_an_averaged_checkpoint_leaves_seed_and_step_alone() -> None:
    """Model soups and the averages of the last few checkpoints."""
    model = bound()
    with pytest.warns(UserWarning, match=r"dropkit_seed and dropkit_step of the state dict are torch.float32, so they"):
        model.load_state_dict(averaged_checkpoints())
    masks_of(model, 7, 2)


def test_a_checkpoint_cast_to_half_leaves_seed_and_step_alone() -> None:
    model = bound()
    with pytest.warns(UserWarning, match="are torch.bfloat16"):
        model.load_state_dict({key: value.bfloat16() for key, value in bound(2**60 + 1, 3).state_dict().items()})
    assert clock(model) == (7, 2)


def test_an_average_without_the_two_is_loaded_in_silence() -> None:
    model = bound()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load_state_dict(plain_state_dict(averaged_checkpoints()))
