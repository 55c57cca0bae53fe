"""Findings about places: dropout where it does harm, or does another thing than meant."""

import re
from collections.abc import Iterator

from ..activation import AT_ZERO
from ..facts import Facts, Layer, Shape, Site
from .modes import Row, is_batchnorm, listed, what

# How far the variance of a BatchNorm's input in training may be from that in evaluation. At 1.1 it hands on values 5 %
# too small in evaluation; inverted dropout of p = 0.1 on inputs of mean zero, right before it, gives 1.11.
SHIFT = 0.1
NOISE = 0.5  # over the length of the batch: three standard deviations of the ratio at 4 samples, two at 16
ERRORS = 3  # standard errors, over the masks, that an interval has on each side
HIGH = 0.6
MEAN = 0.02  # how far a mean may move
_CHANNELS = re.compile(r"^(?:F\.|torch\.|dropkit\.)*(?:feature_)?dropout([123])d$", re.IGNORECASE)
_FITTING = {3: "Dropout1d", 4: "Dropout2d", 5: "Dropout3d"}
_CALLS = {
    "torch": "`dropkit.torch.dropout(x, p, training=self.training)`",
    "keras": "`dropkit.keras.Dropout(p)`",
}
_ALPHA = "Alpha()"
_INVERTED = ("", "Bernoulli()")  # laws that scale what they keep by 1 / (1 - p); of one that is unknown it is likely


def on_prediction(explanation: Facts) -> Iterator[Row]:
    """Sites behind the last parameters: what they drop is the prediction itself."""
    for site in explanation.sites:
        if site.on_prediction and site.p and site.train and site.target == "output":
            measured = f"{what(site)}: nothing with parameters comes between it and an output of the model"
            remedy = "Move it in front of the last layer that has parameters"
            if _settable(site, explanation):
                remedy += f', and until then call `dropkit.torch.set_rate(model, "{site.name}", 0.0)`'
            yield site.name, measured, f"{remedy}."


def before_batchnorm(explanation: Facts) -> Iterator[Row]:
    """BatchNorms that see another variance in training than in evaluation; one finding per dropout, the nearest."""
    shifted: dict[str, list[Layer]] = {}
    order = {site.name: number for number, site in enumerate(explanation.sites)}
    for layer in explanation.layers:
        ratio = layer.input_variance_ratio
        upstream = layer.changed_by or layer.zeroed_by
        if is_batchnorm(layer) and upstream and ratio is not None and _beyond(layer) > 0:
            shifted.setdefault(max(upstream, key=lambda name: order[name]), []).append(layer)
    for name in sorted(shifted, key=lambda name: order[name]):
        first, *others = shifted[name]
        times = f"{first.input_variance_ratio:.2f} times that in evaluation"
        measured = f"variance of the input of {first.name} in training: {times}"
        if others:
            farthest = max(others, key=lambda layer: abs((layer.input_variance_ratio or 1) - 1))
            measured += f"; {len(others)} more behind it, {farthest.input_variance_ratio:.2f} at {farthest.name}"
        yield name, measured, "Move the dropout behind the last BatchNorm, or lower its rate."


def undecided_shifts(explanation: Facts) -> Iterator[str]:
    """BatchNorms of which the masks do not tell whether their input is shifted, in a sentence each."""
    for layer in explanation.layers:
        ratio, error = layer.input_variance_ratio, layer.input_variance_error
        upstream = layer.changed_by or layer.zeroed_by
        if not (is_batchnorm(layer) and upstream) or ratio is None or not error:
            continue
        if undecided(ratio, error, layer.output_shape or (1,)):
            yield (
                f"Not decided: dropout before BatchNorm at {layer.name}, whose input has {ratio:.2f} ± "
                f"{ERRORS * error:.2f} times the variance of evaluation; a larger batch tells more."
            )


def undecided(ratio: float, error: float | None, shape: Shape) -> bool:
    """Whether the interval of a ratio of variances holds the limit.

    >>> undecided(1.12, 0.01, (64, 8)), undecided(1.3, 0.01, (64, 8)), undecided(1.0, 0.01, (64, 8))
    (True, False, False)
    """
    distance = abs(abs(ratio - 1) - _allowed(shape))
    return error is not None and distance <= ERRORS * error


def _beyond(norm: Layer) -> float:
    """How far the shift of a BatchNorm's input is certainly beyond what is allowed."""
    certain = abs((norm.input_variance_ratio or 1) - 1) - ERRORS * (norm.input_variance_error or 0)
    return certain - _allowed(norm.output_shape or (1,))


def _allowed(shape: Shape) -> float:
    return SHIFT + NOISE / max(1, shape[0] if shape else 1)


def alpha_without_selu(explanation: Facts) -> Iterator[Row]:
    """AlphaDropout behind another activation, or none: what it drops becomes SELU's negative saturation."""
    for site in explanation.sites:
        if site.law == _ALPHA and site.p and site.target == "output" and site.follows != "selu":
            measured = f"{what(site)} follows {site.follows or 'no activation'}"
            layer = {"torch": "torch.nn.SELU()", "keras": 'activation="selu"'}[explanation.framework]
            ordinary = f"dropkit.{explanation.framework}.Dropout({site.p:g})"
            yield site.name, measured, f"Put `{layer}` in front of it, or use `{ordinary}`."


def selu_without_alpha(explanation: Facts) -> Iterator[Row]:
    """Ordinary dropout of the output of SELU: zero is not its saturation, so mean and variance move."""
    for site in explanation.sites:
        if site.follows == "selu" and site.p and site.target == "output" and site.becomes == "zero":
            alpha = f"dropkit.{explanation.framework}.AlphaDropout({site.p:g})"
            yield site.name, f"{what(site)} follows selu", f"Use `{alpha}`."


def wrong_rank(explanation: Facts) -> Iterator[Row]:
    """Dropout1d, 2d and 3d of torch on an input that they take for something else."""
    for site in explanation.sites:
        match = _CHANNELS.match(site.kind)
        if not match or not site.p or site.input_rank in (None, int(match[1]) + 2):
            continue
        dropped = _taken(site, int(match[1]), explanation)
        if dropped is not None:
            mask = " x ".join(map(str, site.mask_shape)) if site.mask_shape else "unknown shape"
            measured = f"{what(site)} on {site.input_rank} axes: it dropped {dropped} (a mask of {mask})"
            fitting = _FITTING.get(site.input_rank or 0, "Dropout")
            remedy = f"Use `dropkit.torch.{fitting}({site.p:g})`, or give the input its {int(match[1]) + 2} axes."
            yield site.name, measured, remedy


def same_mask(explanation: Facts) -> Iterator[Row]:
    """Sites that drew the very same mask, told once for each such set."""
    told: set[str] = set()
    for site in explanation.sites:
        if site.twins and site.name not in told:
            told |= {site.name, *site.twins}
            size = "" if site.draws is None else f" of {site.draws} draws a sample"
            measured = f"{what(site)} drew the very mask{size} of {listed(site.twins)}"
            call = f"`dropkit.{explanation.framework}.bind(model, seed=0)`: masks then differ by site."
            each = {"torch": "key or generator", "keras": "seed"}[explanation.framework]
            yield site.name, measured, f"Give each its own {each}, or none, and call {call}"


def other_mask_in_backward(explanation: Facts) -> Iterator[Row]:
    """Sites whose backward, or whose recomputed forward, drops something else than the forward did."""
    for site in explanation.sites:
        if site.gradient_check.startswith("FAILED"):
            measured = f"{what(site)}: {site.gradient_check.removeprefix('FAILED').lstrip(': ')}"
            remedy = "Keep `preserve_rng_state=True` of `torch.utils.checkpoint.checkpoint`"
            yield (
                site.name,
                measured,
                f"{remedy}, or call `dropkit.torch.swap(model)`: its masks are computed again exactly.",
            )


def high_rate(explanation: Facts) -> Iterator[Row]:
    """Rates that may have been meant as the share to keep."""
    for site in explanation.sites:
        if site.p is not None and site.p >= HIGH - 1e-6:
            kept = 1 - site.p
            scale = f", and scaled by {1 / kept:.3g}" if kept > 1e-6 and site.law in _INVERTED else ""
            share = f": {100 * kept:.3g} % are kept{scale}" if site.drawn == "mask" else ""
            remedy = f"Pass {kept:.3g} if {site.p:.3g} was meant as the share to keep"
            if _settable(site, explanation):
                remedy += f': `dropkit.torch.set_rate(model, "{site.name}", {kept:.3g})`'
            yield site.name, f"p = {site.p:.3g}{share}", f"{remedy}."


def mean_moves(explanation: Facts) -> Iterator[Row]:
    """Dropout by hand whose mean in training is not that in evaluation, outside four standard errors."""
    for site in explanation.sites:
        ratio, error = site.mean_ratio, site.mean_error
        if ratio is None or error is None or abs(ratio - 1) - 4 * error <= MEAN or _scaled_twice(site):
            continue
        at = f" ({site.source})" if site.source else ""
        measured = f"{what(site)}{at}: mean in training {ratio:.2f} of that in evaluation, ± {4 * error:.1g}"
        measured += f"; {100 * site.zero_share:.0f} % are zeroed" if site.zero_share else ""
        kept = 1 - (site.zero_share or 0)
        share = kept if abs(ratio - kept) <= 4 * error else ratio
        scale = f"Divide what is left by {share:.2g} in training" if ratio > 0 else "Rescale what is left in training"
        yield site.name, measured, f"{scale}, or use {_CALLS[explanation.framework]}."


def scaled_twice(explanation: Facts) -> Iterator[Row]:
    """Dropout that keeps the mean in training, as inverted dropout does, and scales in evaluation all the same."""
    for site in explanation.sites:
        if _scaled_twice(site):
            at = f" ({site.source})" if site.source else ""
            error = f" ± {4 * (site.mean_error or 0) * abs(site.eval_mean or 0):.1g}" if site.mean_error else ""
            measured = (
                f"{what(site)}{at}: mean in training {site.train_mean:.2f}{error} of that of its input, in evaluation "
                f"{site.eval_mean:.2f}"
            )
            yield site.name, measured, f"Give back x as it is in evaluation, or use {_CALLS[explanation.framework]}."


def _scaled_twice(site: Site) -> bool:
    train, evaluated = site.train_mean, site.eval_mean
    if train is None or evaluated is None or site.off:
        return False
    if site.p is not None:
        return abs(evaluated / train - (1 - site.p)) <= MEAN
    error = 4 * (site.mean_error or 0) * abs(evaluated)
    return abs(train - 1) <= MEAN + error and abs(evaluated - 1) > MEAN


def before_function(explanation: Facts) -> Iterator[Row]:
    """Masks whose zeros go into a function that makes something else of them."""
    for site in explanation.sites:
        if not (site.into and site.p != 0 and site.train and site.target == "output"):
            continue
        moved = "" if site.shift is None else f"; the mean of its output moves by {site.shift:+.3f} in training"
        measured = f"{what(site)} goes into {site.into}, which makes {AT_ZERO[site.into]:.3g} of a dropped 0{moved}"
        yield site.name, measured, f"Move the dropout behind {site.into}, where a dropped unit is 0."


def _taken(site: Site, spatial: int, explanation: Facts) -> str | None:
    """What torch drops of an input that is not batch, channels and so many axes; None where that is right."""
    rank = site.input_rank or 0
    unbatched = (spatial, rank) in {(1, 2), (3, 4)}  # torch takes them for one sample, and says nothing
    if unbatched and (site.mask_shape or (0,))[0] not in {shape[0] for shape in explanation.inputs if shape}:
        return None
    if unbatched or (spatial == 3 and rank < 5):
        return "whole samples, if axis 0 is the batch: torch takes it for the channels of one sample"
    return {2: "single elements, as Dropout does", 3: "rows of N x C x L, as Dropout1d does"}.get(
        rank, "whole channels"
    )


def _settable(site: Site, explanation: Facts) -> bool:
    """Whether `dropkit.torch.set_rate` takes a site by its name: a layer's, and not a call's."""
    return explanation.framework == "torch" and ":" not in site.name
