"""Remedies mend what was found, findings say what was measured, and the figures of docs/doctor.md are from a run."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt
from dropkit.errors import UnknownNameError
from dropkit.probe.findings import Finding

from .test_doctor import Made, batch, channels, checkpointed, monte_carlo, sequential, trunk

DOCS = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()


def only(model: nn.Module, *inputs: torch.Tensor) -> Finding:
    (finding,) = dropkit.doctor(model, *inputs)
    return finding


def logits_dropped() -> Made:
    return nn.Sequential(nn.Linear(12, 24), nn.Linear(24, 3), nn.Dropout(0.25)), batch(64, 12)


@pytest.mark.parametrize(
    ("code", "made"),
    [
        ("DK103", lambda: trunk(training=True, frozen=True)),
        ("DK104", lambda: trunk(training=False, frozen=False)),
        ("DK108", logits_dropped),
        ("DK114", lambda: checkpointed(preserve=False, tail=True)),
        ("DK115", lambda: sequential(nn.Dropout(0.8))),
    ],
)
def test_the_call_of_a_remedy_mends_the_model(code: str, made: Callable[[], Made]) -> None:
    torch.manual_seed(0)
    model, x = made()
    finding = only(model, x)
    assert finding.code == code
    (call,) = re.findall(r"`([^`]*model[^`]*\))`", finding.remedy.replace("`model.train()`.", ""))
    exec(call, {"model": model, "dropkit": dropkit})
    assert dropkit.doctor(model, x) == ()


def test_inside_enabled_the_fast_path_is_not_taken() -> None:
    model, x = monte_carlo(batch_first=True)
    assert "`with dropkit.torch.enabled(model):`" in dropkit.doctor(model, x)[0].remedy
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        with dt.enabled(model):
            assert not torch.equal(model(x), model(x))


@pytest.mark.filterwarnings("ignore:dropout[23]d. Received")
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_what_channel_dropout_does_with_each_rank_is_as_the_page_says(axes: int, rank: int) -> None:
    drop = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}[axes](0.5)
    (row,) = re.findall(rf"^\| `Dropout{axes}d` \| (.*) \|$", DOCS, re.MULTILINE)
    says = row.split(" | ")[rank - 2]
    shape = (8, 6, 4, 3, 5)[:rank]
    if says == "error":
        with pytest.raises(RuntimeError, match="Expected 2D or 3D input"):
            drop(torch.ones(shape))
        return
    made = channels(drop, *shape)
    site = dropkit.explain(*made).site("1")
    assert site.mask_shape is not None
    last = 16  # the layer in front keeps all axes but the last
    alike = {
        "whole samples": (8, *[1] * (rank - 1)),
        "single elements": (*shape[:-1], last),
        "whole channels": (8, 6, *[1] * (rank - 2)),
        "as meant": (8, 6, *[1] * (rank - 2)),
        "taken for N x C x L": (8, 6, 1),
    }
    assert site.mask_shape == alike[re.split("[,:]", says)[0]]
    findings = dropkit.doctor(*made)
    assert [finding.code for finding in findings] == ([] if says == "as meant" else ["DK112"])


def test_one_sample_without_a_batch_is_no_finding() -> None:
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.Dropout1d(0.25), nn.Conv1d(8, 4, 3))
    assert dropkit.explain(model, batch(3, 12)).site("1").mask_shape == (8, 1)
    assert dropkit.doctor(model, batch(3, 12)) == ()
    # a batch of vectors has as many axes
    vectors = nn.Sequential(nn.Linear(12, 8), nn.Dropout1d(0.25), nn.Linear(8, 4))
    assert only(vectors, batch(64, 12)).code == "DK112"


def test_codes_can_be_ignored() -> None:
    model, x = sequential(nn.SELU(), nn.Dropout(0.8))
    assert [finding.code for finding in dropkit.doctor(model, x, ignore=["DK111"])] == ["DK115"]
    with pytest.raises(UnknownNameError, match=r"unknown code 'dk111'; .*Known: DK101, DK102"):
        dropkit.doctor(model, x, ignore=["dk111"])


def test_findings_say_what_was_measured() -> None:
    torch.manual_seed(0)
    assert only(*trunk(training=True, frozen=True)).measured == (
        "360 parameters, all frozen, with 1 BatchNorm (0.1) in train mode and 1 active dropout (0.3)"
    )
    shifted = only(*sequential(nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(24))).measured
    ratio = float(re.fullmatch(r"variance of the input of 3 in training: (.*) times that in evaluation", shifted)[1])  # type: ignore[index]
    assert 1.5 < ratio < 3.5
    found = only(*checkpointed(preserve=False, tail=True))
    assert re.fullmatch(r"Dropout with p = 0.25: recomputed in .*, unlike in \d+ of \d+ elements", found.measured)


def test_classifiers_taken_over_from_tensorflow_drop_what_was_to_be_kept() -> None:
    from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

    model = MobileNetV1ForImageClassification(MobileNetV1Config(image_size=32, depth_multiplier=0.25)).train()
    findings = dropkit.doctor(model, pixel_values=batch(4, 3, 32, 32))
    assert [(finding.code, finding.site, finding.measured) for finding in findings] == [
        ("DK115", "dropout", "p = 0.999: 0.1 % are kept, and scaled by 1e+03")
    ]


@pytest.mark.parametrize(
    ("p", "plain", "relu"), re.findall(r"^\| (0\.\d) \| (\d\.\d\d) \| (\d\.\d\d) \|$", DOCS, re.MULTILINE)
)
def test_ratios_of_the_page(p: str, plain: str, relu: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2**22)
    for values, ratio in ((x, plain), (torch.relu(x), relu)):
        measured = F.dropout(values, float(p)).var() / values.var()
        assert measured.item() == pytest.approx(float(ratio), rel=0.01)


def normalised(act: type[nn.Module], drop: type[nn.Module]) -> tuple[float, float]:
    """Variances behind eight layers of 256, in training and in evaluation."""
    layers: list[nn.Module] = []
    for _ in range(8):
        linear = nn.Linear(256, 256, bias=False)
        nn.init.normal_(linear.weight, std=1 / 16)
        layers += [linear, act(), drop(0.1)]
    model, x = nn.Sequential(*layers), torch.randn(4096, 256)
    return model(x).var().item(), model.eval()(x).var().item()


def test_figures_of_selu_on_the_page() -> None:
    torch.manual_seed(0)
    x = torch.relu(torch.randn(2**20))
    y = F.alpha_dropout(x, 0.1, training=True)
    assert [f"{z:.2f}" for z in (x.mean(), x.var(), y.mean(), y.var())] == ["0.40", "0.34", "0.33", "0.61"]
    z = F.selu(torch.randn(2**20))
    assert F.dropout(z, 0.1).var() / z.var() == pytest.approx(1.11, abs=0.01)
    assert normalised(nn.SELU, nn.Dropout) == pytest.approx((1.5, 1.0), abs=0.1)
    assert normalised(nn.SELU, nn.AlphaDropout) == pytest.approx((1.0, 1.0), abs=0.1)
    for figure in ("mean 0.40 and variance 0.34", "0.33 and 0.61", "1.5 in training and 1.0 in evaluation"):
        assert figure in " ".join(DOCS.split())
