"""A call that states its key is a pure function of its arguments: inside backward, in hooks, under any checkpoint."""

import gc
import itertools
import sys
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import dropkit
from dropkit.torch import Dropout, at, bind, dropout
from dropkit.torch.drawing import recomputation

SITES = ("a", "b", "c")
ONES = torch.ones(4, 64)


def key(site: str) -> dropkit.Key:
    return dropkit.Key(seed=0, site=site, step=3)


def mask(site: str, **place: object) -> torch.Tensor:
    return dropout(ONES, 0.5, training=True, key=key(site), **place)


EXPECTED = {site: mask(site) for site in SITES}
ROWS = torch.tensor([9, 2, 5, 5])
PLACES = {
    "whole": {},
    "block": {"offset": (4, 0), "global_shape": (8, 64)},
    "rows": {"rows": ROWS},
}


def calls(order: tuple[str, ...], place: dict) -> list[torch.Tensor]:
    return [mask(site, **place) for site in order]


class Blockwise(torch.autograd.Function):
    """A function with a backward of its own, as block-wise attention has: it computes the masks again by their keys."""

    order: tuple[str, ...] = SITES
    place: ClassVar[dict] = {}
    seen: ClassVar[list[list[torch.Tensor]]] = []

    @staticmethod
    def forward(ctx, x):
        for y in calls(SITES, Blockwise.place):
            x = x * y
        return x

    @staticmethod
    def backward(ctx, grad):
        Blockwise.seen.append(calls(Blockwise.order, Blockwise.place))
        return grad


@pytest.fixture
def blockwise():
    Blockwise.seen, Blockwise.place, Blockwise.order = [], {}, SITES
    return Blockwise


def pure(seen: list[torch.Tensor], order: tuple[str, ...], place: dict) -> bool:
    return all(torch.equal(y, mask(site, **place)) for y, site in zip(seen, order, strict=True))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("order", list(itertools.permutations(SITES)), ids="".join)
def test_in_the_backward_of_a_function_in_any_order(blockwise, order: tuple[str, ...], place: dict) -> None:
    blockwise.order, blockwise.place = order, place
    x = torch.ones(4, 64, requires_grad=True)
    blockwise.apply(blockwise.apply(x)).sum().backward()
    assert len(blockwise.seen) == 2
    assert all(pure(seen, order, place) for seen in blockwise.seen)


@pytest.mark.parametrize("reentrant", [True, False])
def test_under_a_checkpoint_and_with_bound_dropouts_around(blockwise, reentrant: bool) -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        return blockwise.apply(drop(x)) * mask("b")

    drop = Dropout(0.5)
    model = bind(nn.Sequential(drop), seed=1)
    model.forward = lambda x: checkpoint(run, x, use_reentrant=reentrant)  # type: ignore[method-assign]
    x = torch.ones(4, 64, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert torch.equal((x.grad != 0) & (mask("b") != 0), x.grad != 0)
    assert pure(blockwise.seen[0], SITES, {})


def test_in_hooks_of_tensors_and_nodes() -> None:
    seen: list[torch.Tensor] = []
    x = torch.ones(4, 64, requires_grad=True)
    y = dropout(x * 2, 0.5, training=True, key=key("c"))
    for tensor in (x, y):
        tensor.register_hook(lambda grad: seen.extend(calls(SITES, {})) or grad)
    y.grad_fn.register_hook(lambda *grads: seen.extend(calls(SITES, {})) or None)
    y.grad_fn.register_prehook(lambda grads: seen.extend(calls(SITES, {})) or None)
    x.register_post_accumulate_grad_hook(lambda x: seen.extend(calls(SITES, {})) or None)
    y.sum().backward()
    assert len(seen) == 15
    assert pure(seen, SITES * 5, {})


def test_in_double_backward(blockwise) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3 * mask("a")

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return blockwise.apply(grad * 3 * x**2) * mask("a") / 8  # three masks of 2 where kept

    x = torch.full((4, 64), 2.0, requires_grad=True)
    (first,) = torch.autograd.grad(Twice.apply(x).sum(), x, create_graph=True)
    kept = mask("a") * mask("a") * mask("b") * mask("c") / 8
    torch.testing.assert_close(first, 12 * kept)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, 12 * mask("a") / 8)  # the derivative of `Blockwise` is said to be 1
    assert pure(blockwise.seen[0], SITES, {})


def test_a_key_stated_by_at_inside_backward_is_the_one_that_is_drawn() -> None:
    drop = Dropout(0.5)

    def stated(site: str) -> torch.Tensor:
        with at(seed=0, site=site, step=3):
            return drop(ONES)

    class Stated(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * stated("a") * stated("b")

        @staticmethod
        def backward(ctx, grad):
            assert torch.equal(stated("b"), EXPECTED["b"])
            assert torch.equal(stated("a"), EXPECTED["a"])
            return grad

    Stated.apply(torch.ones(4, 64, requires_grad=True)).sum().backward()


def test_calls_without_a_key_still_repeat_in_order_between_keyed_ones() -> None:
    drop = Dropout(0.5)

    class Mixed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.seen = [drop(ONES), mask("a"), drop(ONES)]
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            assert torch.equal(mask("b"), EXPECTED["b"])
            assert torch.equal(drop(ONES), ctx.seen[0])
            assert torch.equal(mask("a"), ctx.seen[1])
            assert torch.equal(drop(ONES), ctx.seen[2])
            return grad

    Mixed.apply(torch.ones(4, 64, requires_grad=True)).sum().backward()


def hand_written(setup: bool, decorate: Callable) -> type[torch.autograd.Function]:
    """Reentrant checkpoints as code bases write them: with a ctx from the start, with `setup_context`, decorated."""

    def setup_context(ctx, inputs, output):
        ctx.function = inputs[0]
        ctx.save_for_backward(inputs[1])

    def forward_with_ctx(ctx, function, x):
        setup_context(ctx, (function, x), None)
        return function(x)

    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.function(x)
        torch.autograd.backward(y, grad)
        return None, x.grad

    members = {"backward": staticmethod(backward)}
    if setup:
        members |= {
            "forward": staticmethod(lambda function, x: function(x)),
            "setup_context": staticmethod(setup_context),
        }
    else:
        members["forward"] = staticmethod(decorate(forward_with_ctx))
    return type("Recomputed", (torch.autograd.Function,), members)


FUNCTIONS = {
    "ctx": hand_written(False, lambda f: f),
    "setup_context": hand_written(True, lambda f: f),
    "custom_fwd": hand_written(False, torch.amp.custom_fwd(device_type="cpu")),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_reentrant_checkpoints_of_every_make_repeat_their_draws(function: type[torch.autograd.Function]) -> None:
    def gradients(recompute: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        drop, linear = Dropout(0.5), nn.Linear(64, 64)
        tail = nn.Sequential(linear, drop, nn.Tanh(), drop)
        model = bind(nn.Sequential(drop, nn.Linear(64, 64), tail), seed=2)
        inputs = [torch.randn(4, 64, requires_grad=True) for _ in range(3)]
        if recompute:
            body = tail.forward
            tail.forward = lambda x: function.apply(body, x)  # type: ignore[method-assign]
        losses = [model(x).square().sum() for x in inputs]
        losses[1].backward()  # in another order
        losses[0].backward()
        return [x.grad for x in inputs[:2]]

    assert all(map(torch.equal, gradients(False), gradients(True)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_place_said_outside_the_checkpoint_is_kept_for_keyed_calls(reentrant: bool) -> None:
    x = torch.ones(4, 64, requires_grad=True)
    rows = ROWS.clone()
    with at(rows=rows):
        y = checkpoint(lambda x: torch.tanh(mask("a") * x) * mask("b"), x, use_reentrant=reentrant)
    rows.zero_()  # the caller's tensor may be written to before backward
    y.sum().backward()
    expected = torch.ones(4, 64, requires_grad=True)
    (torch.tanh(mask("a", rows=ROWS) * expected) * mask("b", rows=ROWS)).sum().backward()
    assert torch.equal(x.grad, expected.grad)


@pytest.mark.parametrize("reentrant", [True, False, None])
def test_row_numbers_are_kept_as_they_were(reentrant: bool | None) -> None:
    model = bind(nn.Sequential(nn.Tanh(), Dropout(0.5)), seed=3)
    rows, x = ROWS.clone(), torch.ones(4, 64, requires_grad=True)
    with at(rows=rows, step=0):
        y = model(x) if reentrant is None else checkpoint(model, x, use_reentrant=reentrant)
    rows.zero_()
    y.sum().backward()
    assert torch.equal(x.grad != 0, y != 0)


def grown(call: Callable[[], object], count: int = 10_000) -> int:
    """Blocks of memory that Python holds more after `count` calls."""
    for _ in range(50):
        call()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(count):
        call()
    gc.collect()
    return sys.getallocatedblocks() - before


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def in_rows(layer: Callable) -> object:
    with at(rows=torch.arange(2)):
        return layer(ONES[:2])


MODEL, DROP = bind(nn.Sequential(Dropout(0.5)), seed=1), Dropout(0.5)
MEMORY = {
    "keyed": lambda: dropout(ONES[:2], 0.5, training=True, key=key("a"), rows=torch.arange(2)),
    "keyed in at": lambda: in_rows(lambda x: dropout(x, 0.5, training=True, key=key("a"))),
    "bound": lambda: MODEL(ONES),
    "bound in at": lambda: in_rows(MODEL),
    "ambient": lambda: DROP(ONES),
    "ambient in a checkpoint": lambda: checkpoint(DROP, ONES, use_reentrant=True),
    "ambient where there is no ctx yet": lambda: FUNCTIONS["setup_context"].apply(DROP, ONES),  # the last 1024 are kept
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("call", MEMORY.values(), ids=MEMORY)
def test_nothing_accumulates_without_gradient(call: Callable[[], object]) -> None:
    gc.collect()
    gc.freeze()  # what was there before is neither searched nor counted
    try:
        with torch.no_grad():
            assert grown(call) < 10_000  # a draw that is kept takes several blocks
            assert tensors() < 10
    finally:
        gc.unfreeze()


def test_nothing_is_left_of_a_checkpoint_when_its_graph_is_gone() -> None:
    model = bind(nn.Sequential(nn.Tanh(), Dropout(0.5)), seed=3)
    for reentrant in (True, False):
        x = torch.ones(4, 64, requires_grad=True)
        with at(rows=ROWS.clone()):
            y = checkpoint(model, x, use_reentrant=reentrant)
        y.sum().backward()
    del x, y
    gc.collect()
    assert not list(recomputation._of_frame)
