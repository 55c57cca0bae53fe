"""The grid: every entry says all that it must, and what it says is there."""

import importlib
import importlib.util
import re

import numpy as np
import pytest

from dropkit import Drop, grid
from dropkit.errors import DropkitError
from dropkit.grid import Variant, activations, depth, graphs, heads, tokens, weights
from dropkit.grid.bibliography import entries, entry
from dropkit.grid.entry import PLACES

from .gallery import PICTURES, colour, drawn, pages, picture

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
    assert {path for path in pages() if path.suffix == ".svg"} == set(PICTURES.iterdir())


def test_a_picture_shows_the_mask() -> None:
    """Dark cells are those that are dropped, of a channel all or none, and of a key all queries."""
    mask = drawn("dropout", grid["dropout"]) == 0
    (dark,) = re.findall(rf'fill="{colour(0)}" d="([^"]+)"', picture(drawn("dropout", grid["dropout"])))
    assert sum(int(length) for length in re.findall(r"h(\d+)v1", dark)) == mask.sum()
    channels = drawn("spatial", grid["spatial"])
    assert channels.shape == (4, 14, 14) and (channels.min((1, 2)) == channels.max((1, 2))).all()
    keys = drawn("drop_key", grid["drop_key"])
    assert np.isneginf(keys).any() and (np.isneginf(keys).all(1) == np.isneginf(keys).any(1)).all()
