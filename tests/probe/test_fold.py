"""Folding on models written out by hand: what folds, what it is called, and that no site is hidden as untouched."""

from collections.abc import Iterable

from dropkit.probe.explanation import Explanation, Layer, Site
from dropkit.probe.fold import Node, fold


def explanation(layers: Iterable[Layer], sites: Iterable[Site] = ()) -> Explanation:
    root = Layer(name="", parent=None, kind="Net")
    return Explanation(model="Net", framework="torch", inputs=((2, 8),), layers=(root, *layers), sites=tuple(sites))


def block(name: str, parameters: int = 72, **status: object) -> list[Layer]:
    """An encoder block with a dropout in it."""
    return [
        Layer(name=name, parent="", kind="Block"),
        Layer(name=f"{name}.linear", parent=name, kind="Linear", parameters=parameters, trainable=parameters, **status),  # type: ignore[arg-type]
        Layer(name=f"{name}.dropout", parent=name, kind="Dropout", zeroed_by=(f"{name}.dropout",)),
    ]


def site(name: str, p: float = 0.1) -> Site:
    return Site(name=name, kind="Dropout", layer=name, p=p, train=True, eval=False)


def plain(number: int, **status: object) -> Layer:
    parameters = 10 + number
    return Layer(name=f"conv{number}", parent="", kind="Conv2D", parameters=parameters, **status)  # type: ignore[arg-type]


def shown(node: Node) -> list[str]:
    """The labels of a block's lines, folds with their notes."""
    return [f"{child.label} ({child.note})" if child.folded else child.label for child in node.children]


def names(node: Node) -> list[str]:
    return [layer.name for layer in node.layers]


def test_blocks_alike_fold_whatever_their_names_and_rates() -> None:
    layers = [layer for number in range(24) for layer in block(f"layers.{number}")]
    sites = [site(f"layers.{number}.dropout", p=number / 100) for number in range(24)]
    root = fold(explanation(layers, sites))
    assert shown(root) == ["layers.0 ... 23 (24 blocks alike)"]
    (folded,) = root.children
    assert (folded.layer, folded.count, len(folded.children)) == (None, 72, 24)
    assert [child.label for child in folded.children[0].children] == ["linear", "dropout"]
    assert names(root) == ["", *[layer.name for layer in layers]]
    assert root.count == 73


def test_a_block_with_another_size_or_status_stands_alone() -> None:
    layers = [layer for number in range(8) for layer in block(f"b{number}", 72 if number != 3 else 80)]
    sites = [site(f"b{number}.dropout") for number in range(8)]
    assert shown(fold(explanation(layers, sites))) == ["b0 ... b2 (3 blocks alike)", "b3", "b4 ... b7 (4 blocks alike)"]
    changed = {0: (), **dict.fromkeys(range(1, 8), ("b0.dropout",))}
    layers = [layer for number in range(8) for layer in block(f"b{number}", changed_by=changed[number])]
    assert shown(fold(explanation(layers, sites))) == ["b0", "b1 ... b7 (7 blocks alike)"]
    dead = [*sites[:7], Site(name="b7.dropout", kind="Dropout", layer="b7.dropout", p=0.1, train=False)]
    assert shown(fold(explanation(layers, dead))) == ["b0", "b1 ... b6 (6 blocks alike)", "b7"]


def test_two_blocks_alike_fold_and_small_models_never_do() -> None:
    layers = [layer for number in range(2) for layer in block(f"b{number}")]
    rest = [plain(number, trainable=1, gradient_by=("b0.dropout",)) for number in range(7)]
    sites = [site("b0.dropout"), site("b1.dropout")]
    assert [child.note for child in fold(explanation([*layers, *rest], sites)).children if child.folded] == [
        "2 blocks alike"
    ]
    twelve = [layer for number in range(4) for layer in block(f"b{number}")]
    assert shown(fold(explanation(twelve, [site(f"b{number}.dropout") for number in range(4)]))) == [
        "b0",
        "b1",
        "b2",
        "b3",
    ]


def test_what_no_dropout_touches_folds_and_says_whether_it_is_frozen() -> None:
    head = [
        Layer(name="dense", parent="", kind="Dense", parameters=9, trainable=9, zeroed_by=("drop",)),
        Layer(name="drop", parent="", kind="Dropout", zeroed_by=("drop",)),
        Layer(name="top", parent="", kind="Dense", parameters=9, trainable=9, changed_by=("drop",)),
    ]
    trunk = [plain(number) for number in range(229)]
    root = fold(explanation([*trunk, *head], [site("drop")]))
    assert shown(root) == ["conv0 ... conv228 (229 layers, frozen, untouched)", "dense", "drop", "top"]
    trainable = [plain(number, trainable=1) for number in range(20)]
    assert shown(fold(explanation([*trainable, *head], [site("drop")])))[0] == "conv0 ... conv19 (20 layers, untouched)"
    assert shown(fold(explanation([*trunk[:4], *head, *[plain(n, trainable=1) for n in range(4, 13, 3)]])))[:4] == [
        "conv0",
        "conv1",
        "conv2",
        "conv3",
    ]


def test_a_site_breaks_an_untouched_run_even_when_it_drops_nothing() -> None:
    layers = [
        *(plain(n) for n in range(7)),
        Layer(name="off", parent="", kind="Dropout"),
        *(plain(n) for n in range(7, 14)),
    ]
    root = fold(explanation(layers, [site("off", 0.0)]))
    assert shown(root) == [
        "conv0 ... conv6 (7 layers, frozen, untouched)",
        "off",
        "conv7 ... conv13 (7 layers, frozen, untouched)",
    ]


def test_what_passes_on_to_a_dropout_is_not_untouched() -> None:
    layers = [plain(n) for n in range(14)]
    layers += [Layer(name="pool", parent="", kind="Pool", inputs=("conv13",))]
    layers += [Layer(name="drop", parent="", kind="Dropout", inputs=("pool",))]
    drop = Site(name="drop", kind="Dropout", layer="drop", p=0.5, zeroes=("conv13",))
    layers[13] = Layer(name="conv13", parent="", kind="Conv2D", parameters=9, zeroed_by=("drop",))
    assert shown(fold(explanation(layers, [drop]))) == [
        "conv0 ... conv12 (13 layers, frozen, untouched)",
        "conv13",
        "pool",
        "drop",
    ]


def test_many_layers_that_dropout_reaches_in_the_same_way_fold() -> None:
    by = ("drop",)
    trunk = [plain(n, trainable=1, gradient="changed", gradient_by=by) for n in range(13)]
    trunk.insert(6, Layer(name="relu", parent="", kind="ReLU"))
    head = [Layer(name="drop", parent="", kind="Dropout", zeroed_by=by)]
    head += [plain(n, trainable=1, gradient="changed", gradient_by=by, changed_by=by) for n in range(20, 33)]
    assert shown(fold(explanation([*trunk, *head], [site("drop")]))) == [
        "conv0 ... conv12 (14 layers, gradient changed)",
        "drop",
        "conv20 ... conv32 (13 layers, output changed, gradient changed)",
    ]


def test_a_pattern_of_layers_that_repeats_folds() -> None:
    layers, sites = [], []
    for number in range(10):
        by = tuple(f"drop{n}" for n in range(number))
        layers += [
            Layer(name=f"dense{number}", parent="", kind="Dense", parameters=72, trainable=72, changed_by=by),
            Layer(name=f"drop{number}", parent="", kind="Dropout", zeroed_by=(f"drop{number}",)),
        ]
        sites.append(site(f"drop{number}"))
    assert shown(fold(explanation(layers, sites))) == ["dense0", "drop0 ... dense9 (9 times Dropout, Dense)", "drop9"]


def test_folds_inside_blocks_and_names_by_slashes() -> None:
    layers = [Layer(name="net/stage", parent="", kind="Functional")]
    layers += [Layer(name=f"net/stage/conv{n}", parent="net/stage", kind="Conv2D", parameters=n + 1) for n in range(14)]
    (stage,) = fold(explanation(layers)).children
    assert (stage.label, stage.folded) == ("net/stage", False)
    assert shown(stage) == ["conv0 ... conv13 (14 layers, frozen, untouched)"]
