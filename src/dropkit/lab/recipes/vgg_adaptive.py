"""vgg-adaptive: a VGG-16 for 32 x 32 images whose dropout rates move, after a tutorial that set out to adapt them.

The network: 13 convolutions of 3 x 3 (64-64, 128-128, 256 three times, 512 three times, 512 three times), each with
ReLU, a pooling after each group; fc6 and fc7 of 4096 with ReLU and dropout after each (drop6, drop7); softmax. Adam, L2
1e-4, batches of 128, `fixed` at 0.5, `step` from 0.5 by 0.1 to no less than 0.1, no augmentation.

Other than in the tutorial at every size but that of this name: weights by He's sqrt(2 / fan-in) in place of Glorot's,
since 16 layers without batch norm train faster from them; learning rate 1e-4 at full width, where the tutorial's Adam
has its default 1e-3; 50 epochs for 100; L2 of 1e-4 x w in the gradient of weights and biases, where the tutorial's is
2e-4 x w in that of weights alone. Size "tutorial" keeps all of these. What the tutorial leaves open is chosen here:
pixels in [0, 1] enter as 4 x - 2; a tenth is held out. Other images are repeated to 32 x 32 (digits: 4 times each way),
padded with zeros where that does not go up, and grey ones fill all three channels.
"""

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import DropkitValueError
from .recipe import Recipe, Settings
from .strategies import ADAPTIVE, DECAY, LITERAL, PATHWISE, SCHEDULED, chosen, standard

if TYPE_CHECKING:
    from torch import nn

SIDE = 32
GROUPS = (2, 2, 3, 3, 3)  # convolutions before each pooling
FIXED = {"drop6": 0.5, "drop7": 0.5}

FULL = Settings(
    epochs=50,
    seeds=5,
    batch_size=128,
    learning_rate=1e-4,
    hidden=(4096, 4096),
    channels=(64, 128, 256, 512, 512),
    step_epochs=10,
    optimizer="adam",
    weight_decay=1e-4,
    validation=0.1,
)
TUTORIAL = replace(
    FULL,
    epochs=100,
    learning_rate=1e-3,
    first_weights="glorot",
    weight_decay=0.0,
    l2=1e-4,
    step_epochs=20,
    rate_learning_rate=1e-3,
)
SMALL = replace(
    FULL,
    epochs=5,
    learning_rate=1e-3,
    hidden=(410, 410),
    channels=(6, 13, 26, 51, 51),
    step_epochs=1,
    train_samples=10_000,
    test_samples=4_000,
    evaluated=2_000,
    threads=1,
)
TINY = replace(
    SMALL,
    epochs=2,
    seeds=2,
    batch_size=32,
    hidden=(32, 32),
    channels=(4, 4, 8, 8, 8),
    train_samples=256,
    test_samples=128,
    evaluated=128,
)


def settings(size: str, data: str) -> Settings:
    """The settings at a size, the same for every data set."""
    return {"tiny": TINY, "small": SMALL, "full": FULL, "tutorial": TUTORIAL}[size]


def build(settings: Settings, shape: tuple[int, ...], classes: int, seed: int) -> "nn.Module":
    """The network, its first weights a function of (seed, parameter name) alone, its biases zero.

    Raises:
        DropkitValueError: images larger than 32 x 32, or of another number of channels than 1 or 3.
    """
    import torch
    from torch import nn

    from ...torch import Dropout
    from .weights import set_first_weights

    layers: OrderedDict[str, nn.Module] = OrderedDict(input=_input(shape))
    inputs, number = 3, 0
    for group, (count, width) in enumerate(zip(GROUPS, settings.channels, strict=True), start=1):
        for _ in range(count):
            number += 1
            # skip_init leaves torch's own generator alone: nothing here depends on it, or moves it.
            layers[f"conv{number}"] = nn.utils.skip_init(nn.Conv2d, inputs, width, 3, padding=1)
            layers[f"conv_relu{number}"] = nn.ReLU()
            inputs = width
        layers[f"pool{group}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    for number, width in enumerate(settings.hidden, start=6):
        layers[f"fc{number}"] = nn.utils.skip_init(nn.Linear, inputs, width)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"drop{number}"] = Dropout(0.0)
        inputs = width
    layers["fc8"] = nn.utils.skip_init(nn.Linear, inputs, classes)
    model = set_first_weights(nn.Sequential(layers), seed, settings.weight_std, settings.first_weights)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Conv2d):  # so few channels are nearly twice as fast where they come last
                part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def _input(shape: tuple[int, ...]) -> "nn.Module":
    """Images of a shape as N x 3 x 32 x 32 of 4 x - 2, channels last in memory."""
    import torch
    from torch import nn

    channels, height, width = shape if len(shape) == 3 else (1, *shape)
    if channels not in (1, 3) or max(height, width) > SIDE:
        raise DropkitValueError(
            f"vgg-adaptive takes images of at most {SIDE} x {SIDE} pixels in 1 or 3 channels, got {shape}; "
            "use --data cifar10, digits, mnist or fashion-mnist"
        )
    times = SIDE // max(height, width)
    missing = [SIDE - times * extent for extent in (width, height)]
    padding = [part for extent in missing for part in (extent // 2, extent - extent // 2)]

    class Input(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.reshape(len(x), channels, height, width).repeat_interleave(times, 2).repeat_interleave(times, 3)
            x = nn.functional.pad(x, padding).expand(-1, 3, -1, -1)
            return (4 * x - 2).contiguous(memory_format=torch.channels_last)

    return Input()


VGG_ADAPTIVE = Recipe(
    name="vgg-adaptive",
    summary="VGG-16 on CIFAR-10 (cifar10), dropout after fc6 and fc7, whose rates adapt or not; none, fixed, step, "
    f"{', '.join(ADAPTIVE)}, and on request {', '.join((DECAY, PATHWISE, LITERAL))}",
    settings=settings,
    strategies={**standard(FIXED), **chosen(FIXED, LITERAL)},
    feeds={"drop6": "fc7", "drop7": "fc8"},
    build=build,
    compared=(*SCHEDULED, *ADAPTIVE),
    tutorial_data="cifar10",
)
