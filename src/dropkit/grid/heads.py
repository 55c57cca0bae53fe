"""Noise on heads, and losses that need several passes."""

from ..axes.noise import Fill
from ..axes.share import Axes
from .entry import Variant

HEADS: dict[str, Variant] = {
    "drop_head": Variant(
        "Zhou et al. 2020 (arXiv:2004.13342)",
        share=Axes((2, 3)),
        place="head",
        layout="N H T C",
        formula="y = x m / q, one m for each head of a sample; in evaluation y = x",
        default=0.1,
        applies="the outputs of the heads of attention, before they are joined",
        form="scaled by 1 / q; the paper divides by the fraction of heads that the draw left, which can be 0",
        cite="zhou2020scheduled",
        torch="DropHead",
    ),
    "drop_key": Variant(
        "Li et al. 2023 (arXiv:2208.02646)",
        noise=Fill(float("-inf")),
        share=Axes((2,)),
        place="attention",
        layout="N H Q K",
        formula="y = x where kept, -infinity where dropped, of the scores before the softmax; in evaluation y = x",
        default=0.1,
        applies="self-attention of vision transformers, less in deeper layers; a query needs one key that is kept",
        form="whole keys, for all queries of a head; the authors' code draws for each score by itself: share=()",
        cite="li2023dropkey",
    ),
}
