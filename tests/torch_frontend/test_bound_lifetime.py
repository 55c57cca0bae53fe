"""A bound model is freed as any other: by its last reference, not by the garbage collector."""

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch import nn

from dropkit.torch import Dropout, at, bind, unbind
from dropkit.torch.learned import ConcreteDropout

X = torch.ones(2, 8)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def net() -> nn.Sequential:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, Dropout(0.5), nn.Sequential(ConcreteDropout(0.1, layer=layer)))


def trained() -> nn.Module:
    model = bind(net(), seed=1)
    model(X).sum().backward()
    return model


MAKERS: dict[str, Callable[[], nn.Module]] = {
    "never called": lambda: bind(net(), seed=1),
    "trained": trained,
    "deep copy": lambda: copy.deepcopy(trained()),
    "copy of a copy": lambda: copy.deepcopy(copy.deepcopy(trained())),
    "pickled": lambda: pickle.loads(pickle.dumps(trained())),
    "a part of another": lambda: nn.Sequential(trained()),
    "a copied part of another": lambda: copy.deepcopy(nn.Sequential(trained())),
    "unbound again": lambda: unbind(trained()),
    "bound again": lambda: bind(unbind(trained()), seed=2),
    "two bound parts": lambda: nn.Sequential(trained(), trained()),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_last_reference_frees_a_bound_model(make: Callable[[], nn.Module]) -> None:
    """R22: an accelerator's memory would wait for the collector."""
    model = make()
    model(X)
    gone = [weakref.ref(part) for part in model.modules()]
    gone += [weakref.ref(parameter) for parameter in model.parameters()]
    del model
    assert [reference() for reference in gone] == [None] * len(gone)


def test_this_can_fail() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    model.itself = [model]  # type: ignore[assignment]
    gone = weakref.ref(model)
    del model
    assert gone() is not None


def test_a_copied_part_takes_no_model_along() -> None:
    """Neither in memory nor in a file."""
    model = bind(nn.Sequential(nn.Linear(1000, 1000), nn.Sequential(Dropout(0.5))), seed=1)
    assert len(pickle.dumps(model[1])) < 10_000
    part = copy.deepcopy(model[1])
    clock = part[0].site.clock  # type: ignore[union-attr]
    assert clock.model is None and list(clock.drops) == []
    with at(step=3):  # all that a draw needs has come along
        assert torch.equal(part(X), model[1](X))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_that_begins_at_the_dropout(through: Callable) -> None:
    """As of an optimizer, a schedule or a list that holds parts of the model, and then the model."""
    model = bind(net(), seed=1)
    model(X)
    drop, copied = through((model[1], model))
    assert copied[1] is drop
    assert drop.site.clock.model is copied
    assert drop.site.clock is not model[1].site.clock
    with at(step=5):
        assert torch.equal(copied(X), model(X))
    copied(X)
    assert (int(model.dropkit_step), int(copied.dropkit_step)) == (1, 2)


def test_a_model_sent_to_another_process() -> None:
    """As `torch.multiprocessing` pickles it: weights, seed and step are in memory that both see."""
    model = bind(net(), seed=1)
    model(X)
    sent = pickle.loads(bytes(ForkingPickler.dumps(model)))
    assert sent.dropkit_step.data_ptr() == model.dropkit_step.data_ptr()
    with at(step=5):
        assert torch.equal(sent(X), model(X))
    sent(X)
    model(X)
    assert torch.equal(sent.dropkit_seed, torch.tensor(1)) and int(model.dropkit_seed) == 1


def test_a_copy_made_in_inference_mode() -> None:
    model = bind(nn.Sequential(Dropout(0.5)), seed=1)
    with torch.inference_mode():
        copied = copy.deepcopy(model)
        copied(X)
    copied(X)
    assert int(copied.dropkit_step) == 2


def test_a_part_outlives_its_model() -> None:
    model = bind(net(), seed=1)
    with at(step=3):
        whole = model[1](X)
        part = model[1]
        del model
        assert torch.equal(part(X), whole)
