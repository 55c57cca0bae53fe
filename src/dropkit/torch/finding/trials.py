"""Sites tried on the calls that a model really makes: ones in, ones as upstream gradient, and the same recomputed.

The model goes on with what its own numbers would have become under the same mask.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.checkpoint import checkpoint

from ...language import say, template
from ..drawing import coordinates, ranks
from ..drawing.recomputation import in_backward
from ..layers import Drawn
from ..reading.calls import Dropping, find
from ..reading.structure import taken
from .intercept import Intercept, frames
from .inventory import Site
from .outcomes import jagged, local, outcome

_CHANCE = 1e-3  # that two independent masks agree; above that nothing is concluded
_CLOSE = 1e-5  # relative error of sums in float32; those of two masks differ by far more
_HIDDEN = "its mask stays inside a kernel that shows only the result"
_UNREACHED = "its calls cannot be reached from outside"
_NOT_AGAIN = "it was not recomputed"


@dataclass
class Evidence:
    """What the calls of a site showed of one check."""

    chance: float = 0.0  # log of the probability that all would look well by accident
    calls: int = 0
    failure: str = ""
    condition: str = ""  # under which it looked well, and only under it
    unseen: str = ""  # why a call could not be judged

    def add(self, p: float, draws: int, values: bool = False) -> None:
        """A call looked well; independent masks agree in one draw with probability p^2 + (1 - p)^2, values never."""
        self.calls += 1
        self.chance += draws * math.log(p * p + (1 - p) ** 2) if p < 1 and not values else -math.inf

    @property
    def enough(self) -> bool:
        """Whether more calls would tell no more."""
        return bool(self.failure or self.unseen) or self.chance <= math.log(_CHANCE)

    def verdict(self, site: Site) -> str:
        """The result as it is reported."""
        if self.failure:
            return say("FAILED: {why}", why=self.failure)
        if self.condition:
            return f"conditional: {self.condition}"
        if not site.train:
            return f"not checked: {'p is 0' if site.p == 0 else site.note or 'it never drops in training'}"
        if self.unseen or not self.calls:
            return f"not checked: {self.unseen or _UNREACHED}"
        return "ok" if self.enough else "not checked: its masks are too small to tell; pass a larger batch"


class Drawing(NamedTuple):
    """A mask that this process drew: which part of what it is for, None if nothing says, and its digest."""

    part: Any
    mask: str


@dataclass
class Trial:
    """A site under test."""

    site: Site
    gradient: Evidence = field(default_factory=Evidence)
    recomputation: Evidence = field(default_factory=Evidence)
    drawings: list[Drawing] = field(default_factory=list)
    preserved: Evidence = field(default_factory=Evidence)  # recomputation with the generator's state put back
    unpreserved: bool = False  # the model itself recomputes it without that


class Trying(Intercept):
    """Inside the block, calls of the sites are examined: of layers by their forward, of functions as they are made."""

    def __init__(self, model: nn.Module, trials: Sequence[Trial], how: str):
        super().__init__(model, lambda call: None)
        self.how, self.busy = how, False
        self.layers = {t.site.name: t for t in trials if t.site.place is None and t.site.kind != "number"}
        self.places = {(t.site.name.partition(":")[0], t.site.kind, t.site.place): t for t in trials if t.site.place}
        self._replaced: list[tuple[nn.Module, Any]] = []

    def __enter__(self) -> "Trying":
        super().__enter__()
        for path, trial in self.layers.items():
            module = self.model.get_submodule(path)
            before = None if isinstance(module, torch.jit.ScriptModule) else vars(module).get("forward")
            if not isinstance(module, torch.jit.ScriptModule) and (before is None or taken(module)):
                vars(module)["forward"] = self._forward_of(module, trial)
                self._replaced.append((module, before))
        return self

    def __exit__(self, *exception: Any) -> None:
        while self._replaced:
            module, before = self._replaced.pop()
            if before is None:
                del vars(module)["forward"]
            else:  # which draws the module's calls
                vars(module)["forward"] = before
        super().__exit__(*exception)

    def _forward_of(self, module: nn.Module, trial: Trial) -> Callable[..., Any]:
        forward = module.forward

        def examined(*args: Any, **kwargs: Any) -> Any:
            if self.busy or in_backward() or self._known(trial):
                return forward(*args, **kwargs)
            other = _other(trial.site, args, kwargs)
            x = _only_tensor(module, (args, kwargs), other)
            return self._examine(trial, _Called(forward, args, kwargs, x, module, other))

        return examined

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = None if self.busy or in_backward() else find(func, args, kwargs)
        if known is None or self.innermost() is None:
            return super().__torch_function__(func, types, args, kwargs)
        return self._tried(known, func, args, kwargs)

    def around(self, known: Dropping, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """A call that somebody else has taken over, examined as any other."""
        if self.busy or in_backward() or self.innermost() is None:
            return run(args, kwargs)
        return self._tried(known, lambda *args, **kwargs: run(args, kwargs), args, kwargs)

    def _tried(self, known: Dropping, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        running = self.innermost()
        assert running is not None
        p, training = known.read(args, kwargs)
        call = self.call_of(running, known.name, known.kind, p=p, training=training)
        trial = None if call.place is None else self.places.get((call.path, call.kind, call.place))
        if trial is None or not call.drops or self._known(trial):
            return func(*args, **kwargs)
        given = known.bind(args, kwargs)
        x, other = given.get(known.parameters[0]), given.get("other")
        hidden = "p" not in known.parameters or not _examinable(x) or other is x
        return self._examine(trial, _Called(func, args, kwargs, None if hidden else x, other=other))

    def _known(self, trial: Trial) -> bool:
        """Whether more of its calls would tell no more."""
        found: Evidence = getattr(trial, self.how)
        return found.enough or (self.how == "preserved" and (found.calls > 0 or not trial.recomputation.failure))

    def _examine(self, trial: Trial, called: "_Called") -> Any:
        if torch.is_inference_mode_enabled() or torch._C._are_functorch_transforms_active():
            getattr(trial, self.how).unseen = "it runs in inference mode or inside a function transform"
            return called.on({})
        trial.unpreserved = trial.unpreserved or _unpreserved()
        self.busy, tracked = True, torch.is_grad_enabled()
        try:
            # The innermost hooks decide what becomes of saved tensors: a checkpoint around the site is not to run.
            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
                if called.dropped is None:
                    result = _examine_result(trial, called, self.how)
                else:
                    result = _examine_elements(trial, called, called.dropped, self.how)
        finally:
            self.busy = False
        return result if tracked else tree_map_only(torch.Tensor, lambda x: x.detach(), result)


def _unpreserved() -> bool:
    """Whether a checkpoint of the model around this call leaves the generator as it is when it recomputes."""
    inside = (f for f in frames() if f.f_globals.get("__name__") == checkpoint.__module__)
    return any(f.f_code.co_name == "checkpoint" and f.f_locals.get("preserve") is False for f in inside)


@dataclass
class _Called:
    """A call of a site."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dropped: torch.Tensor | None  # the argument whose elements are dropped; None if the result is something else
    module: nn.Module | None = None
    other: torch.Tensor | None = None  # the second tensor of a law that has one

    def on(self, tensors: Mapping[int, torch.Tensor]) -> Any:
        """The call with other tensors, by the id of the old ones; an object given twice stays one."""
        args, kwargs = tree_map_only(torch.Tensor, lambda x: tensors.get(id(x), x), (self.args, self.kwargs))
        return self.function(*args, **kwargs)


def _other(site: Site, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The second tensor that a layer was called with, if its law takes one."""
    if site.noise is None or not site.noise.needs_other:
        return None
    return kwargs.get("other", args[1] if len(args) > 1 else None)


def _only_tensor(module: nn.Module, given: Any, other: Any) -> torch.Tensor | None:
    """What is dropped: the one floating tensor that is not the other one of the law."""
    floating = [x for x in tree_leaves(given) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    if other is not None and sum(x is other for x in floating) == 1:
        floating = [x for x in floating if x is not other]
    hidden = isinstance(module, nn.MultiheadAttention | nn.RNNBase)
    hidden = hidden or (isinstance(module, Drawn) and not module.shows_mask)
    return None if hidden or len(floating) != 1 or not _examinable(floating[0]) else floating[0]


class _Once:
    """One call with its gradient, recomputed or not."""

    def __init__(self, how: str):
        self.how = how
        self.results: list[Any] = []  # of the forward, and of the recomputation
        self.outputs: list[torch.Tensor] = []

    def run(self, call: Callable[[], Any]) -> Any:
        """The call's result."""
        if self.how == "gradient":
            result, self.outputs = self._kept(call)
            return result
        result, self.outputs = checkpoint(
            self._kept, call, use_reentrant=False, preserve_rng_state=self.how == "preserved"
        )
        return result

    def _kept(self, call: Callable[[], Any]) -> tuple[Any, list[torch.Tensor]]:
        result = call()
        tensors = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor) and x.requires_grad]
        self.results.append([x.detach().clone() for x in tensors])
        # The gradient of tanh needs its value: a checkpoint has to run all again, whatever the call itself saves.
        return result, [*tensors, *(torch.tanh(x) for x in tensors)]

    def gradients(self, inputs: Sequence[torch.Tensor]) -> Sequence[Any]:
        """Of the sum of all results."""
        half = len(self.outputs) // 2
        upstream = [torch.ones_like(x) if i < half else torch.zeros_like(x) for i, x in enumerate(self.outputs)]
        return torch.autograd.grad(self.outputs, inputs, upstream, allow_unused=True)

    @property
    def repeats(self) -> bool:
        """Whether the recomputation gave what the forward gave."""
        first, *others = self.results
        return all(
            torch.allclose(local(x), local(y), 1e-3, 1e-6, equal_nan=True)
            for other in others
            for x, y in zip(first, other, strict=True)
        )


def _examine_elements(trial: Trial, called: _Called, x: torch.Tensor, how: str) -> Any:
    """A call that keeps or drops elements of x."""
    evidence: Evidence = getattr(trial, how)
    ones, once = torch.ones_like(x).requires_grad_(), _Once(how)
    given: list[torch.Tensor] = []

    def call() -> Any:
        given.append(ones.clone())  # no leaf, since it may be written into
        return called.on({id(x): given[-1]})

    y = once.run(call)
    if not isinstance(y, torch.Tensor) or y.shape != x.shape or not y.requires_grad:
        evidence.unseen = "its result is not its input with elements dropped"
        return called.on({})
    try:
        gradient = once.gradients([ones])[0]
    except RuntimeError as error:
        evidence.failure = say("its gradient cannot be computed: {error}", error=str(error).splitlines()[0])
        return called.on({})
    if gradient is None:
        gradient = torch.zeros_like(x)
    seen = outcome(trial.site, y.detach(), gradient, called.other, tuple(x.shape))
    what = say("forward and backward") if how == "gradient" else say("forward and recomputation")
    drawn = say("numbers") if seen.values else say("masks")
    if seen.wrong or not once.repeats:
        evidence.failure = say("{what} draw other {drawn}", what=what, drawn=drawn)
    if seen.wrong:
        counts = {"wrong": seen.wrong, "every": seen.forward.numel()}
        words = template("{other}, which differ in {wrong} of {every} elements")
        evidence.failure = say(words, other=evidence.failure, **counts)
    if how == "gradient":
        evidence.unseen = seen.unseen
    elif len(once.results) < 2:
        evidence.unseen = _NOT_AGAIN
    evidence.add(trial.site.p, _draws(trial.site, seen.forward.numel()), seen.values)
    if how == "gradient":
        trial.drawings.append(Drawing(_part(x, called.module), _digest(seen.forward)))
    constant = y.detach() - gradient  # what a law adds, or puts in place of what it drops
    result = torch.where(gradient == 0, constant, gradient * x + constant).to(y.dtype)
    if given[0]._version == 0:
        return result
    with torch.no_grad():  # it was written into, and so must be what the model gave
        return x.copy_(result)


def _examine_result(trial: Trial, called: _Called, how: str) -> Any:
    """A call that shows only what became of its mask."""
    evidence: Evidence = getattr(trial, how)
    if how == "gradient":
        if trial.site.kind == F.scaled_dot_product_attention.__name__:
            return _examine_attention(trial, called)
        evidence.unseen = _HIDDEN
        return called.on({})
    given = {id(x): x for x in tree_leaves((called.args, called.kwargs)) if isinstance(x, torch.Tensor)}
    roots = {
        number: x if x.requires_grad else x.detach().requires_grad_()
        for number, x in given.items()
        if x.is_floating_point()
    }
    once = _Once(how)
    result = once.run(lambda: called.on(roots))
    if not once.outputs or not roots:
        evidence.unseen = "nothing in it has a gradient"
        return result
    try:
        once.gradients(list(roots.values()))
        if not once.repeats:
            evidence.failure = say("forward and recomputation draw other masks")
        elif len(once.results) < 2:
            evidence.unseen = _NOT_AGAIN
    except RuntimeError as error:
        evidence.failure = say("it cannot be recomputed: {error}", error=str(error).splitlines()[0])
    evidence.add(trial.site.p, _draws(trial.site, 1))
    return result


def _examine_attention(trial: Trial, called: _Called) -> Any:
    """With one mask, attention is linear in its values v: sum(y) = sum(v * dy/dv), for each feature of each head."""
    evidence, args, kwargs = trial.gradient, list(called.args), dict(called.kwargs)
    place: Any = (args, 2) if len(args) > 2 else (kwargs, "value")
    value = place[0][place[1]].detach().clone().requires_grad_()
    place[0][place[1]] = value
    y = called.function(*args, **kwargs)
    if value.is_nested or value.dtype not in (torch.float32, torch.float64) or y.dim() != value.dim():
        evidence.unseen = f"{_HIDDEN}, in {value.dtype}"
        return y
    (gradient,) = torch.autograd.grad(y, value, torch.ones_like(y))
    forward = local(y.detach()).double().sum(-2)
    terms = (local(gradient) * local(value.detach())).double()
    backward, size = terms.sum(-2), terms.abs().sum(-2)
    if forward.shape != backward.shape:  # heads that share their keys and values
        forward, backward, size = (x.sum(-2 if x.dim() > 1 else -1) for x in (forward, backward, size))
    if bool(((forward - backward).abs() > _CLOSE * size).any()):
        evidence.failure = say("forward and backward draw other masks")
    evidence.add(trial.site.p, _draws(trial.site, 1))
    return y


def _draws(site: Site, otherwise: int) -> int:
    shape = site.mask_shape
    return math.prod(shape) if shape is not None and all(type(size) is int for size in shape) else otherwise


def _examinable(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and (not x.is_nested or jagged(x))


def _part(x: Any, module: nn.Module | None) -> Any:
    """Which part of what this process draws for; equal on those who must draw alike. None if nothing says."""
    if hasattr(x, "device_mesh"):
        from ..parts import dtensor

        place = None
        if x.device_mesh.get_coordinate() is not None:
            place = dtensor.first_element(tuple(x.shape), x.device_mesh, x.placements)
        return tuple(x.device_mesh.mesh.flatten().tolist()), place, tuple(x.to_local().shape)
    if not isinstance(module, Drawn) or module.site is None or not ranks.several():
        return None
    here = coordinates.current()
    rows = None if here.rows is None else tuple(here.rows.tolist())
    return module.site.split(here), here.offset, rows, _digest(x)


def _digest(x: torch.Tensor) -> str:
    raw = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(raw.tobytes() + repr(tuple(x.shape)).encode(), digest_size=16).hexdigest()
