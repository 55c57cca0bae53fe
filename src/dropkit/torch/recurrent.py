"""Recurrent networks whose states zone out: LSTM and GRU, step by step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import DropkitTypeError, DropkitValueError
from .variants import Zoneout


class Zoned(nn.Module):
    """Layers of cells run step by step, with torch's parameters under torch's names. Abstract."""

    kind: Callable[..., nn.RNNBase]
    states: tuple[str, ...]  # of a cell, the output first

    def _begin(
        self, sizes: tuple[int, int, int], bias: bool, batch_first: bool, both: bool, rates: Any, how: Any
    ) -> None:
        self.input_size, self.hidden_size, self.num_layers = sizes
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, both
        made = self.kind(*sizes, bias=bias, bidirectional=both, **how.pop("factory"))
        for name, weight in made.named_parameters():
            self.register_parameter(name, weight)
        for where in self._where():
            for state, p in zip(self.states, rates, strict=True):
                self.add_module(f"zoneout_{state}{where}", Zoneout(p, **how))

    def forward(self, input: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """What torch's class gives: the outputs of the last layer, and the states behind the last step."""
        if not isinstance(input, torch.Tensor):
            raise DropkitTypeError(f"{type(self).__name__} takes a padded tensor, got a {type(input).__name__}")
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise DropkitValueError(
                f"{type(self).__name__} takes T x N x {self.input_size} or T x {self.input_size}, got "
                f"{tuple(input.shape)}"
            )
        alone = input.dim() == 2
        first = self.batch_first and not alone
        x = input.unsqueeze(1) if alone else input.transpose(0, 1) if first else input
        befores, lasts, number = self._before(x, state, alone), [], 0
        for layer in range(self.num_layers):
            outputs = []
            for where in self._where(layer):
                y, after = self._run(x, [before[number] for before in befores], where)
                outputs.append(y)
                lasts.append(after)
                number += 1
            x = torch.cat(outputs, -1)
        afters = [torch.stack(each) for each in zip(*lasts, strict=True)]
        afters = [each.squeeze(1) for each in afters] if alone else afters
        x = x.squeeze(1) if alone else x.transpose(0, 1) if first else x
        return x, afters[0] if len(afters) == 1 else tuple(afters)

    def _where(self, layer: int | None = None) -> list[str]:
        layers = range(self.num_layers) if layer is None else [layer]
        return [f"_l{n}{way}" for n in layers for way in ("", "_reverse")[: 1 + self.bidirectional]]

    def _before(self, x: torch.Tensor, state: Any, alone: bool) -> list[torch.Tensor]:
        if state is None:
            zeros = x.new_zeros(self.num_layers * (1 + self.bidirectional), x.shape[1], self.hidden_size)
            return [zeros] * len(self.states)
        given = [state] if isinstance(state, torch.Tensor) else list(state)
        shape = (self.num_layers * (1 + self.bidirectional), *(() if alone else (x.shape[1],)), self.hidden_size)
        if len(given) != len(self.states) or any(tuple(one.shape) != shape for one in given):
            raise DropkitValueError(
                f"{type(self).__name__} starts from {len(self.states)} of shape {shape}, got "
                f"{[tuple(one.shape) for one in given]}"
            )
        return [one.unsqueeze(1) for one in given] if alone else given

    def _run(self, x: torch.Tensor, before: list[torch.Tensor], where: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """A layer in one direction, over all steps."""
        weights = [getattr(self, f"weight_{kind}{where}") for kind in ("ih", "hh")]
        biases = [getattr(self, f"bias_{kind}{where}") if self.bias else None for kind in ("ih", "hh")]
        zones = [getattr(self, f"zoneout_{state}{where}") for state in self.states]
        outside, backwards = F.linear(x, weights[0], biases[0]), where.endswith("reverse")
        outputs: list[torch.Tensor] = []
        for each in reversed(outside.unbind()) if backwards else outside.unbind():
            new = self._step(each, F.linear(before[0], weights[1], biases[1]), before)
            before = [zone(one, old) for zone, one, old in zip(zones, new, before, strict=True)]
            outputs.append(before[0])
        return torch.stack(outputs[::-1] if backwards else outputs), before

    def _step(self, outside: torch.Tensor, inside: torch.Tensor, before: list[torch.Tensor]) -> list[torch.Tensor]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """torch's own."""
        rest = [f"{name}=True" for name in ("batch_first", "bidirectional") if getattr(self, name)]
        rest = ([] if self.bias else ["bias=False"]) + rest
        layers = [f"num_layers={self.num_layers}"] if self.num_layers > 1 else []
        return ", ".join([str(self.input_size), str(self.hidden_size), *layers, *rest])


class ZoneoutLSTM(Zoned):
    """`torch.nn.LSTM` whose units keep their previous h and c at random, each step with masks of its own.

    `c = zone(f c' + i g, c')`, `h = zone(o tanh(f c' + i g), h')`; in evaluation the mean, `(1 - p) new + p previous`.
    Each layer and direction has a `Zoneout` for each state, "zoneout_h_l0" and "zoneout_c_l0", whose calls are the
    steps. Parameters and their names are those of `torch.nn.LSTM`; steps run one by one, without its kernels.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype: as of `torch.nn.LSTM`.
        p, p_c: probability that a unit keeps its h and its c, in [0, 1].
        when: "train", "always" or "never".

    Shapes and states: as of `torch.nn.LSTM`, batched or not; a packed sequence is refused.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; another shape; a packed sequence.

    Source: Krueger et al. 2017 (arXiv:1606.01305), 0.05 for h and 0.5 for c.

    >>> y, (h, c) = ZoneoutLSTM(4, 8)(torch.ones(5, 2, 4))
    >>> y.shape, c.shape
    (torch.Size([5, 2, 8]), torch.Size([1, 2, 8]))
    """

    kind, states = nn.LSTM, ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        p: float = 0.05,
        p_c: float = 0.5,
        when: str = "train",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        how = {"when": when, "factory": {"device": device, "dtype": dtype}}
        self._begin((input_size, hidden_size, num_layers), bias, batch_first, bidirectional, (p, p_c), how)

    def _step(self, outside: torch.Tensor, inside: torch.Tensor, before: list[torch.Tensor]) -> list[torch.Tensor]:
        i, f, g, o = (outside + inside).chunk(4, -1)
        c = f.sigmoid() * before[1] + i.sigmoid() * g.tanh()
        return [o.sigmoid() * c.tanh(), c]


class ZoneoutGRU(Zoned):
    """`torch.nn.GRU` whose units keep their previous state at random, each step with a mask of its own.

    `h = zone(GRU's new h, h')`; in evaluation the mean. Each layer and direction has a `Zoneout`, "zoneout_h_l0", whose
    calls are the steps. Parameters and their names are those of `torch.nn.GRU`.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, bidirectional, device, dtype: as of `torch.nn.GRU`.
        p: probability that a unit keeps its state, in [0, 1].
        when: "train", "always" or "never".

    Raises:
        DropkitValueError, DropkitTypeError: as `ZoneoutLSTM`.

    Source: Krueger et al. 2017 (arXiv:1606.01305).

    >>> y, h = ZoneoutGRU(4, 8)(torch.ones(5, 2, 4))
    >>> y.shape, h.shape
    (torch.Size([5, 2, 8]), torch.Size([1, 2, 8]))
    """

    kind, states = nn.GRU, ("h",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        *,
        p: float = 0.05,
        when: str = "train",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        how = {"when": when, "factory": {"device": device, "dtype": dtype}}
        self._begin((input_size, hidden_size, num_layers), bias, batch_first, bidirectional, (p,), how)

    def _step(self, outside: torch.Tensor, inside: torch.Tensor, before: list[torch.Tensor]) -> list[torch.Tensor]:
        (reset, update, new), (reset_h, update_h, new_h) = outside.chunk(3, -1), inside.chunk(3, -1)
        r, z = (reset + reset_h).sigmoid(), (update + update_h).sigmoid()
        n = (new + r * new_h).tanh()
        return [(1 - z) * n + z * before[0]]
