"""What is likely not meant about dropout: one finding, as text and as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .language import ENGLISH, Catalogue, say, told


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a model's dropout that is likely not meant, with what was measured and what to do.

    Args:
        code: "DK101" ...; a code's meaning never changes.
        title: what it is, in a few words; the same for each finding of a code.
        place: where: of a model, the name of the site or of the layer, as in its `Explanation`, "" being the model
            itself.
        measured: what the run showed, with numbers.
        remedy: one sentence that says what to do, with the call that does it.
        link: where the documentation says more.

    >>> finding = Finding("DK115", "rate of 0.6 or more", "drop", "p = 0.8", "Pass 0.2.", "docs/doctor.md#dk115")
    >>> print(finding)
    DK115 drop: rate of 0.6 or more
      measured: p = 0.8
      remedy: Pass 0.2.
      docs/doctor.md#dk115
    """

    code: str
    title: str
    place: str
    measured: str
    remedy: str
    link: str

    def text(self, lang: str | Catalogue = ENGLISH) -> str:
        """The finding in a language, one of `dropkit.language.languages()`, as lines."""
        lines = self.head, say("measured: {text}", text=self.measured), say("remedy: {text}", text=self.remedy)
        return "\n  ".join(told([*lines, self.link], lang))

    @property
    def head(self) -> str:
        """Code, place and title."""
        place = self.place or say("(the model)")
        return say("{code} {place}: {title}", code=self.code, place=place, title=self.title)

    def __str__(self) -> str:
        return self.text()

    @property
    def site(self) -> str:
        """The place: of a model's findings, the name of a site or of a layer."""
        return self.place

    @property
    def sentences(self) -> tuple[str, ...]:
        """What it is, what was measured, and what to do."""
        head, measured = say("{head}.", head=self.head), say("Measured: {text}.", text=self.measured)
        return head, measured, self.remedy

    def _repr_html_(self) -> str:
        return as_html((), (self,))


def as_html(sentences: Sequence[str], findings: Sequence[Finding]) -> str:
    """Paragraphs and a list, for a notebook: no style, no script, nothing that is loaded.

    >>> as_html(["No dropout was found in this model."], ())
    '<div class="dropkit"><p>No dropout was found in this model.</p></div>'
    """
    told = "".join(f"<p>{code_words(sentence)}</p>" for sentence in sentences)
    found = "".join(f"<li>{_item(finding)}</li>" for finding in findings)
    return f'<div class="dropkit">{told}{f"<ul>{found}</ul>" if found else ""}</div>'


def _item(finding: Finding) -> str:
    """A finding as a line in bold and two more."""
    head = f"<b>{finding.code} {escape(finding.place or '(the model)')}: {escape(finding.title)}</b>"
    return f"{head}<br>measured: {code_words(finding.measured)}<br>remedy: {code_words(finding.remedy)}"


def code_words(text: str) -> str:
    """Text as HTML, in which what stands between backticks is code.

    >>> code_words("Call `f(x) < 1`.")
    'Call <code>f(x) &lt; 1</code>.'
    """
    parts = escape(text, quote=False).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
