"""Dropout for Equinox: its class and signature, and models whose dropouts are keyed by seed, path and step.

Equinox calls a model on one sample, under `jax.vmap(model, axis_name="batch")`, and a model is a value that does not
change. So `bind` gives back a model whose dropouts know seed and path, `with_step` one whose dropouts know the step
too, and a sample's place in the batch comes from the axis' name, as for `eqx.nn.BatchNorm`. No key is handed through.
"""

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..axes.noise import Alpha, Bernoulli, Noise
from ..axes.share import Share
from ..axes.when import When, when
from ..counter import Key, site_id
from ..errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ..mask import threshold, thresholds
from .keys import AnyKey, KeyWords, folded, halves, pair
from .ops import applied, dropout
from .traces import Lanes, draws_by_hand, lanes, repetitions, tracing

Model = TypeVar("Model")


class Site(eqx.Module):
    """Where a bound dropout is: which seed, which path, and under which axes of `vmap`.

    All static, but in a stack of layers: there the site numbers are data, low and high words, so that what slices
    the stack slices them.
    """

    seed: int = eqx.field(static=True)
    name: str = eqx.field(static=True)
    axes: tuple[str, ...] = eqx.field(static=True)
    numbers: tuple[jax.Array, jax.Array] | None = None

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
        site = pair(site_id(self.name)) if self.numbers is None else self.numbers
        return folded(pair(self.seed), site, step)


class Dropout(eqx.nn.Dropout):
    """`eqx.nn.Dropout` with its signature: `y = x * keep / (1 - p)`, and x itself at inference.

    Args:
        p: drop probability in [0, 1]. A Python number is a part of the program, as in Equinox; an array is data, so
            that another value compiles nothing again. It gets no gradient (and belongs in no optimizer, whose weight
            decay would move it).
        inference: whether to drop nothing.
        deterministic: deprecated name of inference.
        share: axes of a call's x along which one draw is shared.
        when: "train": unless inference; "always" or "never": whatever inference says.

    Raises:
        DropkitValueError, DropkitTypeError: p outside [0, 1], NaN or no number; a bad share or when.

    Source: Srivastava et al. 2014 (JMLR 15:1929).

    >>> Dropout(0.5)(jax.numpy.ones((2, 8)), key=Key(seed=1, site="drop"))
    Array([[0., 0., 0., 0., 2., 2., 2., 0.],
           [0., 2., 2., 2., 0., 0., 2., 0.]], dtype=float32)
    >>> Dropout(0.5)(jax.numpy.ones(2), inference=True)
    Array([1., 1.], dtype=float32)
    """

    share: tuple[int, ...] = eqx.field(static=True)
    when: When = eqx.field(static=True)
    made: Lanes = eqx.field(static=True)
    site: Site | None
    step: tuple[jax.Array, jax.Array] | None

    @property
    def noise(self) -> Noise:
        """What becomes of kept and of dropped elements."""
        return Bernoulli()

    def __init__(
        self,
        p: Any = 0.5,
        inference: bool = False,
        *,
        deterministic: bool | None = None,
        share: Sequence[int] = (),
        when: When | str = "train",
    ):
        _check(p)
        super().__init__(p, inference, deterministic=deterministic)
        self.share = tuple(Share(share).axes)
        self.when = _when(when)
        self.made = Lanes(lanes())
        self.site = None
        self.step = None

    def __call__(
        self,
        x: jax.Array,
        *,
        key: AnyKey | None = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
    ) -> jax.Array:
        """x with elements dropped, or x itself.

        Args:
            x: float16, bfloat16, float32 or float64, any shape.
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
        inference = self.inference if inference is None else inference
        if not self.when.active(not inference) or (isinstance(self.p, int | float) and self.p == 0):
            return x
        if key is not None or self.site is None or self.step is None:
            return dropout(x, self.p, training=True, key=self._needed(key), share=self.share, noise=self.noise)
        own = self.site.key(self.step)
        index, sizes = _place(self.site)
        ones = (1,) * len(index)
        y = applied(  # a slice of the mask of all samples
            x.reshape(ones + x.shape),
            self.p,
            training=True,
            key=own,
            share=[axis + len(ones) if axis >= 0 else axis for axis in self.share],
            offset=(*index, *(0 for _ in x.shape)),
            global_shape=(*sizes, *x.shape),
            noise=self.noise,
            alone=self.site.name,
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

    >>> y = AlphaDropout(0.5)(jax.numpy.ones(6), key=Key(seed=1, site="drop"))
    >>> [round(value, 3) for value in y.tolist()]
    [-0.779, -0.779, -0.779, -0.779, 1.666, 1.666]
    """

    @property
    def noise(self) -> Noise:
        """What becomes of kept and of dropped elements."""
        return Alpha()


_when = when  # `Dropout.__init__` has an argument of that name


def bind(model: Model, seed: int = 0, *, axis_name: str | Sequence[str] | None = "batch") -> Model:
    """A model whose dropouts know seed and path: with a step (`with_step`), their masks need no key.

    Paths are those of the pytree, such as "layers.1". A layer at two places of the model is two sites; a layer that is
    called twice in a forward has the same mask twice: give such calls a key. A stack of layers, which `eqx.filter_vmap`
    of a constructor makes, has a site for each: "blocks.drop.0", "blocks.drop.1" and so on. A stack of finished layers
    is known by the layers of `eqx.nn` beside the dropout.

    Args:
        model: any pytree with dropkit dropouts in it.
        seed: an int in [0, 2**64); it is a part of the program.
        axis_name: name of the `vmap` axis that is the batch: sample i gets row i of the batch's mask. Where the model
            uses vmap inside, over tokens say, the names of all axes from the outside in: a dropout goes by those that
            are around it, and needs the first. Under a vmap that it does not know a call is refused, since all lanes
            would get one mask. None for a model that is called on whole batches.

    Returns:
        Another model; bound again, it has another seed.

    Raises:
        DropkitValueError: no dropkit dropout in the model; a bad seed.
        DropkitTypeError: a seed that is no integer.
        DropkitRuntimeError: called inside a vmap, where a stack is one layer.

    Warns:
        UserWarning: other dropouts in the model stay unbound; they are named.

    >>> import dropkit
    >>> model = bind(eqx.nn.Sequential([eqx.nn.Identity(), Dropout(0.5)]), seed=1)
    >>> y = jax.vmap(with_step(model, 7), axis_name="batch")(jax.numpy.ones((2, 8)))
    >>> bool(((y != 0) == dropkit.keep((2, 8), 0.5, Key(seed=1, site="layers.1", step=7))).all())
    True
    """
    seed = Key(seed).seed
    axes = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
    if not all(isinstance(name, str) for name in axes):
        raise DropkitTypeError(f"axis_name must hold names of vmap axes, got {axis_name!r}")
    if lanes():
        raise DropkitRuntimeError(
            "bind was called inside a vmap, where all of a stack would get one site; bind what the vmap returns"
        )
    foreign = _foreign(model)
    if not sites(model):
        found = f"it has others: {', '.join(foreign)}" if foreign else "it has none"
        raise DropkitValueError(
            f"no dropkit dropout to bind in {type(model).__name__}: {found}; use dropkit.jax.equinox.Dropout there"
        )
    if foreign:
        warnings.warn(
            f"bind leaves dropouts unbound that are not dropkit's, and they need keys as before: {', '.join(foreign)}; "
            "put dropkit.jax.equinox.Dropout there",
            stacklevel=3,
        )
    stacks = _stacks(model)
    return _each(model, lambda path, drop: _with(drop, site=_site(seed, path, axes, stacks[path]), step=None))


def _site(seed: int, name: str, axes: tuple[str, ...], stack: tuple[int, ...]) -> Site:
    if not stack:
        return Site(seed, name, axes)
    names = [".".join(map(str, (*([name] if name else []), *index))) for index in np.ndindex(stack)]
    words = np.array([pair(site_id(each)) for each in names], np.uint32).reshape(*stack, 2)
    return Site(seed, name, axes, (jnp.asarray(words[..., 0]), jnp.asarray(words[..., 1])))


def with_step(model: Model, step: Any) -> Model:
    """A bound model whose dropouts draw their masks of this step.

    Inside a jitted function the step must be an array among its arguments: then it is data, and another one compiles
    nothing. A Python int is a part of the program there, and each step would compile the function anew.

    Args:
        model: what `bind` returned.
        step: an int in [0, 2**64), or an integer scalar of JAX, traced or not; None to take the step away.

    Raises:
        DropkitValueError: nothing in the model is bound; a step out of range.
        DropkitTypeError: a step that is no integer.
        DropkitRuntimeError: called in a scan or vmap over layers, or models, of which `bind` saw only one: all of them
            would draw one mask.

    Warns:
        UserWarning: a Python int while a function is traced.

    >>> model = bind(Dropout(0.5), seed=1, axis_name=None)
    >>> train = eqx.filter_jit(lambda model, x, step: with_step(model, step)(x))
    >>> train(model, jax.numpy.ones(8), jax.numpy.uint32(0)).shape
    (8,)
    """
    words = None if step is None else halves("step", step)
    if step is not None:
        _check_alone(model, step)
    if not any(drop.site for drop in sites(model).values()):
        raise DropkitValueError(f"this {type(model).__name__} is not bound; dropkit.jax.bind(model, seed=...) first")
    if isinstance(step, int) and tracing():
        warnings.warn(
            f"with_step got the Python int {step} while a function is traced: it becomes a part of the program, and "
            "every other step is traced and compiled anew; hand the function an array, jnp.asarray(step)",
            stacklevel=2,
        )

    def of(drop: Dropout) -> Any:
        if words is None or drop.site is None:
            return None
        low, high = (jnp.broadcast_to(jnp.asarray(word, jnp.uint32), drop.site.stack) for word in words)
        return low, high

    return _each(model, lambda _, drop: _with(drop, step=of(drop)) if drop.site else drop)


def _check_alone(model: Any, step: Any) -> None:
    """Refuse one site and step for many layers, in a scan or vmap over a stack that `bind` did not know for one."""
    for repetition in repetitions():
        if repetition.varies(step):
            continue
        alone = [
            name
            for name, drop in sites(model).items()
            if (site := drop.site) is not None
            and not (site.numbers is not None and repetition.varies(site.numbers[0]))
            and repetition.axis not in site.axes
        ]
        if alone and any(map(repetition.varies, jax.tree_util.tree_leaves(model))):
            raise DropkitRuntimeError(
                f"with_step got one step for all {repetition.what}, in which the model differs but dropout "
                f"{alone[0]!r} does not, so all would have one mask: bind a stack of layers as eqx.filter_vmap of "
                "their constructor makes it; in a loop over training steps take the step from the carry or the inputs"
            )


def sites(model: Any) -> dict[str, Dropout]:
    """The dropkit dropouts of a model by their paths in it."""
    flat, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_drop)
    return {_name(path): leaf for path, leaf in flat if _is_drop(leaf)}


def _each(model: Model, change: Any) -> Model:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: change(_name(path), leaf) if _is_drop(leaf) else leaf, model, is_leaf=_is_drop
    )


def _with(drop: Dropout, **fields: Any) -> Dropout:
    """A copy of other fields; the constructor has no arguments for them."""
    copy = object.__new__(type(drop))
    for name in drop.__dataclass_fields__:
        object.__setattr__(copy, name, fields.get(name, getattr(drop, name)))
    return copy


def _is_drop(leaf: Any) -> bool:
    return isinstance(leaf, Dropout)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _foreign(model: Any) -> list[str]:
    """What else drops in the model, by path: Equinox' own dropouts, attention's among them, and hand-written ones."""
    found: list[str] = []

    def look(path: Any, part: Any) -> None:
        if isinstance(part, eqx.nn.Dropout) and not _is_drop(part):
            if not (isinstance(part.p, int | float) and part.p == 0):
                found.append(f"{_name(path)} ({type(part).__name__})")
        elif isinstance(part, eqx.Module) and draws_by_hand(type(part)):
            found.append(f"{_name(path) or type(part).__name__} (jax.random.bernoulli)")

    _walk(model, look)
    return found


def _stacks(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of the stack that each dropout is, by path: as it was made, or as the layers beside it say."""
    stacks: dict[str, tuple[int, ...]] = {}

    def look(path: Any, part: Any) -> None:
        if _is_drop(part):
            stacks[_name(path)] = part.made.sizes or stacks.get(_name(path), ())
            return
        children = _children(part)
        shapes = [shape for _, child in children if (shape := _leading(child)) is not None]
        for key, child in children:
            if _is_drop(child) and shapes:
                stacks[_name((*path, key))] = min(shapes, key=len)

    _walk(model, look)
    return stacks


def _leading(layer: Any) -> tuple[int, ...] | None:
    """The leading axes of a weight that its layer does not account for: those of a stack. None if nobody can tell."""
    own = {
        eqx.nn.Linear: 2,
        eqx.nn.Embedding: 2,
        eqx.nn.Conv: getattr(layer, "num_spatial_dims", 0) + 2,
        eqx.nn.LayerNorm: len(getattr(layer, "shape", ())),
        eqx.nn.RMSNorm: len(getattr(layer, "shape", ())),
    }
    weight = getattr(layer, "weight", None)
    for kind, axes in own.items():
        if isinstance(layer, kind) and eqx.is_array(weight):
            return tuple(weight.shape[: weight.ndim - axes])
    return None


def _walk(part: Any, look: Any, path: tuple[Any, ...] = ()) -> None:
    """Call look(path, part) for a pytree and all that is in it, from the outside in; not for what is in a dropout."""
    look(path, part)
    if not isinstance(part, eqx.nn.Dropout):
        for key, child in _children(part):
            _walk(child, look, (*path, key))


def _children(part: Any) -> list[tuple[Any, Any]]:
    """What lies directly in a node of a pytree, with its keys."""
    flat, _ = jax.tree_util.tree_flatten_with_path(part, is_leaf=lambda inner: inner is not part)
    return [(keys[0], child) for keys, child in flat if keys]


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
