"""Dropout for Equinox with its class and signature, and where a bound one is: seed, path, and axes of `vmap`."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np

from ...axes.noise import Alpha, Bernoulli, Noise
from ...axes.share import Refining, Sharing
from ...axes.when import When
from ...counter import site_id
from ...drop import Drop
from ...errors import DropkitRuntimeError
from ...place import Part
from ...threshold import threshold, thresholds
from ...turns import in_pass
from ..keys import AnyKey, KeyWords, folded, pair
from ..ops import applied, dropout, same
from ..traces import Lanes, lanes
from .samples import of_samples


class Site(eqx.Module):
    """Where a bound dropout is: which seed, which path, and under which axes of `vmap`.

    All static, but in a stack of layers: there the site numbers are data, low and high words, so that what slices
    the stack slices them. `whole` is the shape of that stack; `turn` the pass, of several at one step.

    >>> from dropkit.jax.equinox import bind
    >>> bind({"drop": Dropout(0.5)}, seed=1)["drop"].site.seed
    1
    """

    seed: int = eqx.field(static=True)
    name: str = eqx.field(static=True)
    axes: tuple[str, ...] = eqx.field(static=True)
    numbers: tuple[jax.Array, jax.Array] | None = None
    whole: tuple[int, ...] = eqx.field(static=True, default=())
    turn: int | None = eqx.field(static=True, default=None)

    @property
    def stack(self) -> tuple[int, ...]:
        """Shape of the stack; () for a single layer."""
        return () if self.numbers is None else tuple(self.numbers[0].shape)

    def key(self, step: tuple[Any, Any]) -> KeyWords:
        """The key of a step, given as its low and high word."""
        if self.stack or np.ndim(step[0]):
            layers = "x".join(map(str, self.stack or np.shape(step[0])))
            raise DropkitRuntimeError(
                f"dropout {self.name!r} is a stack of {layers} layers; call it inside jax.lax.scan or eqx.filter_vmap "
                "over the stack"
            )
        site = pair(site_id(in_pass(self.name, self.turn))) if self.numbers is None else self.numbers
        return folded(pair(self.seed), site, step)


class Dropout(eqx.nn.Dropout):
    """`eqx.nn.Dropout` with its signature: `y = x * keep / (1 - p)`, and x itself at inference.

    Args:
        p: drop probability in [0, 1]. A Python number is a part of the program, as in Equinox; an array is data, so
            that another value compiles nothing again. It gets no gradient (and belongs in no optimizer, whose weight
            decay would move it).
        inference: whether to drop nothing.
        deterministic: deprecated name of inference.
        share: axes of a call's x along which one draw is shared, or a value of `dropkit.axes.share`.
        when: "train": unless inference; "always" or "never": whatever inference says.
        noise: what becomes of kept and dropped elements, a value of `dropkit.axes.noise`; by default the class'.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a bad share, when or noise.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> from dropkit import Key
    >>> Dropout(0.5)(jax.numpy.ones((2, 8)), key=Key(seed=1, site="drop"))
    Array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    >>> Dropout(0.5)(jax.numpy.ones(2), inference=True)
    Array([1., 1.], dtype=float32)
    """

    share: tuple[int, ...] | Refining = eqx.field(static=True)
    when: When = eqx.field(static=True)
    noise: Noise = eqx.field(static=True)
    made: Lanes = eqx.field(static=True)
    site: Site | None
    step: tuple[jax.Array, jax.Array] | None

    usual: ClassVar[Noise] = Bernoulli()

    def __init__(
        self,
        p: Any = 0.5,
        inference: bool = False,
        *,
        deterministic: bool | None = None,
        share: Sequence[int] | Sharing = (),
        when: When | str = "train",
        noise: Noise | None = None,
    ):
        _check(p)
        super().__init__(p, inference, deterministic=deterministic)
        drop = Drop(0.0, share, when, self.usual if noise is None else noise)
        self.share = drop.share if isinstance(drop.share, Refining) else drop.axes
        self.when = When.of(drop.when)
        self.noise = drop.noise
        self.made = Lanes(lanes())
        self.site = None
        self.step = None

    def __call__(
        self,
        x: jax.Array,
        other: Any = None,
        *,
        key: AnyKey | None = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
    ) -> jax.Array:
        """x with elements dropped, or x itself.

        Args:
            x: float16, bfloat16, float32 or float64, any shape.
            other: the second array of a noise that needs one.
            key: any key that `dropkit.jax.dropout` takes; a bound dropout with a step needs none.
            inference: overrides the constructor's.
            deterministic: deprecated name of inference.

        Raises:
            DropkitRuntimeError: neither a key nor a step; bound to a batch axis that `vmap` did not name.
            DropkitTypeError: a key that is none; x of another dtype.
        """
        if deterministic is not None:
            warnings.warn(
                "Dropout()(deterministic=...) is deprecated in favour of Dropout()(inference=...)", stacklevel=2
            )
            inference = deterministic
        on = self.active(inference)
        if (not on or (isinstance(self.p, int | float) and self.p == 0)) and same(self.noise, other):
            return x
        if not on or key is not None or self.site is None or self.step is None:
            key = self._needed(key) if on else None
            return dropout(x, self.p, training=on, key=key, share=self.share, noise=self.noise, other=other)
        return self.of_sample(x, (0,) * x.ndim, x.shape, other)

    def active(self, inference: bool | None = None) -> bool:
        """Whether noise is on in a call that says `inference`, or nothing of it."""
        return self.when.active(not (self.inference if inference is None else inference))

    def of_sample(
        self,
        x: jax.Array,
        offset: tuple[Any, ...],
        whole: tuple[int, ...],
        other: Any = None,
        key: AnyKey | None = None,
    ) -> jax.Array:
        """x with noise, a part of a sample's array of shape `whole` from `offset` on; the site's, or of a given key."""
        site = self.site
        index: list[Any] = []
        sizes: list[int] = []
        if key is None and (site is None or self.step is None):
            key = self._needed(None)
        if key is None and site is not None and self.step is not None:
            key, (index, sizes) = site.key(self.step), _place(site)
            alone = site.name
        else:
            alone = None
        ones = (1,) * len(index)
        y = applied(  # a slice of the mask of all samples
            x.reshape(ones + x.shape),
            self.p,
            training=True,
            key=key,
            share=of_samples(self.share, len(ones)),
            part=Part((*index, *offset), (*sizes, *whole)),
            noise=self.noise,
            other=other,
            alone=alone,
        )
        return y.reshape(x.shape)

    def _needed(self, key: AnyKey | None) -> AnyKey:
        if key is None:
            remedy = "pass key=..., or dropkit.jax.bind the model"
            if self.site is not None:
                remedy = f"{self.site.name!r} is bound: set dropkit.jax.equinox.with_step(model, step), or pass key=..."
            raise DropkitRuntimeError(f"Dropout requires a key when running in non-deterministic mode. {remedy}")
        return key


class AlphaDropout(Dropout):
    """Alpha dropout, which keeps mean 0 and variance 1, for networks of SELU units; arguments of `Dropout`.

    Source: Klambauer et al. 2017 (arXiv:1706.02515).

    >>> from dropkit import Key
    >>> y = AlphaDropout(0.5)(jax.numpy.ones(6), key=Key(seed=1, site="drop"))
    >>> [round(value, 3) for value in y.tolist()]
    [-0.779, -0.779, -0.779, -0.779, 1.666, 1.666]
    """

    usual = Alpha()


def _place(site: Site) -> tuple[list[jax.Array], list[int]]:
    """This sample's number along each axis of vmap that the site knows of, and those axes' sizes."""
    index, sizes = [], []
    for name in site.axes:
        try:
            index.append(jax.lax.axis_index(name))
            sizes.append(jax.lax.axis_size(name))
        except NameError:
            if name == site.axes[0]:
                raise DropkitRuntimeError(
                    f"dropout {site.name!r} is bound to the batch axis {name!r}, which is not there: call "
                    f"jax.vmap(model, axis_name={name!r}), or bind(model, axis_name=None) if it takes whole batches"
                ) from None
    return index, sizes


def _check(p: Any) -> None:
    if isinstance(p, jax.core.Tracer):
        return
    if np.ndim(p):
        thresholds(np.asarray(p))
    else:
        threshold(p)
