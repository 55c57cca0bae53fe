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
        torch="WeightDrop",
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
        torch="WeightDrop",
    ),
    "drop_connect": Variant(
        "Wan et al. 2013 (ICML)",
        share=Axes(()),
        place="weight",
        layout="N out in",
        formula="y = w m / q, one m for each weight of each sample; in evaluation y = w",
        applies="dense layers; the cost of a mask for each sample is batch x out x in products",
        form="inverted, and the mean in evaluation; the paper does not scale, which is noise=Raw(), and samples from a "
        "normal law, whose moments DropConnect.moments gives. Its bias is not dropped. EfficientNet's drop_connect is "
        "drop_path",
        cite="wan2013regularization",
        torch="DropConnect",
    ),
    "weight_drop": Variant(
        "Merity, Keskar and Socher 2018 (arXiv:1708.02182)",
        place="weight",
        layout="out in",
        formula="y = w m / q, one m for each weight, for all samples and all steps of a forward; in evaluation y = w",
        applies="weights from state to state of an LSTM or GRU, whose kernels stay the library's",
        form="each weight by itself, as the paper; whole rows, the authors' variational=True, are share=(1,), here "
        "off in evaluation too, which theirs is not",
        cite="merity2018regularizing",
        torch="WeightDrop",
    ),
}
