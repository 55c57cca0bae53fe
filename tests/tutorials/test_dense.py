"""What docs/tutorial-dense.md says of the tutorial: where its first dropout stands, and how many units it drops."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

import dropkit
import dropkit.torch

README = (Path(__file__).parents[2] / "README.md").read_text()


def network(*before: nn.Module) -> nn.Sequential:
    """The tutorial's, in torch, behind what is put in front of it."""
    return nn.Sequential(
        *before, nn.Linear(100, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(64, 10),
    )  # fmt: skip


def test_the_first_dropout_stands_behind_the_hidden_layer_and_drops_no_input() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 100)
    found = dropkit.explain(network(), x)
    assert found.site("2").zeroes == ("0",) and found.site("5").zeroes == ("3",)
    model = network()
    outputs: list[torch.Tensor] = []
    model[0].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    model(x), model(x)
    assert torch.equal(outputs[0], outputs[1])  # the hidden layer reads whole inputs
    between = network(nn.Dropout(0.5))  # what the words describe
    between[1].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    between(x), between(x)
    assert not torch.equal(outputs[2], outputs[3])


def test_half_of_the_units_is_a_mean_and_no_number() -> None:
    kept = dropkit.keep((1000, 64), 0.5, dropkit.Key(0, "hidden1")).sum(axis=1)
    assert abs(kept.mean() - 32) < 4 * math.sqrt(16 / 1000)
    assert abs(kept.std() - 4) < 0.5 and len(set(kept.tolist())) > 15
    assert 0.93 < np.mean((kept >= 24) & (kept <= 40)) < 0.99


def test_readers_of_the_table_are_one_step_from_their_page_and_its_command() -> None:
    for page, command in {
        "docs/tutorial-mlp.md": "dropkit train mlp --size tutorial",
        "docs/tutorial-numpy-layer.md": "dropkit train numpy-layer --size tutorial",
        "docs/tutorial-dense.md": "dropkit train dense --size tutorial",
    }.items():
        row = next(line for line in README.splitlines() if line.startswith("|") and f"({page})" in line)
        assert f"`{command}`" in row
        first = next(
            line.strip()
            for line in (Path(__file__).parents[2] / page).read_text().splitlines()
            if line.startswith("    dropkit")
        )
        assert first.split("  ")[0] == command
