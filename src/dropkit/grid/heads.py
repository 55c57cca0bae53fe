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
        torch="DropKey",
    ),
    "multi_sample": Variant(
        "Inoue 2019 (arXiv:1905.09788)",
        place="output",
        formula="L = mean over samples of L(f(x m / q)), several m for one x; in evaluation y = f(x)",
        applies="the last hidden layer of a classifier: the trunk runs once; 8 samples, more gain little",
        form="the mean of losses, as published (MultiSampleDropout.loss); a call gives the mean of outputs",
        cite="inoue2019multi",
        torch="MultiSampleDropout",
    ),
    "r_drop": Variant(
        "Liang et al. 2021 (arXiv:2106.14448)",
        place="loss",
        formula="L = CE(a) + CE(b) + alpha / 2 (KL(a, b) + KL(b, a)), a and b of two masks; in evaluation one pass",
        default=0.1,
        applies="fine-tuning and translation: alpha 5 for translation, 1 for language models, 0.5 to 1 for encoders",
        form="the paper's equation with both terms as means over positions; the README of the authors halves CE, which "
        "doubles alpha (halved=True), and their scripts sum",
        cite="liang2021rdrop",
        torch="r_drop_loss",
    ),
    "fraternal": Variant(
        "Zolna et al. 2018 (arXiv:1711.00066)",
        place="loss",
        formula="L = (CE(a) + CE(b)) / 2 + kappa mean((a - b)^2), logits a and b of two masks; in evaluation one pass",
        default=0.4,
        applies="recurrent language models, kappa 0.15",
        cite="zolna2018fraternal",
        torch="fraternal_loss",
    ),
}
