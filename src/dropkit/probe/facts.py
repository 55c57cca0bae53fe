"""What a probe found in a model: plain values that a framework's probe fills in; tree, page and findings read them."""

from dataclasses import dataclass, field
from math import prod
from typing import Literal

Gradient = Literal["changed", "zero", "unchanged", "frozen", "unused", "none"]
"""Of a layer's own parameters with dropout on, against off: changed, zero (by a dropout of rate 1), unchanged, frozen
(they get none), unused (no output depends on them), none (it has no parameters)."""

Shape = tuple[int, ...]


def draws_for_one(shape: Shape, batch: int | None) -> int:
    """Independent draws of a mask for one sample; its first axis is the batch, or the batch times what was folded in.

    >>> draws_for_one((4, 16), 4), draws_for_one((1, 16), 4), draws_for_one((4 * 7, 16), 4)
    (16, 16, 112)
    """
    folded = shape[0] // batch if batch and shape and shape[0] > batch and shape[0] % batch == 0 else 1
    return folded * prod(shape[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place where dropout happens, and how far it reaches.

    Args:
        name: as the frontend names it: a module's or layer's path; of a functional call "path:function".
        kind: the layer's class, or the function.
        layer: name of the `Layer` it is, or whose forward calls it.
        p: drop probability; None for noise that has none.
        mask_shape: of its first call, with 1 where a draw is shared; None where nothing was seen to run.
        calls: how often it drops in one forward, each time by a mask of its own.
        call_masks, call_zeroes: of one that drops several times, shape of the mask and layers zeroed, call by call.
        all_draws: independent draws for one sample in all these calls; None for `calls` times `draws`.
        train, eval: whether it drops in training and in evaluation; None if that could not be told.
        now: whether it drops in the modes in which the model was handed in.
        deliberate: it drops in evaluation because it was told so by name (`when="always"`).
        target: what is dropped: "output" (of the layers in `zeroes`), "input" (the model's own), "attention weights",
            "hidden states" (between the layers of a recurrent network), "state" (of a recurrence) or "weights".
        zeroes: layers whose outputs it zeroes: its input is their output, through nothing that has parameters; none
            where what is dropped stays inside a layer (`note` says so).
        behind: functions that the output of those layers goes through first, in order ("relu", "max_pool2d").
        changes: layers further on whose output it changes, in order of execution; itself not among them.
        gradients: layers whose own parameters get another gradient because of it.
        input_rank: number of axes of its input.
        follows: the activation whose output it drops ("selu", "relu" ...); None where there is none or it is unknown.
        on_prediction: nothing with parameters comes between it and an output of the model.
        twins: other sites that drew the very same mask.
        passes: in how many passes of `dropkit`'s `passes` it dropped, 0 without: pass j > 0 draws at `name@j`.
        views: how many calls of a forward got the very input of another call of it, and its very mask: equal views.
        gradient_check: "ok", "FAILED: why" or "not checked: why": whether what the forward drops is what the backward
            drops, recomputed forwards included.
        by_hand: it is a random operation that is no known dropout.
        law: its law, as it is written in code: "Bernoulli()", "Alpha()"; empty where nothing says.
        drawn: "mask" (elements are kept or dropped) or "values" (a random number for each, of a soft law).
        becomes: what a dropped element becomes: "zero", a number or "the other tensor".
        off: what the law makes of x in evaluation, "0.75 x + 0.25 o" with the other tensor o; empty where that is x.
        share: which mask a share makes that refines what was drawn: "exactly 12 of 16 units, per sample"; else empty.
        kept: of such a share, the fraction that it keeps; None for 1 - p.
        choices: of such a share, how many masks it has for one sample in one call, as a power of 2; None if unknown.
        effect: of one by hand or of a soft law, what its random numbers do to the data: "drops" (zeroes some, or
            multiplies by noise around 1), "multiplies" (otherwise), "adds", "fills" (in place of data), "decides"
            (what runs), "mixes" (branches), "joins" (those of several branches that are kept) or "takes" (one unit of
            each window) or "replaces" (words).
        zero_share: of one that multiplies, the share of zeros among its factors.
        mean_ratio, mean_error: of dropout that is neither the framework's nor ours, the mean of what it gives in
            training over that in evaluation, and its standard error; None where it was not measured.
        train_mean, eval_mean: mean of what it gives over that of its input, in training and in evaluation; None where
            that was not measured, or is 1 in both.
        into: the function with f(0) != 0 that takes what it dropped, through nothing that has parameters.
        shift: mean of that function's output with dropout on, less that with dropout off; None where not measured.
        fast_path: it is on, but torch's fused encoder layer skips it without gradient.
        idle: why it can never drop ("one layer: ...", "off by name: ..."); empty otherwise.
        note: what else should be known about it.
        source: file and line of a functional call.

    >>> site = Site(name="drop", kind="Dropout", layer="drop", p=0.5, mask_shape=(8, 1024), calls=2)
    >>> site.draws, site.draws_of_a_forward
    (1024, 2048)
    """

    name: str
    kind: str
    layer: str
    p: float | None
    mask_shape: Shape | None = None
    calls: int = 1
    call_masks: tuple[Shape, ...] = ()
    call_zeroes: tuple[tuple[str, ...], ...] = ()
    all_draws: int | None = None
    train: bool | None = None
    eval: bool | None = None
    now: bool | None = None
    deliberate: bool = False
    target: str = "output"
    zeroes: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()
    input_rank: int | None = None
    follows: str | None = None
    on_prediction: bool = False
    twins: tuple[str, ...] = ()
    passes: int = 0
    views: int = 0
    gradient_check: str = "not checked"
    law: str = ""
    drawn: Literal["mask", "values"] = "mask"
    becomes: str = "zero"
    off: str = ""
    share: str = ""
    kept: float | None = None
    choices: float | None = None
    by_hand: bool = False
    effect: str = ""
    zero_share: float | None = None
    mean_ratio: float | None = None
    mean_error: float | None = None
    train_mean: float | None = None
    eval_mean: float | None = None
    into: str = ""
    shift: float | None = None
    fast_path: bool = False
    idle: str = ""
    note: str = ""
    source: str = ""

    @property
    def draws(self) -> int | None:
        """Independent draws of one call for one sample (the first axis is the batch); None where no mask was seen."""
        return None if self.mask_shape is None else prod(self.mask_shape[1:])

    @property
    def drops(self) -> bool:
        """Whether it is dropout, by hand or not."""
        return not self.by_hand or self.effect == "drops"

    @property
    def draws_of_a_forward(self) -> int | None:
        """Independent draws for one sample in all calls of one forward: each call draws anew."""
        return self.calls * self.draws if self.all_draws is None and self.draws is not None else self.all_draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of the model, or a block of layers, as it ran.

    Args:
        name: path in the model; "" is the model itself.
        parent: name of the block it stands in; None for the model itself.
        kind: class name.
        output_shape: of its first tensor output; None where it did not run.
        used_by: where it did not run, the layers that use its parameters instead, such as attention its `out_proj`.
        parameters, trainable: how many numbers; of a block, with all that stands in it.
        training: its mode when the model was handed in.
        calls: how often it ran in one forward.
        inputs: layers whose outputs it takes, through nothing that is a layer; only of layers, not of blocks.
        zeroed_by: sites that zero its output.
        changed_by: sites further up that change its output.
        gradient: what dropout does to the gradient of its own parameters.
        gradient_by: sites that change that gradient.
        variance_ratio: variance of its output with dropout on, over that with dropout off; None where it is not
            changed, or has no variance.
        input_variance_ratio: of a BatchNorm, variance of its input in training (dropout on) over that with dropout off.
        input_variance_error: standard error of that, over the masks; None where there is but one.
        random: its output changes from run to run with all dropout off.
        activation: name of the activation it is or ends in, in lower case; None where there is none or it is unknown.

    >>> layer = Layer(name="head", parent="", kind="Linear", parameters=10, changed_by=("drop",))
    >>> layer.frozen, layer.touched
    (True, True)
    """

    name: str
    parent: str | None
    kind: str
    output_shape: Shape | None = None
    used_by: tuple[str, ...] = ()
    parameters: int = 0
    trainable: int = 0
    training: bool = True
    calls: int = 0
    inputs: tuple[str, ...] = ()
    zeroed_by: tuple[str, ...] = ()
    changed_by: tuple[str, ...] = ()
    gradient: Gradient = "none"
    gradient_by: tuple[str, ...] = ()
    variance_ratio: float | None = None
    input_variance_ratio: float | None = None
    input_variance_error: float | None = None
    random: bool = False
    activation: str | None = None

    @property
    def frozen(self) -> bool:
        """It has parameters of its own, and none of them is trained."""
        return self.parameters > 0 and self.trainable == 0

    @property
    def touched(self) -> bool:
        """Dropout zeroes or changes its output, or changes its gradient."""
        return bool(self.zeroed_by or self.changed_by or self.gradient_by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found in a model: the fields of an `Explanation`, which tells more of them."""

    model: str
    framework: str
    inputs: tuple[Shape, ...]
    layers: tuple[Layer, ...]
    sites: tuple[Site, ...]
    forwards: int = 0
    backwards: int = 0
    notes: tuple[str, ...] = field(default=())

    def layer(self, name: str) -> Layer:
        """The layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)

    def site(self, name: str) -> Site:
        """The site of a name."""
        return next(site for site in self.sites if site.name == name)

    def inside(self, name: str) -> tuple[Layer, ...]:
        """The layers that stand directly in a block."""
        return tuple(layer for layer in self.layers if layer.parent == name)

    def owners(self) -> frozenset[str]:
        """The layers that have parameters of their own, beside those of what stands in them."""
        inside: dict[str | None, int] = {}
        for layer in self.layers:
            inside[layer.parent] = inside.get(layer.parent, 0) + layer.parameters
        return frozenset(layer.name for layer in self.layers if layer.parameters > inside.get(layer.name, 0))
