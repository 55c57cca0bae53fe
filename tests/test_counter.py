"""The generator against its published known answers, and the folding of coordinates."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dropkit import DropkitError, Key
from dropkit.counter import MASK64, fold, philox4x32, site_id, split_product, wrapping_product

GOLDEN = Path(__file__).parent / "golden"

# Random123's kat_vectors for philox4x32: rounds, counter, key, result.
KNOWN_ANSWERS = [
    (7, (0, 0, 0, 0), (0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    (7, (0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
    (
        7,
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A),
    ),
    (10, (0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (10, (0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        10,
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def file_rows() -> list[tuple]:
    rows = []
    for line in (GOLDEN / "philox_kat.txt").read_text().splitlines():
        name, rounds, *words = line.split()
        assert name == "philox4x32"
        numbers = [int(word, 16) for word in words]
        rows.append((int(rounds), tuple(numbers[:4]), tuple(numbers[4:6]), tuple(numbers[6:])))
    return rows


def test_the_file_holds_the_published_rows() -> None:
    assert file_rows() == KNOWN_ANSWERS


KINDS = {
    "int": lambda word: word,
    "numpy": lambda word: np.array([word, word], np.uint64),
    "torch": lambda word: torch.tensor([word, word], dtype=torch.int64),
}


@pytest.mark.parametrize("product", [wrapping_product, split_product])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("rounds", "counter", "key", "result"), KNOWN_ANSWERS)
def test_known_answers(product: Callable, kind: str, rounds: int, counter: tuple, key: tuple, result: tuple) -> None:
    make = KINDS[kind]
    words = philox4x32(tuple(map(make, counter)), tuple(map(make, key)), rounds, product)
    for word, wanted in zip(words, result, strict=True):
        assert word == wanted if kind == "int" else word.tolist() == [wanted, wanted]


@pytest.mark.parametrize(("rounds", "counter", "key", "result"), KNOWN_ANSWERS)
def test_words_of_32_bits_with_arithmetic_of_their_own(rounds: int, counter: tuple, key: tuple, result: tuple) -> None:
    def product(word: np.ndarray, multiplier: int) -> tuple[np.ndarray, np.ndarray]:
        wide = word.astype(np.uint64) * np.uint64(multiplier)
        return (wide >> np.uint64(32)).astype(np.uint32), word * np.uint32(multiplier)

    def plus(word: np.ndarray, number: int) -> np.ndarray:
        return word + np.uint32(number)

    def make(word: int) -> np.ndarray:
        return np.array([word, word], np.uint32)

    words = philox4x32(tuple(map(make, counter)), tuple(map(make, key)), rounds, product, plus)
    assert [word.dtype for word in words] == [np.uint32] * 4
    assert [word.tolist() for word in words] == [[wanted, wanted] for wanted in result]


@pytest.mark.parametrize("vector", json.loads((GOLDEN / "mask_vectors.json").read_text())["fold"])
def test_fold_vectors(vector: dict) -> None:
    assert site_id(vector["site"]) == vector["site_id"]
    assert list(fold(vector["seed"], vector["site"], vector["step"])) == vector["key"]
    assert Key(vector["seed"], vector["site"], vector["step"]).words == tuple(vector["key"])


def test_key_is_a_value() -> None:
    assert Key(1, "a", 2) == Key(seed=1, site="a", step=2)
    assert hash(Key(1, "a", 2)) == hash(Key(1, "a", 2))
    assert Key(np.int64(3), np.uint8(4), np.int32(5)) == Key(3, 4, 5)
    assert type(Key(np.int64(3)).seed) is int
    with pytest.raises(AttributeError):
        Key().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kwargs", "builtin", "message"),
    [
        ({"seed": -1}, ValueError, r"seed must lie in \[0, 2\*\*64\), got -1"),
        ({"step": MASK64 + 1}, ValueError, r"step must lie in \[0, 2\*\*64\), got 18446744073709551616"),
        ({"site": -5}, ValueError, r"site must lie in \[0, 2\*\*64\), got -5"),
        ({"seed": 1.0}, TypeError, "seed must be an integer, got 1.0 of type float"),
        ({"seed": "1"}, TypeError, "seed must be an integer, got '1' of type str"),
        ({"step": True}, TypeError, "step must be an integer, got True of type bool"),
        ({"site": 1.5}, TypeError, "site must be an integer or a name, got 1.5 of type float"),
    ],
)
def test_bad_keys(kwargs: dict, builtin: type[Exception], message: str) -> None:
    with pytest.raises(DropkitError, match=message) as caught:
        Key(**kwargs)
    assert isinstance(caught.value, builtin)
