"""Which calls of modules are running, read off the stack: what counts as a forward of a bound model."""

import sys
from collections.abc import Collection, Iterator
from types import FrameType

import torch

_CALL = torch.nn.Module._call_impl.__code__
_NO_FORWARD = torch.nn.Module.forward


def running() -> Iterator[torch.nn.Module]:
    """The modules whose calls this thread is inside of, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            yield frame.f_locals["self"]
        frame = frame.f_back


def runs_inside(modules: Collection[torch.nn.Module]) -> bool:
    """Whether the module call whose hook asks is made inside a call of one of these modules."""
    return any(module in modules for module in list(running())[1:])


def outermost(parts: set[int]) -> torch.nn.Module | None:
    """The outermost running call of a module of those with these identities."""
    found = None
    for module in running():
        if id(module) in parts:
            found = module
    return found


def entries(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules whose calls are seen by hooks from the start: the model, and what is surely called without it.

    These are the parts of a model that is no function itself, such as a Lightning module, whose steps call its parts;
    and what is compiled by itself, since a compiler cannot look at the stack.
    """
    found = [model]
    if hasattr(model, "training_step") or type(model).forward is _NO_FORWARD:
        found += _called(model)
    for part in model.modules():
        compiled = getattr(part, "_orig_mod", None)
        if compiled is not None or part._compiled_call_impl is not None:
            found.append(part if compiled is None else compiled)
    return list(dict.fromkeys(found))


def _called(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The children that can be called, looking through containers that cannot."""
    found = []
    for child in model.children():
        found += _called(child) if type(child).forward is _NO_FORWARD else [child]
    return found
