"""An explanation and its findings as text, as HTML for a notebook, and as a page in a file."""

from collections.abc import Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DropkitRuntimeError, OutputError

if TYPE_CHECKING:
    from .explanation import Explanation
    from .findings import Finding


def as_text(explanation: "Explanation") -> str:
    """The sentences, a line each, and then the findings."""
    return "\n".join((*explanation.sentences, *(f"\n{finding}" for finding in explanation.findings)))


def as_html(sentences: Sequence[str], findings: Sequence["Finding"]) -> str:
    """Paragraphs and a list, for a notebook: no style, no script, nothing that is loaded.

    >>> as_html(["No dropout was found in this model."], ())
    '<div class="dropkit"><p>No dropout was found in this model.</p></div>'
    """
    told = "".join(f"<p>{code_words(sentence)}</p>" for sentence in sentences)
    found = "".join(f"<li>{finding_html(finding)}</li>" for finding in findings)
    return f'<div class="dropkit">{told}{f"<ul>{found}</ul>" if found else ""}</div>'


def finding_html(finding: "Finding") -> str:
    """A finding as a line in bold and two more."""
    head = f"<b>{finding.code} {escape(finding.site or '(the model)')}: {escape(finding.title)}</b>"
    return f"{head}<br>measured: {code_words(finding.measured)}<br>remedy: {code_words(finding.remedy)}"


def code_words(text: str) -> str:
    """Text as HTML, in which what stands between backticks is code.

    >>> code_words("Call `f(x) < 1`.")
    'Call <code>f(x) &lt; 1</code>.'
    """
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def save_page(path: str | Path, explanation: "Explanation", findings: Sequence["Finding"]) -> None:
    """Write the page with the network drawn.

    Raises:
        DropkitRuntimeError: Jinja is not installed.
        OutputError: the file cannot be written.
    """
    from .fold import fold

    try:
        # The page stands above the probe: like the frontends it is looked up when it is asked for.
        network = import_module("dropkit.report.network")
        text = network.render_network(explanation, fold(explanation), explanation.sentences, findings)
    except ModuleNotFoundError as error:
        raise DropkitRuntimeError(
            f'{error.name} is not installed; a page needs it: pip install "dropkit[lab]"'
        ) from error
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
