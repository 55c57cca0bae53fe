"""The text of tiny Shakespeare as numbers of characters."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError

FILE = "tiny_shakespeare/input.txt"
CONTENT = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
URL = "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt"


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A text of characters.

    Args:
        train: numbers of the first nine tenths.
        val: of the rest.
        alphabet: how many characters there are.
    """

    train: torch.Tensor
    val: torch.Tensor
    alphabet: int


def load_text(data_dir: str | Path | None) -> Text:
    """Tiny Shakespeare from the file tiny_shakespeare/input.txt of the data folder, else of DROPKIT_DATA's.

    Raises:
        DataError: there is no such file, or it is not the published one.
    """
    root = data_dir or os.environ.get("DROPKIT_DATA")
    if not root:
        raise DataError(f"point --data-dir or DROPKIT_DATA at the folder that holds {FILE}, which is {URL}")
    path = Path(root) / FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; it is {URL}") from error
    if hashlib.sha256(content).hexdigest() != CONTENT:
        raise DataError(f"{path} is not the published file: replace it with {URL}")
    found, numbers = np.unique(np.frombuffer(content, np.uint8), return_inverse=True)
    text = torch.from_numpy(numbers.astype(np.int64))
    cut = int(0.9 * len(text))
    return Text(text[:cut], text[cut:], len(found))
