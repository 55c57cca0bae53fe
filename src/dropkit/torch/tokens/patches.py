"""Sequences made shorter: for a whole network, or for one layer of it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from ...axes.noise import Fill
from ...errors import DropkitTypeError, DropkitValueError
from ..depth import running
from ..depth.path import Depth
from ..depth.rows import checked_names, checked_output
from ..drawing import ranks
from ..layers import Drawn, as_leaf
from .chosen import checked_prefix, checked_tokens, chosen, kept_of, taken, wide


class Tokens(Depth):
    """What chooses tokens. Abstract."""

    decides = True
    law_known = shows_mask = False  # a dropped token is gone, and no 0
    takes_out = "token"

    def __init__(self, p: float, num_prefix_tokens: int, *, when: str = "train") -> None:
        super().__init__(p, when=when)
        self.num_prefix_tokens = checked_prefix(num_prefix_tokens)
        self.noise = Fill(0.0)
        self.p = p

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """One bit for each token of a sample."""
        return (input.shape[0], checked_tokens(self, input, self.num_prefix_tokens))

    def count(self, shape: tuple[int, ...]) -> int:
        """How many tokens of a sample stay."""
        return kept_of(shape[1], float(self.p))

    def places(self, x: torch.Tensor, compiled: bool) -> torch.Tensor | None:
        """Which tokens of each sample stay in this forward, prefix not counted; None where all do.

        To a compiler all tokens are places too, since the rate 0 would be another program.
        """
        n = checked_tokens(self, x, self.num_prefix_tokens)
        if ranks.several() and self.site is not None:
            self.site.seen(x)
        none = self._lowered is None and not compiled
        found = None if none else chosen(self, x, self._lowered, self.num_prefix_tokens)
        return torch.arange(n, device=x.device).expand(len(x), n) if found is None and compiled else found

    def _more_repr(self) -> str:
        return f", num_prefix_tokens={self.num_prefix_tokens}{super()._more_repr()}"


class PatchDropout(Tokens):
    """Shorten sequences while training: of N tokens `max(1, int((1 - p) N))` are kept, others for each sample.

    Stands behind the position embedding. Nothing is rescaled, and in evaluation all tokens stay, as published. Those
    stay whose numbers `dropkit.uniform((samples, N), key)` are smallest in their row: a function of the sample's row.

    Args:
        p: fraction of tokens that go, in [0, 1]; timm's name `prob` is the same number.
        num_prefix_tokens: tokens at the front that always stay, as a class token does, and are not counted.
        ordered: whether the tokens stay in their order; else they come in the order of their keyed numbers.
        return_indices: return the numbers too of the tokens that stayed, prefix not counted, or None where all did.
        when: "train", "always" or "never".

    Shapes: samples x tokens x ...; the output has fewer tokens. Dtypes: any.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a prefix that is no number of tokens;
            an input without tokens behind the prefix.
        DropkitRuntimeError: exported in training.

    Source: Liu et al. 2023 (arXiv:2208.07220); the signature of `timm.layers.PatchDropout`.

    >>> PatchDropout(0.75)(torch.ones(2, 197, 8)).shape
    torch.Size([2, 50, 8])
    >>> PatchDropout(0.75).eval()(torch.ones(2, 197, 8)).shape
    torch.Size([2, 197, 8])
    """

    __jit_unused_properties__: ClassVar = [*Drawn.__jit_unused_properties__, "prob"]

    def __init__(
        self,
        p: float = 0.5,
        num_prefix_tokens: int = 1,
        ordered: bool = False,
        return_indices: bool = False,
        *,
        prob: float | None = None,
        when: str = "train",
    ) -> None:
        super().__init__(p if prob is None else prob, num_prefix_tokens, when=when)
        self.ordered, self.return_indices = bool(ordered), bool(return_indices)

    @property
    def prob(self) -> float:
        """p under timm's name; may be assigned."""
        return self.p

    @prob.setter
    def prob(self, value: float) -> None:
        self.p = value

    def forward(self, x: torch.Tensor) -> Any:
        """The tokens that stay; with `return_indices`, their numbers too."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x)
        y, places = self._shortened(x) if self.active else (x, None)
        return (y, places) if self.return_indices else y

    @running.outside_graphs
    def _shortened(compiler: Any, self: "PatchDropout", x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        places = self.places(x, callable(compiler))
        if places is None:
            return x, None
        places = places.sort(dim=1).values if self.ordered else places
        front = self.num_prefix_tokens
        y = torch.cat([x[:, :front], taken(x[:, front:], places)], dim=1)
        if callable(compiler):  # what comes behind is one program, however many tokens stay
            torch._dynamo.maybe_mark_dynamic(y, 1)
        return y, places

    def _more_repr(self) -> str:
        said = [f", {name}=True" for name in ("ordered", "return_indices") if getattr(self, name)]
        return super()._more_repr() + "".join(said)


class TokenDrop(Tokens):
    """Run a layer on some tokens of each sample; the others pass it by: `x[kept] = layer(x[kept])`.

    Of N tokens `max(1, int((1 - p) N))` are kept, in their order, others for each sample and layer. Nothing is
    rescaled, and in evaluation the layer runs on all tokens, as published. The authors leave the first and the last
    layer as they are, and let p fall to 0 while training.

    Args:
        layer: called with the tokens that are kept, and with all further arguments.
        p: fraction of tokens that pass the layer by, in [0, 1].
        num_prefix_tokens: tokens at the front that the layer always gets.
        by_token: names of keyword arguments with an entry for each token of a sample, such as padding masks: their
            entries are chosen too.
        when: "train", "always" or "never".

    Shapes: samples x tokens x ..., output as input; the layer gives the shape that it gets.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a layer that is no module; names that
            are none. When it runs, an input without tokens, or a layer that changes the shape.
        DropkitRuntimeError: exported in training.

    Source: Yao et al. 2022, "Random-LTD" (arXiv:2211.11586).

    >>> TokenDrop(nn.Linear(8, 8), 0.5)(torch.ones(2, 10, 8)).shape
    torch.Size([2, 10, 8])
    """

    def __init__(
        self,
        layer: nn.Module,
        p: float = 0.5,
        num_prefix_tokens: int = 0,
        *,
        by_token: Sequence[str] = (),
        when: str = "train",
    ) -> None:
        if not isinstance(layer, nn.Module):
            raise DropkitTypeError(f"layer must be a torch.nn.Module, got {layer!r}")
        super().__init__(p, num_prefix_tokens, when=when)
        self.layer, self.by_token = layer, checked_names(by_token, "by_token")

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """What the layer makes of the tokens that are kept, in their places."""
        if isinstance(x, torch.fx.Proxy):
            return as_leaf(self, x, *args, **kwargs)
        return self._run(x, args, kwargs) if self.active else self.layer(x, *args, **kwargs)

    @running.outside_graphs
    def _run(compiler: Any, self: "TokenDrop", x: torch.Tensor, args: Any, kwargs: Any) -> torch.Tensor:
        places = self.places(x, callable(compiler))
        if places is None:
            return running.call(compiler, self.layer, (x, *args), kwargs)
        front, rest = self.num_prefix_tokens, places.sort(dim=1).values + self.num_prefix_tokens
        first = torch.arange(front, device=x.device).expand(len(x), front)
        places = torch.cat([first, rest], dim=1)
        kwargs = {name: self._entries(name, value, x, places) for name, value in kwargs.items()}
        few = taken(x, places)
        if callable(compiler):
            few = running.wanting_gradient(few, self.layer)
            for tensor in (few, *[kwargs[name] for name in self.by_token if kwargs.get(name) is not None]):
                torch._dynamo.maybe_mark_dynamic(tensor, 1)
        y = running.call(compiler, self.layer, (few, *args), kwargs)
        checked_output(self.layer, few, y)
        dtype = torch.result_type(x, y)
        y = x.to(dtype).scatter(1, wide(places, x), y.to(dtype))
        if callable(compiler):
            torch._dynamo.maybe_mark_dynamic(y, 1)
        return y

    def _entries(self, name: str, value: Any, x: torch.Tensor, places: torch.Tensor) -> Any:
        if name not in self.by_token or value is None:
            return value
        if not isinstance(value, torch.Tensor) or value.shape[:2] != x.shape[:2]:
            raise DropkitValueError(
                f"by_token names {name!r}, which must be a tensor with an entry for each of {x.shape[0]} x {x.shape[1]}"
                f" tokens, got {tuple(value.shape) if isinstance(value, torch.Tensor) else value!r}"
            )
        return taken(value, places.to(value.device))
