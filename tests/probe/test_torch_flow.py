"""Which sites a tensor depends on, operator by operator."""

import torch
from torch.nn import functional as F

from dropkit import Key
from dropkit.probe.torch.flow import Flow
from dropkit.probe.torch.operators import of
from dropkit.torch import dropout

A, B = 1 << 0, 1 << 1


def drawn(flow: Flow, site: int, *shape: int) -> torch.Tensor:
    flow.running.append(site)
    mask = torch.empty(*shape).bernoulli_(0.5)
    flow.running.pop()
    return mask


def test_what_is_computed_depends_on_all_that_went_in() -> None:
    with Flow() as flow:
        a, b, free = drawn(flow, 0, 4, 4), drawn(flow, 1, 4, 4), torch.rand(4, 4)
        assert [flow.reach(x) for x in (a, b, free)] == [A, B, 0]
        assert [flow.reach(x) for x in (a + 1, a @ b, free * 2, torch.cat([free, b]))] == [A, A | B, 0, B]
        assert flow.reach(torch.where(a > 0, free, free)) == A
        assert flow.reach(a.t()[1:].reshape(-1)) == A


def test_what_is_only_made_like_another_does_not() -> None:
    with Flow() as flow:
        a = drawn(flow, 0, 4)
        like = (torch.zeros_like(a), torch.ones_like(a), torch.rand_like(a), a.new_zeros(3), a.new_empty(3))
        assert [flow.reach(x) for x in like] == [0] * 5
        # what a kernel of our own might write into it comes from a ...
        assert flow.reach(torch.empty_like(a)) == A
        # ... but not where an operator is seen to write all of it
        assert flow.reach(torch.empty_like(a).uniform_()) == 0


def test_writes() -> None:
    with Flow() as flow:
        a, b = drawn(flow, 0, 4), drawn(flow, 1, 2)
        x = torch.zeros(4)
        view = x[1:]
        x[:2] = b
        assert (flow.reach(x), flow.reach(view)) == (B, B)
        x += a
        assert flow.reach(view) == A | B
        x.copy_(torch.ones(4))
        assert flow.reach(view) == 0
        x[:2].zero_()
        out = torch.empty(4)
        torch.mul(a, 2, out=out)
        assert (flow.reach(x), flow.reach(out)) == (0, A)


def test_a_freed_address_that_is_used_again_does_not_lie() -> None:
    with Flow() as flow:
        for _ in range(50):
            drawn(flow, 0, 1000)
            assert flow.reach(torch.ones(1000)) == 0


def test_gradients() -> None:
    weight, bias = torch.ones(3, 4, requires_grad=True), torch.zeros(3, requires_grad=True)
    kernel, shift = torch.ones(2, 1, 3, requires_grad=True), torch.zeros(2, requires_grad=True)
    with Flow() as flow:
        x = torch.randn(5, 4) * drawn(flow, 0, 5, 4)
        F.linear(x, weight, bias).sum().backward()
        assert weight.grad is not None
        assert bias.grad is not None
        assert (flow.reach(weight.grad), flow.reach(bias.grad)) == (A, 0)
        y = torch.randn(2, 1, 6, requires_grad=True)
        F.conv1d(y * drawn(flow, 1, 2, 1, 6), kernel, shift).sum().backward()
        assert kernel.grad is not None
        assert shift.grad is not None
        assert y.grad is not None
        assert (flow.reach(kernel.grad), flow.reach(shift.grad), flow.reach(y.grad)) == (B, 0, B)


def test_a_mask_that_is_computed_again_in_backward() -> None:
    x = torch.randn(4, 4, requires_grad=True)
    with Flow() as flow:
        flow.running.append(0)
        y = dropout(x, 0.5, training=True, key=Key(seed=1, site="a"))
        flow.running.pop()
        y.sum().backward()
        assert x.grad is not None
        assert (flow.reach(y), flow.reach(x.grad)) == (A, A)


def test_running_statistics_are_written_and_not_read() -> None:
    mean, variance = torch.zeros(3), torch.ones(3)
    with Flow() as flow:
        F.batch_norm(drawn(flow, 0, 5, 3), mean, variance, training=True)
        assert flow.reach(F.batch_norm(torch.randn(5, 3), mean, variance, training=True)) == 0


def test_sparse_gradients() -> None:
    table = torch.ones(7, 3, requires_grad=True)
    with Flow() as flow:
        rows = F.embedding(torch.tensor([1, 2]), table, sparse=True)
        (rows * drawn(flow, 0, 2, 3)).sum().backward()
        assert table.grad is not None
        assert table.grad.is_sparse
        assert flow.reach(table.grad) == A


def test_random_operators_are_known_by_their_tag() -> None:
    aten = torch.ops.aten
    assert all(of(op).random for op in (aten.bernoulli_.float, aten.native_dropout.default, aten.rand.default))
    assert not of(aten.mul.Tensor).random
