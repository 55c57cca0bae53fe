"""Noise on activations, embeddings and states."""

from ..axes.noise import Alpha, Gaussian, Zoneout
from ..axes.share import Axes, Block
from ..axes.when import When
from .entry import Variant

INVERTED = "y = x m / q, m in {0, 1}, P(m = 1) = q = 1 - p; in evaluation y = x"
SELU = "y = a x + b where kept, a alpha' + b where dropped, a = (q (1 + p alpha'^2))^(-1/2), b = -a p alpha'"

ACTIVATIONS: dict[str, Variant] = {
    "dropout": Variant(
        "Srivastava et al. 2014 (JMLR 15:1929)",
        formula=INVERTED,
        applies="hidden units, and inputs at p = 0.2; after the last batch norm of a network, not before one",
        form="inverted: the kept units are scaled in training; the paper scales the weights by q in evaluation",
        cite="srivastava2014dropout",
        torch="Dropout",
        keras="Dropout",
        jax="nnx.Dropout",
    ),
    "spatial": Variant(
        "Tompson et al. 2015 (arXiv:1411.4280)",
        share=Axes((2, 3)),
        layout="N C H W",
        formula=INVERTED + "; one m for each channel of a sample",
        applies="convolutions, whose neighbouring pixels are alike",
        cite="tompson2015efficient",
        torch="Dropout2d",
        keras="SpatialDropout2D",
        jax="nnx.SpatialDropout2D",
    ),
    "alpha": Variant(
        "Klambauer et al. 2017 (arXiv:1706.02515)",
        noise=Alpha(),
        formula=SELU + ", alpha' = -1.7581; in evaluation y = x",
        default=0.05,
        applies="after SELU with LeCun's normal initialisation; not after any other activation",
        cite="klambauer2017self",
        torch="AlphaDropout",
        keras="AlphaDropout",
        jax="nnx.AlphaDropout",
    ),
    "feature_alpha": Variant(
        "Klambauer et al. 2017 (arXiv:1706.02515)",
        noise=Alpha(),
        share=Axes((2, 3)),
        layout="N C H W",
        formula=SELU + "; one draw for each channel of a sample",
        default=0.05,
        applies="convolutions with SELU",
        cite="klambauer2017self",
        torch="FeatureAlphaDropout",
    ),
    "locked": Variant(
        "Gal and Ghahramani 2016 (arXiv:1512.05287)",
        share=Axes((1,)),
        layout="N T C",
        formula=INVERTED + "; one m for all time steps",
        applies="inputs and outputs of recurrent layers, and between them",
        form="of batch x time x features; where time comes first, share (0,)",
        cite="gal2016theoretically",
    ),
    "gaussian": Variant(
        "Srivastava et al. 2014 (JMLR 15:1929), section 10",
        noise=Gaussian(),
        formula="y = x (1 + sigma z), z normal, sigma^2 = p / q; in evaluation y = x",
        applies="hidden units; not probabilities or what a logarithm follows, as signs flip",
        form="sigma from p as it was rounded to 65536ths, as a mask of the same p has it",
        cite="srivastava2014dropout",
        keras="GaussianDropout",
    ),
    "zoneout": Variant(
        "Krueger et al. 2017 (arXiv:1606.01305)",
        noise=Zoneout(),
        place="state",
        formula="y = x where kept, the previous state o where dropped; in evaluation y = q x + p o",
        default=0.05,
        applies="the state of a recurrent cell: h at 0.05, c at 0.5, each with masks of its own",
        form="evaluation takes the expectation, as in the paper, and not the new state alone",
        cite="krueger2017zoneout",
    ),
    "dropblock": Variant(
        "Ghiasi, Lin and Le 2018 (arXiv:1810.12890)",
        share=Block(7),
        layout="N C H W",
        formula=INVERTED + "; whole blocks are dropped, by gamma with mean over the map of P(dropped) = p",
        default=0.1,
        applies="maps of convolutions, late in the network; p moves from 0 to its value while training",
        form="gamma is solved for p and kept elements are scaled by 1 / q; the paper's first-order gamma drops less "
        "than p, and it divides by the fraction that the whole batch kept, which couples samples",
        cite="ghiasi2018dropblock",
    ),
    "monte_carlo": Variant(
        "Gal and Ghahramani 2016 (arXiv:1506.02142)",
        when=When.ALWAYS,
        formula="y = x m / q in evaluation too; the mean and the variance of many passes are the prediction",
        applies="uncertainty of a network that was trained with dropout",
        cite="gal2016dropout",
        torch="Dropout",
        keras="Dropout",
        jax="nnx.Dropout",
    ),
}
