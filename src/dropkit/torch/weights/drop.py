"""A module whose weights drop, once a forward."""

from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ...axes.noise import Bernoulli, Mixout, Noise, Shakeout
from ...axes.share import Axes, Refining, Sharing
from ...drop import Drop, checked_noise
from ...errors import DropkitTypeError, DropkitValueError
from ...place import WHOLE
from ..depth.path import Depth
from ..draw import Draw
from ..layers import as_leaf

Other = Callable[[torch.Tensor], torch.Tensor]


class Weights(Depth):
    """What modules share that drop weights: a draw is of the whole weight, wherever the batch lies. Abstract."""

    law_known = shows_mask = False  # the noise is on weights, not on the input
    of_batch, of_weights = False, True

    def fresh(self, lowered: Any) -> Draw:
        """The draw of its next call: the same on all processes, each of which holds the whole weight."""
        return super().fresh(lowered)._replace(part=WHOLE)

    def _set(self, p: float, noise: Noise | None) -> None:
        if noise is not None:
            self.noise = checked_noise(noise)
        self.p = p  # again, with its law

    def _more_repr(self) -> str:
        noise = "" if type(self.noise) is Bernoulli else f", noise={self.noise!r}"
        return (f", share={self.share}" if self.share else "") + super()._more_repr() + noise


class WeightDrop(Weights):
    """Any module, with weights dropped by a mask that is drawn once a forward: `w m / (1 - p)`.

    A forward of a recurrent network is a sequence, so all its steps see one mask, and so do all samples of the batch:
    `WeightDrop(nn.LSTM(8, 8), "weight_hh_l*", 0.5)` is the weight-dropped LSTM. The parameters stay where they are,
    and are never written to; what else uses them, as a tied output layer does, sees them whole.

    Args:
        module: any module; called with all arguments of a call.
        names: of its parameters, "weight" or "lstm.weight_hh_l0", one or several; patterns as in `fnmatch`.
        p: drop probability in [0, 1]; may be assigned at any time.
        share: axes of the weight that share a draw, the same for all names: (1,) drops whole rows, the inputs of an
            output unit; or a value of `dropkit.axes.share`. By default none; with `Shakeout` all but axis 1, so that
            the weights of an input unit share a draw, as in its paper.
        noise: a value of `dropkit.axes.noise`. With `Mixout` dropped weights are those with which it was made, or
            which `begin()` took since, kept as buffers; with `Shakeout` their signs; `Raw` is the form that is not
            inverted, and multiplies the weights by 1 - p in evaluation.
        other: for a noise that needs a second tensor, what makes it of a weight.
        when: "train", "always" or "never".

    The masks of a forward are those of the site's first call, of "name#1", ..., in the order of the parameters.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a name that is no parameter of floating
            type; a share that does not fit; a noise that needs another tensor, and no `other`.

    Source: Merity, Keskar and Socher 2018 (arXiv:1708.02182) for recurrent weights; Lee, Cho and Kang 2020
    (arXiv:1909.11299), mixout; Kang, Li and Tao 2018 (arXiv:1904.06593), shakeout.

    >>> lstm = WeightDrop(nn.LSTM(4, 4), "weight_hh_l*", 0.5)
    >>> y, (h, c) = lstm(torch.ones(7, 2, 4))
    >>> y.shape, lstm.names
    (torch.Size([7, 2, 4]), ('weight_hh_l0',))
    """

    def __init__(
        self,
        module: nn.Module,
        names: str | Iterable[str] = "weight",
        p: float = 0.5,
        *,
        share: Iterable[int] | Sharing | None = None,
        noise: Noise | None = None,
        other: Other | None = None,
        when: str = "train",
    ) -> None:
        super().__init__(p, when=when)
        self.names = _checked(module, names)
        self.module = module
        self._set(p, noise)
        if self.noise.needs_other and other is None and not isinstance(self.noise, Mixout | Shakeout):
            raise DropkitValueError(
                f"{self.noise!r} needs a second tensor: give other=, what makes it of a weight, such as torch.sign"
            )
        self.other = other
        self.share, self._own = _share(share), share is None and isinstance(self.noise, Shakeout)
        for name in self.names:
            _check_share(self.share, name, module.get_parameter(name))
        if isinstance(self.noise, Mixout) and other is None:
            for number, weight in enumerate(self._weights()):
                self.register_buffer(f"began_{number}", weight.detach().clone())

    def begin(self) -> None:
        """Take the present weights for those that `Mixout` goes back to, as after loading pretrained ones.

        Raises:
            DropkitValueError: another noise, which goes back to none.

        >>> layer = WeightDrop(nn.Linear(2, 2), "weight", 1.0, noise=Mixout())
        >>> _ = nn.init.ones_(layer.module.weight), nn.init.zeros_(layer.module.bias)
        >>> layer.begin()
        >>> layer(torch.ones(1, 2)).tolist()
        [[2.0, 2.0]]
        """
        if not isinstance(self.noise, Mixout) or self.other is not None:
            raise DropkitValueError(f"begin() is for noise=Mixout(), which goes back to weights, got {self.noise!r}")
        with torch.no_grad():
            for number, weight in enumerate(self._weights()):
                self.get_buffer(f"began_{number}").copy_(weight)

    def mask_shape(self, input: torch.Tensor) -> tuple[int, ...]:
        """Of the mask of the first weight."""
        weight = next(self._weights())
        share = self._shared(weight)
        axes = () if isinstance(share, Refining) else {axis % weight.dim() for axis in share}
        return tuple(1 if axis in axes else size for axis, size in enumerate(weight.shape))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes with the weights that are left."""
        if any(isinstance(argument, torch.fx.Proxy) for argument in args):
            return as_leaf(self, *args, **kwargs)
        weights = list(self._weights())
        dropped = [self._noisy(number, weight) for number, weight in enumerate(weights)]
        if all(new is old for new, old in zip(dropped, weights, strict=True)):
            return self.module(*args, **kwargs)
        try:
            return functional_call(self.module, dict(zip(self.names, dropped, strict=True)), args, kwargs)
        finally:
            _flat_again(self.module)

    def _noisy(self, number: int, weight: torch.Tensor) -> torch.Tensor:
        return self._dropped(weight, self._shared(weight), self._other(number, weight))

    def _weights(self) -> Iterator[torch.Tensor]:
        for name in self.names:  # what functional_call puts there is no nn.Parameter
            path, _, own = name.rpartition(".")
            yield getattr(self.module.get_submodule(path), own)

    def _shared(self, weight: torch.Tensor) -> Any:
        """The axes that share a draw, of this weight."""
        if self._own:
            return tuple(axis for axis in range(weight.dim()) if axis != 1)
        return self.share

    def _other(self, number: int, weight: torch.Tensor) -> torch.Tensor | None:
        if not self.noise.needs_other:
            return None
        if self.other is not None:
            return self.other(weight)
        return weight.detach().sign() if isinstance(self.noise, Shakeout) else self.get_buffer(f"began_{number}")

    def extra_repr(self) -> str:
        """The names, the rate, and what is set."""
        return f"{', '.join(self.names)}, {super().extra_repr()}"


def _checked(module: Any, names: Any) -> tuple[str, ...]:
    """The names of the parameters that are meant, in the order of the module."""
    if not isinstance(module, nn.Module):
        raise DropkitTypeError(f"module must be a torch.nn.Module, got {module!r}")
    asked = [names] if isinstance(names, str) else list(names)
    if not asked or not all(isinstance(name, str) for name in asked):
        raise DropkitTypeError(f"names must be names of parameters, one at least, got {names!r}")
    known = dict(module.named_parameters(remove_duplicate=False))
    for name in asked:
        if not any(fnmatchcase(one, name) for one in known):
            raise DropkitValueError(
                f"{name!r} is no parameter of this {type(module).__name__}, which has {', '.join(known) or 'none'}"
            )
    found = [name for name in known if any(fnmatchcase(name, one) for one in asked)]
    for name in found:
        if isinstance(known[name], nn.UninitializedParameter):
            raise DropkitValueError(f"{name!r} of a lazy {type(module).__name__} is not there yet: run it once before")
        if not known[name].is_floating_point():
            raise DropkitTypeError(f"{name!r} is of {known[name].dtype}: only weights of floating type can be dropped")
    return tuple({id(known[name]): name for name in reversed(found)}.values())[::-1]  # a tied one drops once


def _share(share: Any) -> Any:
    """A share as layers hold it: axis numbers, or what refines."""
    value: Any = Drop(0.0, share=() if share is None else share).share
    return value.axes if isinstance(value, Axes) else value


def _check_share(share: Any, name: str, weight: torch.Tensor) -> None:
    for axis in () if isinstance(share, Refining) else share:
        if not -weight.dim() <= axis < weight.dim():
            raise DropkitValueError(f"share={share} names axis {axis}, but {name!r} has shape {tuple(weight.shape)}")


def _flat_again(module: nn.Module) -> None:
    """Recurrent networks keep a list of what they ran with, which a copy of the module could not copy."""
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part._flat_weights = [getattr(part, name, None) for name in part._flat_weights_names]
