"""A schedule that follows an optimizer counts its steps, and nothing else (G9)."""

import pytest
import torch
from torch import nn

from dropkit.axes.rate import Linear
from dropkit.errors import DropkitError
from dropkit.torch import Dropout, Schedule


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(4, 4), Dropout())
    return model, torch.optim.SGD(model.parameters(), 0.1)


def test_a_micro_batch_moves_nothing() -> None:
    model, optimizer = make()
    schedule = Schedule(model, Linear(0.5, 0.0, steps=10), optimizer=optimizer)
    for batch in range(3):
        for _ in range(4):
            assert model[1].p == pytest.approx(0.5 - 0.05 * batch)
            model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert schedule.now == 3
    schedule.step(to=7)
    optimizer.step()
    assert schedule.now == 8


def test_a_step_that_a_scaler_leaves_out_does_not_count() -> None:
    model, optimizer = make()
    schedule = Schedule(model, Linear(0.5, 0.0, steps=10), optimizer=optimizer)
    scaler = torch.amp.GradScaler("cpu")
    for value in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.full((2, 4), value)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert schedule.now == 2


class Wrapped:
    """As accelerate's: steps where gradients are complete."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.sync = False

    def step(self) -> None:
        if self.sync:
            self.optimizer.step()


def test_a_wrapped_optimizer_counts_where_it_steps() -> None:
    model, optimizer = make()
    wrapped = Wrapped(optimizer)
    schedule = Schedule(model, Linear(0.5, 0.0, steps=10), optimizer=wrapped)
    for micro in range(4):
        wrapped.sync = micro % 2 == 1
        wrapped.step()
    assert schedule.now == 2


def test_mistakes() -> None:
    model, optimizer = make()
    schedule = Schedule(model, 0.5, optimizer=optimizer)
    with pytest.raises(DropkitError, match=r"follows its optimizer, so step\(\) would count twice"):
        schedule.step()
    with pytest.raises(DropkitError, match=r"optimizer must be a torch.optim.Optimizer, got 3"):
        Schedule(model, 0.5, optimizer=3)
