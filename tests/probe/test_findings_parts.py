"""The judgements about parts, modes and BatchNorm, on explanations made by hand."""

from dataclasses import replace
from typing import Any

import pytest

from dropkit.probe.explanation import Explanation
from dropkit.probe.findings import findings

from .test_findings import BODY, CALL, DROP, HEAD, HOME, NORM, ROOT, SDPA, explanation, frozen, only, resting


def test_a_part_in_train_mode_inside_a_model_in_eval_mode_drops() -> None:
    asleep = resting(ROOT, BODY, NORM, HOME, HEAD)
    assert findings(explanation(replace(DROP, now=False), layers=asleep)) == ()
    finding = only(explanation(DROP, layers=(asleep[0], BODY, NORM, HOME, asleep[4])))
    assert (finding.code, finding.site) == ("DK101", "body.drop")
    assert finding.measured == "Dropout with p = 0.25 drops now: the model is in eval mode, body.drop in train mode"
    assert finding.remedy == "Call `model.eval()` again, after whatever put this part back in train mode."
    assert only(explanation(CALL, layers=(*asleep[:4], HEAD))).code == "DK101"


def test_a_dropout_that_alone_is_put_in_train_mode_is_monte_carlo_dropout() -> None:
    asleep = resting(ROOT, BODY, NORM, HEAD)
    assert findings(explanation(DROP, layers=(*asleep[:3], HOME, asleep[3]))) == ()


def test_a_dropout_that_only_holds_the_rate_of_its_parents_attention_is_not_missing() -> None:
    held = replace(DROP, train=None, now=None, mask_shape=None)
    layers = (ROOT, BODY, NORM, replace(HOME, calls=0, output_shape=None), HEAD)
    call = replace(SDPA, name="body:sdpa", layer="body")
    assert only(explanation(held, layers=layers)).code == "DK102"
    assert findings(explanation(held, call, layers=layers)) == ()
    assert only(explanation(held, replace(call, p=0.1), layers=layers)).site == "body.drop"


def test_a_dropout_that_ran_in_another_block_of_the_class_is_not_missing() -> None:
    held = replace(DROP, train=None, now=None, mask_shape=None)
    first = replace(BODY, kind="Block")
    layers = (ROOT, first, NORM, replace(HOME, calls=0, output_shape=None), HEAD)
    block = replace(first, name="other")
    ran = replace(DROP, name="other.drop", layer="other.drop", p=0.1)
    second = replace(HOME, name="other.drop", parent="other")
    assert findings(explanation(held, ran, layers=(*layers, block, second))) == ()
    assert only(explanation(held, ran, layers=(*layers, replace(block, kind="Other"), second))).site == "body.drop"
    nobody = replace(ran, train=None), replace(second, calls=0)
    assert len(findings(explanation(held, nobody[0], layers=(*layers, block, nobody[1])))) == 2
    containers = (ROOT, BODY, *layers[2:], replace(BODY, name="other"), second)  # two of anything
    assert only(explanation(held, ran, layers=containers)).site == "body.drop"


def test_a_frozen_part_is_to_be_in_eval_mode() -> None:
    body = frozen(BODY, NORM)
    root = replace(ROOT, trainable=20)
    awake, asleep = explanation(DROP, layers=(root, *body, HOME, HEAD)), replace(DROP, now=False)
    finding = only(awake)
    assert (finding.code, finding.site) == ("DK103", "body")
    assert finding.measured == (
        "10 parameters, all frozen, with 1 BatchNorm (body.norm) in train mode and 1 active dropout (body.drop)"
    )
    assert finding.remedy == "Call `model.body.eval()` after every `model.train()`."
    assert findings(explanation(asleep, layers=(root, *resting(*body, HOME), HEAD))) == ()
    # a model that trains nothing is being used, not trained; a part with neither dropout nor BatchNorm has no mode
    assert findings(explanation(DROP, layers=frozen(ROOT, BODY, NORM, HOME, HEAD))) == ()
    assert findings(explanation(layers=(root, body[0], HEAD))) == ()


def test_dropout_of_a_frozen_part_behind_trained_parameters_is_theirs() -> None:
    dense = replace(HEAD, name="body.dense", parent="body", trainable=0, inputs=("first",))
    first = replace(HEAD, name="first")
    part = (*frozen(BODY), dense, HOME)
    assert findings(explanation(DROP, layers=(ROOT, first, *part, HEAD))) == ()
    finding = only(explanation(DROP, layers=(ROOT, *frozen(first), *part, HEAD)))
    assert (finding.site, finding.measured) == (
        "body",
        "10 parameters, all frozen, with 1 active dropout (body.drop)",
    )
    finding = only(explanation(DROP, layers=(ROOT, first, *part, *frozen(NORM), HEAD)))
    assert finding.measured == "10 parameters, all frozen, with 1 BatchNorm (body.norm) in train mode"


def test_the_outermost_frozen_part_is_told() -> None:
    inner = replace(NORM, name="body.1.norm", parent="body.1", trainable=0)
    block = replace(BODY, name="body.1", parent="body", trainable=0)
    layers = (replace(ROOT, trainable=20), *frozen(BODY), block, inner, HEAD)
    assert [(found.code, found.site) for found in findings(explanation(layers=layers))] == [("DK103", "body")]
    layers = (ROOT, BODY, block, inner, HEAD)
    finding = only(explanation(layers=layers))
    assert (finding.site, finding.remedy) == (
        "body.1",
        'Call `model.get_submodule("body.1").eval()` after every `model.train()`.',
    )


def test_a_frozen_part_may_rest_in_training() -> None:
    dead = replace(DROP, train=False, now=False)
    assert only(explanation(dead)).code == "DK102"
    rest = resting(*frozen(BODY, NORM), HOME)
    assert findings(explanation(dead, layers=(replace(ROOT, trainable=20), *rest, HEAD))) == ()


def test_a_trainable_part_is_to_be_in_train_mode() -> None:
    layers = (ROOT, *resting(BODY, NORM, HOME), HEAD)
    finding = only(explanation(replace(DROP, now=False), layers=layers))
    assert (finding.code, finding.site) == ("DK104", "body")
    assert finding.measured == (
        "10 trainable parameters in eval mode, with 1 BatchNorm (body.norm) in eval mode and 1 dropout (body.drop) off"
    )
    assert finding.remedy == "Call `model.body.train()` before training goes on."
    # a layer that does the same in both modes, and a model that is all in eval mode
    assert findings(explanation(DROP, layers=(ROOT, BODY, NORM, HOME, *resting(HEAD)))) == ()
    everything = resting(ROOT, BODY, NORM, HOME, HEAD)
    assert findings(explanation(replace(DROP, now=False), layers=everything)) == ()


@pytest.mark.parametrize("ratio", [0.83, 1.17])
def test_batchnorm_behind_dropout_is_judged_by_its_variances(ratio: float) -> None:
    def read(ratio: float | None, **more: Any) -> Explanation:
        norm = replace(
            NORM, name="late", parent="", input_variance_ratio=ratio, **{"changed_by": ("body.drop",)} | more
        )
        return explanation(DROP, layers=(ROOT, BODY, HOME, norm, HEAD))

    assert findings(read(0.84)) == findings(read(1.16)) == findings(read(None)) == ()
    assert findings(read(ratio, changed_by=())) == ()
    assert findings(read(ratio, kind="LayerNorm")) == ()
    finding = only(read(ratio))
    assert (finding.code, finding.site) == ("DK109", "body.drop")
    assert finding.measured == f"variance of the input of late in training: {ratio} times that in evaluation"
    assert finding.remedy == "Move the dropout behind the last BatchNorm, or lower its rate."
    assert only(read(ratio, changed_by=(), zeroed_by=("body.drop",))).site == "body.drop"
    # of few samples the ratio is itself noisy
    assert findings(read(ratio, output_shape=(4, 6))) == ()
    assert only(read(1.11, output_shape=(64, 6))).measured.endswith("1.11 times that in evaluation")
    assert findings(read(1.10, output_shape=(64, 6))) == ()


def test_batchnorms_are_told_with_the_dropout_nearest_to_them() -> None:
    first, second, third = (
        replace(NORM, name=name, parent="", input_variance_ratio=ratio, changed_by=by)
        for name, ratio, by in [
            ("first", 1.2, ("body.drop",)),
            ("second", 1.5, ("body.drop",)),
            ("third", 1.25, ("body.drop", "head:dropout")),
        ]
    )
    read = explanation(DROP, CALL, layers=(ROOT, BODY, HOME, first, second, HEAD, third))
    assert [(found.site, found.measured.partition(": ")[2]) for found in findings(read)] == [
        ("body.drop", "1.20 times that in evaluation; 1 more behind it, 1.50 at second"),
        ("head:dropout", "1.25 times that in evaluation"),
    ]
