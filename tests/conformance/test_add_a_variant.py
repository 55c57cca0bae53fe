"""docs/add-a-variant.md: what it says to paste goes where it says, and the table of laws then holds for it."""

import doctest
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import dropkit.numpy
import dropkit.torch
from dropkit.axes.noise import hard, soft
from dropkit.axes.share.refining import block
from dropkit.errors import DropkitValueError
from dropkit.grid import activations

from . import laws
from .laws import CHECKS
from .test_laws import COLUMNS, row

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-variant.md").read_text()
BLOCKS = re.findall(r"^```python fragment\n# ([^\n]*)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
NEW: dict[str, Any] = {}  # the values of the page


def pasted(place: str, module: ModuleType) -> dict[str, Any]:
    """The names of a copy of the module, into which all blocks were pasted that go there."""
    copy = ModuleType(f"{module.__name__}_with_the_page")
    names = vars(copy)
    names.update({name: value for name, value in vars(module).items() if name != "__name__"}, **NEW)
    sys.modules[copy.__name__] = copy  # torch's compiler looks a function's module up
    for where, text in BLOCKS:
        if where == place:
            exec(compile(text, f"<{place}>", "exec", dont_inherit=True), names)
    NEW.update({name: value for name, value in names.items() if name not in vars(module)})
    return names


def items(place: str, opening: str, closing: str, names: dict[str, Any]) -> Any:
    """The lines of all blocks that go into one list or dict."""
    lines = "".join(text for where, text in BLOCKS if where == place)
    return eval(f"{opening}{lines}{closing}", names)


pasted("src/dropkit/axes/noise/hard.py", hard)
pasted("src/dropkit/axes/noise/soft.py", soft)
pasted("src/dropkit/axes/share/refining/block.py", block)
NAMES = pasted("tests/conformance/laws.py", laws)
LAWS = items("tests/conformance/laws.py, in MORE_LAWS", "[", "]", NAMES)
SHARES = items("tests/conformance/laws.py, in MORE_SHARES", "[", "]", NAMES)
VARIANTS = items("src/dropkit/grid/activations.py", "{", "}", {**vars(activations), **NEW})

ROWS = [(law, laws.SHARES[0]) for law in LAWS] + [(laws.LAWS[0], shared) for shared in SHARES]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("law", "shared"), ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_the_variants_of_the_page_conform(column: Any, law: Any, shared: Any, check: str) -> None:
    if getattr(column, "compiled", False) and check != "backward":
        pytest.skip("a compilation for each case: forward and backward are enough here, test_laws.py has the rest")
    CHECKS[check](column, law, shared)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_their_rows_can_fail(law: Any) -> None:
    """Another law in the same row is caught."""
    wrong = row("inverted")[0].noise
    if law.noise.needs_other:
        wrong = laws.MORE_LAWS[3].noise
    with pytest.raises(AssertionError):
        CHECKS["forward"](COLUMNS[0], laws.Law(law.name, wrong, law.y, law.off), laws.SHARES[0])


def test_their_means_are_what_the_rows_say() -> None:
    x, o = np.full((200, 200), 1.5), np.full((200, 200), -0.5)
    for law in LAWS:
        other = o if law.noise.needs_other else None
        y = dropkit.numpy.dropout(x, 0.5, training=True, key=dropkit.Key(3), noise=law.noise, other=other)
        assert abs(y.mean() - law.mean(1.5, -0.5, 0.5)) < 4.5 * y.std() / 200, law.name


def test_every_block_has_a_place_and_every_law_its_line_in_the_grid() -> None:
    assert len(BLOCKS) == PAGE.count("```python")
    places = {where.partition(",")[0] for where, _ in BLOCKS}
    assert all(place == "anywhere" or (Path(__file__).parents[2] / place).exists() for place in places)
    assert [variant.noise for variant in VARIANTS.values()][:3] == [type(law.noise)() for law in LAWS]
    for name, variant in VARIANTS.items():
        assert name not in dropkit.grid, f"{name} is in dropkit now: take another example"
        assert variant(0.5).lower(training=True) is not None


def test_what_the_page_runs_and_its_docstrings_show_is_so() -> None:
    names = {"np": np, "torch": torch, "dropkit": dropkit, **NEW}
    for where, text in BLOCKS:
        if where == "anywhere":
            exec(compile(text, "<anywhere>", "exec", dont_inherit=True), names)
    gradient = names["w"].grad
    assert ((gradient == 0) | (gradient == 1)).all()
    runner = doctest.DocTestRunner()
    for value in filter(callable, NEW.values()):
        for test in doctest.DocTestFinder(recurse=False).find(value, globs=dict(names)):
            runner.run(test)
    assert runner.summarize(verbose=False) == doctest.TestResults(0, 3)


def test_parameters_are_checked() -> None:
    with pytest.raises(DropkitValueError, match="halvings must be 0"):
        NEW["Jumpout"](2)
    with pytest.raises(DropkitValueError, match="size must be an int of at least 1, got 0"):
        NEW["Cells"](0)
