"""Equinox models whose dropouts are keyed by seed, path and step, and need no key in a call."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...counter import Key, site_id
from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError
from ...turns import NESTED, in_pass, passes_checked
from ..keys import halves, names_in_stack, pair
from ..traces import lanes, repetitions, tracing
from . import tree
from .layers import Dropout, Site
from .tree import Model


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

    >>> import dropkit, equinox as eqx
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
    foreign = tree.foreign(model)
    if not tree.sites(model):
        found = f"it has others: {', '.join(foreign)}" if foreign else "it has none"
        raise DropkitValueError(
            f"no dropkit dropout to bind in {type(model).__name__}: {found}; use dropkit.jax.equinox.Dropout there, or "
            "dropkit.jax.swap first"
        )
    if foreign:
        warnings.warn(
            f"bind leaves dropouts unbound that are not dropkit's, and they need keys as before: {', '.join(foreign)}; "
            "dropkit.jax.swap takes over what it can",
            stacklevel=3,
        )
    stacks = tree.stacks(model)
    return tree.each(
        model, lambda path, drop: tree.replaced(drop, site=_site(seed, path, axes, stacks[path]), step=None)
    )


def _site(seed: int, name: str, axes: tuple[str, ...], stack: tuple[int, ...], turn: int | None = None) -> Site:
    if not stack:
        return Site(seed, name, axes, turn=turn)
    names = [in_pass(each, turn) for each in names_in_stack(name, stack)]
    words = np.array([pair(site_id(each)) for each in names], np.uint32).reshape(*stack, 2)
    return Site(seed, name, axes, (jnp.asarray(words[..., 0]), jnp.asarray(words[..., 1])), stack, turn)


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

    >>> import equinox as eqx
    >>> model = bind(Dropout(0.5), seed=1, axis_name=None)
    >>> train = eqx.filter_jit(lambda model, x, step: with_step(model, step)(x))
    >>> train(model, jax.numpy.ones(8), jax.numpy.uint32(0)).shape
    (8,)
    """
    words = None if step is None else halves("step", step)
    if step is not None:
        _check_alone(model, step)
    if not any(drop.site for drop in tree.sites(model).values()):
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

    return tree.each(model, lambda _, drop: tree.replaced(drop, step=of(drop)) if drop.site else drop)


def passes(model: Model, n: int) -> tuple[Model, ...]:
    """n models for n passes at one step, whose masks differ: two views of a batch, as SimCSE and R-Drop ask.

    The first is the model itself; the j-th draws at the sites `path@j`: the masks of `dropkit.torch.passes`.

    Args:
        model: what `bind` returned, with a step or without.
        n: how many, at least 1.

    Raises:
        DropkitValueError: nothing in the model is bound; n below 1; one of several passes already; inside of a scan or
            vmap over a stack of layers, where nobody knows which one runs.
        DropkitTypeError: n is no integer.

    Sources: Gao et al. 2021 (SimCSE, arXiv:2104.08821); Liang et al. 2021 (R-Drop, arXiv:2106.14448).

    >>> model = with_step(bind(Dropout(0.5), seed=1, axis_name=None), 7)
    >>> first, second = (each(jax.numpy.ones(64)) for each in passes(model, 2))
    >>> bool((first == second).all())
    False
    """
    n = passes_checked(n)
    bound = [drop.site for drop in tree.sites(model).values() if drop.site is not None]
    if not bound:
        raise DropkitValueError(f"this {type(model).__name__} is not bound; dropkit.jax.bind(model, seed=...) first")
    for site in bound:
        if site.turn is not None:  # one name would be two draws
            raise DropkitValueError(NESTED.format(what="model"))
        if site.stack != site.whole:
            raise DropkitValueError(
                f"passes inside of what goes over a stack of {'x'.join(map(str, site.whole))} layers, where nobody "
                f"knows which one of {site.name!r} runs: take the passes of the whole model"
            )

    def in_turn(drop: Dropout, turn: int) -> Dropout:
        site = drop.site
        if site is None:
            return drop
        return tree.replaced(drop, site=_site(site.seed, site.name, site.axes, site.whole, turn))

    return tuple(tree.each(model, partial(lambda turn, _, drop: in_turn(drop, turn), turn)) for turn in range(n))


def _check_alone(model: Any, step: Any) -> None:
    """Refuse one site and step for many layers, in a scan or vmap over a stack that `bind` did not know for one."""
    for repetition in repetitions():
        if repetition.varies(step):
            continue
        alone = [
            name
            for name, drop in tree.sites(model).items()
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
