"""The judgements, on explanations made by hand: of each finding what shows it, and the nearest thing that does not."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dropkit.errors import UnknownNameError
from dropkit.probe.explanation import Explanation, Layer, Site
from dropkit.probe.findings import RULES, Finding, findings

DOCS = Path(__file__).parents[2] / "docs" / "doctor.md"

ROOT = Layer(name="", parent=None, kind="Net", output_shape=(8, 4), parameters=30, trainable=30, calls=1)
BODY = Layer(name="body", parent="", kind="Sequential", output_shape=(8, 6), parameters=10, trainable=10, calls=1)
NORM = Layer(
    name="body.norm", parent="body", kind="BatchNorm1d", output_shape=(8, 6), parameters=4, trainable=4, calls=1
)
HOME = Layer(name="body.drop", parent="body", kind="Dropout", output_shape=(8, 6), calls=1)
HEAD = Layer(name="head", parent="", kind="Linear", output_shape=(8, 4), parameters=20, trainable=20, calls=1)
DROP = Site(
    name="body.drop",
    kind="Dropout",
    layer="body.drop",
    p=0.25,
    mask_shape=(8, 6),
    train=True,
    eval=False,
    now=True,
    input_rank=2,
    follows="relu",
    gradient_check="ok",
)
ALPHA = replace(DROP, kind="AlphaDropout", law="Alpha()", becomes="-0.779")
CALL = replace(DROP, name="head:dropout", kind="F.dropout", layer="head", source="net.py:7")
SDPA = replace(CALL, kind="scaled_dot_product_attention", target="attention weights", follows=None)


def explanation(
    *sites: Site, layers: tuple[Layer, ...] = (ROOT, BODY, NORM, HOME, HEAD), framework: str = "torch", **rest: Any
) -> Explanation:
    return Explanation(model="Net", framework=framework, inputs=((8, 5),), layers=layers, sites=sites, **rest)


def only(read: Explanation) -> Finding:
    (finding,) = findings(read)
    return finding


def frozen(*layers: Layer) -> tuple[Layer, ...]:
    return tuple(replace(layer, trainable=0) for layer in layers)


def resting(*layers: Layer) -> tuple[Layer, ...]:
    return tuple(replace(layer, training=False) for layer in layers)


def test_nothing_is_found_in_a_healthy_model() -> None:
    assert findings(explanation()) == ()
    assert findings(explanation(DROP, CALL, SDPA)) == ()
    asleep = [replace(site, now=False) for site in (DROP, CALL, SDPA)]
    assert findings(explanation(*asleep, layers=resting(ROOT, BODY, NORM, HOME, HEAD))) == ()


CASES: list[tuple[str, Site, dict[str, Any], str, str]] = [
    # code; site that does not show it; what to change so that it does; measured; remedy
    (
        "DK101",
        CALL,
        {"eval": True},
        "F.dropout with p = 0.25 drops in evaluation (net.py:7)",
        "Call `dropkit.torch.dropout(x, p, training=self.training)`, whose mode has no default.",
    ),
    (
        "DK101",
        DROP,
        {"eval": True},
        "Dropout with p = 0.25 drops in evaluation",
        'Drop only `if self.training`, or, if it is meant, say so by `dropkit.torch.Dropout(p, when="always")`.',
    ),
    (
        "DK101",
        CALL,
        {"eval": True, "note": "a layer made inside forward: eval() does not reach it"},
        "F.dropout with p = 0.25 drops in evaluation (net.py:7)",
        "Make it in `__init__`, as `self.drop = dropkit.torch.Dropout(0.25)`, where `eval()` reaches it.",
    ),
    (
        "DK102",
        DROP,
        {"train": False, "now": False},
        "Dropout with p = 0.25 ran in train mode and dropped nothing",
        "Let `model.train()` reach `model.body.drop`, or delete the dropout.",
    ),
    (
        "DK102",
        CALL,
        {"train": False, "now": False},
        "F.dropout with p = 0.25 ran in train mode and dropped nothing (net.py:7)",
        "Call `dropkit.torch.dropout(x, p, training=self.training)`, whose mode has no default.",
    ),
    (
        "DK102",
        DROP,
        {"train": None, "now": None},
        "Dropout with p = 0.25 did not run with these inputs",
        "Call it in the forward pass, or delete it if no other inputs reach it either.",
    ),
    (
        "DK105",
        SDPA,
        {"eval": True},
        "scaled_dot_product_attention with p = 0.25 drops attention weights in evaluation (net.py:7)",
        "Pass `dropout_p=self.p if self.training else 0.0`, since the function itself knows no mode.",
    ),
    (
        "DK106",
        replace(DROP, kind="LSTM", target="hidden states"),
        {"train": False, "now": False, "idle": "one layer: there is nothing between layers to drop"},
        "LSTM with p = 0.25: one layer: there is nothing between layers to drop",
        "Pass `num_layers=2`, or leave the rate out and put `dropkit.torch.Dropout(0.25)` on its output.",
    ),
    (
        "DK107",
        DROP,
        {"fast_path": True},
        "Dropout with p = 0.25 is on, and without gradient torch's fused encoder layer skipped it",
        "Run such passes inside `with dropkit.torch.enabled(model):`, which avoids it.",
    ),
    (
        "DK108",
        DROP,
        {"on_prediction": True},
        "Dropout with p = 0.25: nothing with parameters comes between it and an output of the model",
        "Move it in front of the last layer that has parameters, and until then call "
        '`dropkit.torch.set_rate(model, "body.drop", 0.0)`.',
    ),
    (
        "DK110",
        replace(ALPHA, follows="selu"),
        {"follows": None},
        "AlphaDropout with p = 0.25 follows no activation",
        "Put `torch.nn.SELU()` in front of it, or use `dropkit.torch.Dropout(0.25)`.",
    ),
    (
        "DK110",
        replace(ALPHA, kind="F.feature_alpha_dropout", follows="selu"),
        {"follows": "relu"},
        "F.feature_alpha_dropout with p = 0.25 follows relu",
        "Put `torch.nn.SELU()` in front of it, or use `dropkit.torch.Dropout(0.25)`.",
    ),
    (
        "DK111",
        DROP,
        {"follows": "selu"},
        "Dropout with p = 0.25 follows selu",
        "Use `dropkit.torch.AlphaDropout(0.25)`.",
    ),
    (
        "DK112",
        replace(DROP, kind="Dropout2d", input_rank=4, mask_shape=(8, 6, 1, 1)),
        {"input_rank": 3, "mask_shape": (8, 6, 1)},
        "Dropout2d with p = 0.25 on 3 axes: it dropped rows of N x C x L, as Dropout1d does (a mask of 8 x 6 x 1)",
        "Use `dropkit.torch.Dropout1d(0.25)`, or give the input its 4 axes.",
    ),
    (
        "DK112",
        replace(DROP, kind="F.dropout2d", input_rank=4, mask_shape=(8, 6, 1, 1)),
        {"input_rank": 2, "mask_shape": (8, 6)},
        "F.dropout2d with p = 0.25 on 2 axes: it dropped single elements, as Dropout does (a mask of 8 x 6)",
        "Use `dropkit.torch.Dropout(0.25)`, or give the input its 4 axes.",
    ),
    (
        "DK112",
        replace(DROP, kind="Dropout3d", input_rank=5, mask_shape=(8, 6, 1, 1, 1)),
        {"input_rank": 4, "mask_shape": (8, 1, 1, 1)},
        "Dropout3d with p = 0.25 on 4 axes: it dropped whole samples, if axis 0 is the batch: torch takes it for the "
        "channels of one sample (a mask of 8 x 1 x 1 x 1)",
        "Use `dropkit.torch.Dropout2d(0.25)`, or give the input its 5 axes.",
    ),
    (
        "DK112",
        replace(DROP, kind="Dropout1d", input_rank=2, mask_shape=(6, 1)),  # one sample of 6 channels
        {"mask_shape": (8, 1)},
        "Dropout1d with p = 0.25 on 2 axes: it dropped whole samples, if axis 0 is the batch: torch takes it for the "
        "channels of one sample (a mask of 8 x 1)",
        "Use `dropkit.torch.Dropout(0.25)`, or give the input its 3 axes.",
    ),
    (
        "DK113",
        DROP,
        {"twins": ("head:dropout",)},
        "Dropout with p = 0.25 drew the very mask of 6 draws a sample of head:dropout",
        "Give each its own key or generator, or none, and call `dropkit.torch.bind(model, seed=0)`: masks "
        "then differ by site.",
    ),
    (
        "DK114",
        DROP,
        {"gradient_check": "FAILED: recomputed, it dropped 12 other elements"},
        "Dropout with p = 0.25: recomputed, it dropped 12 other elements",
        "Keep `preserve_rng_state=True` of `torch.utils.checkpoint.checkpoint`, or call `dropkit.torch.swap(model)`: "
        "its masks are computed again exactly.",
    ),
    (
        "DK115",
        replace(DROP, p=0.59),
        {"p": 0.6},
        "p = 0.6: 40 % are kept, and scaled by 2.5",
        'Pass 0.4 if 0.6 was meant as the share to keep: `dropkit.torch.set_rate(model, "body.drop", 0.4)`.',
    ),
    (
        "DK115",
        replace(DROP, p=0.4),
        {"p": 1.0},
        "p = 1: 0 % are kept",
        'Pass 0 if 1 was meant as the share to keep: `dropkit.torch.set_rate(model, "body.drop", 0)`.',
    ),
    (
        "DK120",
        DROP,
        {"views": 2},
        "Dropout with p = 0.25 dropped the same elements of the same input in 2 calls of one forward",
        "If two views are meant (SimCSE, R-Drop), call the model inside `with dropkit.torch.passes(model, 2) as each:"
        "`, once in each turn of `for _ in each`; their masks then differ.",
    ),
]


@pytest.mark.parametrize(("code", "site", "change", "measured", "remedy"), CASES)
def test_a_site_is_found_and_its_neighbour_is_not(
    code: str, site: Site, change: dict[str, Any], measured: str, remedy: str
) -> None:
    assert findings(explanation(site)) == ()
    layers = (ROOT, BODY, NORM, replace(HOME, calls=int(change.get("train", True) is not None)), HEAD)
    finding = only(explanation(replace(site, **change), layers=layers))
    assert (finding.code, finding.site) == (code, site.name)
    assert finding.measured == measured
    assert finding.remedy == remedy


@pytest.mark.parametrize("code", ["DK101", "DK105"])
def test_dropout_in_evaluation_that_was_asked_for_by_name_is_no_finding(code: str) -> None:
    site = replace({"DK101": DROP, "DK105": SDPA}[code], eval=True)
    assert only(explanation(site)).code == code
    assert findings(explanation(replace(site, deliberate=True))) == ()


def test_sites_with_one_mask_are_told_once() -> None:
    names = ("a", "b", "c", "d", "e")
    sites = [replace(DROP, name=name, twins=tuple(other for other in names if other != name)) for name in names]
    finding = only(explanation(*sites))
    assert (finding.site, finding.measured.partition("sample of ")[2]) == ("a", "b, c, d and 1 more")


def test_attention_and_the_input_are_no_prediction_and_no_activation() -> None:
    alpha = replace(ALPHA, follows=None)
    assert only(explanation(alpha)).code == "DK110"
    assert findings(explanation(replace(alpha, target="input"))) == ()
    assert findings(explanation(replace(alpha, p=0.0))) == ()
    assert findings(explanation(replace(SDPA, on_prediction=True))) == ()
    assert findings(explanation(replace(DROP, on_prediction=True, p=0.0))) == ()


def test_keras_is_told_what_keras_can_do() -> None:
    def remedy(site: Site, **rest: Any) -> str:
        return only(explanation(site, framework="keras", **rest)).remedy

    follow = "out of the call, so that the layer follows the mode"
    meant = ', or, if it is meant, say so by `dropkit.keras.Dropout(p, when="always")`'
    assert remedy(replace(DROP, eval=True)) == f"Leave `training=True` {follow}{meant}."
    assert remedy(replace(SDPA, eval=True)) == f"Leave `training=True` {follow}."
    assert (
        remedy(replace(DROP, train=False, now=False))
        == f"Leave `training` {follow}: `False` and `None` both turn it off."
    )
    assert remedy(replace(DROP, on_prediction=True)) == "Move it in front of the last layer that has parameters."
    assert remedy(replace(DROP, twins=("b",))) == (
        "Give each its own seed, or none, and call `dropkit.keras.bind(model, seed=0)`: masks then differ by site."
    )
    assert remedy(replace(DROP, p=0.8)) == "Pass 0.2 if 0.8 was meant as the share to keep."
    assert remedy(replace(DROP, follows="selu")) == "Use `dropkit.keras.AlphaDropout(0.25)`."
    assert remedy(ALPHA) == ('Put `activation="selu"` in front of it, or use `dropkit.keras.Dropout(0.25)`.')
    layers = (replace(ROOT, trainable=20), *frozen(BODY, NORM), HOME, HEAD)
    rest = (
        "Set `trainable = False` on the part as a whole, and call it from a layer of your own as "
        "`self.body(x, training=False)`: a functional model ignores that argument."
    )
    assert remedy(DROP, layers=layers) == remedy(replace(DROP, now=None), layers=layers) == rest


def test_a_call_is_not_set_by_its_name() -> None:
    assert only(explanation(replace(CALL, p=0.8))).remedy == "Pass 0.2 if 0.8 was meant as the share to keep."
    remedy = only(explanation(replace(CALL, on_prediction=True))).remedy
    assert remedy == "Move it in front of the last layer that has parameters."


def test_codes_can_be_ignored() -> None:
    read = explanation(replace(DROP, p=0.8, follows="selu"))
    assert [found.code for found in findings(read, ignore=["DK111"])] == ["DK115"]
    assert findings(read, ignore={"DK111", "DK115"}) == ()
    with pytest.raises(UnknownNameError, match="unknown code 'DK11'; did you mean 'DK11"):
        findings(read, ignore=["DK11"])


def test_findings_come_in_the_order_of_their_codes_then_of_execution() -> None:
    both = replace(DROP, p=0.7, follows="selu"), replace(CALL, p=0.8, eval=True, on_prediction=True)
    assert [(found.code, found.site) for found in findings(explanation(*both))] == [
        ("DK101", "head:dropout"),
        ("DK108", "head:dropout"),
        ("DK111", "body.drop"),
        ("DK115", "body.drop"),
        ("DK115", "head:dropout"),
    ]


def test_codes_and_titles_are_those_of_the_page() -> None:
    listed = [(code, title) for code, title, _ in RULES]
    assert [code for code, _ in listed] == [f"DK{number}" for number in range(101, 121)]
    text = DOCS.read_text()
    assert re.findall(r"\| \[(DK\d+)\]\(#dk\d+\) \| (.*) \|", text) == listed
    headings = re.findall(r"^## (DK\d+)\n\n\*\*(.*)\.\*\*", text, re.MULTILINE)
    assert [(code, title.lower()) for code, title in headings] == [(code, title.lower()) for code, title in listed]
    finding = only(explanation(replace(DROP, p=0.8)))
    assert finding.link == "docs/doctor.md#dk115"
    assert str(finding).splitlines()[0] == "DK115 body.drop: rate of 0.6 or more"
