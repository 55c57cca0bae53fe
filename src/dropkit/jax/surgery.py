"""Change the dropouts of an nnx model that is there already: swap, insert, set rates; all of it can be taken back.

Modules of flax.nnx may be changed where they stand, so paths, weights, optimizers and whatever refers to a module stay.
A changed model has another graph, so that `nnx.jit` compiles it once more; what `nnx.split` gave before is of the old.
"""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import frontends, patterns
from ..errors import DropkitTypeError, DropkitValueError
from ..threshold import threshold
from .binding import foreign_dropouts

if TYPE_CHECKING:
    from flax import nnx

    from .nnx import Dropout
    from .receipt import Receipt


def swap(model: Any) -> Any:
    """Replace flax' own dropouts by dropkit's: same rate, broadcast_dims, mode, collection and stream.

    Of the class `flax.nnx.Dropout` each is replaced where it stands, in lists and in blocks too. In an
    `nnx.MultiHeadAttention` the number becomes a dropout, its module `dropout`, with its `broadcast_dropout` as it was:
    flax draws one mask for all samples and heads unless told otherwise. Left alone, and named by a warning, are
    subclasses with a call of their own, an attention with an `attention_fn` of its own, Linen's behind a bridge, and
    layers that draw by hand.

    An Equinox model: see `dropkit.jax.equinox.swap`; the result is another model.

    Args:
        model: an nnx.Module, edited in place, or an eqx.Module.

    Returns:
        Of an nnx model a `Receipt`, whose `restore()` gives the original back; of an Equinox model another model.

    Raises:
        DropkitValueError: no such dropout; one whose rate is outside [0, 1]. Nothing is changed then.
        DropkitTypeError: a model of neither library.

    Warns:
        UserWarning: dropouts of another make stay; all are named. The model is bound: what is swapped in is not, until
            it is bound again.

    >>> from flax import nnx
    >>> model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.Dropout(0.3))
    >>> print(swap(model))
    layers.1: flax Dropout(0.3) -> dropkit Dropout(0.3)
    """
    if frontends.is_equinox(model):
        from . import equinox

        return equinox.swap(model)
    _check_model(model, "swap")
    from . import changing, receipt

    found = changing.swappable(model)
    heads, reasons = changing.attentions(model)
    gone = {place.path or type(place.module).__name__ for place in (*found, *heads)}
    left = [name for name in foreign_dropouts(model) if name.rpartition(" (")[0] not in gone]
    if not gone:
        others = f"it has others: {', '.join(left)}" if left else "it has none"
        raise DropkitValueError(f"no flax.nnx.Dropout to swap in {type(model).__name__}: {others}")
    bound = changing.is_bound(model)
    edits: list[Any] = [
        receipt.Replacement(place.path or "the model itself", place.module, changing.twin(place.module))
        for place in found
    ]
    edits += [
        receipt.Attention(place.path or "the model itself", place.module, changing.attention_drop(place.module))
        for place in heads
    ]
    told = {name: reasons.get(name.rpartition(" (")[0], "flax draws what it drops") for name in left}
    done = receipt.Receipt(edits, [f"{name}: left alone, {reason}" for name, reason in told.items()])
    if left:
        warnings.warn(
            f"swap leaves dropouts that it cannot replace, and they need rngs as before: {', '.join(left)}",
            stacklevel=2,
        )
    if bound:
        _warn_bound(
            ", ".join(
                (*(place.path for place in found), *(f"{place.path}.dropout".removeprefix(".") for place in heads))
            )
        )
    return done


def insert(
    model: "nnx.Module",
    after: "str | type[nnx.Module] | tuple[type[nnx.Module], ...] | Callable[[str, Any], bool]",
    drop: "Dropout | Callable[[], Dropout]",
) -> "Receipt":
    """Put a dropout behind every module that matches, without changing a path or a weight.

    A module that matches becomes one of a class of its own, which derives from its class; the dropout is a module
    `dropkit_drop` in it, so that `bind`, `model.train()`, `model.eval()` and `nnx.view` see it, and its `__call__` runs
    it on the output: an array, or the first entry of a tuple. A call with `deterministic=` hands that on. A module that
    sits in several places goes by its first path, and has the dropout in all of them.

    Args:
        model: edited in place.
        after: a pattern of module paths as in `fnmatch` ("blocks.*.linear"), a module class or a tuple of them, or a
            function of (path, module) that says whether.
        drop: a dropout of dropkit, of which each place gets a copy; or a function without arguments that makes one.
            Without rngs it needs the model to be bound; an `nnx.Rngs` is forked for each place.

    Returns:
        A `Receipt`, whose `restore()` gives the original back.

    Raises:
        DropkitValueError: nothing matches; a match that is a dropout itself, or has an inserted dropout already; a drop
            that is bound. Nothing is changed then.
        DropkitTypeError: not an nnx module; an `after` or `drop` of another kind; when the model runs, an output of
            another.

    Warns:
        UserWarning: the model is bound: what is inserted is not, until it is bound again.

    >>> from flax import nnx
    >>> from dropkit.jax import bind, sites
    >>> from dropkit.jax.nnx import Dropout
    >>> model = nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(2, 2, rngs=nnx.Rngs(1)))
    >>> print(insert(model, "layers.0", Dropout(0.1)))
    layers.0: dropkit Dropout(0.1) behind Linear
    >>> list(sites(bind(model, seed=1)))
    ['layers.0.dropkit_drop']
    """
    _check_model(model, "insert")
    from . import changing, receipt

    chosen = changing.targets(model, after)
    made, bound = changing.maker(model, drop), changing.is_bound(model)
    done = receipt.Receipt([receipt.Insertion(place.path, place.module, made(place)) for place in chosen], [])
    if bound:
        _warn_bound(changing.inserted_paths(chosen))
    return done


def set_rate(model: "nnx.Module", pattern: str, rate: float) -> "Receipt":
    """Set the rate of every dropout whose path matches: modules, and numbers inside other modules.

    dropkit's dropouts hold a rate that was set as state, so that further values compile nothing again. In flax' own, in
    `nnx.MultiHeadAttention` and in modules that draw by hand, a rate is a part of the program. A number goes by its
    module's path and its attribute ("attention.dropout_rate"); the module's path finds it too.

    Args:
        model: edited in place.
        pattern: of paths as in `fnmatch`; "*" is all.
        rate: drop probability in [0, 1].

    Returns:
        A `Receipt`, whose `restore()` gives the old rates back.

    Raises:
        DropkitValueError: nothing matches; a rate outside [0, 1] or NaN. Nothing is changed then.
        DropkitTypeError: not an nnx module; a rate that is no number.

    >>> from flax import nnx
    >>> model = nnx.Sequential(nnx.Dropout(0.5))
    >>> print(set_rate(model, "*", 0.2))
    layers.0: rate 0.5 -> 0.2
    """
    _check_model(model, "set_rate")
    threshold(rate)
    patterns.one(pattern, "encoder.*")
    from . import changing, receipt

    known = list(changing.rates(model))
    chosen = [found for found in known if patterns.matches((found.name, found.path), pattern)]
    if not chosen:
        names = patterns.listed(f"{found.name} ({found.p})" for found in known)
        raise patterns.unmatched(f"pattern {pattern!r}", "no rate", type(model).__name__, names)
    edits = [receipt.Assignment(found.name, found.module, found.attribute, float(rate)) for found in chosen]
    return receipt.Receipt(edits, [])


def _warn_bound(names: str) -> None:
    warnings.warn(f"the model is bound and these are not: {names}; dropkit.jax.bind it again", stacklevel=3)


def _check_model(model: Any, verb: str) -> None:
    if not frontends.is_nnx(model):
        raise DropkitTypeError(f"{verb} needs a flax.nnx.Module, got {type(model).__name__}")
