"""The six classes and six functions beside torch's: signatures, texts, shapes, dtypes, generator, graphs, protocol."""

import copy
import inspect
import io
import itertools
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint

import dropkit.torch
from dropkit import DropkitError, Key
from dropkit.torch import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    at,
    bind,
    functional,
)

PACKAGE = Path(dropkit.torch.__file__).parents[1]
FUNCTIONS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
SHAPES = {
    Dropout: (4, 8), Dropout1d: (4, 8, 2), Dropout2d: (4, 8, 2, 2), Dropout3d: (4, 8, 2, 2, 2),
    AlphaDropout: (4, 8), FeatureAlphaDropout: (4, 8, 2, 2),
}  # fmt: skip
CLASSES = list(SHAPES)
ALPHAS = (AlphaDropout, FeatureAlphaDropout)
each_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
each_function = pytest.mark.parametrize("name", FUNCTIONS)

pytestmark = [
    # torch deprecates TorchScript, and scripts its own forward-mode formulas on first use
    pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated:DeprecationWarning"),
    # nested tensors say of themselves that they are a prototype
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype:UserWarning"),
]


def theirs(kind: type) -> type:
    return getattr(nn, kind.__name__)


def ones(kind: type, batch: int = 4, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(batch, *SHAPES[kind][1:], dtype=dtype)


def seeded(function: Callable[..., Any], *args: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return function(*args)


# ---------------------------------------------------------------------------------------------------------------------
# the same as torch's: both are run, and compared


@each_function
def test_functions_have_torchs_signature(name: str) -> None:
    ours, torchs = (inspect.signature(getattr(module, name)) for module in (functional, nn.functional))
    assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
        (p.name, p.default, p.kind) for p in torchs.parameters.values()
    ]


@each_class
def test_classes_have_torchs_protocol(kind: type) -> None:
    torchs = theirs(kind)
    assert issubclass(kind, torchs)
    assert issubclass(kind, _DropoutNd)
    assert kind.__name__ == torchs.__name__
    assert kind.__constants__ == torchs.__constants__ == ["p", "inplace"]
    positional = [
        (p.name, p.default)
        for p in inspect.signature(kind).parameters.values()
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == [(p.name, p.default) for p in inspect.signature(torchs).parameters.values()]
    for arguments in ((), (0.3,), (0.3, True), (1,), (0,)):
        ours, other = kind(*arguments), torchs(*arguments)
        assert repr(ours) == repr(other)
        assert ours.extra_repr() == other.extra_repr()
        assert (ours.p, ours.inplace, ours.training) == (other.p, other.inplace, other.training)
        assert ours.state_dict() == {}
        assert ours.load_state_dict({}, strict=True).missing_keys == []


def outcome(call: Callable[[], torch.Tensor]) -> tuple[Any, list[tuple[type, str]]]:
    """What becomes of a call: shape, dtype and strides, or what it raises; and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            y = call()
            result: Any = (y.shape, y.dtype, y.stride())
        except Exception as error:
            result = error
    assert not [
        str(warning) for warning in caught if Path(warning.filename).is_relative_to(PACKAGE)
    ]  # not of our lines
    return result, [(warning.category, str(warning.message)) for warning in caught]


def assert_alike(ours: Callable[[], torch.Tensor], torchs: Callable[[], torch.Tensor]) -> None:
    (result, said), (wanted, wanted_said) = outcome(ours), outcome(torchs)
    assert said == wanted_said
    if isinstance(wanted, Exception):
        assert isinstance(result, type(wanted)), result
        assert isinstance(result, DropkitError)
        assert str(wanted) in str(result)
    else:
        assert result == wanted


@each_function
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_shape_rules_texts_and_warnings_are_torchs(name: str, p: float, training: bool) -> None:
    """Every rank from 0 to 6, empty tensors, other strides: results, errors and warnings."""
    ours, torchs = getattr(functional, name), getattr(nn.functional, name)
    shapes = [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 2, 2), (1, 2, 2, 2, 2, 2), (0,), (0, 3), (3, 0, 4)]
    inputs = [torch.ones(shape) for shape in (*shapes, (2, 0, 3, 3))]
    image, video = torch.ones(2, 3, 4, 5), torch.ones(2, 3, 2, 4, 5)
    inputs += [image.to(memory_format=torch.channels_last), video.to(memory_format=torch.channels_last_3d)]
    inputs += [image.permute(3, 0, 2, 1), image[..., ::2], image[1:, :, 1:], torch.ones(3, 1).expand(3, 4), image.mT]
    for x in inputs:
        assert_alike(lambda x=x: ours(x, p, training), lambda x=x: torchs(x, p, training))


@each_class
@pytest.mark.parametrize("training", [True, False])
def test_modules_follow_the_same_shape_rules(kind: type, training: bool) -> None:
    for p, shape in itertools.product((0.0, 0.5, 1.0), [(), (3,), (2, 3), (2, 3, 4), (2, 3, 2, 2), (1, 1, 1, 1, 1, 1)]):
        x = torch.ones(shape)
        modules = kind(p).train(training), theirs(kind)(p).train(training)
        assert_alike(lambda x=x, m=modules: m[0](x), lambda x=x, m=modules: m[1](x))


@each_function
@pytest.mark.parametrize("p", [-0.1, 1.1, float("inf"), 2])
def test_bad_rates_raise_torchs_text(name: str, p: float) -> None:
    x = torch.ones(2, 3, 4, 5) if name[-2:] in ("2d", "3d") else torch.ones(2, 3, 4)
    ours, torchs = getattr(functional, name), getattr(nn.functional, name)
    assert_alike(lambda: ours(x, p, True), lambda: torchs(x, p, True))
    assert_alike(lambda: ours(x, p, False), lambda: torchs(x, p, False))


@each_class
def test_constructors_refuse_bad_rates(kind: type) -> None:
    for p in (-0.1, 1.1, float("inf")):
        for make in (kind, theirs(kind)):
            with pytest.raises(ValueError, match=f"dropout probability has to be between 0 and 1, but got {p}"):
                make(p)
    for bad in (None, "0.5", [0.5], 0.5j):
        for make in (kind, theirs(kind)):
            with pytest.raises(TypeError):
                make(bad)
    with pytest.raises(DropkitError, match="dropout probability must be a number, but got None of type NoneType"):
        kind(None)
    with pytest.raises(ValueError, match="but got nan"):
        kind(float("nan"))


@each_class
def test_rates_that_are_other_numbers(kind: type) -> None:
    """bool, int and 0-dim tensors pass, as they do in torch; tensors that no module can use do not."""
    for p in (True, 1, 0, False, torch.tensor(0.25), torch.tensor([0.25])):
        assert float(kind(p).p) == float(theirs(kind)(p).p)
        kind(p)(ones(kind))
    with pytest.raises(TypeError, match="p requires grad, but a hard mask has no gradient in p"):
        kind(torch.tensor(0.5, requires_grad=True))
    with pytest.raises(
        ValueError, match=r"one p, but got a tensor of shape \(2,\); dropkit.torch.dropout takes a p that"
    ):
        kind(torch.tensor([0.5, 0.5]))
    drop = kind(0.5)
    for bad in (1.5, float("nan"), torch.tensor([0.1, 0.2])):
        with pytest.raises(ValueError):
            drop.p = bad
    with pytest.raises(TypeError):
        drop.p = "0.1"
    assert drop.p == 0.5


@each_function
def test_dtypes_are_refused_as_torch_refuses_them(name: str) -> None:
    ours, torchs = getattr(functional, name), getattr(nn.functional, name)
    x = torch.ones(
        SHAPES[Dropout2d] if name == "dropout2d" else SHAPES[Dropout3d] if name == "dropout3d" else (2, 3, 4)
    )
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64):
        numbers = x.to(dtype)
        with pytest.raises((RuntimeError, NotImplementedError)) as wanted:
            torchs(numbers, 0.5, True)
        with pytest.raises(wanted.type) as caught:
            ours(numbers, 0.5, True)
        assert isinstance(caught.value, DropkitError)
        if "can't be cast" in str(wanted.value):  # ("_th_..." texts name torch's kernels, which are not ours)
            assert str(wanted.value).split(" to the")[0] in str(caught.value)
        assert ours(numbers, 0.5, False) is numbers
        assert ours(numbers, 0.0, True) is numbers
        gone = ours(numbers, 1.0, True)
        assert (gone.dtype, gone.shape, bool(gone.any())) == (dtype, x.shape, False)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
@pytest.mark.parametrize("name", ["dropout", "alpha_dropout"])
def test_sparse_tensors_are_refused_with_a_remedy(name: str) -> None:
    for x in (torch.ones(4, 8).to_sparse(), torch.ones(4, 8).to_sparse_csr()):
        for module in (functional, nn.functional):
            with pytest.raises(NotImplementedError):
                getattr(module, name)(x, 0.5, True)
            assert getattr(module, name)(x, 0.5, False) is x
        with pytest.raises(DropkitError, match=r"needs a dense tensor, but x is torch.sparse_\w+: take x.to_dense\(\)"):
            getattr(functional, name)(x, 0.5, True)


@each_class
def test_nothing_dropped_gives_the_object_back(kind: type) -> None:
    for inplace in (False, True):
        leaf = ones(kind).requires_grad_()
        assert kind(0.5, inplace).eval()(leaf) is leaf
        assert kind(0.0, inplace)(leaf) is leaf
        assert kind(0.5, inplace, when="never")(leaf) is leaf
        empty = leaf[:0].detach()
        assert kind(0.5, inplace)(empty) is empty
    (grad,) = torch.autograd.grad(kind(0.5).eval()(leaf).sum(), leaf)
    assert torch.equal(grad, torch.ones_like(leaf))


# ---------------------------------------------------------------------------------------------------------------------
# values and gradients


@each_class
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_gradient_is_the_forwards_mask_times_its_scale(kind: type, p: float) -> None:
    for inplace in (False, True):
        x = ones(kind, 64).mul_(7).requires_grad_()
        y = kind(p, inplace)(x * 1)
        (grad,) = torch.autograd.grad(y.sum(), x)
        kept = y == y.max() if p < 1 else torch.zeros_like(y, dtype=torch.bool)
        assert torch.equal(grad != 0, kept)
        assert len(torch.unique(grad)) == (2 if p < 1 else 1)
        assert not torch.isnan(grad).any()


@each_class
def test_everything_dropped_is_zero(kind: type) -> None:
    hard = torch.tensor([float("nan"), float("inf"), -1.0, 0.0]).repeat(2 * 8).reshape(SHAPES[Dropout1d])
    x = hard.reshape(4, 8, 2, *[1] * (len(SHAPES[kind]) - 3)) if len(SHAPES[kind]) > 2 else hard.reshape(4, 16)
    x = x.requires_grad_()
    y = kind(1.0)(x)
    assert torch.equal(y, torch.zeros_like(x))
    assert not torch.signbit(y).any()
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, torch.zeros_like(x))


@each_class
def test_in_place(kind: type) -> None:
    for p in (0.5, 1.0):
        x = ones(kind)
        y = seeded(kind(p), x)
        assert torch.equal(x, ones(kind))
        z = seeded(kind(p, inplace=True), x)
        assert z is x
        assert torch.equal(z, y)
        leaf = ones(kind).requires_grad_()
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place"):
            kind(p, inplace=True)(leaf)
        assert torch.equal(leaf, ones(kind))
        with torch.no_grad():
            assert kind(p, inplace=True)(leaf) is leaf
    for p in (0.5,):
        expanded = torch.ones(1).expand(SHAPES[kind])
        with pytest.raises(RuntimeError, match="more than one element of the written-to tensor refers to a single"):
            kind(p, inplace=True)(expanded)
    saved = ones(kind).requires_grad_()
    y = saved.exp()
    kind(0.5, inplace=True)(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@each_class
def test_no_grad_and_inference_mode(kind: type) -> None:
    x = ones(kind).requires_grad_()
    wanted = seeded(kind(0.5), x)
    assert wanted.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            y = seeded(kind(0.5), x)
        assert not y.requires_grad
        assert torch.equal(y, wanted)


@each_class
def test_masks_are_those_of_every_dtype(kind: type) -> None:
    masks = []
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        y = seeded(kind(0.4), 7 * ones(kind, dtype=dtype))
        assert y.dtype == dtype
        masks.append(y > 5)
    assert all(torch.equal(masks[0], mask) for mask in masks)


@each_class
def test_masks_are_nested_in_p(kind: type) -> None:
    """As in torch: what is dropped at .3 is dropped at .5 from the same seed."""
    gone = [seeded(kind(p), 7 * ones(kind, 64)) < 5 for p in (0.1, 0.3, 0.5, 0.9)]
    for smaller, larger in itertools.pairwise(gone):
        assert (larger | ~smaller).all()
        assert (larger & ~smaller).any()


@each_class
def test_logical_mask_for_any_strides(kind: type) -> None:
    x = torch.randn(SHAPES[kind])
    wanted = seeded(kind(0.5), x)
    order = tuple(reversed(range(x.dim())))
    forms = [x.permute(order).contiguous().permute(order), torch.stack([x, x], -1)[..., 0], x.clone().unfold(0, 4, 4)]
    forms[2] = forms[2].movedim(-1, 0)[:, 0] if x.dim() > 1 else x
    if x.dim() in (4, 5):
        forms.append(x.to(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d))
    for form in forms:
        assert torch.equal(form, x)
        assert torch.equal(seeded(kind(0.5), form), wanted)


@pytest.mark.parametrize("kind", [Dropout1d, Dropout3d], ids=["Dropout1d", "Dropout3d"])
def test_unbatched_equals_batched(kind: type) -> None:
    x = torch.rand(50, *SHAPES[kind][2:])
    for inplace in (False, True):
        y = seeded(kind(0.5, inplace), x.clone())
        assert torch.equal(y, seeded(kind(0.5, inplace), x.clone().unsqueeze(0)).squeeze(0))


@each_class
def test_autocast_leaves_the_dtype_alone(kind: type) -> None:
    x = ones(kind)
    wanted = seeded(kind(0.5), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = seeded(kind(0.5), x)
    assert y.dtype == torch.float32
    assert torch.equal(y, wanted)


def test_nested_tensors() -> None:
    parts = [torch.ones(2, 8), torch.ones(300, 8)]
    for kind in (Dropout, AlphaDropout):
        for tensor_layout in (torch.jagged, torch.strided):
            x = torch.nested.nested_tensor(parts, layout=tensor_layout, requires_grad=True)
            y = kind(0.5)(x)
            assert y.is_nested
            assert [tuple(part.shape) for part in y.unbind()] == [(2, 8), (300, 8)]
            assert all(len(torch.unique(part)) == 2 for part in y.unbind()[1:])
            assert kind(0.5).eval()(x) is x


# ---------------------------------------------------------------------------------------------------------------------
# the generator


@each_class
def test_torchs_generator_governs(kind: type) -> None:
    drop, x = kind(0.5), ones(kind, 256)
    first, second = seeded(lambda: (drop(x), drop(x)))
    assert not torch.equal(first, second)
    assert torch.equal(seeded(drop, x), first)
    state = torch.get_rng_state()
    again = drop(x)
    torch.set_rng_state(state)
    assert torch.equal(again, second)
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        drop(x)
    assert torch.equal(torch.get_rng_state(), state)


@each_class
def test_generator_stands_still_where_no_number_is_needed(kind: type) -> None:
    x, state = ones(kind), torch.get_rng_state()
    kind(0.5).eval()(x)
    for p in (0.0, 1.0):
        kind(p)(x)
    kind(0.5)(x[:0])
    assert torch.equal(torch.get_rng_state(), state)
    kind(0.5)(x)
    assert not torch.equal(torch.get_rng_state(), state)


@each_class
def test_threads_change_nothing(kind: type) -> None:
    inside = SHAPES[kind][2:]
    x, threads = torch.ones(200, 1000, *inside), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(seeded(kind(0.3), x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


@each_class
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("preserve", [True, False])
def test_checkpointing_repeats_the_mask(kind: type, reentrant: bool, preserve: bool) -> None:
    drop = kind(0.5)
    x = (7 * ones(kind, 64)).requires_grad_()
    y = checkpoint(drop, x, use_reentrant=reentrant, preserve_rng_state=preserve)
    torch.rand(7)  # other random numbers are drawn before the backward
    (grad,) = torch.autograd.grad(y.sum(), x) if not reentrant else (_backward(y, x),)
    assert torch.equal(grad != 0, y > 5)


def _backward(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    y.sum().backward()  # reentrant checkpoints do not work with autograd.grad
    assert x.grad is not None
    return x.grad


@each_class
def test_copies_draw_on_from_the_shared_generator(kind: type) -> None:
    """An ambient module keeps no state: a copy made between two calls draws what the original would have drawn."""
    drop, x = kind(0.5), ones(kind, 64)

    def second(copied: Callable[[nn.Module], nn.Module]) -> torch.Tensor:
        drop(x)
        return copied(drop)(x)

    wanted = seeded(second, lambda drop: drop)
    for copied in (copy.deepcopy, lambda drop: pickle.loads(pickle.dumps(drop))):
        assert torch.equal(seeded(second, copied), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# transforms and graphs


@each_class
@pytest.mark.parametrize("dim", [0, -1, None])
def test_vmap(kind: type, dim: int | None) -> None:
    """The modes "same" and "error" give equal slices, "different" unique ones; channels stay whole within a slice."""
    slices, x = 5, ones(kind, 16)
    batch = x if dim is None else torch.stack([x] * slices, dim)
    results = {}
    for randomness in ("same", "different", "error"):
        mapped = torch.func.vmap(lambda x, _: kind(0.5)(x), (dim, 0), randomness=randomness)
        results[randomness] = seeded(mapped, batch, torch.arange(slices))
        assert results[randomness].shape == (slices, *x.shape)
    assert len(torch.unique(results["different"].flatten(1), dim=0)) == slices
    assert len(torch.unique(results["same"].flatten(1), dim=0)) == 1
    assert torch.equal(results["same"], results["error"])
    assert torch.equal(results["same"][0], seeded(kind(0.5), x))
    for y in results.values():
        flat = y.flatten(3) if y.dim() > 3 else y.unsqueeze(-1)
        assert torch.equal(flat.amin(-1), flat.amax(-1))
        kept = (y > y.mean()).double().mean()
        assert 0.25 < kept < 0.75


@each_class
def test_function_transforms(kind: type) -> None:
    drop = kind(0.5).double()
    x = torch.randn(SHAPES[kind], dtype=torch.float64)

    def loss(x: torch.Tensor) -> torch.Tensor:
        with at(seed=1, site="here", step=2):
            return (drop(x) ** 2).sum()

    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(loss(leaf), leaf)
    assert torch.equal(torch.func.grad(loss)(x), wanted)
    _, tangent = torch.func.jvp(loss, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, wanted.sum())
    value, pull = torch.func.vjp(loss, x)
    assert torch.equal(pull(torch.ones_like(value))[0], wanted)
    torch.testing.assert_close(torch.func.jacrev(loss)(x), wanted)
    torch.testing.assert_close(torch.func.jacfwd(loss, randomness="same")(x), wanted)
    hessian = torch.func.hessian(loss)(x).reshape(x.numel(), x.numel())
    assert torch.equal(torch.count_nonzero(hessian, 0) > 0, wanted.flatten() != 0) or kind in ALPHAS
    assert torch.equal(hessian, torch.diag(hessian.diagonal()))
    y = seeded(lambda: torch.func.functional_call(drop, {}, (x,)))
    assert torch.equal(y, seeded(drop, x))


@each_class
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled(kind: type, training: bool, backend: str) -> None:
    torch._dynamo.reset()
    drop = kind(0.5).train(training)
    fast = torch.compile(drop, backend=backend, fullgraph=True)
    results = []
    for function in (drop, fast, fast):
        x = (7 * ones(kind)).requires_grad_()
        y = seeded(function, x)
        (grad,) = torch.autograd.grad(y.sum(), x)
        results.append((y, grad))
        assert torch.equal(grad != 0, y > 5)
    for (y, grad), (z, other) in itertools.pairwise(results):
        torch.testing.assert_close(y, z, rtol=1e-6 if kind in ALPHAS else 0, atol=0)
        assert torch.equal(grad, other)


@each_class
def test_nothing_is_compiled_again(kind: type) -> None:
    """Not for another p, nor for modes that were seen before, nor for other batches where shapes are dynamic."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    drop = kind(0.5)
    fast = torch.compile(drop, backend=counter, fullgraph=True, dynamic=True)
    x = ones(kind)
    fast(x)
    before = counter.frame_count
    assert before > 0
    for p in (0.1, 0.2, 0.3, 0.0, 1.0, 1e-9, 0.7):
        drop.p = p
        fast(x)
    assert counter.frame_count == before
    fast(drop.eval()(x))
    before = counter.frame_count
    for training in (True, False, True, False, True):
        drop.train(training)
        fast(x)
    assert counter.frame_count == before
    for batch in (5, 6, 17):
        assert fast(ones(kind, batch)).shape[0] == batch
    assert counter.frame_count == before


@each_class
def test_scripted(kind: type) -> None:
    x = 7 * ones(kind)
    for inplace in (False, True):
        drop = kind(0.5, inplace)
        scripted = torch.jit.script(drop)
        assert torch.equal(seeded(scripted, x.clone()), seeded(drop, x.clone()))
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
        buffer.seek(0)
        loaded = torch.jit.load(buffer)
        assert torch.equal(seeded(loaded, x.clone()), seeded(drop, x.clone()))
        assert torch.equal(loaded.eval()(x), x)


@each_class
def test_traced(kind: type) -> None:
    x = 7 * ones(kind)
    still = torch.jit.trace(kind(0.5).eval(), x)
    assert torch.equal(still(x), x)
    assert "dropout" not in str(still.graph)
    moving = torch.jit.trace(kind(0.5), x, check_trace=False)
    for seed in range(3):  # the first calls run other code than later ones, which TorchScript optimizes
        assert torch.equal(seeded(moving, x, seed=seed), seeded(kind(0.5), x, seed=seed))
    results = [moving(x) for _ in range(8)]
    assert len(torch.unique(torch.stack(results).flatten(1), dim=0)) > 4


def called(graph: torch.fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


@each_class
def test_exported(kind: type) -> None:
    x = 7 * ones(kind)
    still = torch.export.export(nn.Sequential(kind(0.5)).eval(), (x,))
    assert called(still.graph) == []
    moving = torch.export.export(nn.Sequential(kind(0.5)), (x,))
    assert any("dropout" in name for name in called(moving.graph))
    assert not any("dropkit" in name for name in called(moving.graph))  # whatever reads a graph knows torch's own
    y, other = seeded(moving.module(), x), getattr(nn, kind.__name__)(0.5)
    torch.testing.assert_close(y.unique(), seeded(other, x).unique())
    bound = torch.export.export(bind(nn.Sequential(kind(0.5)), seed=1), (x,))
    assert called(bound.graph).count("dropkit.dropout.default") == 1
    assert torch.equal(bound.module()(x), bind(nn.Sequential(kind(0.5)), seed=1)(x))


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@each_class
def test_exported_to_onnx(kind: type) -> None:
    pytest.importorskip("onnxscript", reason="torch's exporter needs it")
    x = ones(kind)
    program = torch.onnx.export(nn.Sequential(kind(0.5)).eval(), (x,), dynamo=True, verbose=False)
    assert [node.op_type for node in program.model.graph] == ["Identity"]


@each_class
def test_symbolically_traced_as_a_leaf(kind: type) -> None:
    model = nn.Sequential(kind(0.5))
    graph = torch.fx.symbolic_trace(model)
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    x = ones(kind)
    assert torch.equal(seeded(graph, x), seeded(model, x))


@each_class
def test_meta_and_fake_tensors(kind: type) -> None:
    y = kind(0.5)(torch.empty(SHAPES[kind], device="meta", dtype=torch.float16))
    assert (y.device.type, y.shape, y.dtype) == ("meta", SHAPES[kind], torch.float16)
    with torch._subclasses.FakeTensorMode():
        y = kind(0.5)(torch.empty(SHAPES[kind], dtype=torch.bfloat16, requires_grad=True))
        y.sum().backward()
    assert (y.shape, y.dtype) == (SHAPES[kind], torch.bfloat16)


# ---------------------------------------------------------------------------------------------------------------------
# subclasses and modules


class Overriding(torch.Tensor):
    """A tensor that takes over every function it meets."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in FUNCTIONS:
            return function.__name__, kwargs
        return super().__torch_function__(function, types, args, kwargs)


@each_function
def test_functions_can_be_overridden(name: str) -> None:
    x = torch.ones(2, 3, 4).as_subclass(Overriding)
    wanted = {"p": 0.25, "training": True, "inplace": False}
    assert getattr(functional, name)(x, 0.25, training=True) == (name, wanted)
    assert getattr(nn.functional, name)(x, 0.25, training=True) == (name, wanted)


class Named(torch.Tensor):
    """A subclass without a will of its own."""


@each_class
def test_subclasses_stay_what_they_are(kind: type) -> None:
    x = ones(kind)
    y = seeded(kind(0.5), x.as_subclass(Named))
    assert type(y) is Named
    assert torch.equal(y.as_subclass(torch.Tensor), seeded(kind(0.5), x))


@each_class
def test_the_idiom_of_monte_carlo_dropout(kind: type) -> None:
    """Switching layers back by type or by the start of their class name, as tools out there do."""
    model = nn.Sequential(nn.BatchNorm1d(8), kind(0.5)).eval()
    for layer in model.modules():
        if isinstance(layer, _DropoutNd) and "Dropout" in type(layer).__name__:
            layer.train()
    assert [layer.training for layer in model] == [False, True]
    assert not torch.equal(model[1](ones(kind, 64)), ones(kind, 64))
    seen: list[str] = []
    model.apply(lambda layer: seen.append(type(layer).__name__))
    assert seen == ["BatchNorm1d", kind.__name__, "Sequential"]


@each_class
def test_checkpoints_of_torchs_class_load(kind: type) -> None:
    theirs_, ours = (nn.Sequential(nn.Linear(8, 8), each(0.5)) for each in (theirs(kind), kind))
    buffer = io.BytesIO()
    torch.save(theirs_.state_dict(), buffer)
    buffer.seek(0)
    ours.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    assert torch.equal(ours[0].weight, theirs_[0].weight)


@each_class
def test_hooks_replicas_and_parametrizations(kind: type) -> None:
    drop, x = kind(0.5), ones(kind)
    drop.register_forward_hook(lambda module, args, y: y + 1)
    assert torch.equal(seeded(drop, x), seeded(kind(0.5), x) + 1)
    replica = kind(0.25)._replicate_for_data_parallel()  # what DataParallel runs
    assert torch.equal(seeded(replica, x), seeded(kind(0.25), x))
    linear = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        linear.weight.fill_(1)
    if kind is Dropout:
        nn.utils.parametrize.register_parametrization(linear, "weight", kind(0.5))
        y = seeded(linear, torch.eye(8))
        assert torch.equal(y, seeded(kind(0.5), torch.ones(8, 8)).T)
        y.sum().backward()
        weight = linear.parametrizations.weight.original
        assert torch.equal(weight.grad != 0, y.T != 0)


def test_a_key_gives_functions_and_modules_one_mask() -> None:
    key = Key(3, "one", 4)
    for kind, name in zip(CLASSES, FUNCTIONS, strict=True):
        x = ones(kind)
        with at(seed=3, site="one", step=4):
            y, z = kind(0.3)(x), getattr(functional, name)(x, 0.3, True)
        assert torch.equal(y, z)
    assert torch.equal(
        dropkit.torch.dropout(ones(Dropout), 0.3, training=True, key=key) != 0,
        seeded(lambda: _at(Dropout(0.3), ones(Dropout))) != 0,
    )


def _at(drop: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with at(seed=3, site="one", step=4):
        return drop(x)
