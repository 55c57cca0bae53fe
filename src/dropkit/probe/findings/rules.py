"""The rules by which what the probe measured is judged, and the findings that they give."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ...errors import DropkitRuntimeError, UnknownNameError
from ...finding import Finding, as_html
from ...language import ENGLISH, Catalogue, counted, say, told
from ..facts import Facts
from . import modes, places

Rule = Callable[[Facts], Iterator[tuple[str, str, str]]]

# Codes are never given to another finding, and findings are reported in this order.
RULES: tuple[tuple[str, str, Rule], ...] = (
    ("DK101", say("dropout active in evaluation"), modes.active_in_eval),
    ("DK102", say("dropout dead in training"), modes.dead_in_train),
    ("DK103", say("frozen part in train mode"), modes.frozen_in_train),
    ("DK104", say("trainable part in eval mode"), modes.trainable_in_eval),
    ("DK105", say("attention dropout active in evaluation"), modes.attention_in_eval),
    ("DK106", say("dropout between the layers of a one-layer recurrent network"), modes.one_layer),
    ("DK107", say("dropout skipped by the fast path of the encoder layer"), modes.fast_path),
    ("DK108", say("dropout on the prediction"), places.on_prediction),
    ("DK109", say("dropout before BatchNorm"), places.before_batchnorm),
    ("DK110", say("AlphaDropout without SELU"), places.alpha_without_selu),
    ("DK111", say("ordinary dropout after SELU"), places.selu_without_alpha),
    ("DK112", say("channel dropout on an input of another rank"), places.wrong_rank),
    ("DK113", say("two sites with the same mask"), places.same_mask),
    ("DK114", say("another mask in backward than in forward"), places.other_mask_in_backward),
    ("DK115", say("rate of 0.6 or more"), places.high_rate),
    ("DK116", say("dropout by hand that changes the mean"), places.mean_moves),
    ("DK117", say("told to drop in evaluation, and does not"), modes.told_in_vain),
    ("DK118", say("evaluation scaled after inverted training"), places.scaled_twice),
    ("DK119", say("a mask before a function with f(0) != 0"), places.before_function),
    ("DK120", say("two equal views of one input"), places.equal_views),
)


class Findings(tuple[Finding, ...]):
    """Findings in the order of their codes: a tuple that prints as text, and in a notebook too.

    >>> found = Findings()
    >>> print(found)
    0 findings.
    >>> found == (), found.sentences
    (True, ('0 findings.',))
    """

    explanation: Facts | None = None  # of the run in which they were made

    @classmethod
    def of(cls, found: Collection[Finding], explanation: Facts) -> "Findings":
        """Findings that know what they are about."""
        made = cls(found)
        made.explanation = explanation
        return made

    @property
    def sentences(self) -> tuple[str, ...]:
        """Those of each finding, and how many there are."""
        return (*(sentence for finding in self for sentence in finding.sentences), *self.undecided, self._count())

    @property
    def undecided(self) -> tuple[str, ...]:
        """What the run did not decide, a sentence each."""
        return () if self.explanation is None else tuple(places.undecided_shifts(self.explanation))

    @property
    def findings(self) -> "Findings":
        """Themselves, as an `Explanation` has them."""
        return self

    def save(self, path: str | Path, lang: str | Catalogue = ENGLISH) -> None:
        """Write a self-contained HTML page with the network drawn and these findings first.

        Raises:
            UnknownNameError: a language that there is not.
            DropkitRuntimeError: Jinja, which comes with `dropkit[lab]`, is not installed; or they were made by hand.
            OutputError: the file cannot be written.
        """
        from ..telling import save_page

        if self.explanation is None:
            raise DropkitRuntimeError("these findings know no model; save those of `dropkit.doctor(model, x)`")
        save_page(path, self.explanation, self, lang)

    def __reduce__(self) -> Any:
        return _again, (tuple(self), self.explanation)

    def text(self, lang: str | Catalogue = ENGLISH) -> str:
        """All of them in a language, one of `dropkit.language.languages()`, and how many there are."""
        found = [finding.text(lang) for finding in self]
        return "\n\n".join((*found, *told([*self.undecided, self._count()], lang)))

    def __str__(self) -> str:
        return self.text()

    def _count(self) -> str:
        count = counted(len(self), "{n} finding", "{n:,} findings")
        if self.explanation is None:
            return say("{count}.", count=count)
        sites = len(self.explanation.sites)
        return say("{count} on {sites}.", count=count, sites=counted(sites, "{n} dropout", "{n:,} dropouts"))

    def _repr_html_(self) -> str:
        return as_html((*self.undecided, self._count()), self)


def _again(found: tuple[Finding, ...], explanation: Facts | None) -> Findings:
    return Findings(found) if explanation is None else Findings.of(found, explanation)


def findings(explanation: Facts, ignore: Collection[str] = ()) -> Findings:
    """What is likely not meant, of what the probe measured; in the order of the codes, then of execution.

    Args:
        explanation: of `dropkit.explain`.
        ignore: codes that are not looked for.

    Raises:
        UnknownNameError: a code that there is not.

    >>> from dropkit.probe import Explanation, Layer, Site
    >>> net = Layer(name="", parent=None, kind="Net", output_shape=(4, 2))
    >>> drop = Site(name="drop", kind="Dropout", layer="drop", p=0.8, train=True, eval=False)
    >>> read = Explanation(model="Net", framework="torch", inputs=((4, 2),), layers=(net,), sites=(drop,))
    >>> [(finding.code, finding.site, finding.measured) for finding in findings(read)]
    [('DK115', 'drop', 'p = 0.8: 20 % are kept, and scaled by 5')]
    """
    check_codes(ignore)
    found = [
        Finding(code, title, *row, link=f"docs/doctor.md#{code.lower()}")
        for code, title, rule in RULES
        if code not in ignore
        for row in rule(explanation)
    ]
    return Findings.of(found, explanation)


def check_codes(codes: Collection[str]) -> None:
    """Refuse codes that there are not.

    >>> check_codes(["DK108", "DK115"])
    """
    known = [code for code, _, _ in RULES]
    for code in codes:
        if code not in known:
            raise UnknownNameError("code", code, known)
