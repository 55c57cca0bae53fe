"""`predict`, whatever the framework."""

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DropkitTypeError
from ..frontends import is_torch
from .asked import MEMORY, Asked, checked_sites
from .result import Prediction


def predict(
    model: Any,
    x: Any,
    samples: int = 50,
    sites: str | Sequence[str] | None = None,
    share: str = "sample",
    seed: int = 0,
    rows: Any = None,
    chunk: int | str = "auto",
    stop: float | None = None,
    *,
    outputs: str = "values",
    axis: int = -1,
    quantiles: Sequence[float] = (),
    keep: bool = False,
    memory: int = MEMORY,
    prefix: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Prediction:
    """Monte Carlo dropout: `mean_t f(x, mask_t)` over passes with dropout on, and how far the passes lie apart.

    Exactly the named dropouts are on, functional ones and those of attention too; BatchNorm and all else stay in
    evaluation. Pass t is step t and a sample is its row of the data set, so that masks depend neither on the size of
    batches, nor on their order, nor on what else is predicted; and since every pass has one fixed size, and a row its
    place in it, the results do not either, to the last bit. What the model computes before its first dropout runs once
    for each input. Modes, statistics, weights and generators are afterwards what they were, after an error too.

    Args:
        model: of torch; bound or not, with dropouts of torch's own or of dropkit's. It may be compiled or wrapped.
        x: the inputs: a tensor or array with samples on its first axis, a mapping of them (which become keyword
            arguments), a tuple of them (positional ones), or a loader of batches. Of a loader's batch that is a tuple
            or list the first entry is taken, of a mapping all but "labels".
        samples: how many passes.
        sites: which dropouts, as patterns of names that `dropkit.torch.sites` tells; all by default.
        share: "sample", each input has masks of its own; "pass", a pass is one function for all inputs.
        seed: of all masks.
        rows: the row number of each input in its data set; 0, 1, 2, ... by default.
        chunk: how many inputs a pass holds, 2 at least; by default 8 on a CPU and 64 elsewhere. It changes no mask, and
            no result but by rounding.
        stop: the passes of an input end early, after 10 at least, once no standard error of its mean is above this.
        outputs: what the model puts out: "values", "logits", "probabilities", "binary_logits",
            "binary_probabilities", or "gaussian", means and then as many logarithms of variances.
        axis: of the classes, or of means and variances, in the model's output; 1 for images of classes.
        quantiles: levels in [0, 1] whose quantiles over the passes are wanted.
        keep: whether all samples are kept.
        memory: bytes of activations that passes side by side may take together, about.
        prefix: whether what precedes the first dropout runs once.
        progress: called with the number of inputs that are done.

    Returns:
        A `Prediction`, with arrays of the model's framework, float64, on the CPU, in the order of the inputs.

    Raises:
        DropkitValueError: no dropout is on; a site that matches none; a number out of range; outputs that are none, or
            not what they are said to be.
        DropkitTypeError: no model of these frameworks; inputs or outputs that are no arrays.

    Warns:
        UserWarning: a dropout draws from torch's generator, out of reach, so that the prediction will not repeat.

    A layer that looks at the whole batch, such as a dynamically quantised one, sees the batch of a pass; one that
    computes the rows it keeps alone, such as `ResidualDrop`, rounds by how many they are.

    Source: Gal and Ghahramani 2016 (arXiv:1506.02142); consistent masks: Kirsch et al. 2019 (arXiv:1906.08158).

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
    >>> found = predict(model, torch.ones(2, 4), samples=20, outputs="logits")
    >>> found.mean.shape, found.sites, found.once
    (torch.Size([2, 3]), ('1',), ('0',))
    >>> bool((found.mutual_information >= 0).all())
    True
    """
    asked = Asked.of(samples, share, seed, chunk, stop, outputs, axis, quantiles, keep, memory, prefix)
    sites = checked_sites(sites)
    if is_torch(model):
        from .torch import predicting

        return predicting.predict(model, x, asked, sites, rows, progress)
    raise DropkitTypeError(f"predict needs a model of torch, Keras or JAX, got {type(model).__name__}")
