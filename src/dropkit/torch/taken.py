"""Calls of functions that drop, taken over: what a module's forward hands to torch is drawn by a site of the module.

    module.forward  ->  the same, inside a mode that sees what it calls
    module.dropkit_calls.dropout, .attention, .layers   the sites, which `bind` names "path:dropout", "path:attention"

A site that is called several times in a forward counts as several, as a dropout module does.
"""

import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from ..place import place_of, symbolic_place
from .arithmetic import continuous, registered
from .arithmetic.formula import PLAIN
from .attention.call import attended
from .attention.request import Masked, Request, checked_mask, checked_shapes
from .draw import Unfolded
from .drawing import recomputation
from .functional import drawn_by
from .named import Named
from .reading import calls
from .reading.structure import CALLS

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
ATTENTION = functional.scaled_dot_product_attention.__name__
MULTI_HEAD = functional.multi_head_attention_forward.__name__
SITES = {ATTENTION: "attention", **dict.fromkeys(RECURRENT, "layers")}  # others: "dropout"


class Called(Named):
    """The site of a function that a module calls; the rate is what the module hands over."""

    when = "train"  # "never" inside `disabled`

    def extra_repr(self) -> str:
        """Nothing: the rate is the caller's."""
        return ""


class Sites(nn.ModuleDict):
    """The sites of one module: of its dropouts, and of its attention or of what stands between recurrent layers.

    random: it drops by numbers that it draws itself, and these are drawn by a site too.
    eager: what is known of Hugging Face's function of its attention.
    """

    def __init__(self, recurrent: bool = False, random: bool = False) -> None:
        names = ["layers"] if recurrent else ["dropout", "attention"]
        super().__init__({name: Called() for name in [*names, *(["random"] if random else [])]})
        self.recurrent, self.draws = recurrent, random
        self.eager: Any = None
        self.asked: list[Any] = []  # (rewrites, path, module): what changes calls inside compiled code, while it does


_BETWEEN = {func: known for func, known in calls.torchs().items() if known.name in RECURRENT}
_OTHERS = {func: known for func, known in calls.torchs().items() if func not in _BETWEEN}


class Forward:
    """A module's forward inside the mode; it stands in the module's own `forward`.

    It refers to the module weakly, so that the two are in no cycle, and goes along with a copy.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)
        self.before: Any = module.__dict__.get("forward")  # another's, on this instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self._module()
        assert module is not None  # which is calling
        sites: Any = module._modules[CALLS]
        around = None if torch.compiler.is_compiling() else _innermost()
        if around is None:
            with Taking(sites):
                return self._run(module, *args, **kwargs)
        around.enter(sites)
        try:
            return self._run(module, *args, **kwargs)
        finally:
            around.leave()

    def _run(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.before is not None:
            return self.before(*args, **kwargs)
        return type(module).forward(module, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Forward":
        module = self._module()
        copied = memo.get(id(module))
        if copied is None:  # a forward by itself
            return self
        new = Forward.__new__(Forward)
        new._module, new.before = weakref.ref(copied), self.before
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self._module(), "before": self.before}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._module, self.before = weakref.ref(state["module"]), state["before"]


class Taking(TorchFunctionMode):
    """While it is on, functions that drop are drawn by the sites; what other modes make of a call is heard first.

    Modules in one another share one mode: every function of torch would pass through each of several. A checkpoint
    inside a module's forward runs a part of it again when the mode is gone: it is told to do so inside another one.
    """

    def __init__(self, *chain: Sites) -> None:
        super().__init__()
        self.chain = list(chain)  # of the modules that are running, the innermost last
        self._entered: list[list[Any]] = [_repeating() for _ in chain]  # the checkpoints around each when it began

    def enter(self, sites: Sites) -> None:
        """A module in the last one begins."""
        self.chain.append(sites)
        self._entered.append(_repeating())

    def leave(self) -> None:
        """The last one has ended."""
        self.chain.pop()
        self._entered.pop()

    def _tell(self) -> None:
        """The checkpoints around this call, of what to do when they run it again."""
        for holder in _repeating():
            outside = [not any(other is holder for other in entered) for entered in self._entered]
            chain = [sites for sites, before in zip(self.chain, outside, strict=True) if before]
            if chain:
                recomputation.again_inside(holder, partial(Taking, *chain))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _WATCHED:  # nearly all
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        self._tell()
        for sites in reversed(self.chain):
            known = (_BETWEEN if sites.recurrent else _OTHERS).get(func)
            if known is not None:
                return self._known(sites, func, known, args, kwargs)
            if sites.draws and func in _NUMBERS:
                return _NUMBERS[func](sites["random"], *args, **kwargs)
        return func(*args, **kwargs)

    def _known(self, sites: Sites, func: Any, known: calls.Dropping, args: Any, kwargs: Any) -> Any:
        if known.name in RECURRENT:
            known = calls.find(func, args, kwargs) or known  # packed sequences have other arguments
        if torch.compiler.is_compiling():
            for rewrites, path, module in sites.asked:
                args, kwargs = rewrites.rewritten(path, module, known, args, kwargs)
            return _answered(sites, func, known, args, kwargs)
        watchers = [mode for mode in _get_current_function_mode_stack() if isinstance(mode, calls.Watcher)]
        return self._watched(watchers, sites, func, known, args, kwargs)

    def _watched(
        self, watchers: list[Any], sites: Sites, func: Any, known: calls.Dropping, args: Any, kwargs: Any
    ) -> Any:
        """The call, of which the innermost of these hears first."""
        if not watchers:
            return _answered(sites, func, known, args, kwargs)
        *others, watcher = watchers

        def run(args: Any, kwargs: Any) -> Any:
            watcher.resting = True  # it has heard of this call
            try:
                return self._watched(others, sites, func, known, args, kwargs)
            finally:
                watcher.resting = False

        return watcher.around(known, args, kwargs, run)


def _repeating() -> list[Any]:
    return [] if recomputation.never_repeated() else recomputation.holders()


def _innermost() -> Taking | None:
    """The mode of ours that hears first, if one does."""
    depth = torch._C._len_torch_function_stack()
    top = torch._C._get_function_stack_at(depth - 1) if depth else None
    return top if type(top) is Taking else None


def _answered(sites: Sites, func: Any, known: calls.Dropping, args: Any, kwargs: Any) -> Any:
    of_weights = _inside.weights is sites and known.name == "dropout"
    site: Any = sites["attention" if of_weights else SITES.get(known.name, "dropout")]
    p, training = known.read(args, kwargs)
    if site.when == "never":
        args, kwargs = known.write(args, kwargs, 0.0, False)
    elif training and (type(p) is not float or p > 0):
        given = known.bind(args, kwargs)
        if known.name == MULTI_HEAD:
            return _multi_head_by(sites, *args, **kwargs)
        if known.name in RECURRENT:
            return _recurrent(func, site, given, "batch_sizes" in known.parameters)
        if torch.compiler.is_compiling() or not all(type(x) in PLAIN for x in given.values() if torch.is_tensor(x)):
            return _drawn(known, site, given, p)
        with torch._C.DisableTorchFunction():  # whoever listens has heard of the call, of which the rest is parts
            return _drawn(known, site, given, p)
    return func(*args, **kwargs)


def _drawn(known: calls.Dropping, site: Called, given: dict[str, Any], p: Any) -> Any:
    if known.name == ATTENTION:
        return attend(site, **{name: value for name, value in given.items() if name != "dropout_p"}, p=p)
    inplace = bool(given.get("inplace", False)) or known.kind.endswith("_")
    x = given["input"]
    y = drawn_by(known.name.removeprefix("native_"), x, p, True, inplace, site.fresh)
    return (y, (y != 0) | (x == 0)) if known.name == "native_dropout" else y


class _Inside(threading.local):
    """Whose sites draw what `multi_head_attention_forward` calls, and whose dropout is that of attention weights."""

    def __init__(self) -> None:  # for each thread: an attribute of the class would be another thing to a compiler
        self.sites: Sites | None = None
        self.weights: Sites | None = None


_inside = _Inside()


@contextmanager
def weights_of(sites: Sites) -> Iterator[None]:
    """Inside, `F.dropout` drops attention weights, by the site of attention."""
    outside = _inside.weights
    _inside.weights = sites
    try:
        yield
    finally:
        _inside.weights = outside


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    site: Any = _inside.sites["dropout"]  # type: ignore[index]
    return drawn_by("dropout", input, p, training, inplace, site.fresh)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> torch.Tensor:
    site: Any = _inside.sites["attention"]  # type: ignore[index]
    return attend(site, query, key, value, attn_mask, is_causal, p=dropout_p)


def _projections(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None = None
) -> Any:
    """torch's, or for a compiler the same without `Tensor.unflatten`, which it cannot trace inside two modes."""
    if not torch.compiler.is_compiling():
        return functional._in_projection_packed(q, k, v, w, b)  # type: ignore[attr-defined]
    if k is v and q is k:
        return [part.contiguous() for part in functional.linear(q, w, b).chunk(3, -1)]
    biases: Any = [None] * 3 if b is None else b.chunk(3)
    return list(map(functional.linear, (q, k, v), w.chunk(3), biases))


# torch's own text, which calls these three; its first question, for overrides, has been answered
_multi_head: Any = FunctionType(
    functional.multi_head_attention_forward.__code__,
    {
        **vars(functional),
        "has_torch_function": lambda tensors: False,
        "_in_projection_packed": _projections,
        "dropout": _dropout,
        ATTENTION: _attention,
    },
    MULTI_HEAD,
    functional.multi_head_attention_forward.__defaults__,
)


def _multi_head_by(sites: Sites, *args: Any, **kwargs: Any) -> Any:
    outside = _inside.sites
    _inside.sites = sites
    try:
        return _multi_head(*args, **kwargs)
    finally:
        _inside.sites = outside


# ---------------------------------------------------------------------------------------------------------------------
# what drops by numbers that it draws itself: DropPath, LayerDrop, locked dropout


def _uniform(site: Any, like: torch.Tensor) -> torch.Tensor:
    """Uniform numbers of this shape, by the site."""
    draw = site.fresh(None)
    shape = tuple(like.shape)
    place = place_of(shape, (), draw.part) if shape and not draw.part.whole else symbolic_place(shape, ())
    key = registered.fold_key(draw.key) if isinstance(draw.key, Unfolded) else draw.key
    return continuous.uniform(key, place, like.device)


def _rand(site: Any, *size: Any, generator: Any = None, **kwargs: Any) -> torch.Tensor:
    y = torch.empty(*size, **kwargs)
    return _uniform(site, y).to(y.dtype).requires_grad_(y.requires_grad)


def _rand_like(site: Any, input: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    y = torch.empty_like(input, **kwargs)
    return _uniform(site, y).to(y.dtype).requires_grad_(y.requires_grad)


def _bernoulli(site: Any, input: torch.Tensor, p: Any = None, *, generator: Any = None) -> torch.Tensor:
    return (_uniform(site, input) < (input if p is None else p)).to(input.dtype)


def _bernoulli_in_place(site: Any, input: torch.Tensor, p: Any = 0.5, *, generator: Any = None) -> torch.Tensor:
    return input.copy_(_uniform(site, input) < p)


def _uniform_in_place(
    site: Any, input: torch.Tensor, a: float = 0.0, b: float = 1.0, *, generator: Any = None
) -> torch.Tensor:
    return input.copy_(a + (b - a) * _uniform(site, input))


_NUMBERS: dict[Any, Any] = {
    torch.rand: _rand,
    torch.rand_like: _rand_like,
    torch.bernoulli: _bernoulli,
    torch.Tensor.bernoulli: _bernoulli,
    torch.Tensor.bernoulli_: _bernoulli_in_place,
    torch.Tensor.uniform_: _uniform_in_place,
}

_WATCHED = frozenset({**_BETWEEN, **_OTHERS, **_NUMBERS})


def attend(
    site: Called,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    p: float,
) -> torch.Tensor:
    """`scaled_dot_product_attention` by a site; more or fewer axes than four become four, and come back."""
    q, k, v = (x.reshape(-1, *x.shape[-3:]) if x.dim() != 4 else x for x in map(_four, (query, key, value)))
    shape = checked_shapes(q, k, v, enable_gqa)
    mask = None
    if attn_mask is not None:
        whole = (*query.shape[:-1], key.shape[-2])
        four = attn_mask.expand(whole).reshape(shape) if query.dim() != 4 else attn_mask
        mask = checked_mask(four, shape, query.device)
    scale = 1 / max(query.shape[-1], 1) ** 0.5 if scale is None else scale
    request = Request(Masked(mask, 0 if is_causal else None), scale, False)
    out, _ = attended(q, k, v, shape, request, p, True, site.fresh)
    return out.reshape(*query.shape[:-1], value.shape[-1])


def _four(x: torch.Tensor) -> torch.Tensor:
    """With at least four axes."""
    return x.reshape(*[1] * (4 - x.dim()), *x.shape) if x.dim() < 4 else x


def _recurrent(func: Any, site: Called, given: Mapping[str, Any], packed: bool) -> Any:
    """A recurrent network a layer at a time, with the site's dropout between; outputs and states as torch's."""
    x, hx, layers = given["input"], given["hx"], given["num_layers"]
    states = hx if isinstance(hx, tuple | list) else (hx,)
    ways = 2 if given["bidirectional"] else 1
    weights = list(given["params"])
    each = len(weights) // layers
    ends: list[list[torch.Tensor]] = []
    for layer in range(layers):
        if layer:
            x = drawn_by("dropout", x, given["dropout"], True, False, site.fresh)
        own = [state[layer * ways : (layer + 1) * ways] for state in states]
        start = tuple(own) if isinstance(hx, tuple | list) else own[0]
        rest = (weights[layer * each : (layer + 1) * each], given["has_biases"], 1, 0.0, True, given["bidirectional"])
        if packed:
            x, *end = func(x, given["batch_sizes"], start, *rest)
        else:
            x, *end = func(x, start, *rest, given["batch_first"])
        ends.append(end)
    return (x, *(torch.cat(states) for states in zip(*ends, strict=True)))
