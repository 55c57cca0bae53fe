"""Layers whose parameters others use, layers behind which functions lie, and shifts that a few masks do not decide."""

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F

import dropkit
from dropkit.probe import Explanation
from dropkit.probe.findings import places
from dropkit.probe.fold import fold
from dropkit.probe.tree import tree


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def lines(explanation: Explanation) -> list[str]:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(tree(fold(explanation), explanation))
    return capture.get().splitlines()


class Users(nn.Module):
    """Modules whose forward never runs: a function takes their parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.called, self.spare, self.tied = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.tied.weight = self.called.weight
        self.norm, self.drop = nn.LayerNorm(8), nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.attend(x, x, x, need_weights=False)[0])
        x = F.linear(x, self.called.weight, self.called.bias)
        return F.layer_norm(x, (8,), self.norm.weight, self.norm.bias)


def test_layers_whose_parameters_others_use_run_inside_them() -> None:
    explanation = dropkit.explain(Users(), torch.randn(4, 5, 8))
    assert explanation.layer("attend.out_proj").used_by == ("attend",)
    assert explanation.layer("called").used_by == explanation.layer("norm").used_by == ("",)
    assert explanation.layer("spare").used_by == () and explanation.layer("attend").used_by == ()
    text = lines(explanation)
    assert any("out_proj" in line and "runs inside attend" in line for line in text)
    assert any("called" in line and "runs inside the model" in line for line in text)
    assert [line for line in text if "did not run" in line] == [line for line in text if "spare" in line]


def test_a_tied_weight_makes_no_layer_run_that_does_not() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.drop, self.head = nn.Embedding(9, 8), nn.Dropout(0.2), nn.Linear(8, 9, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return F.linear(self.drop(self.embed(ids)), self.head.weight)

    explanation = dropkit.explain(Tied(), torch.zeros(4, 5, dtype=torch.long))
    assert explanation.layer("head").used_by == ("",)
    assert explanation.layer("embed").used_by == ()


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1, self.d1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout2d(0.2)
        self.c2, self.b2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.d1(F.max_pool2d(F.relu(self.b1(self.c1(x))), 2))
        return self.b2(self.c2(x))


def test_functions_between_a_layer_and_the_dropout_are_named() -> None:
    explanation = dropkit.explain(UNet(), torch.randn(8, 3, 8, 8))
    assert explanation.site("d1").behind == ("relu", "max_pool2d")
    assert explanation.sentences[0].startswith(
        "d1 (Dropout2d, p 0.2) zeroes a part of what is behind b1 (relu, max_pool2d)"
    )
    (line,) = [line for line in lines(explanation) if " b1 " in line]
    assert "zeroed behind it (relu, max_pool2d)" in line


@pytest.mark.parametrize(
    ("between", "named"),
    [
        ((), ()),
        ((nn.Flatten(0, -1), nn.Unflatten(0, (4, 16))), ()),
        ((nn.GELU(),), ("gelu",)),
        ((nn.LeakyReLU(),), ("leaky_relu",)),
        ((nn.Softmax(-1),), ("softmax",)),
        ((nn.ReLU(inplace=True), nn.Unflatten(1, (4, 4)), nn.MaxPool1d(2)), ("relu", "max_pool2d")),
    ],
)
def test_modules_without_parameters_are_named_like_the_functions(
    between: tuple[nn.Module, ...], named: tuple[str, ...]
) -> None:
    model = nn.Sequential(nn.Linear(6, 16), *between, nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2))
    x = torch.randn(4, 6)
    model(x)
    (site,) = dropkit.explain(model, x).sites
    assert site.behind == named and site.zeroes == ("0",)


def test_whether_batchnorm_is_shifted_is_the_same_at_every_run() -> None:
    model, x = UNet(), torch.randn(8, 3, 8, 8)
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        found.append([(finding.code, finding.site, finding.measured) for finding in dropkit.doctor(model, x)])
    assert found[0] == found[1] == found[2]


def test_a_shift_at_the_limit_is_not_decided() -> None:
    norm = dropkit.probe.Layer(
        name="b2", parent="", kind="BatchNorm2d", output_shape=(64, 8), changed_by=("d1",),
        input_variance_ratio=1.13, input_variance_error=0.01,
    )  # fmt: skip
    root = dropkit.probe.Layer(name="", parent=None, kind="Net")
    site = dropkit.probe.Site(name="d1", kind="Dropout", layer="", p=0.1, train=True)
    read = Explanation(model="Net", framework="torch", inputs=((64, 8),), layers=(root, norm), sites=(site,))
    assert read.findings == ()
    (sentence,) = places.undecided_shifts(read)
    assert sentence.startswith("Not decided: dropout before BatchNorm at b2, whose input has 1.13 ± 0.03 times")
    assert sentence in str(read.findings)


def test_more_masks_are_drawn_where_few_do_not_decide() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.1), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 2))
    explanation = dropkit.explain(model, torch.randn(16, 6))
    ratio, error = explanation.layer("3").input_variance_ratio, explanation.layer("3").input_variance_error
    assert ratio is not None and error is not None
    more = explanation.forwards > 9
    assert more or not places.undecided(ratio, error, (16, 16))
