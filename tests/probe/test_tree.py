"""The tree of the terminal: every word of it, at 80 columns, with and without colour."""

from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console

from dropkit.probe.explanation import Explanation, Layer, Site
from dropkit.probe.fold import fold
from dropkit.probe.tree import tree
from tests.probe.test_sentences import explanation, layer, site, transfer


def drawn(net: Explanation, *, opened: bool = False, width: int = 80, colour: bool = False) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=colour, color_system="standard" if colour else None)
    console.print(tree(fold(net), net, opened=opened))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def blocks(count: int) -> Explanation:
    layers, sites = [], []
    for n in range(count):
        name = f"layers.{n}"
        layers += [layer(name, "Block", 9), layer(f"{name}.linear", parameters=9, parent=name)]
        layers += [layer(f"{name}.drop", "Dropout", parent=name)]
        sites.append(site(f"{name}.drop", p=0.1 if n else 0.2, zeroes=(f"{name}.linear",)))
    return explanation(layers, *sites)


def test_a_line_for_each_layer() -> None:
    assert drawn(transfer()) == [
        "Net  8 x 2  156 (96 trainable)  changed",
        "├── trunk  Functional  8 x 16  60 frozen",
        "│   ├── conv0  Conv2D  8 x 16  10 frozen",
        "│   ├── conv1  Conv2D  8 x 16  11 frozen",
        "│   ├── conv2  Conv2D  8 x 16  12 frozen",
        "│   ├── conv3  Conv2D  8 x 16  13 frozen",
        "│   └── conv4  Conv2D  8 x 16  14 frozen",
        "├── flatten  Flatten  8 x 16",
        "├── dense1  Dense  8 x 16  40",
        "├── dense2  Dense  8 x 16  50  zeroed",
        "├── dropout  Dropout  p 0.2: each of 1024 units, per sample",
        "└── head  Dense  8 x 16  6  changed",
    ]


def test_what_a_layer_says_of_itself() -> None:
    layers = [
        layer("a", parameters=3, gradient="changed", variance_ratio=1.234, training=False, calls=2),
        layer("norm", "BatchNorm1d", 4, input_variance_ratio=1.5, random=True),
        layer("spare", parameters=2, gradient="unused", output_shape=None),
        layer("scalar", output_shape=()),
    ]
    lines = drawn(explanation(layers, site(":dropout", layer="", changes=("a", "norm"))), width=200)[1:]
    assert lines == [
        "├── dropout  Dropout  p 0.5: each of 16 units, per sample",
        "├── a  Linear  8 x 16  3  in eval mode  runs 2 times  changed (x 1.23); gradient changed",
        "├── norm  BatchNorm1d  8 x 16  4  changed; its input's variance in training x 1.5; random without dropout",
        "├── spare  Linear  did not run  2  no gradient: unused",
        "└── scalar  Linear  a number",
    ]


def test_what_a_site_says_of_itself() -> None:
    told: dict[str, dict[str, Any]] = {
        "idle": {"idle": "one layer"},
        "dead": {"train": False},
        "off": {"now": False},
        "leak": {"eval": True},
        "mc": {"eval": True, "deliberate": True},
        "fast": {"fast_path": True},
        "torn": {"gradient_check": "FAILED: 3 differ"},
        "states": {"target": "hidden states", "mask_shape": (8, 4)},
        "unseen": {"mask_shape": None, "p": None},
    }
    sites = [replace(site(name), **more) for name, more in told.items()]
    lines = drawn(explanation([layer(name, "Dropout") for name in told], *sites), width=200)[1:]
    dropping = "p 0.5: each of 16 units, per sample"
    assert [line[4:] for line in lines] == [
        f"idle  Dropout  {dropping}, never drops: one layer",
        f"dead  Dropout  {dropping}, off in training",
        f"off  Dropout  {dropping}, off as handed in",
        f"leak  Dropout  {dropping}, on in evaluation",
        f"mc  Dropout  {dropping}, on in evaluation, as asked for",
        f"fast  Dropout  {dropping}, skipped by the fast path",
        f"torn  Dropout  {dropping}, another mask in backward",
        "states  Dropout  p 0.5: hidden states, each of 4 units, per sample",
        "unseen  Dropout",
    ]


def test_a_call_stands_behind_the_layer_that_it_zeroes() -> None:
    layers = [layer("hidden1", parameters=3), layer("hidden2", parameters=3), layer("output", parameters=3)]
    call = site(":dropout", layer="", kind="F.dropout", zeroes=("hidden2",), source="/home/me/net.py:21")
    assert drawn(explanation(layers, call))[1:] == [
        "├── hidden1  Linear  8 x 16  3",
        "├── hidden2  Linear  8 x 16  3  zeroed",
        "├── dropout  F.dropout  p 0.5: each of 16 units, per sample  net.py:21",
        "└── output  Linear  8 x 16  3",
    ]


def test_a_fold_of_blocks_shows_the_first_and_opens() -> None:
    closed = drawn(blocks(8))
    assert closed[1] == "└── layers.0 ... 7  8 blocks alike, 24 layers, 8 dropouts of p 0.1 to 0.2  72;"
    assert closed[2:] == [
        "    the first of them:",
        "    └── layers.0  Block  8 x 16  9",
        "        ├── linear  Linear  8 x 16  9  zeroed",
        "        └── drop  Dropout  p 0.2: each of 16 units, per sample",
    ]
    opened = drawn(blocks(8), opened=True)
    assert len(opened) == 1 + 3 * 8 and not any("alike" in line for line in opened)
    assert opened[-3] == "└── layers.7  Block  8 x 16  9"


def test_an_untouched_fold_is_one_line() -> None:
    trunk = [layer(f"conv{n}", "Conv2D", n + 1, trainable=0) for n in range(20)]
    net = explanation([*trunk, layer("drop", "Dropout")], site())
    assert drawn(net)[1:] == [
        "├── conv0 ... conv19  20 layers, frozen, untouched  210",
        "└── drop  Dropout  p 0.5: each of 16 units, per sample",
    ]
    assert len(drawn(net, opened=True)) == 22


def test_lines_wrap_inside_the_tree_and_colour_adds_no_words() -> None:
    layers = [layer("block", "Block", 4, changed_by=("drop",), variance_ratio=2.0)]
    layers += [layer("block.a_very_long_name_of_a_layer", "VeryLongClassName", 4, parent="block", gradient="changed")]
    net = explanation(layers, site(":dropout", layer="", changes=("block", "block.a_very_long_name_of_a_layer")))
    lines = drawn(net, width=60)
    assert max(map(len, lines)) <= 60 and lines[-1].startswith("        ")
    coloured = "\n".join(drawn(net, width=200, colour=True))
    assert "\x1b[" in coloured
    assert _plain(coloured) == "\n".join(drawn(net, width=200))


def _plain(text: str) -> str:
    from rich.text import Text

    return "\n".join(line.rstrip() for line in Text.from_ansi(text).plain.splitlines())


def test_names_are_no_markup() -> None:
    root = Layer(name="", parent=None, kind="[bold]Net[/bold]", output_shape=(2, 2))
    odd = Layer(name="[red]a", parent="", kind="[/red]", output_shape=(2, 2), calls=1)
    net = Explanation(model="[b]", framework="torch", inputs=((2, 2),), layers=(root, odd), sites=())
    assert drawn(net) == ["[b]  [bold]Net[/bold]  2 x 2", "└── [red]a  [/red]  2 x 2"]
    call = Site(name="[x]:dropout", kind="Dropout", layer="[red]a", p=0.5)
    assert "[x]:dropout" in "".join(drawn(replace(net, sites=(call,))))
