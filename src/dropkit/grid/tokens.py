"""Noise on tokens and patches, and on what they are embedded as."""

from ..axes.noise import Fill
from ..axes.share import Axes, Exactly
from .entry import Variant

TOKENS: dict[str, Variant] = {
    "patch_dropout": Variant(
        "Liu et al. 2023 (arXiv:2208.07220)",
        noise=Fill(0.0),
        share=Exactly((1,)),
        place="patch",
        layout="N T",
        formula="y = tokens with m = 1, max(1, int(q T)) of T for each sample; in evaluation y = all tokens",
        applies="vision transformers, behind the position embedding; class tokens are a prefix that stays",
        form="nothing is scaled and the sequence gets shorter, as published and in timm, whose count, rounded down, it "
        "has; the value of this entry rounds to the nearest, and the class does the rest",
        cite="liu2023patchdropout",
        torch="PatchDropout",
    ),
    "token_drop": Variant(
        "Yao et al. 2022 (arXiv:2211.11586)",
        noise=Fill(0.0),
        share=Exactly((1,)),
        place="token",
        layout="N T",
        formula="y = f(x) of tokens with m = 1, y = x of the others; max(1, int(q T)) of T run; in evaluation y = f(x)",
        default=0.5,
        applies="middle layers of transformers, p falling to 0 while training; the first and the last layer stay whole",
        form="random-LTD: each layer draws its own tokens, in their order, and nothing is scaled; the value of this "
        "entry rounds to the nearest, and the class does the rest",
        cite="yao2022random",
        torch="TokenDrop",
    ),
    "cutout": Variant(
        "DeVries and Taylor 2017 (arXiv:1708.04552)",
        noise=Fill(0.0),
        share=Axes((1, 2, 3)),
        place="input",
        layout="N C H W",
        formula="y = x outside of n squares, 0 inside, for an image with m = 0, P(m = 0) = p; in evaluation y = x",
        applies="images that are normalised, so that 0 is their mean",
        form="squares around a pixel, each as likely, clipped at the border, not scaled; p is that an image is cut, "
        "and 1 as published; the value of this entry is that gate alone, and the class does the rest",
        cite="devries2017improved",
        torch="Cutout",
    ),
}
