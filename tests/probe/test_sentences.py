"""Masks, summaries and expectations in words, on explanations written out by hand."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from dropkit.probe.explanation import Explanation, Layer, Site
from dropkit.probe.masks import drops_branch, mask_words
from dropkit.probe.names import label, listed
from dropkit.probe.record import findings_json, to_json
from dropkit.probe.sentences import passed_on, sentences


def site(name: str = "drop", mask: tuple[int, ...] | None = (8, 16), **more: Any) -> Site:
    filled: dict[str, Any] = {
        "kind": "Dropout",
        "layer": name,
        "p": 0.5,
        "train": True,
        "eval": False,
        "now": True,
    } | more
    return Site(name=name, mask_shape=mask, **filled)


def layer(name: str, kind: str = "Linear", parameters: int = 0, **more: Any) -> Layer:
    filled: dict[str, Any] = {"parent": "", "trainable": parameters, "output_shape": (8, 16)} | more
    return Layer(name=name, kind=kind, parameters=parameters, **filled)


def explanation(layers: list[Layer], *sites: Site) -> Explanation:
    """With what the sites say of layers told of the layers too."""
    outer = [each for each in layers if each.parent == ""]
    total, trained = sum(each.parameters for each in outer), sum(each.trainable for each in outer)
    root = Layer(name="", parent=None, kind="Net", output_shape=(8, 2), parameters=total, trainable=trained)
    told = [
        replace(
            each,
            zeroed_by=tuple(s.name for s in sites if each.name in s.zeroes),
            changed_by=tuple(s.name for s in sites if each.name in s.changes),
            gradient_by=tuple(s.name for s in sites if each.name in s.gradients),
        )
        for each in (root, *layers)
    ]
    return Explanation(
        model="Net", framework="torch", inputs=((8, 4),), layers=tuple(told), sites=sites, forwards=5, backwards=2
    )


def transfer() -> Explanation:
    """A frozen trunk, two dense layers, a dropout of 0.2 and a head."""
    layers = [
        layer("trunk", "Functional", 60, trainable=0),
        *(layer(f"trunk/conv{n}", "Conv2D", n + 10, trainable=0, parent="trunk", gradient="frozen") for n in range(5)),
        layer("flatten", "Flatten"),
        layer("dense1", "Dense", 40),
        layer("dense2", "Dense", 50),
        layer("dropout", "Dropout", inputs=("dense2",)),
        layer("head", "Dense", 6),
    ]
    reach = {"zeroes": ("dense2",), "changes": ("", "head"), "gradients": ("dense1", "dense2", "head")}
    return explanation(layers, site("dropout", (8, 1024), p=0.2, **reach))


@pytest.mark.parametrize(
    ("mask", "more", "words"),
    [
        ((8, 1024), {}, "each of 1024 units, per sample"),
        ((8, 64, 7, 7), {}, "each of 64 x 7 x 7 units, per sample"),
        ((8, 64, 1, 1), {"kind": "Dropout2d"}, "whole channels: each of 64, per sample"),
        ((8, 1, 1, 64), {"kind": "SpatialDropout2D"}, "whole channels: each of 64, per sample"),
        ((8, 1, 32), {"kind": "SpatialDropout1D"}, "whole channels: each of 32, per sample"),
        ((8, 32, 1), {"kind": "Dropout1d"}, "whole channels: each of 32, per sample"),
        ((8, 12, 1), {}, "whole vectors: each of 12, per sample"),
        ((8, 12, 1, 16), {}, "each of 12 x 16, for all along the other axes, per sample"),
        ((1, 16), {}, "each of 16 units, shared by the batch"),
        ((8, 1, 1), {}, "one draw per sample (the whole branch)"),
        ((8, 1), {"kind": "DropPath"}, "one draw per sample (the whole branch)"),
        ((8, 1), {}, "one draw per sample"),
        ((1, 1, 1), {"kind": "DropPath"}, "one draw, shared by the batch (the whole branch)"),
        ((), {}, "one draw"),
        (None, {}, "mask not seen"),
        ((8, 12, 5, 7), {"target": "attention weights"}, "each attention weight: 12 heads x 5 x 7, per sample"),
        ((16, 5, 7), {"target": "attention weights"}, "each attention weight: 2 heads x 5 x 7, per sample"),
        ((8, 5, 7), {"target": "attention weights"}, "each attention weight: 5 x 7, per sample"),
    ],
)
def test_masks(mask: tuple[int, ...] | None, more: dict[str, Any], words: str) -> None:
    assert mask_words(site(mask=mask, **more), batch=8) == words


def test_with_one_sample_nothing_is_called_shared() -> None:
    assert mask_words(site(mask=(1, 16)), batch=1) == "each of 16 units, per sample"
    assert mask_words(site(mask=(1, 16))) == "each of 16 units, shared by the batch"


def test_a_unit_of_one_is_no_branch() -> None:
    assert not drops_branch(site(mask=(8, 1)))
    assert not drops_branch(site(mask=(8, 1, 1), target="attention weights"))
    assert drops_branch(site("stochastic_depth", (8, 1)))


def test_the_question_of_the_tutorial_is_answered() -> None:
    assert sentences(transfer()) == (
        "dropout (Dropout, p 0.2) zeroes a part of the output of dense2: each of 1024 units, per sample.",
        "dropout changes the output of a later layer: head.",
        "dropout changes the gradient of every trainable layer: dense1, dense2 and head.",
        "Frozen, and so without gradient: trunk.",
        "Not affected by any dropout: trunk and flatten.",
        "Every training step draws, for each sample, one of 2^1024 sub-networks.",
        "Active on average: 819.2 of 1024 units at dropout.",
    )


def test_a_block_is_named_only_where_all_its_layers_agree() -> None:
    net = transfer()
    thawed = [
        replace(each, trainable=each.parameters) if each.name == "trunk/conv4" else each for each in net.layers[1:]
    ]
    thawed = [replace(each, trainable=14) if each.name == "trunk" else each for each in thawed]
    told = sentences(explanation(thawed, *net.sites))
    assert "Frozen, and so without gradient: trunk/conv0, trunk/conv1, trunk/conv2 and trunk/conv3." in told
    assert "dropout changes the gradient of dense1, dense2 and head." in told


def test_sites_that_do_not_drop_or_should_not() -> None:
    layers = [layer(name, "Dropout") for name in ("zero", "dead", "always", "off", "lone")]
    sites = [
        site("zero", p=0.0),
        site("dead", train=False, now=False),
        site("always", eval=True),
        site("off", now=False),
        site("lone", idle="one layer: dropout stands between layers"),
    ]
    told = sentences(explanation(layers, *sites))
    assert "lone never drops: one layer: dropout stands between layers." in told
    assert "Of p 0, and so without effect: zero." in told
    assert "Not active in training: dead." in told
    assert "Active in evaluation too: always." in told
    assert "As the model was handed in, not active: off." in told
    assert not any(sentence.startswith(("zero (", "dead (", "lone (")) for sentence in told)


def test_a_model_in_evaluation_mode() -> None:
    net = explanation([layer("drop", "Dropout")], site(now=False))
    assert "As the model was handed in, no dropout is active." in sentences(net)
    net = replace(net, layers=(replace(net.layers[0], training=False), *net.layers[1:]))
    assert "As the model was handed in, in evaluation mode, no dropout is active." in sentences(net)


def test_no_dropout() -> None:
    assert sentences(explanation([layer("a", "Linear", 3)])) == ("No dropout was found in this model.",)


def test_few_sub_networks_are_counted_out_and_twins_draw_once() -> None:
    layers = [layer(name, "Dropout") for name in "abc"]
    told = sentences(explanation(layers, site("a", (8, 3)), site("b", (8, 4), p=1.0), site("c", (8, 2), p=None)))
    assert "Every training step draws, for each sample, one of 2^3 = 8 sub-networks." in told
    twins = [site("a", (8, 30), twins=("b",)), site("b", (8, 30), twins=("a",)), site("c", (8, 30))]
    told = sentences(explanation(layers, *twins))
    assert "Every training step draws, for each sample, one of 2^60 sub-networks." in told


def test_noise_draws_no_sub_network() -> None:
    told = sentences(
        explanation([layer("a", "Linear", 9)], site("drop", kind="GaussianDropout", zeroes=("a",), drawn="values"))
    )
    assert told[0] == (
        "drop (GaussianDropout, p 0.5) multiplies by noise the output of a: a number for each of 16 units, per sample."
    )
    assert not any("sub-networks" in sentence for sentence in told)
    told = sentences(
        explanation([layer("a", "Linear", 9)], site("drop", kind="AlphaDropout", zeroes=("a",), law="Alpha()"))
    )
    assert told[0].startswith("drop (AlphaDropout, p 0.5) saturates a part of the output of a")


def test_expected_depth_of_stochastic_depth() -> None:
    paths = [site(f"blocks.{n}.path", (8, 1, 1), kind="DropPath", p=0.2) for n in range(18)]
    told = sentences(explanation([layer(each.name, "DropPath") for each in paths], *paths))
    assert "Of 18 residual branches 14.4 are active on average." in told
    assert "Every training step draws, for each sample, one of 2^18 = 262,144 sub-networks." in told
    assert not any(sentence.startswith("Active on average") for sentence in told)


def test_many_sites_are_told_together() -> None:
    layers, sites = [], []
    for n in range(24):
        layers += [layer(f"layers.{n}", "Block", 9), layer(f"layers.{n}.linear", parameters=9, parent=f"layers.{n}")]
        layers += [layer(f"layers.{n}.drop", "Dropout", parent=f"layers.{n}")]
        sites.append(site(f"layers.{n}.drop", zeroes=(f"layers.{n}.linear",), gradients=(f"layers.{n}.linear",)))
    told = sentences(explanation(layers, *sites))
    assert told[0] == "24 dropouts (Dropout, p 0.5) zero a part of the output of layers.*.linear (24)."
    assert "All 24 dropouts together change no output of a later layer." in told
    assert "All 24 dropouts together change the gradient of every trainable layer." in told
    assert "Active on average: 8 of 16 units at each of 24 dropouts." in told


def test_what_has_no_output_of_a_layer_says_what_it_drops() -> None:
    layers = [layer("attention", "Attention", 8)]
    told = sentences(explanation(layers, site("attention:dropout", layer="attention", target="attention weights")))
    assert told[0].startswith("attention:dropout (Dropout, p 0.5) zeroes a part of the attention weights in attention")
    told = sentences(explanation(layers, site("in", target="input")))
    assert told[0].startswith("in (Dropout, p 0.5) zeroes a part of the model's input")


def test_what_lies_between_a_layer_and_its_dropout_is_not_spared() -> None:
    layers = [
        layer("flatten", "Flatten"),
        layer("0", "Linear", 9),
        layer("relu", "ReLU", inputs=("0",)),
        layer("2", "Dropout", inputs=("relu",)),
    ]
    net = explanation(layers, site("2", zeroes=("0",), gradients=("0",)))
    assert passed_on(net) == {"relu"}
    assert sentences(net)[0].startswith("2 (Dropout, p 0.5) zeroes a part of the output of 0 (Linear)")
    assert "dropout 2 changes the gradient of every trainable layer: 0 (Linear)." in sentences(net)
    assert "Not affected by any dropout: flatten." in sentences(net)
    call = explanation(layers[:3], site(":dropout", layer="", zeroes=("0",)))
    assert passed_on(call) == {"relu"}


def test_unused_and_unchanged_gradients() -> None:
    layers = [
        layer("spare", parameters=3, gradient="unused", output_shape=None),
        layer("linear", parameters=3, gradient="unchanged"),
    ]
    told = sentences(explanation(layers, site(":dropout", layer="", changes=("linear",))))
    assert "No output depends on spare, so there is no gradient." in told
    assert "The gradient is the same with and without dropout in linear." in told


def test_lists_of_names() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed("abcd") == "a, b, c and d"
    assert listed(["a", "b", "c", "d", "e", *(f"x.{n}.y" for n in range(9))]) == "x.*.y (9), a, b, c and 2 more"
    assert label(Layer(name="", parent=None, kind="Linear")) == "the model itself"


def test_json_holds_everything() -> None:
    net = transfer()
    read = json.loads(to_json(net))
    assert list(read) == [
        "format", "sentences", "findings", "model", "framework", "inputs", "layers", "sites", "forwards", "backwards",
        "notes",
    ]  # fmt: skip
    assert (read["format"], tuple(read["sentences"])) == (1, sentences(net))
    assert [Site(**_tuples(each)) for each in read["sites"]] == list(net.sites)
    assert [Layer(**_tuples(each)) for each in read["layers"]] == list(net.layers)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def test_json_has_null_for_what_is_not_finite_and_findings_alone() -> None:
    net = explanation([layer("a", variance_ratio=float("inf"))], site(p=0.8))
    assert json.loads(to_json(net))["layers"][1]["variance_ratio"] is None
    read = json.loads(findings_json(net))
    assert list(read) == ["format", "model", "framework", "sites", "findings"]
    assert [finding["code"] for finding in read["findings"]] == ["DK115"]
    assert set(read["findings"][0]) == {"code", "title", "site", "measured", "remedy", "link"}
    assert asdict(net.sites[0])["p"] == 0.8


def test_every_layer_is_said_plainly() -> None:
    layers = (
        Layer(name="", parent=None, kind="Net", output_shape=(2, 3), changed_by=("drop",)),
        *(Layer(name=name, parent="", kind="Linear", output_shape=(2, 3), changed_by=("drop",)) for name in "ab"),
    )
    site = Site(name="drop", kind="Dropout", layer="", p=0.5, train=True, changes=("", "a", "b"))
    told = sentences(Explanation(model="Net", framework="torch", inputs=((2, 3),), layers=layers, sites=(site,)))
    assert "drop changes the output of every layer." in told
    assert told[0] == "drop (Dropout, p 0.5) zeroes a part of a value computed in the model."


# ---------------------------------------------------------------------------------------------------------------------
# many layers


def flat(*, frozen: int, head: int = 1) -> Explanation:
    """A pretrained network whose layers stand beside the new ones, as Keras' functional models have them."""
    kinds = ("Conv2D", "BatchNormalization", "Activation")
    names = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Activation": "activation"}
    old = [
        layer(
            names[kind] + (f"_{number}" if number else ""),
            kind,
            0 if kind == "Activation" else 9,
            trainable=0,
            gradient="none" if kind == "Activation" else "frozen",
        )
        for number in range(frozen)
        for kind in kinds
    ]
    new = [layer(f"dense_{number}", "Dense", 40) for number in range(head)]
    return explanation(
        [*old, *new, layer("dropout", "Dropout", inputs=(new[-1].name,)), layer("out", "Dense", 3)],
        site("dropout", zeroes=(new[-1].name,), changes=("", "out"), gradients=(*(each.name for each in new), "out")),
    )


def test_many_layers_in_a_row_are_told_by_the_first_and_the_last() -> None:
    told = sentences(flat(frozen=70, head=2))
    assert "Frozen, and so without gradient: conv2d to batch_normalization_69 (140 layers)." in told
    assert "Not affected by any dropout: conv2d to activation_69 (210 layers)." in told


def test_a_gap_in_the_row_makes_two_of_it() -> None:
    found = flat(frozen=20, head=2)
    layers = [replace(each, changed_by=("dropout",)) if each.name == "conv2d_9" else each for each in found.layers]
    told = sentences(replace(found, layers=tuple(layers)))
    assert (
        "Not affected by any dropout: conv2d to activation_8 (27 layers) and batch_normalization_9 to activation_19 "
        "(32 layers)."
    ) in told


def test_few_layers_and_those_of_one_pattern_are_told_by_name() -> None:
    assert "Frozen, and so without gradient: conv2d and batch_normalization." in sentences(flat(frozen=1))
    blocks = [layer(f"layers.{n}", "Block", 9, trainable=0, gradient="frozen", parent="") for n in range(24)]
    found = explanation(
        [layer("embed", "Embedding", 5, trainable=0, gradient="frozen"), *blocks, layer("head", parameters=3)],
        site("drop", zeroes=("head",)),
    )
    assert "Frozen, and so without gradient: embed and layers.* (24)." in sentences(found)


def test_outputs_of_many_later_layers_are_plural() -> None:
    later = [layer(f"{kind}_{n}", "Dense", 4) for n in range(9) for kind in ("a", "b", "c", "d", "e")]
    found = explanation(
        [layer("first", parameters=4), layer("second", parameters=4), *later],
        site("drop", zeroes=("first",), changes=("", *(each.name for each in later))),
    )
    assert "drop changes the outputs of later layers: a_0 to e_8 (45 layers)." in sentences(found)


def test_one_mask_for_all_samples_is_drawn_for_the_whole_batch() -> None:
    layers = [layer("hidden", parameters=8), layer("drop", "Dropout", inputs=("hidden",)), layer("out", parameters=2)]
    shared, own = site(mask=(1, 16), zeroes=("hidden",)), site("other", mask=(8, 16), zeroes=("out",))
    start = "Every training step draws, "
    assert f"{start}for the whole batch, one of 2^16 = 65,536 sub-networks." in sentences(explanation(layers, shared))
    assert f"{start}for each sample, one of 2^32 sub-networks." in sentences(explanation(layers, shared, own))
