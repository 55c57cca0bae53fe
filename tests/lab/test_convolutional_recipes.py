"""The recipes with convolutions: where their dropouts stand, and what they drop."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dropkit.lab import compare, train
from dropkit.lab.recipes import get
from dropkit.torch import Dropout
from tests.lab.runs import numbers, stop_after


def tiny(name: str, shape: tuple[int, ...] = (8, 8)) -> Any:
    recipe = get(name)
    return recipe.build(recipe.settings("tiny", "digits"), shape, 10, 0)


@pytest.mark.parametrize("name", ["vgg-everywhere", "vgg-channels"])
def test_a_dropout_follows_every_convolution_and_both_dense_layers(name: str) -> None:
    layers = list(tiny(name))
    behind = [
        (type(one), type(two), type(three)) for one, two, three in zip(layers, layers[1:], layers[2:], strict=False)
    ]
    hidden = [triple for triple in behind if triple[0] in (nn.Conv2d, nn.Linear)]
    assert hidden == [(nn.Conv2d, nn.ReLU, Dropout)] * 13 + [(nn.Linear, nn.ReLU, Dropout)] * 2
    sites = [site for site, layer in tiny(name).named_children() if isinstance(layer, Dropout)]
    recipe = get(name)
    assert sites == list(recipe.feeds)
    rates = recipe.strategies["fixed"](recipe.settings("tiny", "digits"), 1, ())
    assert [rate.at(0) for rate in rates.values()] == [0.1] * 13 + [0.5] * 2
    # Each feeds the next layer with weights.
    order = [path for path, layer in tiny(name).named_children() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert list(recipe.feeds.values()) == order[1:]


def test_without_dropout_it_is_the_codes_network() -> None:
    x = torch.rand(4, 8, 8)
    expected = tiny("vgg-adaptive").eval()(x)
    for name in ("vgg-everywhere", "vgg-channels"):
        assert torch.equal(tiny(name).eval()(x), expected)


@pytest.mark.parametrize(("name", "whole"), [("vgg-everywhere", False), ("vgg-channels", True)])
def test_elements_or_whole_channels_are_dropped(name: str, whole: bool) -> None:
    dropout = tiny(name).train().conv_drop1
    dropout.p = 0.5
    kept = dropout(torch.ones(64, 4, 8, 8)) != 0
    shares = kept.float().mean((2, 3))
    assert 0.3 < kept.float().mean() < 0.7
    assert bool(((shares == 0) | (shares == 1)).all()) == whole


@pytest.mark.parametrize("name", ["vgg-everywhere", "vgg-channels", "cnn"])
def test_resumed_run_ends_bit_for_bit_the_same(name: str, tmp_path: Path) -> None:
    recipe = get(name)
    few = replace(recipe, settings=lambda size, data: replace(recipe.settings(size, data), train_samples=128))
    choices: dict[str, Any] = {"size": "tiny", "epochs": 2, "strategy": "step", "device": "cpu", "validation": 0.1}
    whole = train(few, **choices, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(few, **choices, out=tmp_path / "cut", on_epoch=stop_after(1))
    assert numbers(train(few, **choices, out=tmp_path / "cut", resume=True)) == numbers(whole)


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (3, 32, 32)])
def test_cnn_takes_grey_and_coloured_images(shape: tuple[int, ...]) -> None:
    recipe = get("cnn")
    model = recipe.build(recipe.settings("full", "mnist"), shape, 10, 0)
    assert model(torch.rand(2, *shape)).shape == (2, 10)
    names = [name for name, _ in model.named_children()]
    assert names[-7:] == ["hidden1", "relu1", "dropout1", "hidden2", "relu2", "dropout2", "output"]
    widths = [model.get_submodule(name).weight.shape[0] for name in ("conv1", "conv2", "hidden1", "hidden2", "output")]
    assert widths == [32, 64, 128, 64, 10]
    assert all(one < two for one, two in pairwise(map(names.index, ("pool1", "pool2", "dropout1", "dropout2"))))


def test_cnn_learns(tmp_path: Path) -> None:
    run = train("cnn", size="tiny", epochs=8, device="cpu", strategy="none", out=tmp_path)
    assert run.rows[-1]["test_accuracy"] > 0.75


def test_cnn_is_compared(tmp_path: Path) -> None:
    found = compare("cnn", size="tiny", seeds=1, epochs=1, device="cpu", out=tmp_path)
    assert [line.strategy for line in found.lines] == ["none", "fixed", "step"]
