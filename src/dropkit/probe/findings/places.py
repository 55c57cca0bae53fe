"""Findings about places: dropout where it does harm, or does another thing than meant."""

import re
from collections.abc import Iterator

from ...language import SEMICOLON, Said, joined, say, template
from ..activation import AT_ZERO
from ..facts import Facts, Layer, Shape, Site
from ..names import by
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
_FOLLOWS = template("{what} follows {activation}")
_INVERTED = ("", "Bernoulli()")  # laws that scale what they keep by 1 / (1 - p); of one that is unknown it is likely


def on_prediction(explanation: Facts) -> Iterator[Row]:
    """Sites behind the last parameters: what they drop is the prediction itself."""
    for site in explanation.sites:
        if site.on_prediction and site.p and site.train and site.target == "output":
            words = template("{what}: nothing with parameters comes between it and an output of the model")
            remedy: str = say("Move it in front of the last layer that has parameters.")
            if _settable(site, explanation):
                remedy = say(
                    "Move it in front of the last layer that has parameters, and until then call "
                    '`dropkit.torch.set_rate(model, "{name}", 0.0)`.',
                    name=site.name,
                )
            yield site.name, say(words, what=what(site)), remedy


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
        words = template("variance of the input of {layer} in training: {ratio:.2f} times that in evaluation")
        measured: str = say(words, layer=first.name, ratio=first.input_variance_ratio)
        if others:
            farthest = max(others, key=lambda layer: abs((layer.input_variance_ratio or 1) - 1))
            more = template("{number} more behind it, {ratio:.2f} at {layer}")
            given = {"ratio": farthest.input_variance_ratio, "layer": farthest.name}
            measured = joined((measured, say(more, number=len(others), **given)), SEMICOLON)
        yield name, measured, say("Move the dropout behind the last BatchNorm, or lower its rate.")


def undecided_shifts(explanation: Facts) -> Iterator[str]:
    """BatchNorms of which the masks do not tell whether their input is shifted, in a sentence each."""
    for layer in explanation.layers:
        ratio, error = layer.input_variance_ratio, layer.input_variance_error
        upstream = layer.changed_by or layer.zeroed_by
        if not (is_batchnorm(layer) and upstream) or ratio is None or not error:
            continue
        if undecided(ratio, error, layer.output_shape or (1,)):
            yield say(
                "Not decided: dropout before BatchNorm at {layer}, whose input has {ratio:.2f} ± {error:.2f} times the "
                "variance of evaluation; a larger batch tells more.",
                layer=layer.name,
                ratio=ratio,
                error=ERRORS * error,
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
            measured = say(_FOLLOWS, what=what(site), activation=site.follows or say("no activation"))
            layer = {"torch": "torch.nn.SELU()", "keras": 'activation="selu"'}[explanation.framework]
            ordinary = f"dropkit.{explanation.framework}.Dropout({site.p:g})"
            remedy = say("Put `{layer}` in front of it, or use `{call}`.", layer=layer, call=ordinary)
            yield site.name, measured, remedy


def selu_without_alpha(explanation: Facts) -> Iterator[Row]:
    """Ordinary dropout of the output of SELU: zero is not its saturation, so mean and variance move."""
    for site in explanation.sites:
        if site.follows == "selu" and site.p and site.target == "output" and site.becomes == "zero":
            alpha = f"dropkit.{explanation.framework}.AlphaDropout({site.p:g})"
            yield site.name, say(_FOLLOWS, what=what(site), activation="selu"), say("Use `{call}`.", call=alpha)


def wrong_rank(explanation: Facts) -> Iterator[Row]:
    """Dropout1d, 2d and 3d of torch on an input that they take for something else."""
    for site in explanation.sites:
        match = _CHANNELS.match(site.kind)
        if not match or not site.p or site.input_rank in (None, int(match[1]) + 2):
            continue
        dropped = _taken(site, int(match[1]), explanation)
        if dropped is not None:
            mask = by(site.mask_shape) if site.mask_shape else say("unknown shape")
            words = template("{what} on {rank} axes: it dropped {dropped} (a mask of {mask})")
            measured = say(words, what=what(site), rank=site.input_rank, dropped=dropped, mask=mask)
            fitting = _FITTING.get(site.input_rank or 0, "Dropout")
            words = template("Use `dropkit.torch.{kind}({p:g})`, or give the input its {rank} axes.")
            remedy = say(words, kind=fitting, p=site.p, rank=int(match[1]) + 2)
            yield site.name, measured, remedy


def same_mask(explanation: Facts) -> Iterator[Row]:
    """Sites that drew the very same mask, told once for each such set."""
    told: set[str] = set()
    for site in explanation.sites:
        if site.twins and site.name not in told:
            told |= {site.name, *site.twins}
            given = {"what": what(site), "twins": listed(site.twins)}
            measured = say("{what} drew the very mask of {twins}", **given)
            if site.draws is not None:
                words = template("{what} drew the very mask of {draws} draws a sample of {twins}")
                measured = say(words, draws=site.draws, **given)
            call = f"dropkit.{explanation.framework}.bind(model, seed=0)"
            each = {"torch": say("key or generator"), "keras": say("seed")}[explanation.framework]
            words = template("Give each its own {each}, or none, and call `{call}`: masks then differ by site.")
            yield site.name, measured, say(words, each=each, call=call)


def equal_views(explanation: Facts) -> Iterator[Row]:
    """Sites that in one forward dropped the same elements of the same input several times: two views that are equal."""
    for site in explanation.sites:
        if site.views:
            words = template("{what} dropped the same elements of the same input in {views} calls of one forward")
            call = f"with dropkit.{explanation.framework}.passes(model, 2) as each:"
            remedy = say(
                "If two views are meant (SimCSE, R-Drop), call the model inside `{call}`, once in each turn of "
                "`for _ in each`; their masks then differ.",
                call=call,
            )
            yield site.name, say(words, what=what(site), views=site.views), remedy


def other_mask_in_backward(explanation: Facts) -> Iterator[Row]:
    """Sites whose backward, or whose recomputed forward, drops something else than the forward did."""
    for site in explanation.sites:
        if site.gradient_check.startswith("FAILED"):
            failed = site.gradient_check
            why = failed.arguments["why"] if isinstance(failed, Said) else failed.removeprefix("FAILED").lstrip(": ")
            remedy = say(
                "Keep `preserve_rng_state=True` of `torch.utils.checkpoint.checkpoint`, or call "
                "`dropkit.torch.swap(model)`: its masks are computed again exactly."
            )
            yield site.name, say("{what}: {why}", what=what(site), why=why), remedy


def high_rate(explanation: Facts) -> Iterator[Row]:
    """Rates that may have been meant as the share to keep."""
    for site in explanation.sites:
        if site.p is not None and site.p >= HIGH - 1e-6 and site.effect != "takes":  # which has no rate
            kept = 1 - site.p
            yield site.name, _rate(site, kept), _other_rate(site, kept, _settable(site, explanation))


def _rate(site: Site, kept: float) -> str:
    if site.drawn != "mask":
        return f"p = {site.p:.3g}"
    if kept > 1e-6 and site.law in _INVERTED and site.effect != "decides":
        words = template("p = {p:.3g}: {percent:.3g} % are kept, and scaled by {scale:.3g}")
        return say(words, p=site.p, percent=100 * kept, scale=1 / kept)
    return say("p = {p:.3g}: {percent:.3g} % are kept", p=site.p, percent=100 * kept)


def _other_rate(site: Site, kept: float, settable: bool) -> str:
    if not settable:
        return say("Pass {kept:.3g} if {p:.3g} was meant as the share to keep.", kept=kept, p=site.p)
    call = f'dropkit.torch.set_rate(model, "{site.name}", {kept:.3g})'
    words = template("Pass {kept:.3g} if {p:.3g} was meant as the share to keep: `{call}`.")
    return say(words, kept=kept, p=site.p, call=call)


def mean_moves(explanation: Facts) -> Iterator[Row]:
    """Dropout by hand whose mean in training is not that in evaluation, outside four standard errors."""
    for site in explanation.sites:
        ratio, error = site.mean_ratio, site.mean_error
        if ratio is None or error is None or abs(ratio - 1) - 4 * error <= MEAN or _scaled_twice(site):
            continue
        words = template("{what}: mean in training {ratio:.2f} of that in evaluation, ± {error:.1g}")
        measured: str = say(words, what=_placed(site), ratio=ratio, error=4 * error)
        if site.zero_share:
            zeroed = say("{percent:.0f} % are zeroed", percent=100 * site.zero_share)
            measured = joined((measured, zeroed), SEMICOLON)
        kept = 1 - (site.zero_share or 0)
        share = kept if abs(ratio - kept) <= 4 * error else ratio
        given = {"call": _CALLS[explanation.framework]}
        remedy = say("Rescale what is left in training, or use {call}.", **given)
        if ratio > 0:
            remedy = say("Divide what is left by {share:.2g} in training, or use {call}.", share=share, **given)
        yield site.name, measured, remedy


def scaled_twice(explanation: Facts) -> Iterator[Row]:
    """Dropout that keeps the mean in training, as inverted dropout does, and scales in evaluation all the same."""
    for site in explanation.sites:
        if _scaled_twice(site):
            error = f" ± {4 * (site.mean_error or 0) * abs(site.eval_mean or 0):.1g}" if site.mean_error else ""
            measured = say(
                "{what}: mean in training {train} of that of its input, in evaluation {eval:.2f}",
                what=_placed(site),
                train=f"{site.train_mean:.2f}{error}",
                eval=site.eval_mean,
            )
            words = template("Give back x as it is in evaluation, or use {call}.")
            yield site.name, measured, say(words, call=_CALLS[explanation.framework])


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
        words = template("{what} goes into {function}, which makes {value:.3g} of a dropped 0")
        measured: str = say(words, what=what(site), function=site.into, value=AT_ZERO[site.into])
        if site.shift is not None:
            moved = say("the mean of its output moves by {shift:+.3f} in training", shift=site.shift)
            measured = joined((measured, moved), SEMICOLON)
        words = template("Move the dropout behind {function}, where a dropped unit is 0.")
        yield site.name, measured, say(words, function=site.into)


def _taken(site: Site, spatial: int, explanation: Facts) -> str | None:
    """What torch drops of an input that is not batch, channels and so many axes; None where that is right."""
    rank = site.input_rank or 0
    unbatched = (spatial, rank) in {(1, 2), (3, 4)}  # torch takes them for one sample, and says nothing
    if unbatched and (site.mask_shape or (0,))[0] not in {shape[0] for shape in explanation.inputs if shape}:
        return None
    if unbatched or (spatial == 3 and rank < 5):
        return say("whole samples, if axis 0 is the batch: torch takes it for the channels of one sample")
    found = {2: say("single elements, as Dropout does"), 3: say("rows of N x C x L, as Dropout1d does")}
    return found.get(rank, say("whole channels"))


def _placed(site: Site) -> str:
    """The kind of a site, its rate, and where it stands in the source."""
    if not site.source:
        return what(site)
    return say("{what} ({source})", what=what(site), source=site.source)


def _settable(site: Site, explanation: Facts) -> bool:
    """Whether `dropkit.torch.set_rate` takes a site by its name: a layer's, and not a call's."""
    return explanation.framework == "torch" and ":" not in site.name
