"""The grid: every entry says all that it must, and what it says is there."""

import importlib
import importlib.util
import re

import pytest

from dropkit import Drop, grid
from dropkit.errors import DropkitError
from dropkit.grid import Variant, activations, depth, graphs, heads, tokens, weights
from dropkit.grid.bibliography import entries, entry
from dropkit.grid.entry import PLACES

from .gallery import pages

FILES = {
    "activations": activations.ACTIVATIONS,
    "weights": weights.WEIGHTS,
    "depth": depth.DEPTH,
    "tokens": tokens.TOKENS,
    "graphs": graphs.GRAPHS,
    "heads": heads.HEADS,
}


def test_a_name_stands_in_one_file() -> None:
    assert len(grid) == sum(map(len, FILES.values()))
    assert grid.names() == tuple(name for variants in FILES.values() for name in variants)


@pytest.mark.parametrize("name", grid)
def test_an_entry_says_all_that_there_is_to_know(name: str) -> None:
    variant = grid[name]
    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert isinstance(variant(variant.default), Drop)
    assert variant.place in PLACES
    assert "y = " in variant.formula or "L = " in variant.formula
    assert 0 < variant.default < 1
    for told in (variant.paper, variant.formula, variant.applies, variant.layout):
        assert told and told.isprintable() and not told.endswith(".")
    assert re.search(r"\d{4}", variant.paper)
    year = re.search(r"year = \{(\d{4})\}", variant.bibtex)
    assert year and year[1] in variant.paper


def test_every_paper_is_cited_and_is_one_entry_of_bibtex() -> None:
    assert {variant.cite for variant in grid.values()} == set(entries())
    for text in entries().values():
        assert text.count("{") == text.count("}")
        assert all(re.search(rf"^  {field} = \{{", text, re.MULTILINE) for field in ("title", "author", "year"))
    with pytest.raises(DropkitError, match="unknown paper 'nobody2020'"):
        entry("nobody2020")
    with pytest.raises(DropkitError, match="unknown paper ''"):
        Variant("nobody 2020").bibtex  # noqa: B018


@pytest.mark.parametrize("frontend", ["torch", "jax"])
def test_the_classes_that_an_entry_names_exist(frontend: str) -> None:
    for name, variant in grid.items():
        if said := getattr(variant, frontend):
            room, _, what = said.rpartition(".")
            module = importlib.import_module(f"dropkit.{frontend}{'.' * bool(room)}{room}")
            assert callable(getattr(module, what)), name


def test_the_pages_of_the_grid_are_as_the_grid_is() -> None:
    for path, content in pages().items():
        assert path.exists() and path.read_bytes() == content, f"{path.name} is stale: python -m tests.gallery"
