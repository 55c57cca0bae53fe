"""JAX's columns of the table of laws: the function run as it stands and compiled, and the layers of three libraries."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import dropkit.jax
import dropkit.jax.equinox
import dropkit.jax.linen
import dropkit.jax.nnx
from dropkit import Key
from dropkit.axes.share import share_of


def array(values: Any, dtype: str = "float32") -> Any:
    return None if values is None else jnp.asarray(values, dtype)


def float64(y: Any) -> Any:
    return np.asarray(y).astype(np.float64)


@dataclass
class Jax:
    """`dropkit.jax.dropout` run as it stands; a moving rate is an array of one entry. The layers are flax.nnx's."""

    name: str = "jax"
    x64: bool = False
    dtypes: tuple[str, ...] = field(default=("float32",))

    def rate(self, p: float) -> Any:
        return jnp.array([p], jnp.float32)

    def dropout(self, x: Any, p: Any, dtype: str, **how: Any) -> Any:
        with jax.enable_x64(self.x64):
            return float64(self.called(array(x, dtype), p, array(how.pop("other"), dtype), how))

    def gradients(self, x: Any, p: Any, grad: Any, dtype: str, **how: Any) -> Any:
        with jax.enable_x64(self.x64):
            x, other = array(x, dtype), array(how.pop("other"), dtype)
            of = [x] if other is None else [x, other]
            _, back = jax.vjp(lambda x, other=None: self.called(x, p, other, how), *of)
            dx, do = (*map(float64, back(array(grad, dtype))), None)[:2]
            return dx, do

    def called(self, x: Any, p: Any, other: Any, how: dict[str, Any]) -> Any:
        return dropkit.jax.dropout(x, p, other=other, **how)

    def layer(self, x: Any, p: float, key: Key, *, training: bool, other: Any, **axes: Any) -> Any:
        layer = dropkit.jax.nnx.Dropout(p, rngs=key, **axes)
        return float64(layer(array(x), array(other), deterministic=not training))


@dataclass(unsafe_hash=True)
class Compiled(Jax):
    """Under `jax.jit`, with x, the rate, the step and the offsets traced. The layers are Equinox'."""

    name: str = "jax jit"
    dtypes: tuple[str, ...] = field(default=("bfloat16",))

    def gradients(self, x: Any, p: Any, grad: Any, dtype: str, **how: Any) -> Any:
        key, other = how.pop("key"), array(how.pop("other"), dtype)
        given = array(x, dtype), other, array(grad, dtype), jnp.asarray(p, jnp.float32), jnp.uint32(key.step)
        dx, do = _slopes(self, key.seed, key.site, tuple(how.items()))(*given)
        return float64(dx), None if do is None else float64(do)

    def called(self, x: Any, p: Any, other: Any, how: dict[str, Any]) -> Any:
        if not isinstance(key := how["key"], Key):
            return dropkit.jax.dropout(x, p, other=other, **how)
        offset, rows = how.get("offset"), how.get("rows")
        looked = {axis % x.ndim for axis in getattr(share_of(how["share"]), "over", ())}
        known = tuple(entry if axis in looked else None for axis, entry in enumerate(offset or ()))
        static = {name: value for name, value in how.items() if name not in ("key", "offset", "rows")}
        whole = _whole(key.seed, key.site, known, tuple(static.items()))
        return whole(x, jnp.asarray(p, jnp.float32), other, jnp.uint32(key.step), offset, rows)

    def layer(self, x: Any, p: float, key: Key, *, training: bool, other: Any, **axes: Any) -> Any:
        layer = dropkit.jax.equinox.Dropout(jnp.float32(p), inference=not training, **axes)
        return float64(eqx.filter_jit(lambda layer, x, other: layer(x, other, key=key))(layer, array(x), array(other)))


@lru_cache
def _whole(seed: int, site: str, known: tuple[int | None, ...], static: tuple[Any, ...]) -> Any:
    """One program for all rates and steps. A share that looks along an axis has to know where that starts."""

    def whole(x: Any, p: Any, other: Any, step: Any, offset: Any, rows: Any) -> Any:
        if offset is not None:
            offset = [traced if entry is None else entry for entry, traced in zip(known, offset, strict=True)]
        key = dropkit.jax.key(seed, site, step)
        return dropkit.jax.dropout(x, p, other=other, key=key, offset=offset, rows=rows, **dict(static))

    return jax.jit(whole)


@lru_cache
def _slopes(column: "Compiled", seed: int, site: str, static: tuple[Any, ...]) -> Any:
    """One program for all rates and steps."""

    def slopes(x: Any, other: Any, grad: Any, p: Any, step: Any) -> Any:
        how = dict(static) | {"key": dropkit.jax.key(seed, site, step)}
        of = [x] if other is None else [x, other]
        _, back = jax.vjp(lambda x, other=None: column.called(x, p, other, how), *of)
        return (*back(grad), None)[:2]

    return jax.jit(slopes)


@dataclass(unsafe_hash=True)
class Formula(Compiled):
    """In XLA's operations, as on a device without kernels: a rate for each element. The layers are flax.linen's."""

    name: str = "jax formula"
    dtypes: tuple[str, ...] = field(default=("float16",))

    def called(self, x: Any, p: Any, other: Any, how: dict[str, Any]) -> Any:
        if not hasattr(share_of(how["share"]), "over"):  # a share that makes the mask takes one rate
            p = jnp.full(x.shape, jnp.asarray(p, jnp.float32).reshape(()))
        return super().called(x, p, other, how)

    def layer(self, x: Any, p: float, key: Key, *, training: bool, other: Any, **axes: Any) -> Any:
        layer = dropkit.jax.linen.Dropout(p, deterministic=not training, **axes)
        return float64(jax.jit(lambda x, other: layer.apply({}, x, other=other, rng=key))(array(x), array(other)))


COLUMNS = [Jax(), Jax("jax x64", x64=True, dtypes=("float64",)), Compiled(), Formula()]
