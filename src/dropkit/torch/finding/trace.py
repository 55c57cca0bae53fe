"""Run a model to see which calls drop, and leave it as it was."""

import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from ...errors import DropkitRuntimeError, DropkitValueError
from ..layers import Drawn
from ..reading.calls import Shape, find
from ..reading.structure import Number, config_numbers, held, holds_survival, layer_rate, numbers
from .axes import layer_noise, layer_share
from .intercept import Call, Intercept
from .rates import NUMBER, rates


class Tagged(float):
    """A number that still knows the attribute it was read from when it arrives at a function."""

    __slots__ = ("number",)
    number: Number


@dataclass
class Trace:
    """What one forward showed."""

    calls: list[Call] = field(default_factory=list)
    visits: Counter[str] = field(default_factory=Counter)


@dataclass
class Traces:
    """What the forwards of a model showed."""

    train: Trace
    eval: Trace
    fast: set[str]  # paths of the encoder layers that take torch's fast path, in eval under no_grad


def traces_of(model: nn.Module, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Traces:
    """A forward in training mode, one in evaluation mode, and one without gradient where torch has a fast path.

    Raises:
        DropkitRuntimeError: a forward fails; the cause is kept.
        DropkitValueError: parameters of the model are not there yet.
    """
    lazy = [name for name, p in model.named_parameters() if isinstance(p, nn.parameter.UninitializedParameter)]
    if lazy:
        raise DropkitValueError(f"parameters {', '.join(lazy)} are not there before the first forward: run one first")
    with undisturbed(model, inputs, kwargs):
        traces: list[Trace] = []
        for training in (True, False):
            with failures_named("training" if training else "evaluation"), tagged(model):
                traces.append(_watch(model, training, inputs, kwargs))
        fast = FastPaths(model)
        if fast.layers:
            with failures_named("evaluation"), torch.no_grad(), fast:
                model.eval()
                model(*copied(inputs), **copied(dict(kwargs)))
    return Traces(traces[0], traces[1], fast.paths)


def _watch(model: nn.Module, training: bool, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> Trace:
    model.train(training)
    torch.default_generator.manual_seed(0)  # what a model skips at random, it skips alike at every look
    trace = Trace()

    paths = {id(module): path for path, module in model.named_modules()}
    watch = Intercept(model, trace.calls.append, lambda call, drawn: trace.calls.append(call))

    def drawn(module: nn.Module, args: Any) -> None:
        if not isinstance(module, Drawn):
            return
        known: dict[str, Any] = {"p": module.p, "training": module.active, "mask_shape": _mask_shape(module, args)}
        known |= {"noise": layer_noise(module), "share": layer_share(module)}
        if id(module) in paths:
            path = paths[id(module)]
            trace.calls.append(Call(type(module).__name__, path, module, path, None, **known))
        elif (call := watch.call(type(module).__name__, f"dropkit.{type(module).__name__}", **known)) is not None:
            trace.calls.append(replace(call, made_inside=True))

    with ExitStack() as stack:
        # The forward of our layers is no function that torch lets be overridden. What torch says of global hooks and
        # compiled modules, that they fire once more for the wrapper, does not touch them.
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", r"Using `torch.compile\(module\)` when there are global hooks")
        stack.callback(nn.modules.module.register_module_forward_pre_hook(drawn).remove)
        stack.enter_context(watch)
        model(*copied(inputs), **copied(dict(kwargs)))
        trace.visits = watch.visits
    return trace


def _mask_shape(module: Drawn, args: tuple[Any, ...]) -> Shape | None:
    if args and isinstance(args[0], torch.Tensor) and (own := module.mask_shape(args[0])) is not None:
        return own
    function = find(getattr(F, _FUNCTION_OF.get(type(module).__name__, "dropout")))
    assert function is not None
    return function.shape_of_mask(args[:1], {"share": layer_share(module)})


_FUNCTION_OF = {
    "Dropout1d": "dropout1d",
    "Dropout2d": "dropout2d",
    "Dropout3d": "dropout3d",
    "FeatureAlphaDropout": "feature_alpha_dropout",
}


def copied(inputs: Any) -> Any:
    """Inputs whose tensors a forward may write into."""
    return tree_map_only(torch.Tensor, lambda x: x.detach().clone().requires_grad_(x.requires_grad), inputs)


@contextmanager
def failures_named(mode: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DropkitRuntimeError(
            f"the model cannot be run in {mode} mode with these inputs ({type(error).__name__}: {error}); "
            "pass what its forward takes"
        ) from error


@contextmanager
def tagged(model: nn.Module) -> Iterator[None]:
    """Numbers that a forward may hand to a function tell, inside the block, which attribute they come from."""
    candidates = [n for n in numbers(model) if layer_rate(n.module) is None]
    candidates += [
        Number(rate.owner, rate.module, rate.attribute, held(rate.module, rate.attribute))
        for rate in rates(model)
        if rate.kind == NUMBER and not holds_survival(rate.attribute)
    ]
    candidates += config_numbers(model)
    done: dict[tuple[int, str], Number] = {}
    try:
        for number in candidates:
            if (id(number.module), number.attribute) not in done:
                done[id(number.module), number.attribute] = number
                tag = Tagged(number.value)
                tag.number = number
                number.write(tag)
        yield
    finally:
        for number in done.values():
            number.write(number.value)


class FastPaths(TorchDispatchMode):
    """Notes the encoder layers that go through torch's fused kernel, which knows no dropout.

    That kernel is not used while functions are watched or modules have hooks, so it takes a run of its own.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.layers = {
            id(module.self_attn.in_proj_weight): path
            for path, module in model.named_modules()
            if isinstance(module, nn.TransformerEncoderLayer)
        }
        self.paths: set[str] = set()  # of those seen so far

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._transformer_encoder_layer_fwd.default:
            path = self.layers.get(id(args[3]))
            self.paths |= set() if path is None else {path}
        return func(*args, **(kwargs or {}))


@contextmanager
def undisturbed(model: nn.Module, *inputs: Any) -> Iterator[None]:
    """After the block the model is as before: modes, attributes, buffers bit for bit, gradients, generators.

    Compiled parts run as written inside. Not undone: what a forward does to parameters in place, or to objects that
    attributes hold.
    """
    with ExitStack() as stack:
        _keep_generators(stack, model, inputs)
        for parameter in model.parameters():
            stack.callback(_restore_parameter, parameter, parameter.grad, parameter.requires_grad)
            parameter.grad = None
        for module in model.modules():
            stack.callback(_restore_values, _values(module))
            if not isinstance(module, torch.jit.ScriptModule):  # whose entries are no Python objects
                stack.callback(_restore_entries, module._buffers, dict(module._buffers))
                stack.callback(_restore_entries, module.__dict__, dict(module.__dict__))
        if "torch._dynamo" in sys.modules:  # or nothing can be compiled yet
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _keep_generators(stack: ExitStack, model: nn.Module, inputs: Any) -> None:
    stack.callback(random.setstate, random.getstate())
    stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
    stack.callback(torch.set_rng_state, torch.get_rng_state())
    tensors = [*model.parameters(), *model.buffers(), *(x for x in tree_leaves(inputs) if isinstance(x, torch.Tensor))]
    for device in {x.device for x in tensors}:
        if device.type not in ("cpu", "meta"):
            generators = torch.get_device_module(device)
            place = () if device.type == "mps" else (device,)
            stack.callback(generators.set_rng_state, generators.get_rng_state(*place), *place)


def _restore_parameter(parameter: nn.Parameter, grad: Any, requires_grad: bool) -> None:
    parameter.grad = grad
    if parameter.requires_grad is not requires_grad:
        parameter.requires_grad_(requires_grad)


def _restore_entries(now: dict[str, Any], before: dict[str, Any]) -> None:
    """The same objects under the same names again."""
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if now.get(name, now) is not value:
            now[name] = value


def _values(module: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor, int | None]]:
    return [(x, x.detach().clone(), _version(x)) for x in module.buffers(recurse=False)]


def _version(x: torch.Tensor) -> int | None:
    return None if x.is_inference() else x._version


def _restore_values(values: list[tuple[torch.Tensor, torch.Tensor, int | None]]) -> None:
    for buffer, value, version in values:
        if buffer.shape != value.shape:
            buffer.data = value
        elif not buffer.is_meta and (_version(buffer) != version or not torch.equal(buffer, value)):
            # Only where it changed: a write would spoil a graph that waits for its backward. BatchNorm's own writes do
            # not count for such a graph, so what takes them back must not either: `data` has no version.
            uncounted = version is not None and _version(buffer) == version
            with torch.no_grad(), torch.inference_mode(buffer.is_inference()):
                (buffer.data if uncounted else buffer).copy_(value)
