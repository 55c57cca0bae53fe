"""Which torch functions drop, and how their probability and mode are read and written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from ...axes.noise import Alpha, Bernoulli, Noise

Shape = tuple[int, ...]
Arguments = Mapping[str, Any]


class Watcher:
    """A mode that hears of every call that drops."""

    resting = False  # while a call is under way that it has heard of

    def asked(
        self, known: "Dropping", args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that the call is to have."""
        raise NotImplementedError

    def around(self, known: "Dropping", args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[..., Any]) -> Any:
        """The result of the call, which `run` gives for the arguments that it is to have."""
        return run(*self.asked(known, args, kwargs))


@dataclass(frozen=True)
class Dropping:
    """A function that drops: where its probability and its training flag stand among its parameters."""

    kind: str
    parameters: tuple[str, ...]
    rate: str  # the parameter that holds the probability
    flag: str | None  # the one that holds the mode; None where there is none, so that every call drops
    default: tuple[float, bool]  # probability and mode where the call does not say
    mask_shape: Callable[[Arguments], Shape]
    noise: Noise = Bernoulli()  # noqa: RUF009  a frozen value; the law where the call names none

    @property
    def name(self) -> str:
        """The function's own name: "dropout" of "F.dropout" and of "torch.dropout_"."""
        return self.kind.rpartition(".")[2].rstrip("_")

    def read(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, bool]:
        """Probability and mode of a call.

        >>> find(F.dropout).read((torch.ones(2),), {"p": 0.1})
        (0.1, True)
        """
        given = self.bind(args, kwargs)
        p, training = given.get(self.rate, self.default[0]), self.default[1]
        if self.flag is not None and given.get(self.flag) is not None:  # native_dropout's None means training
            training = bool(given[self.flag])
        return p, training

    def write(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], p: Any, training: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the same call with another probability and mode.

        >>> x = torch.ones(1)
        >>> find(F.scaled_dot_product_attention).write((x, x, x), {"dropout_p": 0.1}, 0.1, False)[1]
        {'dropout_p': 0.0}
        """
        new, named = list(args), dict(kwargs)
        values = {self.rate: p if training else 0.0} if self.flag is None else {self.rate: p, self.flag: training}
        for name, value in values.items():
            place = self.parameters.index(name)
            if place < len(new):
                new[place] = value
            else:
                named[name] = value
        return tuple(new), named

    def shape_of_mask(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shape | None:
        """The mask's shape, or None where the call is one that torch itself will refuse, or a nested tensor's."""
        try:
            return self.mask_shape(self.bind(args, kwargs))
        except (LookupError, TypeError, AttributeError, RuntimeError):
            return None

    def axes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The law of a call, and who shares a draw in it.

        >>> find(F.alpha_dropout).axes((torch.ones(2),), {})
        {'noise': Alpha(), 'share': ()}
        """
        given = self.bind(args, kwargs)
        return {"noise": given.get("noise", self.noise), "share": given.get("share", ())}

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name."""
        return {**dict(zip(self.parameters, args, strict=False)), **kwargs}


# Shapes of the masks, from the arguments of a call.


def _elementwise(given: Arguments) -> Shape:
    x = given["x"] if "x" in given else given["input"]
    share: Any = given.get("share", ())
    share = getattr(share, "axes", share)  # of a value, the axes that share a draw before it refines
    axes = {axis % x.dim() for axis in share} if x.dim() else set()
    return tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))


def _channels(ranks: tuple[int, ...] = ()) -> Callable[[Arguments], Shape]:
    """One draw for each channel; with ranks, a tensor of the lowest rank is one sample without a batch axis."""

    def shape(given: Arguments) -> Shape:
        size = tuple(given["input"].shape)
        kept = 1 if len(size) in ranks else 2
        return (*size[:kept], *(1 for _ in size[kept:]))

    return shape


def _attention(given: Arguments) -> Shape:
    query, key = given["query"], given["key"]
    return (*query.shape[:-1], key.shape[-2])


def _multi_head(given: Arguments) -> Shape:
    query, key = given["query"], given["key"]
    keys = key.shape[0] + (given.get("bias_k") is not None) + bool(given.get("add_zero_attn"))
    batch = tuple(query.shape[1:-1])
    return (*batch, given["num_heads"], query.shape[0], keys)


def _recurrent(given: Arguments) -> Shape:
    """Of each layer but the last: its outputs."""
    x = given["input"]
    width = given["params"][1].shape[1]  # weight_hh: gates * hidden x hidden, or x projection
    return (*x.shape[:-1], width * (2 if given.get("bidirectional") else 1))


_F = ("input", "p", "training", "inplace")
_TORCH = ("input", "p", "train")
_SDPA = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
_MHA = ("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k",
        "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training")  # fmt: skip
_RNN = ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")
_PACKED = ("input", "batch_sizes", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")
_OURS = ("x", "p", "training", "key", "inplace", "share", "offset", "global_shape", "rows", "noise", "other")

_SHAPES: dict[str, Callable[[Arguments], Shape]] = {
    "dropout": _elementwise,
    "alpha_dropout": _elementwise,
    "native_dropout": _elementwise,
    "dropout1d": _channels((2,)),
    "dropout2d": _channels(),
    "dropout3d": _channels((2, 3, 4)),
    "feature_dropout": _channels(),
    "feature_alpha_dropout": _channels(),
}
_FUNCTIONAL = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout",
            "feature_alpha_dropout", "native_dropout")  # fmt: skip
_NATIVE = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


@cache
def torchs() -> dict[Any, Dropping]:
    """torch's functions that drop."""
    known: dict[Any, Dropping] = {}
    for name in _FUNCTIONAL:
        known[getattr(F, name)] = _functional(f"F.{name}")
    for name in (*_NATIVE, *(f"{name}_" for name in _NATIVE), "native_dropout"):
        # The aten operator is what exported graphs call.
        plain = name.rstrip("_")
        entry = Dropping(f"torch.{name}", _TORCH, "p", "train", (0.5, True), _SHAPES[plain], _law(plain))
        known[getattr(torch, name)] = known[getattr(torch.ops.aten, name)] = entry
    attention = Dropping(F.scaled_dot_product_attention.__name__, _SDPA, "dropout_p", None, (0.0, True), _attention)
    known[F.scaled_dot_product_attention] = known[torch.ops.aten.scaled_dot_product_attention] = attention
    name = "multi_head_attention_forward"
    known[F.multi_head_attention_forward] = Dropping(name, _MHA, "dropout_p", "training", (0.0, True), _multi_head)
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        known[getattr(torch, name)] = Dropping(name, _RNN, "dropout", "train", (0.0, False), _recurrent)
    return known


def _functional(kind: str) -> Dropping:
    name = kind.rpartition(".")[2]
    default = (0.5, "alpha" not in name)  # torch's alpha functions are off unless told otherwise
    return Dropping(kind, _F, "p", "training", default, _SHAPES[name], _law(name))


def _law(name: str) -> Noise:
    return Alpha() if name in ("alpha_dropout", "feature_alpha_dropout") else Bernoulli()


@cache
def ours() -> dict[Any, Dropping]:
    """The same of this package; asked for late, since those modules may import this one."""
    from .. import functional, ops

    known: dict[Any, Dropping] = {ops.dropout: Dropping("dropkit.dropout", _OURS, "p", "training", (0.5, True),
                                                        _elementwise)}  # fmt: skip
    for name in _FUNCTIONAL:
        if hasattr(functional, name):
            known[getattr(functional, name)] = _functional(f"dropkit.functional.{name}")
    return known


_RANDOM = frozenset(
    {torch.bernoulli, torch.Tensor.bernoulli, torch.Tensor.bernoulli_, torch.Tensor.uniform_}
    | {torch.rand, torch.rand_like, torch.randn, torch.randn_like, torch.Tensor.normal_, torch.ops.aten.bernoulli}
)


def find(func: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Dropping | None:
    """What is known about a function that drops; None for any other.

    >>> find(torch.nn.functional.dropout2d).kind, find(torch.relu)
    ('F.dropout2d', None)
    """
    func = getattr(func, "overloadpacket", func)  # aten.dropout.default
    try:
        known = torchs().get(func) or ours().get(func)
    except TypeError:  # unhashable
        return None
    if known is None or known.parameters is not _RNN:
        return known
    packed = "batch_sizes" in (kwargs or {}) or (len(args) > 4 and not isinstance(args[3], bool))
    return Dropping(known.kind, _PACKED, *_rest(known)) if packed else known


def _rest(known: Dropping) -> tuple[Any, ...]:
    return known.rate, known.flag, known.default, known.mask_shape


def is_random(func: Any) -> bool:
    """Whether a function only draws random numbers: what layers that drop whole paths are made of.

    >>> is_random(torch.Tensor.bernoulli_), is_random(torch.relu)
    (True, False)
    """
    try:
        return getattr(func, "overloadpacket", func) in _RANDOM
    except TypeError:
        return False
