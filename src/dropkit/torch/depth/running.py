"""Layers run, or do not, by decisions of the host: in eager code, and as compiled parts between graphs.

A compiler would compile a graph for each choice of layers. So the choosing stands outside its graphs, and each layer is
a graph of its own, compiled once whichever others run and whatever the rates are.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ...errors import DropkitRuntimeError
from ..bound.clock import BoundSite
from ..named import Named

_frames: Any = torch._C._dynamo.eval_frame  # the switch itself: what stands above it would load the compiler
_regions: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def outside_graphs(run: Callable[..., Any]) -> Callable[..., Any]:
    """A method that no compiler looks into; `call` compiles what it runs. It is handed the compiler before itself."""

    @wraps(run)
    def traced(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_exporting():
            raise DropkitRuntimeError(
                "which layers run is decided on the host at each forward, and an exported graph has one answer for "
                "ever: export the model in evaluation, model.eval()"
            )
        if torch.compiler.is_compiling():
            _left_out()
        return _outside(run, *args, **kwargs)

    return traced


def _outside(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    compiler = _frames.set_eval_frame(None)
    try:
        return run(compiler, *args, **kwargs)
    finally:
        _frames.set_eval_frame(compiler)


_outside._torchdynamo_disable = True  # type: ignore[attr-defined]


def _left_out() -> bool:
    """Have the compiler, which is loaded by now, leave out the frame too that runs between its graphs."""
    torch._dynamo.decorators.skip(_outside)
    return True


_left_out._dynamo_marked_constant = True  # type: ignore[attr-defined]  # done while tracing, and no part of the graph


def call(compiler: Any, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A layer's forward, compiled if the model around it is."""
    if not callable(compiler):
        return layer(*args, **kwargs)
    args = (wanting_gradient(args[0], layer), *args[1:]) if args else args
    sites = [part.site for part in layer.modules() if isinstance(part, Named) and isinstance(part.site, BoundSite)]
    with _calls_apart(sites):
        # Names of sites are constants of a graph, so layers of one class are several graphs then, each in a region of
        # its own, or a compiler would give up after eight.
        before = _enter_region(layer) if sites else None
        _frames.set_eval_frame(compiler)
        try:
            return layer(*args, **kwargs)
        finally:
            _frames.set_eval_frame(None)
            if before is not None:
                _frames.set_eval_frame_isolate_recompiles_id(before)


def wanting_gradient(x: Any, layer: nn.Module) -> Any:
    """The input of a layer before which none ran that has a gradient: to a compiler, that would be another program."""
    if not isinstance(x, torch.Tensor) or x.requires_grad or not x.is_floating_point() or not torch.is_grad_enabled():
        return x
    trains = any(parameter.requires_grad for parameter in layer.parameters())
    return x.detach().requires_grad_().clone() if trains else x


def _enter_region(layer: nn.Module) -> int | None:
    """Keep what is compiled for this layer apart; gives the region around, or None where torch has none yet."""
    if not hasattr(_frames, "set_eval_frame_isolate_recompiles_id"):
        return None
    region = _regions.get(layer)
    if region is None:
        region = _regions[layer] = next(torch._dynamo.eval_frame._next_isolate_recompiles_id)
    before: int = _frames.set_eval_frame_isolate_recompiles_id(region)
    return before


@contextmanager
def _calls_apart(sites: list[BoundSite]) -> Iterator[None]:
    """Count the calls of these sites by themselves: a compiled layer holds to what its clock has counted before it."""
    if not sites:
        yield
        return
    clock, names = sites[0].clock, {site.name for site in sites}
    everything = clock.calls
    clock.calls = {name: n for name, n in everything.items() if name.partition("#")[0] in names}
    try:
        yield
    finally:
        everything.update(clock.calls)
        clock.calls = everything
