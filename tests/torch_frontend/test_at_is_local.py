"""`at` belongs to its thread and its task, in compiled code as in eager code."""

import asyncio
import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropkit import Key, keep
from dropkit.torch import Dropout, at, bind

X = torch.ones(2, 64)


def mask(step: int) -> torch.Tensor:
    return torch.from_numpy(keep(X.shape, 0.5, Key(1, "d", step)).copy())


def call(layer: Callable, step: int) -> bool:
    """Whether a call inside `at` draws what that says."""
    with at(seed=1, site="d", step=step):
        return torch.equal(layer(X) != 0, mask(step))


@pytest.fixture(params=["eager", "compiled"])
def layer(request) -> Callable:
    drop = Dropout(0.5)
    return drop if request.param == "eager" else torch.compile(lambda x: drop(x), backend="eager")


def in_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_a_block_entered_later_in_another_thread_changes_nothing_here(layer: Callable) -> None:
    inside, done, there = threading.Event(), threading.Event(), []

    def other() -> None:
        with at(seed=1, site="d", step=7):
            inside.set()
            done.wait(60)
            there.append(torch.equal(layer(X) != 0, mask(7)))

    thread = threading.Thread(target=other, daemon=True)
    with at(seed=1, site="d", step=3):
        thread.start()
        inside.wait(60)
        assert torch.equal(layer(X) != 0, mask(3))
        done.set()
        thread.join()
        assert torch.equal(layer(X) != 0, mask(3))
    assert there == [True]


def test_a_thread_outside_any_block_draws_from_the_generator(layer: Callable) -> None:
    seen: list[torch.Tensor] = []
    with at(seed=1, site="d", step=3):
        assert torch.equal(layer(X) != 0, mask(3))
        in_thread(lambda: seen.extend(layer(X) != 0 for _ in range(2)))
        assert torch.equal(layer(X) != 0, mask(3))
    assert not torch.equal(seen[0], seen[1])


def test_tasks_that_take_turns_keep_their_own(layer: Callable) -> None:
    async def task(step: int) -> list[bool]:
        right = []
        with at(seed=1, site="d", step=step):
            for _ in range(3):
                await asyncio.sleep(0)
                right.append(torch.equal(layer(X) != 0, mask(step)))
        return right

    async def run() -> list[list[bool]]:
        return await asyncio.gather(*(task(step) for step in range(4)))

    assert asyncio.run(run()) == [[True] * 3] * 4


def test_blocks_inside_compiled_code_nest_with_those_around_and_leave_nothing_behind() -> None:
    drop = Dropout(0.5)

    @torch.compile(backend="eager", fullgraph=True)
    def inner(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with at(step=5):
            first = drop(x)
        return first, drop(x)

    def other() -> None:
        assert call(drop, 9)
        assert call(torch.compile(lambda x: drop(x), backend="eager"), 9)

    with at(seed=1, site="d", step=3):
        for _ in range(2):
            first, second = inner(X)
            assert torch.equal(first != 0, mask(5))
            assert torch.equal(second != 0, mask(3))
        in_thread(other)
    assert call(torch.compile(lambda x: drop(x), backend="eager"), 4)
    one, two = (torch.compile(lambda x: drop(x), backend="eager")(X) for _ in range(2))
    assert not torch.equal(one, two)


def test_a_compiled_bound_model_under_steps_of_several_threads() -> None:
    model = bind(nn.Sequential(Dropout(0.5)), seed=1)
    compiled = torch.compile(model, backend="eager")
    right: list[bool] = []

    def work(step: int) -> None:
        expected = torch.from_numpy(keep(X.shape, 0.5, Key(1, "0", step)).copy())
        with at(step=step):
            right.append(torch.equal(compiled(X) != 0, expected))

    with at(step=0):
        for step in (1, 2):
            in_thread(lambda step=step: work(step))
        work(0)
    assert right == [True] * 3
