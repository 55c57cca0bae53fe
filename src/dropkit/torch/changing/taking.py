"""The edit by which a module's calls are taken over, and which modules there are to take."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ..eager import Eager
from ..finding.inventory import Site
from ..finding.rates import NUMBER, rates
from ..layers import Drawn
from ..reading.calls import DROPOUTS
from ..reading.structure import CALLS, layer_rate, taken
from ..taken import ATTENTION, Forward, Sites

_FUNCTIONS = {*DROPOUTS, ATTENTION}
_EXACT = {getattr(nn, name) for name in nn.modules.dropout.__all__}  # which `swap` replaces by ours


@dataclass(slots=True)
class TakingOver:
    """A module's calls drawn by sites of its own."""

    path: str
    module: nn.Module
    recurrent: bool
    random: bool
    eager: Eager | None = None  # Hugging Face's function of its attention
    forward: Any = field(default=None, init=False)

    @property
    def line(self) -> str:
        """Whose calls, and which."""
        what = "dropout between layers" if self.recurrent else "the calls that drop"
        if self.random:
            what = "the random numbers by which it drops"
        return f"{self.path or 'the model itself'} ({type(self.module).__name__}): {what}, drawn by dropkit"

    def do(self) -> None:
        """Add the sites, and stand in the forward's place."""
        self.forward = Forward(self.module)
        sites = Sites(self.recurrent, self.random)
        sites.eager = self.eager
        sites.train(self.module.training)
        self.module.add_module(CALLS, sites)
        self.module.__dict__["forward"] = self.forward

    def stands(self) -> bool:
        """Whether it is there still."""
        return self.module.__dict__.get("forward") is self.forward

    def undo(self) -> None:
        """Remove both."""
        del self.module._modules[CALLS]
        if self.forward.before is None:
            del self.module.__dict__["forward"]
        else:
            self.module.__dict__["forward"] = self.forward.before


def takings(model: nn.Module, seen: Sequence[Site]) -> list[TakingOver]:
    """The edits for what a run of the model showed."""
    wanted: dict[str, tuple[nn.Module, bool]] = {}
    for site in seen:
        path, _, name = site.name.partition(":")
        module = _module(model, path)
        if module is None or taken(module) or isinstance(module, Drawn):
            continue
        random = site.kind.startswith("random.") or (site.name == path and _draws_itself(module))
        called = name.partition("#")[0] in _FUNCTIONS and not site.kind.startswith("dropkit.")
        if random or called or (site.name == path and _takes(module)):
            wanted[path] = module, random or wanted.get(path, (module, False))[1]
    for rate in rates(model):
        for path in rate.read_by if rate.kind == NUMBER and rate.decides and rate.p > 0 else ():
            wanted[path] = model.get_submodule(path), True
    return [
        TakingOver(path, module, isinstance(module, nn.RNNBase), random) for path, (module, random) in wanted.items()
    ]


def _takes(module: nn.Module) -> bool:
    """Whether a layer that drops does so by calls that can be taken over."""
    if isinstance(module, nn.RNNBase):
        return module.num_layers > 1
    subclass = isinstance(module, _DropoutNd) and type(module) not in _EXACT
    return subclass or isinstance(module, nn.MultiheadAttention)


def _draws_itself(module: nn.Module) -> bool:
    """Whether it is a layer of somebody else's whose work is dropping: DropPath, StochasticDepth, locked dropout."""
    return not type(module).__module__.startswith("torch.") and layer_rate(module) is not None


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
