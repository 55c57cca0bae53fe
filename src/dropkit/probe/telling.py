"""An explanation and its findings as text and as a page in a file."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import DropkitRuntimeError, OutputError
from ..finding import Finding
from ..language import ENGLISH, Catalogue, told
from .facts import Facts
from .fold import fold
from .sentences import sentences


def as_text(words: Sequence[str], findings: Sequence[Finding], lang: str | Catalogue = ENGLISH) -> str:
    """Sentences, a line each, and then the findings."""
    return "\n".join((*told(list(words), lang), *(f"\n{finding.text(lang)}" for finding in findings)))


def save_page(
    path: str | Path, explanation: Facts, findings: Sequence[Finding], lang: str | Catalogue = ENGLISH
) -> None:
    """Write the page with the network drawn.

    Raises:
        DropkitRuntimeError: Jinja is not installed.
        OutputError: the file cannot be written.
    """
    try:
        from .page import render_network  # with Jinja, which explaining itself does not need

        text = render_network(explanation, fold(explanation), sentences(explanation), findings, lang)
    except ModuleNotFoundError as error:
        raise DropkitRuntimeError(
            f'{error.name} is not installed; a page needs it: pip install "dropkit[lab]"'
        ) from error
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
