"""Every call that drops is seen once, with its arguments, and runs as it is told."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dropkit.torch import functional as ours
from dropkit.torch import ops
from dropkit.torch.finding.intercept import Call, Intercept
from dropkit.torch.reading.calls import find

from . import zoo

X = torch.ones(2, 3, 8)


class Recorder:
    """Writes calls down, and has them run as told."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[Call] = []
        self.answer = answer

    def __call__(self, call: Call) -> Any:
        self.calls.append(call)
        return self.answer

    @property
    def names(self) -> list[str]:
        return [call.name for call in self.calls]


NAMES = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
NATIVE = [f"{name}{place}" for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
          for place in ("", "_")]  # fmt: skip
FUNCTIONS = [*(getattr(F, n) for n in NAMES), *(getattr(ours, n) for n in NAMES), *(getattr(torch, n) for n in NATIVE)]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_every_function_is_seen_once_and_obeys(function: Any) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x, 0.5, True)

    x = torch.ones(2, 3, 8, *[1] * {"dropout2d": 1, "dropout3d": 2}.get(function.__name__, 0))
    with Intercept(Net(), seen := Recorder()):
        Net()(x.clone())  # another model
    assert seen.calls == []
    model = Net()
    with Intercept(model, seen):
        assert not torch.equal(model(x.clone()), x)
    assert [(c.p, c.training, c.drops) for c in seen.calls] == [(0.5, True, True)]
    with Intercept(model, Recorder((0.5, False))):
        assert torch.equal(model(x.clone()), x)
    with Intercept(model, Recorder((0.0, True))):
        assert torch.equal(model(x.clone()), x)
    with Intercept(model, Recorder((1.0, True))):
        assert "alpha" in function.__name__ or not model(x.clone()).any()


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "wanted"),
    [
        (F.dropout, (X,), {}, (0.5, True)),
        (F.alpha_dropout, (X,), {}, (0.5, False)),
        (F.alpha_dropout, (X, 0.1, True), {}, (0.1, True)),
        (F.dropout, (), {"input": X, "p": 0.1, "training": False}, (0.1, False)),
        (torch.native_dropout, (X, 0.1, None), {}, (0.1, True)),
        (torch.native_dropout, (X, 0.1, False), {}, (0.1, False)),
        (torch.dropout, (X,), {"p": 0.1, "train": False}, (0.1, False)),
        (F.scaled_dot_product_attention, (X, X, X), {}, (0.0, True)),
        (F.scaled_dot_product_attention, (X, X, X, None, 0.1), {}, (0.1, True)),
        (ops.dropout, (X, 0.1), {"training": False}, (0.1, False)),
        (torch.ops.aten.dropout.default, (X, 0.1, True), {}, (0.1, True)),
    ],
)
def test_arguments_are_read_and_written(function: Any, args: Any, kwargs: Any, wanted: Any) -> None:
    known = find(function, args, kwargs)
    assert known is not None
    assert known.read(args, kwargs) == wanted
    p, training = known.read(*known.write(args, kwargs, 0.25, True))
    assert (p, training) == (0.25, True)
    args, kwargs = known.write(args, kwargs, 0.25, False)
    p, training = known.read(args, kwargs)
    assert p == 0 or not training
    out = function(*args, **kwargs)
    if "attention" not in known.name:
        assert torch.equal(out[0] if known.name == "native_dropout" else out, X)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_networks(kind: Any, packed: bool) -> None:
    model = kind(8, 4, num_layers=2, dropout=0.5, batch_first=True)
    x: Any = nn.utils.rnn.pack_padded_sequence(X, torch.tensor([3, 2]), batch_first=True) if packed else X
    with Intercept(model, seen := Recorder()):
        model(x)
    assert [(c.p, c.training, c.mask_shape) for c in seen.calls] == [(0.5, True, (5, 4) if packed else (2, 3, 4))]

    def output() -> Tensor:
        return model(x)[0].data if packed else model(x)[0]

    with Intercept(model, Recorder((0.5, False))):
        assert torch.equal(output(), output())
    assert not torch.equal(output(), output())


@pytest.mark.parametrize(("shape", "mask"), [((3, 2, 8), (2, 2, 3, 5)), ((3, 8), (2, 3, 5))])
def test_attention_masks(shape: Any, mask: Any) -> None:
    mha = nn.MultiheadAttention(8, 2, dropout=0.5, add_bias_kv=True, add_zero_attn=True)
    x = torch.ones(shape)
    with Intercept(mha, seen := Recorder((0.5, False))):
        weights = mha(x, x, x, average_attn_weights=False)[1]
    assert seen.calls[0].mask_shape == mask == tuple(weights.shape)
    torch.testing.assert_close(weights.sum(-1), torch.ones(mask[:-1]))  # nothing was dropped


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("engine", ["Tensor.backward", "autograd.backward", "autograd.grad"])
def test_recomputation_is_asked_about_like_the_forward(reentrant: bool, engine: str) -> None:
    if reentrant and engine == "autograd.grad":
        pytest.skip("torch has no reentrant checkpoint under autograd.grad")
    model = nn.Sequential(zoo.Checkpointed(reentrant))
    original = torch.autograd._engine_run_backward
    x = torch.ones(2, 3, 8, requires_grad=True)
    with Intercept(model, seen := Recorder((0.9, False))):
        y = model(x)
        assert torch.equal(y, x.sin())
        if engine == "autograd.grad":
            grad = torch.autograd.grad(y.sum(), x)[0]
        else:
            torch.autograd.backward(y.sum()) if engine == "autograd.backward" else y.sum().backward()
            grad = x.grad
    assert torch.equal(grad, x.cos())
    assert seen.names == ["0.drop:dropout", "0:dropout"] * 2
    assert torch.autograd._engine_run_backward is original


def test_nested_blocks_each_answer_and_an_inner_one_is_asked_first() -> None:
    model = nn.Sequential(zoo.Checkpointed())
    x = torch.ones(2, 3, 8, requires_grad=True)
    with Intercept(model, outer := Recorder((0.0, True))), Intercept(model, inner := Recorder((0.5, True))):
        y = model(x)
        assert torch.equal(y, x.sin())
        y.sum().backward()
    assert torch.equal(x.grad, x.cos())
    assert [c.p for c in inner.calls] == [0.5, 0.25] * 2
    assert [c.p for c in outer.calls] == [0.5, 0.5] * 2


def test_exceptions_leave_nothing_behind() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.dim() != 2:
                raise ValueError("rank")
            return F.dropout(x)

    inner = Net()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.inner(x[None])
            except ValueError:
                return F.dropout(x)

    model = Outer()
    with Intercept(model, seen := Recorder()):
        model(torch.ones(3, 4))  # caught: the outer one calls, not the inner one that failed
        model(torch.ones(4))
    assert seen.names == [":dropout", "inner:dropout"]
    with pytest.raises(ValueError, match="rank"), Intercept(model, seen):
        inner(torch.ones(4))
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == [0, 0]
    seen.calls.clear()
    with Intercept(model, seen):
        F.dropout(X)  # nobody's call
    assert seen.calls == []


def test_a_copy_made_inside_is_another_model() -> None:
    model = nn.Sequential(zoo.Loop())
    with Intercept(model, seen := Recorder()):
        twin = copy.deepcopy(model)
        twin(X)
    assert seen.calls == []
    assert not torch.equal(twin(X), X)
