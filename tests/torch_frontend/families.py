"""The six classes and the six functions, with inputs that suit them, for tests that go over all of them."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

import dropkit.torch
from dropkit.torch import functional

SHAPES = {
    "Dropout": (4, 6, 16),
    "Dropout1d": (4, 6, 16),
    "Dropout2d": (4, 6, 4, 4),
    "Dropout3d": (4, 6, 4, 2, 2),
    "AlphaDropout": (4, 6, 16),
    "FeatureAlphaDropout": (4, 6, 16),
}
FUNCTIONS = {
    "Dropout": functional.dropout,
    "Dropout1d": functional.dropout1d,
    "Dropout2d": functional.dropout2d,
    "Dropout3d": functional.dropout3d,
    "AlphaDropout": functional.alpha_dropout,
    "FeatureAlphaDropout": functional.feature_alpha_dropout,
}
CHANNELS = ("Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout")


def layer(name: str, p: float = 0.5) -> nn.Module:
    """One of the six modules."""
    return getattr(dropkit.torch, name)(p)


def function(name: str, p: float = 0.5) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function that goes with one of the six modules, in training."""
    return lambda x: FUNCTIONS[name](x, p, True)


def ones(name: str) -> torch.Tensor:
    """An input on which a dropped element is the one that is not positive, whatever the law."""
    return torch.ones(SHAPES[name])


def dropped(y: torch.Tensor) -> torch.Tensor:
    """Where an input of ones was dropped: 0, or SELU's limit, which is negative."""
    return y <= 0


def whole(name: str, gone: torch.Tensor) -> bool:
    """Whether channels of N x C x anything are dropped whole by the classes that promise it, and by no other."""
    flat = gone.flatten(2)
    return bool((flat == flat[..., :1]).all()) == (name in CHANNELS)


class Family(nn.Module):
    """Several of the six side by side, each with an input of its own."""

    def __init__(self, names: Sequence[str] = tuple(SHAPES), p: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: layer(name, p) for name in names})

    def inputs(self, batch: int = 4) -> torch.Tensor:
        """Ones, layers x batch x 6 x 16."""
        return torch.ones(len(self.layers), batch, 6, 16, requires_grad=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The results in the inputs' shape."""
        pairs = zip(self.layers.items(), x.unbind(), strict=True)
        return torch.stack([drop(one.unflatten(2, SHAPES[name][2:])).flatten(2) for (name, drop), one in pairs])

    def check(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Each dropped something, in whole channels if it should, and its gradient is zero in the same places."""
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(dropped(y), gradient == 0)
        for name, one in zip(self.layers, y, strict=True):
            assert dropped(one).any(), name
            assert whole(name, dropped(one)), name
