"""PyTorch's own tables of dropout calls, which come with its wheel, run through our functions and classes.

`op_db` lists the calls that torch's operator tests make of the dropouts in `torch.nn.functional`. Each entry looks its
function up there by name, and here ours stands there. `module_db` has no dropout in it (torch 2.13), so a module table
of our own in its terms takes that place.
"""

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

PROFILE = hypothesis.settings.get_current_profile_name()
from torch.testing._internal import composite_compliance, optests  # noqa: E402
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402
from torch.testing._internal.common_modules import FunctionInput, ModuleInfo, ModuleInput, module_db  # noqa: E402
from torch.testing._internal.common_utils import freeze_rng_state, noncontiguous_like  # noqa: E402

# torch's test utilities set these for the whole process when they are imported
hypothesis.settings.load_profile(PROFILE)
torch.backends.__allow_nonbracketed_mutation_flag = True  # type: ignore[attr-defined]

import dropkit.torch  # noqa: E402
from dropkit import Key  # noqa: E402
from dropkit.layout import layout  # noqa: E402

FUNCTIONS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
CLASSES = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
HALF_AND_FLOAT = {torch.float16, torch.bfloat16, torch.float32, torch.float64}

pytestmark = [
    # torch's own forward-mode formulas are scripted on first use, which it deprecates itself.
    pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning"),
    # the table has inputs of three axes for dropout2d, which warn
    pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input:UserWarning"),
    # torch's check of fake tensors asks results for their gradients
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

OPS = [op for op in op_db if op.name.startswith("nn.functional.") and "dropout" in op.name]
each_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.full_name.removeprefix("nn.functional."))


@pytest.fixture(autouse=True)
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FUNCTIONS:
        monkeypatch.setattr(nn.functional, name, getattr(dropkit.torch.functional, name))


def calls(op: Any, dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> Iterator[tuple[Any, Any]]:
    """Each sample of an entry, and the call as a function of the input alone (the entry fixes the seed inside)."""
    for sample in op.sample_inputs("cpu", dtype, requires_grad=requires_grad):
        yield sample, call_of(op, sample)


def call_of(op: Any, sample: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: op(x, *sample.args, **sample.kwargs)


def equal(a: Any, b: Any, **_: Any) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_the_tables_are_what_we_take_them_for() -> None:
    assert sorted(op.name.removeprefix("nn.functional.") for op in OPS) == [
        "alpha_dropout", "dropout", "dropout2d", "dropout3d", "feature_alpha_dropout", "feature_alpha_dropout",
    ]  # fmt: skip
    assert [info for info in module_db if issubclass(info.module_cls, nn.modules.dropout._DropoutNd)] == []
    assert [list(op.error_inputs("cpu")) for op in OPS if op.error_inputs_func is not None] == []
    x = torch.ones(4, 4, requires_grad=True)
    assert "Dropped" in type(OPS[0](x).grad_fn).__name__  # ours, not torch's


@each_op
def test_dtypes(op: Any) -> None:
    """The dtypes that the entry names work, forward and backward; in training no other one does."""
    supported = op.supported_dtypes("cpu")
    for dtype in supported:
        for sample, call in calls(op, dtype, requires_grad=dtype.is_floating_point):
            y = call(sample.input)
            assert (y.dtype, y.shape) == (dtype, sample.input.shape)
            if y.requires_grad:
                y.sum().backward()
                assert sample.input.grad.dtype == dtype
    assert op.supported_backward_dtypes("cpu") & HALF_AND_FLOAT == HALF_AND_FLOAT
    for dtype in {torch.int64, torch.uint8, torch.bool, torch.complex64} - supported:
        with pytest.raises((RuntimeError, NotImplementedError)):
            for sample, call in calls(op, dtype):
                call(sample.input)


@each_op
def test_gradients(op: Any) -> None:
    """First and second order, forward and reverse mode, batched, against finite differences in float64."""
    for sample, call in calls(op, torch.float64, requires_grad=True):
        fast = sample.input.numel() > 10
        assert torch.autograd.gradcheck(
            call, sample.input, check_forward_ad=True, check_batched_grad=op.check_batched_grad, fast_mode=fast
        )
        assert torch.autograd.gradgradcheck(
            call, sample.input, check_fwd_over_rev=op.supports_fwgrad_bwgrad, fast_mode=fast,
            check_batched_grad=op.check_batched_gradgrad,
        )  # fmt: skip


@each_op
def test_gradients_in_place(op: Any) -> None:
    for sample, _ in calls(op, torch.float64, requires_grad=True):

        def call(x: torch.Tensor, sample: Any = sample) -> torch.Tensor:
            return op.inplace_variant(x.clone(), *sample.args, **sample.kwargs)

        fast = sample.input.numel() > 10
        assert torch.autograd.gradcheck(
            call, sample.input, check_forward_ad=True, check_batched_grad=True, fast_mode=fast
        )
        assert torch.autograd.gradgradcheck(call, sample.input, fast_mode=fast)


@each_op
@pytest.mark.parametrize("dtype", sorted(HALF_AND_FLOAT, key=str), ids=str)
def test_in_place_equals_out_of_place(op: Any, dtype: torch.dtype) -> None:
    for sample, call in calls(op, dtype, requires_grad=True):
        y = call(sample.input)
        grad = torch.randn_like(y)
        (wanted,) = torch.autograd.grad(y, sample.input, grad)
        x = sample.input.clone()
        z = op.inplace_variant(x, *sample.args, **sample.kwargs)
        assert z is x
        equal(z, y)
        equal(torch.autograd.grad(z, sample.input, grad)[0], wanted)


@each_op
def test_noncontiguous_samples(op: Any) -> None:
    for sample, call in calls(op, requires_grad=True):
        other = sample.noncontiguous()
        y, z = call(sample.input), call(other.input)
        equal(y, z)
        grad = torch.randn_like(y)
        y.backward(grad)
        z.backward(noncontiguous_like(grad))
        equal(sample.input.grad, other.input.grad)


@each_op
def test_lazily_negated_and_conjugated_inputs(op: Any) -> None:
    for sample, call in calls(op, torch.float64, requires_grad=True):
        view = torch._neg_view(-sample.input.detach()).requires_grad_()
        y, z = call(sample.input), call(view)
        equal(y, z)
        grad = torch.randn_like(y)
        equal(*(torch.autograd.grad(out, leaf, grad)[0] for out, leaf in ((y, sample.input), (z, view))))


@each_op
def test_copy_on_write_inputs_stay_shared(op: Any) -> None:
    """Reading an input must not copy what was cloned lazily, in forward or backward."""
    for sample, call in calls(op):
        lazy = torch._lazy_clone(sample.input).requires_grad_()
        y = call(lazy)
        grad = torch._lazy_clone(torch.ones_like(y))
        equal(y, call(sample.input))
        torch.autograd.grad(y, lazy, grad)
        assert torch._C._is_cow_tensor(lazy)
        assert torch._C._is_cow_tensor(grad)


@each_op
def test_composite_compliance(op: Any) -> None:
    """A tensor subclass and a dispatch mode see the operations and get the same results."""
    for sample, _ in calls(op):
        args = [sample.input, *sample.args]
        composite_compliance.check_with_mode(op.get_op(), args, sample.kwargs, equal)
        composite_compliance.check_all_permutations(op.get_op(), args, sample.kwargs, equal)
    for sample, _ in calls(op, requires_grad=True):
        args = [sample.input, *sample.args]
        for check in (composite_compliance.check_backward_formula, composite_compliance.check_forward_ad_formula):
            check(op.get_op(), args, sample.kwargs, gradcheck_wrapper=op.gradcheck_wrapper, assert_equal_fn=equal)


@each_op
def test_meta_tensors(op: Any) -> None:
    """Shape, dtype and strides of the result, without data."""
    for sample, call in calls(op):
        for x in (sample.input, sample.noncontiguous().input):
            y = call(x)
            z = call(torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta"))
            assert (z.device.type, z.shape, z.dtype, z.stride()) == ("meta", y.shape, y.dtype, y.stride())


@each_op
def test_fake_tensors(op: Any) -> None:
    """torch's cross check: each operation, of the backward too, on fake tensors beside the real ones."""
    for sample, call in calls(op, requires_grad=True):
        for x in (sample.input, sample.noncontiguous().input):
            with torch._subclasses.CrossRefFakeMode():
                call(x).sum().backward()


@each_op
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(op: Any, mode: str) -> None:
    for sample, call in calls(op):
        graph = make_fx(call, tracing_mode=mode)(sample.input)
        with torch.random.fork_rng():
            torch.manual_seed(42)  # the entry's own seed
            y = graph(sample.input)
        equal(y, call(sample.input))


@each_op
@pytest.mark.parametrize("dynamic", [False, True])
def test_ahead_of_time_autograd(op: Any, dynamic: bool) -> None:
    for sample, _ in calls(op, requires_grad=True):
        optests.aot_autograd_check(op.get_op(), (sample.input, *sample.args), sample.kwargs, dynamic)


@each_op
def test_vmap(op: Any) -> None:
    """One fixed seed, so one mask: a vectorised call equals the loop over it."""
    for sample, call in calls(op):
        batch = torch.stack([sample.input, 2 * sample.input])
        equal(torch.func.vmap(call, randomness="same")(batch), torch.stack([call(one) for one in batch]))


# ---------------------------------------------------------------------------------------------------------------------
# modules


SHAPES = {"Dropout": [(2, 3, 2, 3), (5,), (), (0, 3)], "AlphaDropout": [(5,), ()], "Dropout1d": [(3, 4), (2, 3, 4)]}


def module_inputs(info: ModuleInfo, device: str, dtype: torch.dtype, requires_grad: bool) -> list[ModuleInput]:
    inputs = []
    for p, inplace, shape in itertools.product(
        (0.0, 0.3, 1.0), (False, True), SHAPES.get(info.module_cls.__name__, [(2, 3, 2, 3)])
    ):
        x = torch.randn(shape, dtype=dtype, requires_grad=requires_grad)
        inputs.append(ModuleInput(FunctionInput(p, inplace=inplace), FunctionInput(x)))
    return inputs


MODULES = [
    ModuleInfo(
        getattr(dropkit.torch, name), module_inputs_func=module_inputs, train_and_eval_differ=True,
        dtypes=tuple(HALF_AND_FLOAT),
    )
    for name in CLASSES
]  # fmt: skip
each_module = pytest.mark.parametrize("info", MODULES, ids=CLASSES)


def modules(
    info: ModuleInfo, dtype: torch.dtype = torch.float32, requires_grad: bool = False
) -> Iterator[tuple[nn.Module, torch.Tensor]]:
    """Each module of an entry with an input; in place on a copy, so that a leaf may require grad."""
    for one in info.module_inputs_func(info, "cpu", dtype, requires_grad):
        yield info.module_cls(*one.constructor_input.args, **one.constructor_input.kwargs), one.forward_input.args[0]


def run(module: Callable, x: torch.Tensor) -> torch.Tensor:
    with freeze_rng_state():
        return module(x.clone())


@each_module
def test_module_forward_in_every_dtype(info: ModuleInfo) -> None:
    for dtype in info.dtypes:
        for module, x in modules(info, dtype):
            y = run(module, x)
            assert (y.shape, y.dtype) == (x.shape, dtype)


@each_module
def test_module_modes(info: ModuleInfo) -> None:
    for module, x in modules(info):
        before = x.clone()
        module.eval()
        assert module(x) is x
        equal(x, before)
        module.train()
        if module.p == 1 and x.numel():
            assert not torch.equal(run(module, x), x)


@each_module
def test_module_is_pickled_copied_and_printed(info: ModuleInfo) -> None:
    for module, x in modules(info):
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        loaded = torch.load(buffer, weights_only=False)
        for twin in (loaded, copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):
            assert type(twin) is type(module)
            assert repr(twin) == repr(module) == f"{info.module_cls.__name__}(p={module.p}, inplace={module.inplace})"
            assert twin.training
            equal(run(twin, x), run(module, x))


@each_module
def test_module_takes_any_strides(info: ModuleInfo) -> None:
    for module, x in modules(info, requires_grad=True):
        other = noncontiguous_like(x.detach()).requires_grad_()
        with freeze_rng_state():
            y = module(x + 0)
        with freeze_rng_state():
            z = module(other + 0)
        equal(y, z)
        grad = torch.randn_like(y)
        y.backward(grad)
        z.backward(noncontiguous_like(grad))
        equal(x.grad, other.grad)


@each_module
def test_module_gradients(info: ModuleInfo) -> None:
    for module, x in modules(info, torch.float64, requires_grad=True):

        def call(x: torch.Tensor, module: nn.Module = module) -> torch.Tensor:
            with freeze_rng_state():
                return module(x + 0)

        if x.numel():
            fast = x.numel() > 10
            assert torch.autograd.gradcheck(call, x, check_forward_ad=True, check_batched_grad=True, fast_mode=fast)
            assert torch.autograd.gradgradcheck(call, x, check_fwd_over_rev=True, fast_mode=fast)


@each_module
def test_module_memory_format(info: ModuleInfo) -> None:
    for module, x in modules(info):
        if x.dim() == 4:
            y = run(module.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))
            assert y.is_contiguous(memory_format=torch.channels_last)
            equal(y, run(module, x))


@each_module
def test_module_conversions_and_device(info: ModuleInfo) -> None:
    """Nothing in the module moves: no parameter, no buffer, whatever it is converted to."""
    for module, x in modules(info):
        for converted in (module.double(), module.half(), module.to("meta"), module.to_empty(device="cpu")):
            assert converted is module
            assert converted.state_dict() == {}
            assert list(converted.parameters()) == list(converted.buffers()) == []
        y = module(torch.empty_like(x, device="meta"))
        assert (y.device.type, y.shape) == ("meta", x.shape)


@each_module
def test_module_hooks(info: ModuleInfo) -> None:
    for module, x in modules(info, requires_grad=True):
        if module.inplace:  # hooks on the whole backward and in-place writes exclude each other, in torch too
            continue
        seen: list[str] = []
        module.register_forward_pre_hook(lambda m, args, seen=seen: seen.append("before"))
        module.register_forward_hook(lambda m, args, y, seen=seen: seen.append("after"))
        module.register_full_backward_hook(lambda m, g, h, seen=seen: seen.append("backward"))
        module(x).sum().backward()
        assert seen == ["before", "after", "backward"]


# ---------------------------------------------------------------------------------------------------------------------
# the operators

LAWS = {  # by name: a, b and c, and whether there is an other
    "bernoulli": (None, False),
    "alpha": ([1.5, 0.25, -0.75], False),
    "mixout": ([1.5, -0.5, 1.0], True),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0, "each"])
def test_opcheck_of_dropout(law: str, p: Any) -> None:
    given, with_other = LAWS[law]
    rate = torch.tensor([0.1, 0.5, 0.0, 1.0, 0.25]) if p == "each" else torch.tensor(p, dtype=torch.float64)
    key = torch.tensor(Key(4, "opcheck").words)
    inputs = (
        (torch.randn(4, 5, requires_grad=True), ()),
        (torch.randn(4, 5, dtype=torch.bfloat16, requires_grad=True), (1,)),
        (torch.randn(2, 5, 3, 4).permute(0, 2, 3, 1), (1, 2)),
        (torch.randn(4, 10)[:, ::2], ()),
        (torch.randn(0, 5), ()),
    )
    for x, share in inputs:
        place = layout(x.shape, share)
        numbers = None if given is None else torch.stack([torch.full_like(rate, n, dtype=torch.float64) for n in given])
        other = torch.randn_like(x, requires_grad=True) if with_other else None
        more = (None, law, None, numbers, other)
        torch.library.opcheck(torch.ops.dropkit.dropout.default, (x, rate, key, place.strides, place.base, *more))
    numbers = None if given is None else torch.stack([torch.full_like(rate, n, dtype=torch.float64) for n in given])
    other = torch.randn(4, 5) if with_other else None
    by_rows = (torch.randn(4, 5), rate, key, (5, 1), 0, torch.tensor([3, 1, 2, 9]), law, None, numbers, other)
    torch.library.opcheck(torch.ops.dropkit.dropout.default, by_rows)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0, "each"])
def test_opcheck_of_keep(p: Any) -> None:
    rate = torch.tensor([0.1, 0.5, 0.0, 1.0, 0.25]) if p == "each" else torch.tensor(p, dtype=torch.float64)
    key = torch.tensor(Key(4, "opcheck").words)
    for x, share in ((torch.randn(4, 5), ()), (torch.randn(4, 5).T.contiguous().T, (0,)), (torch.randn(0, 5), ())):
        place = layout(x.shape, share)
        torch.library.opcheck(torch.ops.dropkit.keep.default, (x, rate, key, place.strides, place.base, None))


def test_opcheck_of_fresh_key() -> None:
    """All that opcheck has for an operator without inputs whose results differ: its schema and its shape function."""
    torch.library.opcheck(
        torch.ops.dropkit.fresh_key.default,
        (),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
