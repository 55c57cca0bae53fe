"""An explanation: what a probe found in a model, which tells itself as sentences, findings, JSON and a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..language import ENGLISH, Catalogue
from .facts import Facts
from .facts import Layer as Layer
from .facts import Site as Site

if TYPE_CHECKING:
    from .findings.rules import Findings


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Explanation(Facts):
    """What dropout does in a model. It prints as sentences and findings, in a notebook too.

    Args:
        model: its class name, or the target it was made from.
        framework: "torch" or "keras".
        inputs: shapes of the inputs it was run with.
        layers: in order of execution, each block before what stands in it; the model itself is the first.
        sites: in order of execution.
        forwards, backwards: how many of each it took to find out.
        notes: what else should be known, in sentences.

    >>> layers = (Layer(name="", parent=None, kind="Net"), Layer(name="head", parent="", kind="Linear"))
    >>> explanation = Explanation(model="Net", framework="torch", inputs=((1, 3),), layers=layers, sites=())
    >>> print(explanation)
    No dropout was found in this model.
    >>> explanation, explanation.findings == ()
    (<Explanation of Net: 2 layers, 0 dropouts, 0 findings>, True)
    """

    @property
    def sentences(self) -> tuple[str, ...]:
        """The summary: what dropout zeroes, what it changes, what it leaves alone, what to expect of it."""
        from .sentences import sentences

        return sentences(self)

    @property
    def findings(self) -> "Findings":
        """What is likely not meant, as `dropkit.doctor` tells it; empty where nothing is."""
        from .findings.rules import findings

        return findings(self)

    def save(self, path: str | Path, lang: str | Catalogue = ENGLISH) -> None:
        """Write a self-contained HTML page with the network drawn: what `dropkit explain --html` writes.

        Raises:
            UnknownNameError: a language that there is not.
            DropkitRuntimeError: Jinja, which comes with `dropkit[lab]`, is not installed.
            OutputError: the file cannot be written.
        """
        from .telling import save_page

        save_page(path, self, self.findings, lang)

    def to_dict(self) -> Mapping[str, Any]:
        """As plain values, for JSON: what `dropkit explain --json` writes."""
        from .record import to_dict

        return to_dict(self)

    def text(self, lang: str | Catalogue = ENGLISH) -> str:
        """Sentences and findings in a language, one of `dropkit.language.languages()`.

        Raises:
            UnknownNameError: there is none of that name.
        """
        from .telling import as_text

        return as_text(self.sentences, self.findings, lang)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        from .names import count_words

        counts = ((len(self.layers), "layer"), (len(self.sites), "dropout"), (len(self.findings), "finding"))
        return f"<Explanation of {self.model}: {', '.join(count_words(*count) for count in counts)}>"

    def _repr_html_(self) -> str:
        from ..finding import as_html

        return as_html(self.sentences, self.findings)
