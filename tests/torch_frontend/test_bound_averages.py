"""Averages of weights (EMA, SWA) beside a bound model: seed and step are in no average, the copy keeps its own."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import (
    AveragedModel,
    get_ema_avg_fn,
    get_ema_multi_avg_fn,
    get_swa_avg_fn,
    get_swa_multi_avg_fn,
    update_bn,
)

from dropkit.torch import Dropout, at, bind, unbind

BIG = 2**62 + 12345  # no float holds it
X = torch.randn(4, 8)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), Dropout(0.5))


def clock(model: nn.Module) -> tuple[int, int]:
    """As a checkpoint of the model would have them."""
    state = model.state_dict()
    return int(state["dropkit_seed"]), int(state["dropkit_step"])


def timm_v2(ema: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        for ours, theirs in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
            ours.copy_(0.999 * ours + (1 - 0.999) * theirs)


def timm_v3(ema: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        for ours, theirs in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, weight=0.001)
            else:
                ours.copy_(theirs)


def timm_v3_foreach(ema: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        pairs = list(zip(ema.state_dict().values(), model.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([pair[0] for pair in floats], [pair[1] for pair in floats], weight=0.001)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)


def mean_of_buffers(ema: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        for ours, theirs in zip(ema.buffers(), model.buffers(), strict=True):
            ours.copy_(0.9 * ours + 0.1 * theirs)


def mean_of_buffers_data(ema: nn.Module, model: nn.Module) -> None:
    for ours, theirs in zip(ema.buffers(), model.buffers(), strict=True):
        ours.data.copy_((ours.data.double() + theirs.data.double()) / 2)


def integer_mean_of_buffers(ema: nn.Module, model: nn.Module) -> None:
    for ours, theirs in zip(ema.buffers(), model.buffers(), strict=True):
        ours.add_(torch.div(theirs - ours, 2).to(ours.dtype))


def loaded_mean(ema: nn.Module, model: nn.Module) -> None:
    states = ema.state_dict(), model.state_dict()
    with pytest.warns(UserWarning, match="averaged or cast"):
        ema.load_state_dict({key: 0.9 * states[0][key] + 0.1 * states[1][key] for key in states[0]})


LOOPS = [
    timm_v2, timm_v3, timm_v3_foreach, mean_of_buffers, mean_of_buffers_data, integer_mean_of_buffers, loaded_mean
]  # fmt: skip


@pytest.mark.parametrize("seed", [7, BIG])
@pytest.mark.parametrize("around", [lambda model: model, nn.Sequential], ids=["alone", "a part"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("average", LOOPS)
def test_a_copy_that_is_averaged_with_its_model(
    average: Callable, copied: Callable, around: Callable, seed: int
) -> None:
    model = bind(net(), seed=seed)
    model(X)
    whole = around(model)
    of_whole = copied(whole)
    ema = of_whole if whole is model else of_whole[0]
    for _ in range(3):
        model(X)
        average(of_whole, whole)
        if whole is model:
            assert (int(ema.dropkit_seed), int(ema.dropkit_step)) == (seed, 1)
    assert clock(ema) == (seed, 1)
    assert clock(model) == (seed, 4)
    average(of_whole, whole)
    masks = ema(X) == 0  # asked for its masks first, and not for its state
    with at(seed=seed, step=1):
        assert torch.equal(masks, ema(X) == 0)
    assert clock(ema) == (seed, 2)


@pytest.mark.parametrize("seed", [7, BIG])
@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"avg_fn": get_swa_avg_fn()},
        {"avg_fn": get_ema_avg_fn(0.99)},
        {"multi_avg_fn": get_swa_multi_avg_fn()},
        {"multi_avg_fn": get_ema_multi_avg_fn(0.99)},
    ],
    ids=["default", "swa", "ema", "swa of many", "ema of many"],
)
def test_torchs_averaged_model(kind: dict, use_buffers: bool, seed: int) -> None:
    if use_buffers and "swa_update" in repr(kind.get("multi_avg_fn")):
        use_buffers = False  # torch refuses every integer buffer there, as BatchNorm has one: see below
    model = bind(net(), seed=seed)
    model(X)
    averaged = AveragedModel(model, use_buffers=use_buffers, **kind)
    for _ in range(4):
        model(X)
        averaged.update_parameters(model)
        assert (int(averaged.module.dropkit_seed), int(averaged.module.dropkit_step)) == (seed, 1)
    assert clock(averaged.module) == (seed, 1)
    update_bn([X, X], averaged)  # in training mode: two steps of its own
    assert clock(averaged.module) == (seed, 3)
    again = copy.deepcopy(averaged)
    averaged.update_parameters(model)
    again.update_parameters(model)
    assert clock(averaged.module) == clock(again.module) == (seed, 3)
    assert clock(model) == (seed, 5)
    model.load_state_dict(averaged.module.state_dict())
    assert clock(model) == (seed, 3)


def test_an_averaged_copy_still_follows_what_is_meant_for_it() -> None:
    model = bind(net(), seed=7)
    ema = copy.deepcopy(model)
    mean_of_buffers(ema, model)
    ema.dropkit_step.fill_(40)  # after an average nobody has looked at yet, as before one
    ema(X)
    mean_of_buffers(ema, model)
    ema(X)
    ema.dropkit_step.fill_(40)
    ema(X)
    assert clock(ema) == (7, 41)
    ema.load_state_dict(bind(net(), seed=BIG).state_dict())
    assert clock(ema) == (BIG, 0)


def test_a_copy_has_the_buffers_that_it_has() -> None:
    model = bind(net(), seed=7)
    for copied in (copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model)), pickle.loads(pickle.dumps(model))):
        for recurse in (True, False):
            names = [name for name, _ in copied.named_buffers(recurse=recurse)]
            assert names == [name for name, _ in model.named_buffers(recurse=recurse)]
            assert len(list(copied.buffers(recurse))) == len(names)
        assert next(buffer for buffer in copied.buffers() if buffer.shape == (8,)) is copied[1].running_mean
        unbind(copied)
        assert "buffers" not in vars(copied)
        assert [id(buffer) for buffer in copied.buffers()] == [id(buffer) for buffer in copied[1].buffers()]


def test_the_state_of_another_model_by_functional_call() -> None:
    """Whole, and for one call: it is no average, and is left as it is."""
    model, other = copy.deepcopy(bind(net(), seed=1)), bind(net(), seed=2)
    theirs = dict(other.named_parameters()) | dict(other.named_buffers())
    y = torch.func.functional_call(model, theirs, (X,))
    assert clock(model) == (1, 0) and clock(other) == (2, 1)
    with at(step=0):
        assert torch.equal(y == 0, other(X) == 0)


@pytest.mark.parametrize("seed", [7, BIG])
def test_memory_that_nobody_has_filled(seed: int) -> None:
    """`to_empty` of a model that was made on the meta device."""
    with torch.device("meta"):
        model = bind(net(), seed=seed)
    model.to_empty(device="cpu")
    for buffer in model.buffers():
        buffer.fill_(23045210804)
    model[1].reset_parameters()
    model(X)
    assert clock(model) == (seed, 1)
    model.to_empty(device="cpu").load_state_dict(bind(net(), seed=3).state_dict())
    assert clock(model) == (3, 0)


def test_what_was_averaged_is_averaged() -> None:
    """The weights and the statistics of BatchNorm are those without dropkit."""
    models = [bind(net(), seed=1), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))]
    models[1].load_state_dict(models[0].state_dict(), strict=False)
    averages = [AveragedModel(model, use_buffers=True) for model in models]
    for _ in range(3):
        with torch.no_grad():
            for model in models:
                model[0].weight.mul_(2)
                model[1].running_mean.add_(3)
        for average, model in zip(averages, models, strict=True):
            average.update_parameters(model)
    for key, value in models[1].state_dict().items():
        assert torch.equal(averages[0].module.state_dict()[key], averages[1].module.state_dict()[key]), (key, value)


def test_torch_itself_averages_no_integers_of_many_by_swa() -> None:
    """With or without dropkit; it is loud."""
    for model in (bind(net(), seed=1), nn.BatchNorm1d(8)):
        averaged = AveragedModel(model, use_buffers=True, multi_avg_fn=get_swa_multi_avg_fn())
        averaged.update_parameters(model)
        with pytest.raises(RuntimeError, match="Integer division with addcdiv"):
            averaged.update_parameters(model)
