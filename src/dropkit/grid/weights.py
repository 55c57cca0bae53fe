"""Noise on weights."""

from ..axes.noise import Mixout, Shakeout
from ..axes.share import Axes
from .entry import Variant

WEIGHTS: dict[str, Variant] = {
    "shakeout": Variant(
        "Kang, Li and Tao 2018 (arXiv:1904.06593)",
        noise=Shakeout(),
        share=Axes((0,)),
        place="weight",
        layout="out in",
        formula="y = (w + c p s) / q where kept, -c s where dropped, s = sign(w); in evaluation y = w",
        applies="weights of dense layers and convolutions: an L1 effect beside the L2 effect of dropout",
        form="one draw for each input unit, shared by its weights, as published; c = 0 is dropout of the inputs",
        cite="kang2018shakeout",
    ),
    "mixout": Variant(
        "Lee, Cho and Kang 2020 (arXiv:1909.11299)",
        noise=Mixout(),
        place="weight",
        layout="out in",
        formula="y = (w - p r) / q where kept, r where dropped, r where the weights began; in evaluation y = w",
        default=0.9,
        applies="fine-tuning of pretrained models on few data",
        form="a draw for each weight and the true gradient, 1 / q where kept; the authors' code repeats one row of the "
        "mask, which swaps whole input columns, and leaves 1 / q out of its backward",
        cite="lee2020mixout",
    ),
}
