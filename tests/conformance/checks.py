"""What every frontend must do, with `dropkit.keep` as the oracle. Each check asserts by itself: calling it tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dropkit import DropkitError, Key, keep

from .frontends import rounded

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mask_vectors.json").read_text())
KEY = Key(seed=11, site="conformance", step=3)
RATES = (0.5, 0.25, 0.1, 0.3, 0.9, 1 / 3, 0.001)
SHAPES = ((), (1,), (7,), (64,), (5, 37), (3, 1, 31), (2, 3, 4, 5), (4, 33, 3), (2, 1024))


def sample(shape: tuple[int, ...]) -> np.ndarray:
    """Values without zeros, so that a zero in the output is a dropped element."""
    rng = np.random.Generator(np.random.Philox(1))
    return rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)


def expected(x: np.ndarray, kept: np.ndarray, p: Any, dtype: str) -> np.ndarray:
    """0 or x * 2**16 / t, in float32 arithmetic below float64, rounded to the dtype."""
    wide = np.float64 if dtype == "float64" else np.float32
    t = 65536 - np.rint(np.asarray(p, np.float64) * 65536)
    with np.errstate(divide="ignore"):
        factor = (65536 / t).astype(wide)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(kept, rounded(rounded(x, dtype).astype(wide) * factor, dtype), 0.0)


def equal(actual: np.ndarray, wanted: np.ndarray, what: Any) -> None:
    """Equal to the last bit, and of one shape."""
    assert actual.shape == wanted.shape, (what, actual.shape, wanted.shape)
    np.testing.assert_array_equal(actual, wanted, err_msg=str(what))


def golden_vectors(frontend: Any) -> None:
    """The published masks, by rows where the file gives indices."""
    for vector in GOLDEN["keep"]:
        key, p = Key(vector["seed"], vector["site"], vector["step"]), vector["p"]
        for dtype in frontend.dtypes:
            if "index" in vector:
                kept = np.array(vector["bits"])
                x = frontend.array(np.ones(len(kept)), dtype)
                y = frontend.dropout(x, p, training=True, key=key, rows=np.array(vector["index"]))
            else:
                size = int(np.prod(vector["shape"]))
                octets = np.frombuffer(bytes.fromhex(vector["bits"]), np.uint8)
                kept = np.unpackbits(octets, bitorder="little")[:size].astype(bool).reshape(vector["shape"])
                y = frontend.dropout(frontend.array(np.ones(vector["shape"]), dtype), p, training=True, key=key)
            equal(frontend.values(y) != 0, kept, (dtype, vector))


def values(frontend: Any) -> None:
    """Exactly 0 or x * scale, over shapes, rates and dtypes."""
    for shape in SHAPES:
        x = sample(shape)
        for p in RATES:
            kept = keep(shape, p, KEY)
            for dtype in frontend.dtypes:
                y = frontend.dropout(frontend.array(x, dtype), p, training=True, key=KEY)
                equal(frontend.values(y), expected(x, kept, p, dtype), (shape, p, dtype))


def layouts(frontend: Any) -> None:
    """Strides and memory formats change nothing."""
    for shape in ((6, 8), (2, 3, 4, 5)):
        x = sample(shape)
        x[1:] = x[:1]  # what an expanded tensor can hold
        for layout in frontend.layouts:
            for dtype in frontend.dtypes:
                y = frontend.dropout(frontend.array(x, dtype, layout), 0.3, training=True, key=KEY)
                equal(frontend.values(y), expected(x, keep(shape, 0.3, KEY), 0.3, dtype), (shape, layout, dtype))


def sharing(frontend: Any) -> None:
    """One draw along shared axes: the mask of the noise tensor, repeated."""
    shape = (4, 3, 5, 2)
    x = sample(shape)
    for share in ((), (0,), (1,), (2, 3), (-1,), (1, 2, 3), (0, 2), (0, 1, 2, 3)):
        noise = tuple(1 if axis in {a % 4 for a in share} else size for axis, size in enumerate(shape))
        kept = np.broadcast_to(keep(noise, 0.4, KEY), shape)
        for dtype in frontend.dtypes:
            y = frontend.dropout(frontend.array(x, dtype), 0.4, training=True, key=KEY, share=share)
            equal(frontend.values(y), expected(x, kept, 0.4, dtype), (share, dtype))


def shards(frontend: Any) -> None:
    """Pieces put together equal the whole, wherever they are cut and however far away the whole begins."""
    whole = (6, 5, 7)
    x = sample(whole)
    for share in ((), (1,), (2,), (0, 2)):
        for p in (0.5, 0.1):
            kept = np.broadcast_to(keep(whole, p, KEY, share=share), whole)
            pieces = np.empty(whole)
            for a in (slice(0, 2), slice(2, 6)):
                for b in (slice(0, 1), slice(1, 5)):
                    for c in (slice(0, 3), slice(3, 7)):
                        y = frontend.dropout(
                            frontend.array(x[a, b, c], "float32"),
                            p,
                            training=True,
                            key=KEY,
                            share=share,
                            offset=(a.start, b.start, c.start),
                            global_shape=whole,
                        )
                        pieces[a, b, c] = frontend.values(y)
            equal(pieces, expected(x, kept, p, "float32"), (share, p))
    for start, rest in ((2**32 - 3, 64), (2**37 + 5, 3), (2**62, 1), (2**63 - 40, 1)):
        indices = np.arange(start, start + 40, dtype=np.uint64)
        total = (start + 40) // rest * rest if rest > 1 else start + 40
        offset, shape = ((start // rest, start % rest), (1, rest - start % rest)) if rest > 1 else ((start,), (40,))
        indices = indices[: shape[-1]]
        shape = (*shape[:-1], len(indices))
        y = frontend.dropout(
            frontend.array(np.ones(shape), "float32"),
            0.5,
            training=True,
            key=KEY,
            offset=offset,
            global_shape=(total // rest + 1, rest) if rest > 1 else (total,),
        )
        equal(frontend.values(y).reshape(-1) != 0, keep(indices.shape, 0.5, KEY, index=indices), (start, rest))


def rows(frontend: Any) -> None:
    """A row's mask is that of its number, in whatever batch it sits."""
    for whole in ((50, 33), (50, 32), (50,), (50, 3, 5)):
        x = sample(whole)
        numbers = np.array([49, 0, 7, 7, 31, 12])
        for p in (0.5, 0.3):
            kept = keep(whole, p, KEY)[numbers]
            batch = frontend.array(x[numbers], "float32")
            y = frontend.dropout(batch, p, training=True, key=KEY, rows=numbers)
            equal(frontend.values(y), expected(x[numbers], kept, p, "float32"), (whole, p))
    x = sample((4, 6))
    far = np.array([2**40, 2**58, 5, 2**33 + 1])
    index = far[:, None].astype(np.uint64) * np.uint64(6) + np.arange(6, dtype=np.uint64)
    y = frontend.dropout(frontend.array(x, "float32"), 0.3, training=True, key=KEY, rows=far)
    equal(frontend.values(y) != 0, keep((4, 6), 0.3, KEY, index=index), "far rows")
    shard = frontend.dropout(
        frontend.array(x[:, 2:5], "float32"), 0.3, training=True, key=KEY, rows=far, offset=(0, 2), global_shape=(4, 6)
    )
    equal(frontend.values(shard), frontend.values(y)[:, 2:5], "rows of a shard")


def rates(frontend: Any) -> None:
    """p given as an array: each element by its own rate, the ends included."""
    shape = (4, 6, 5)
    x = sample(shape)
    rng = np.random.Generator(np.random.Philox(2))
    for rate_shape in (shape, (6, 1), (4, 1, 1), (1,), (5,)):
        for rate_dtype in (np.float32, np.float64):
            p = rng.uniform(0, 1, rate_shape).astype(rate_dtype)
            p.reshape(-1)[:2] = (0.0, 1.0)[: p.size]
            kept = keep(shape, p, KEY)
            one = np.broadcast_to(p, shape)[2, 3, 4]
            assert kept[2, 3, 4] == keep(shape, float(one), KEY)[2, 3, 4]
            for dtype in frontend.dtypes:
                y = frontend.dropout(frontend.array(x, dtype), frontend.rates(p), training=True, key=KEY)
                equal(frontend.values(y), expected(x, kept, p.astype(np.float64), dtype), (rate_shape, dtype))


def gradient(frontend: Any) -> None:
    """The gradient is the incoming one under the forward's mask and scale, exactly."""
    shape = (5, 37)
    x, grad = sample(shape), sample(shape)[::-1].copy()
    for p in (0.5, 0.1, 1.0):
        for share in ((), (1,)):
            kept = np.broadcast_to(keep(shape, p, KEY, share=share), shape)
            for dtype in frontend.dtypes:
                args: dict[str, Any] = {"training": True, "key": KEY, "share": share}
                back = frontend.gradient(frontend.array(x, dtype), p, frontend.array(grad, dtype), **args)
                equal(frontend.values(back), expected(grad, kept, p, dtype), (p, share, dtype))
                forward = frontend.dropout(frontend.array(x, dtype), p, **args)
                equal(frontend.values(back) == 0, frontend.values(forward) == 0, (p, share, dtype))


def not_finite(frontend: Any) -> None:
    """Dropped NaN and infinity become 0; kept ones stay."""
    for bad in (np.nan, np.inf, -np.inf):
        x = np.full((4, 40), bad)
        for p in (0.5, 0.1, 1.0):
            kept = keep(x.shape, p, KEY)
            for dtype in frontend.dtypes:
                y = frontend.dropout(frontend.array(x, dtype), p, training=True, key=KEY)
                equal(frontend.values(y), np.where(kept, bad, 0.0), (bad, p, dtype))


def identity(frontend: Any) -> None:
    """Where nothing is dropped the very input comes back; where all is, zeros."""
    for dtype in frontend.dtypes:
        x = frontend.array(sample((3, 4)), dtype)
        assert frontend.dropout(x, 0.5, training=False, key=KEY) is x
        for p in (0.0, 0):
            assert frontend.dropout(x, p, training=True, key=KEY) is x, p
        for p in (1e-7, 2**-17):  # 2**-17 is half a grid step, and half rounds to even
            equal(frontend.values(frontend.dropout(x, p, training=True, key=KEY)), frontend.values(x), (p, dtype))
        empty = frontend.array(np.ones((0, 3)), dtype)
        assert frontend.dropout(empty, 0.5, training=True, key=KEY) is empty
        equal(frontend.values(frontend.dropout(x, 1.0, training=True, key=KEY)), np.zeros((3, 4)), dtype)
    assert frontend.dropout(frontend.integer, 0.5, training=False, key=KEY) is frontend.integer


def errors(frontend: Any) -> None:
    """Bad input is a typed error that echoes the value."""
    x = frontend.array(np.ones((2, 3)), "float32")

    def refuses(match: str, builtin: type[Exception], *args: Any, **kwargs: Any) -> None:
        with pytest.raises(DropkitError, match=match) as caught:
            frontend.dropout(*args, **({"training": True, "key": KEY} | kwargs))
        assert isinstance(caught.value, builtin)

    for p in (-0.1, 1.5, float("nan"), float("inf")):
        refuses(rf"dropout probability has to be between 0 and 1, but got {p}", ValueError, x, p)
        refuses("dropout probability has to be between 0 and 1", ValueError, x, p, training=False)
    for p in ("0.5", None, [0.5], 0.5j):
        refuses("dropout probability must be a number, but got", TypeError, x, p)
    refuses(r"between 0 and 1, but got 1\.5", ValueError, x, frontend.rates(np.array([0.5, 1.5, 0.1])))
    refuses(r"between 0 and 1, but got nan", ValueError, x, frontend.rates(np.array([0.5, np.nan, 0.1])))
    refuses(r"p of shape \(4,\) does not broadcast", ValueError, x, frontend.rates(np.full(4, 0.5)))
    refuses("share axis 2 does not exist in a tensor of shape", ValueError, x, 0.5, share=(2,))
    refuses("share must", TypeError, x, 0.5, share="time")
    refuses("outside global_shape", ValueError, x, 0.5, offset=(1, 0), global_shape=(2, 3))
    refuses("outside global_shape", ValueError, x, 0.5, offset=(-1, 0), global_shape=(2, 3))
    refuses("needs global_shape", ValueError, x, 0.5, offset=(1, 0))
    refuses("one entry for each axis", ValueError, x, 0.5, offset=(1,), global_shape=(4, 3))
    refuses("as many axes", ValueError, x, 0.5, offset=(1, 0), global_shape=(4,))
    refuses("rows must hold one row number", ValueError, x, 0.5, rows=np.arange(3))
    refuses("rows must hold", TypeError, x, 0.5, rows=np.ones(2))
    refuses("rows must", ValueError, x, 0.5, rows=np.array([0, -1]))
    refuses("past index", ValueError, x, 0.5, rows=np.array([0, 2**62]))
    refuses("must be a dropkit.Key", TypeError, x, 0.5, key=7)
    refuses("training must be True or False", TypeError, x, 0.5, training=None)
    for p in (0, 0.0, 0.5, 1):  # at every rate: one that moves would be refused later
        refuses("convert with x", TypeError, frontend.integer, p)


CHECKS = {
    check.__name__: check
    for check in (
        golden_vectors,
        values,
        layouts,
        sharing,
        shards,
        rows,
        rates,
        gradient,
        not_finite,
        identity,
        errors,
    )
}
