"""What ties a bound model to its clock, and survives a deep copy and pickling without a cycle of references.

    model -> bond -> clock <- site <- dropout      and, weakly, clock -> model and dropouts, bond -> model

So `del model` frees everything at once. The bond hangs on the model alone: whoever copies or pickles a part of a bound
model gets the part and its clock, not the model around it; whoever copies the model gets a clock of its own.
"""

import weakref
from collections.abc import Iterator
from typing import Any

import torch

BOND = "_dropkit_bond"  # the attribute of a bound model
SEED, STEP, MARK = "dropkit_seed", "dropkit_step", "dropkit_mark"  # its buffers; the first two are in the state_dict


class Bond:
    """The clock of a bound model, and the handles of the hooks that `unbind` has to remove."""

    def __init__(self, model: torch.nn.Module, clock: Any):
        self.clock = clock
        self.handles: list[Any] = []
        self._model = weakref.ref(model)
        model.__dict__[BOND] = self  # past Module.__setattr__: it is neither a parameter, nor a buffer, nor a part

    def __getstate__(self) -> dict[str, Any]:
        model = self._model()
        assert model is not None  # it holds this bond
        parts = {id(part) for part in model.modules()}
        return {
            "clock": self.clock,
            "handles": self.handles,
            "model": model,
            "buffers": model._buffers,
            "drops": [drop for drop in self.clock.drops if id(drop) in parts],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The copied model exists by now, but is not filled in yet: nothing of it may be asked for here.
        self.clock, self.handles, self._model = state["clock"], state["handles"], weakref.ref(state["model"])
        self.clock.belong_to_copy(state["model"], state["buffers"], state["drops"])
        state["model"].__dict__["buffers"] = self.buffers

    def buffers(self, recurse: bool = True) -> Iterator[torch.Tensor]:
        """`buffers()` of a copy of a bound model, for those who average them with the model's own.

        The clock's are copied, so that nobody writes into them; `named_buffers()` has the clock's themselves.
        """
        model = self._model()
        assert model is not None
        own = {id(model._buffers.get(name)) for name in (SEED, STEP, MARK)} if recurse else set()
        for buffer in type(model).buffers(model, recurse):
            yield buffer.clone() if id(buffer) in own else buffer

    def undo(self) -> None:
        """Take the hooks and the bond off the model."""
        for handle in self.handles:
            handle.remove()
        if (model := self._model()) is not None:
            del model.__dict__[BOND]
            model.__dict__.pop("buffers", None)


def bond_of(model: torch.nn.Module) -> Bond | None:
    """The bond of a model that is bound itself; None for others, also for what wraps a bound model."""
    return model.__dict__.get(BOND)


def clock_of(model: torch.nn.Module) -> Any:
    """The clock of a model that is bound itself."""
    return model.__dict__[BOND].clock
