"""What a model meets in training: lazy, wrapped and mixed tensors, other memory formats, other processes."""

import multiprocessing
import os
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from dropkit.torch import Dropout, at, bind

from .families import FUNCTIONS, SHAPES, dropped, function, layer, ones

each = pytest.mark.parametrize("name", SHAPES)
each_kind = pytest.mark.parametrize("make", [layer, function], ids=["class", "function"])


# ---------------------------------------------------------------------------------------------------------------------
# tensors without data, of other types, in other layouts


@each
@each_kind
def test_meta_and_fake_tensors(name: str, make: Callable) -> None:
    """Shape, dtype, device and strides; no data, and no number drawn."""
    call = make(name)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.empty(SHAPES[name], dtype=dtype, device="meta", requires_grad=True)
        y = call(x)
        y.sum().backward()
        assert (y.device.type, y.shape, y.dtype, y.stride()) == ("meta", x.shape, dtype, x.stride())
        assert x.grad is not None
        assert x.grad.shape == x.shape
        with torch._subclasses.FakeTensorMode() as mode:
            fake = mode.from_tensor(ones(name).to(dtype))
            y = call(fake)
            assert (y.device.type, y.shape, y.dtype, y.stride()) == ("cpu", fake.shape, dtype, fake.stride())


@each
@each_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_dropout_alone(name: str, make: Callable, dtype: torch.dtype) -> None:
    """Its dtype is the input's, as with torch; a mask drawn from one seed is the same in either."""
    call = make(name)
    gone = []
    for x in (ones(name), ones(name).to(dtype)):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=dtype):
            y = call(x)
        assert y.dtype == x.dtype
        gone.append(dropped(y))
    assert torch.equal(*gone)
    with torch.autocast("cpu", dtype=dtype):
        model = nn.Sequential(nn.Linear(8, 8), Dropout(0.5))
        assert model(torch.ones(2, 8)).dtype == dtype


@each_kind
@pytest.mark.parametrize("p", [0.3, 1.0])
@pytest.mark.parametrize("name", ["Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout", "Dropout3d"])
def test_channels_last_is_kept_and_does_not_move_the_mask(name: str, make: Callable, p: float) -> None:
    call = make(name, p)
    formats = [(torch.randn(2, 3, 4, 5, 6), torch.channels_last_3d)]
    if name != "Dropout3d":
        formats.append((torch.randn(2, 3, 4, 5), torch.channels_last))
    for x, memory_format in formats if name != "Dropout2d" else formats[1:]:
        results = []
        for one in (x, x.to(memory_format=memory_format)):
            leaf = one.detach().requires_grad_()
            with at(seed=1, site="drop"):
                y = call(leaf)
            y.backward(torch.ones_like(y))
            results.append((y, leaf.grad))
        assert results[1][0].is_contiguous(memory_format=memory_format)
        assert results[1][1].is_contiguous(memory_format=memory_format)
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@each_kind
@pytest.mark.parametrize("name", ["Dropout", "AlphaDropout"])
def test_jagged_nested_tensors(name: str, make: Callable) -> None:
    pieces = [torch.ones(3, 32), torch.ones(5, 32)]
    nested = torch.nested.nested_tensor(pieces, layout=torch.jagged, requires_grad=True)
    y = make(name)(nested)
    assert y.is_nested
    assert y.shape == nested.shape
    y.values().sum().backward()
    assert torch.equal(nested.grad.values() == 0, dropped(y.values()))
    assert 0.2 < dropped(y.values()).float().mean() < 0.8
    assert layer(name).eval()(nested) is nested


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("name", ["Dropout", "AlphaDropout"])
def test_strided_nested_tensors(name: str) -> None:
    nested = torch.nested.nested_tensor([torch.ones(3, 32), torch.ones(5, 32)], requires_grad=True)
    y = layer(name)(nested)
    assert y.is_nested
    torch.nested.to_padded_tensor(y, 0.0).sum().backward()
    for piece, gradient, shape in zip(y.unbind(), nested.grad.unbind(), ((3, 32), (5, 32)), strict=True):
        assert piece.shape == shape
        assert torch.equal(gradient == 0, dropped(piece))


class Tagged(torch.Tensor):
    """A subclass without data of its own."""


class Logged(torch.Tensor):
    """A subclass that sees every function called on it."""

    seen: ClassVar[list[Any]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


@each
@each_kind
def test_tensor_subclasses(name: str, make: Callable) -> None:
    x = ones(name).as_subclass(Tagged)
    y = make(name)(x)
    assert type(y) is Tagged
    assert 0 < dropped(y).float().mean() < 1
    leaf = ones(name).as_subclass(Tagged).requires_grad_()
    y = make(name)(leaf)
    y.sum().backward()
    assert torch.equal(leaf.grad == 0, dropped(y))


@each
def test_functions_call_torch_function(name: str) -> None:
    Logged.seen.clear()
    y = FUNCTIONS[name](ones(name).as_subclass(Logged), 0.5, True)
    assert Logged.seen[0] is FUNCTIONS[name]
    assert type(y) is Logged


def test_parametrize() -> None:
    """Dropout of weights: a fresh mask for each forward, or one for all uses of the weight in a cached block."""
    linear = nn.Linear(64, 64, bias=False)
    parametrize.register_parametrization(linear, "weight", Dropout(0.5))
    weight = linear.parametrizations.weight.original
    assert not torch.equal(linear.weight, linear.weight)
    with parametrize.cached():
        first = linear.weight
        assert linear.weight is first
        linear(torch.eye(64)).sum().backward()
    assert torch.equal(weight.grad == 0, first == 0)
    assert torch.equal(first[first != 0], 2 * weight[first != 0])
    linear.eval()
    assert torch.equal(linear.weight, weight)
    parametrize.remove_parametrizations(linear, "weight")
    assert type(linear) is nn.Linear


def test_parametrize_of_a_bound_model() -> None:
    linear = nn.Linear(64, 64, bias=False)
    parametrize.register_parametrization(linear, "weight", Dropout(0.5, share=(1,)))
    model = bind(nn.Sequential(linear), seed=2)
    x = torch.ones(1, 64)
    first = model(x)
    assert not torch.equal(first, model(x))
    assert 0 < (first == 0).float().mean() < 1  # whole rows of the weight
    with at(step=0):
        assert torch.equal(first, model(x))


# ---------------------------------------------------------------------------------------------------------------------
# other processes


class Augmented(torch.utils.data.Dataset):
    """Samples that a worker process drops elements of."""

    def __init__(self, bound: bool) -> None:
        self.drop = bind(nn.Sequential(Dropout(0.5)), seed=4) if bound else Dropout(0.5)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> torch.Tensor:
        if isinstance(self.drop, Dropout):
            return self.drop(torch.ones(64))
        with at(step=0, rows=[i]):
            return self.drop(torch.ones(1, 64))[0]


forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def loaded(bound: bool, workers: int) -> torch.Tensor:
    """All samples, after `torch.manual_seed` in the parent."""
    torch.manual_seed(7)
    return torch.cat(list(torch.utils.data.DataLoader(Augmented(bound), batch_size=1, num_workers=workers)))


@forks
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, once it is loaded
def test_ambient_masks_of_data_loader_workers_follow_the_workers_seeds() -> None:
    """As with torch's dropout: workers differ from each other, and one seed of the parent gives one result."""
    first = loaded(False, 2)
    assert torch.equal(first, loaded(False, 2))
    assert len(torch.unique(first, dim=0)) == 4
    assert not torch.equal(first, loaded(False, 1))


@forks
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, once it is loaded
def test_keyed_masks_are_the_same_in_any_number_of_workers() -> None:
    first = loaded(True, 0)
    assert torch.equal(first, loaded(True, 1))
    assert torch.equal(first, loaded(True, 2))
    assert len(torch.unique(first, dim=0)) == 4


def _masks(queue: Any) -> None:
    drop = Dropout(0.5)
    ambient = drop(torch.ones(64))
    with at(seed=1, site="drop"):
        queue.put((os.getpid(), ambient.tolist(), drop(torch.ones(64)).tolist()))


@forks
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # JAX, once it is loaded
def test_a_forked_process_goes_on_from_its_parents_generator() -> None:
    """Two forks from one state draw one mask, as torch's dropout does: differ by `torch.manual_seed`, or by key."""
    torch.manual_seed(0)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    processes = [context.Process(target=_masks, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = queue.get(), queue.get()
    for process in processes:
        process.join()
    _masks(queue)
    here = queue.get()
    assert len({first[0], second[0], here[0]}) == 3
    assert first[1:] == second[1:] == here[1:]
