"""Blocks and receipts that change the same model at once: each counts, and what is left behind is the original."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit.torch as dt
from dropkit.torch.changing.overlay import Overlay, assign, beneath

from .architectures import Bert, DropPath, snapshot, zeros

ONES = torch.ones(1000)


def every_kind() -> nn.Module:
    return nn.Sequential(nn.Dropout(0.5), dt.Dropout(0.5), DropPath(0.5))


def calm(model: nn.Module) -> bool:
    return zeros(model(ONES[None])) == 0


def test_two_blocks_that_end_out_of_order() -> None:
    model = every_kind().train()
    before = snapshot(model)
    first, second = ExitStack(), ExitStack()
    first.enter_context(dt.disabled(model))
    second.enter_context(dt.disabled(model))
    first.close()
    assert [model[0].p, model[1].when, model[2].drop_prob] == [0.0, "never", 0.0]  # type: ignore[index]
    second.close()
    assert snapshot(model) == before
    assert not calm(model)


def test_two_threads_that_leave_one_after_the_other() -> None:
    model = every_kind().train()
    before = snapshot(model)
    both, left = threading.Barrier(2), threading.Event()
    seen: dict[str, bool] = {}

    def leaves() -> None:
        with dt.disabled(model):
            both.wait(10)
            seen["first"] = calm(model)
        left.set()

    def stays() -> None:
        with dt.disabled(model):
            both.wait(10)
            left.wait(10)
            seen["second"] = all(calm(model) for _ in range(5))

    run(leaves, stays)
    assert seen == {"first": True, "second": True}
    assert snapshot(model) == before


def run(*targets: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def caught(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=caught, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_what_is_off_is_off_for_other_threads_but_for_functional_calls() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = dt.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.drop(x), F.dropout(x, 0.5)

    model = Net()
    seen: list[float] = []
    with dt.disabled(model):
        run(lambda: seen.extend(map(zeros, model(ONES))))
        assert [zeros(y) for y in model(ONES)] == [0, 0]
    assert seen[0] == 0
    assert seen[1] > 0.3


def test_a_thread_outside_does_not_mislead_the_names_of_one_inside() -> None:
    class Inner(nn.Module):
        def __init__(self, waits: Callable[[], None]) -> None:
            super().__init__()
            self.waits = waits

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.waits()
            return F.dropout(x, 0.5, self.training)

    inside, outside = threading.Event(), threading.Event()
    main = threading.current_thread()

    def waits() -> None:
        if threading.current_thread() is not main:
            inside.set()
            outside.wait(10)

    model: Any = nn.ModuleDict({"a": Inner(waits), "b": Inner(waits)}).eval()
    model.forward = lambda which, x: model[which](x)
    with dt.enabled(model, "a"):
        other = threading.Thread(target=lambda: model("b", ONES))
        other.start()
        inside.wait(10)
        dropped = zeros(model("a", ONES))  # while the other thread is in "b"
        outside.set()
        other.join(10)
    assert dropped > 0.3


def test_enabled_and_disabled_that_end_out_of_order() -> None:
    for outer, inner in ((dt.enabled, dt.disabled), (dt.disabled, dt.enabled)):
        model = nn.Sequential(dt.Dropout(0.5), nn.Linear(1, 1)).eval()
        drop: Any = model[0]
        first, second = ExitStack(), ExitStack()
        first.enter_context(outer(model))
        second.enter_context(inner(model))
        assert drop.when == "never"
        first.close()
        assert drop.when == ("never" if inner is dt.disabled else "always")
        second.close()
        assert drop.when == "train"


def test_rates_set_out_of_order_come_back() -> None:
    model = Bert()
    before = snapshot(model)
    first, second = dt.set_rate(model, "*", 0.3), dt.set_rate(model, "blocks.*", 0.4)
    first.restore()
    assert {rate.p for rate in model.blocks.modules() if isinstance(rate, nn.Dropout)} == {0.4}
    assert model.heads["a"][0].p == 0.5
    second.restore()
    assert snapshot(model) == before


def test_a_receipt_restores_over_whatever_was_assigned_since() -> None:
    model: Any = nn.Sequential(nn.Dropout(0.5))
    receipt = dt.set_rate(model, "*", 0.3)
    model[0].p = 0.9
    receipt.restore()
    assert model[0].p == 0.5
    receipt = dt.set_rate(model, "*", 0.3)
    dt.set_rate(model, "*", 0.4)  # for good
    assert model[0].p == 0.4
    receipt.restore()
    assert model[0].p == 0.5


def test_what_is_set_inside_a_block_is_there_after_it() -> None:
    model: Any = every_kind().train()
    with dt.disabled(model):
        dt.set_rate(model, "2", 0.3)
        schedule = dt.Schedule(model, {"0": 0.25})
        schedule.step()
        model[1].p = 0.125
        assert calm(model)
    assert [model[0].p, model[1].p, model[2].drop_prob] == [0.25, 0.125, 0.3]


def test_overlays_of_every_holder() -> None:
    class Class:
        p = 0.5

    class Slots:
        __slots__ = ("p",)

        def __init__(self) -> None:
            self.p = 0.5

    for owner in ({"p": 0.5}, Class(), Class, Slots(), dt.Dropout(0.5)):
        read = (lambda o=owner: o["p"]) if isinstance(owner, dict) else (lambda o=owner: o.p)
        one, two = Overlay(owner, "p", 0.25, wins=True), Overlay(owner, "p", 0.75)
        one.lay()
        two.lay()
        assert (read(), beneath(owner, "p")) == (0.25, 0.75)
        one.lift()
        assert read() == 0.75
        two.lift()
        assert read() == beneath(owner, "p") == 0.5
        assign(owner, "p", 0.125)
        assert read() == 0.125
    assert "p" not in vars(Class())


def test_nothing_is_kept_alive() -> None:
    import gc
    import weakref

    model = every_kind()
    gone = weakref.ref(model[0])  # type: ignore[index]
    dt.set_rate(model, "*", 0.3)
    with dt.disabled(model):
        pass
    del model
    gc.collect()
    assert gone() is None


def test_an_owner_that_refuses_leaves_nothing_behind() -> None:
    class Refuses:
        def __init__(self) -> None:
            self.__dict__["p"] = 0.5

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError("read-only")

    owner = Refuses()
    with pytest.raises(AttributeError, match="read-only"):
        Overlay(owner, "p", 0.1).lay()
    assert (owner.p, beneath(owner, "p")) == (0.5, 0.5)
