"""An entry of the grid: a published dropout, with all that there is to know of it."""

from dataclasses import dataclass, field

from ..axes.noise import Bernoulli, Noise
from ..axes.rate import Rate
from ..axes.share import Axes, Sharing
from ..axes.when import When
from ..drop import Drop
from . import bibliography

PLACES = (
    *("activation", "embedding", "weight", "state"),
    *("branch", "layer", "head", "attention"),
    *("input", "token", "patch", "pooling"),
    *("edge", "node", "message"),
    *("output", "loss"),
)  # what a mask can be put on


@dataclass(frozen=True, slots=True)
class Variant:
    """A published dropout: all that it says but the rate.

    Args:
        paper: where it is from.
        noise, share, when: as those of `dropkit.Drop`.
        place: what the mask is put on, one of `PLACES`.
        layout: the axes of what the mask is put on, as the share means them: "N C H W"; a letter or a word each.
        formula: what becomes of x, in training and in evaluation.
        default: the usual rate: the paper's, or its authors'.
        applies: where it fits.
        form: which of the published forms this is, and why; empty where the literature agrees.
        cite: of the paper, its key in `papers.bib`.
        torch, keras, jax: what does it there: a name in `dropkit.torch`, `dropkit.keras`, `dropkit.jax`, empty where
            nothing does.

    >>> from dropkit import grid
    >>> grid["spatial"](0.2) == Drop(0.2, share=(2, 3))
    True
    """

    paper: str
    noise: Noise = field(default_factory=Bernoulli)
    share: Sharing = field(default_factory=Axes)
    when: When = When.TRAIN
    place: str = field(default="activation", kw_only=True)
    layout: str = field(default="N C", kw_only=True)
    formula: str = field(default="", kw_only=True)
    default: float = field(default=0.5, kw_only=True)
    applies: str = field(default="", kw_only=True)
    form: str = field(default="", kw_only=True)
    cite: str = field(default="", kw_only=True)
    torch: str = field(default="", kw_only=True)
    keras: str = field(default="", kw_only=True)
    jax: str = field(default="", kw_only=True)

    def __call__(self, rate: Rate | float) -> Drop:
        """The dropout at a rate, a number or a schedule."""
        return Drop(rate, share=self.share, when=self.when, noise=self.noise)

    @property
    def bibtex(self) -> str:
        """The paper as BibTeX.

        >>> from dropkit import grid
        >>> print(grid["spatial"].bibtex.splitlines()[0])
        @inproceedings{tompson2015efficient,
        """
        return bibliography.entry(self.cite)
