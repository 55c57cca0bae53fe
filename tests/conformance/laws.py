"""Every law, share and when: what a value must do on every frontend and path. A new variant joins by one row.

The oracle is the law as its paper writes it, of one element, and the mask or the numbers of `dropkit`: ten lines, and
nothing of what the frontends compute with.
"""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import dropkit
from dropkit import Key
from dropkit.axes.noise import (
    AdditiveGaussian,
    AdditiveUniform,
    Alpha,
    Bernoulli,
    Concrete,
    Fill,
    Gaussian,
    Hard,
    HardConcrete,
    LogNormal,
    Mixout,
    Raw,
    Shakeout,
    Soft,
    Uniform,
    Zoneout,
)
from dropkit.axes.share import Antithetic, Axes, Block, Exactly, Exclusive, Prefix
from dropkit.errors import DropkitError

KEY = Key(seed=5, site="laws", step=2)


@dataclass(frozen=True)
class Law:
    """A row: a noise, what it makes of x (and o) at q where `n` says kept or dropped, or is a random number."""

    name: str
    noise: Any
    y: Callable[[Any, Any, float, Any], Any]  # of x, o, q, n
    off: Callable[[Any, Any, float], Any] = lambda x, o, q: x
    mean: Callable[[Any, Any, float], Any] | None = lambda x, o, q: x  # E[y]; None where the paper states none


def select(kept: Any, yes: Any, no: Any) -> Any:
    return np.where(kept, yes, no)


def selu_limit(x: Any, q: float, kept: Any) -> Any:
    """Klambauer et al. 2017: a (x d + alpha' (1 - d)) + b."""
    limit = -1.7580993408473766
    a = (q + limit**2 * q * (1 - q)) ** -0.5 if q else 0.0
    return a * (select(kept, x, limit) - (1 - q) * limit)


# fmt: off
LAWS = [
    Law("inverted", Bernoulli(), lambda x, o, q, kept: select(kept, x / q if q else x, 0)),
    Law("alpha", Alpha(), lambda x, o, q, kept: selu_limit(x, q, kept), mean=None),
    Law(
        "zoneout", Zoneout(), lambda x, o, q, kept: select(kept, x, o), lambda x, o, q: q * x + (1 - q) * o,
        mean=lambda x, o, q: q * x + (1 - q) * o,
    ),
    Law("gaussian", Gaussian(), lambda x, o, q, z: x * (1 + ((1 - q) / q) ** 0.5 * z) if q else 0 * x),
]

# A new law joins here: eagerly it is tried as the others are, and compiled all of these are one graph.
MORE_LAWS = [
    Law("raw", Raw(), lambda x, o, q, kept: select(kept, x, 0), lambda x, o, q: q * x, mean=lambda x, o, q: q * x),
    Law("fill", Fill(-2.5), lambda x, o, q, kept: select(kept, x, -2.5), mean=lambda x, o, q: q * x - 2.5 * (1 - q)),
    Law(
        "shakeout", Shakeout(0.25),
        lambda w, s, q, kept: select(kept, (w + 0.25 * (1 - q) * s) / q if q else w, -0.25 * s),
    ),
    Law("mixout", Mixout(), lambda w, r, q, kept: (select(kept, w, r) - (1 - q) * r) / q if q else r),
    Law("uniform", Uniform(), lambda x, o, q, u: x * (1 + (3 * (1 - q) / q) ** 0.5 * (2 * u - 1)) if q else 0 * x),
    Law("log-normal", LogNormal(), lambda x, o, q, z: x * np.exp(np.sqrt(-np.log(q)) * z) * q**0.5 if q else 0 * x),
    Law("additive", AdditiveGaussian(0.5), lambda x, o, q, z: x + 0.5 * ((1 - q) / q) ** 0.5 * z if q else 0 * x),
    Law(
        "additive uniform", AdditiveUniform(0.5),
        lambda x, o, q, u: x + 0.5 * (3 * (1 - q) / q) ** 0.5 * (2 * u - 1) if q else 0 * x,
    ),
    Law("concrete", Concrete(), lambda x, o, q, u: x * gate(0.1, q, u) / q if q else 0 * x, mean=None),
    Law("concrete 2/3", Concrete(2 / 3), lambda x, o, q, u: x * gate(2 / 3, q, u) / q if q else 0 * x, mean=None),
    Law(
        "concrete corrected", Concrete(2 / 3, correct=True),
        lambda x, o, q, u: x * gate(2 / 3, q, u) / midpoints(lambda v: gate(2 / 3, q, v)).mean() if q else 0 * x,
    ),
    Law(
        "hard concrete", HardConcrete(), lambda x, o, q, u: x * stretched(q, u) if q else 0 * x,
        lambda x, o, q: x * stretched(q, None), mean=None,
    ),
    Law(
        "hard concrete corrected", HardConcrete(correct=True),
        lambda x, o, q, u: x * stretched(q, u) / midpoints(lambda v: stretched(q, v)).mean() if q else 0 * x,
    ),
]  # fmt: skip
# fmt: on


def midpoints(f: Callable[[Any], Any]) -> Any:
    """f of uniform numbers that lie evenly."""
    return f((np.arange(400_000) + 0.5) / 400_000)


def gate(temperature: float, q: float, u: Any) -> Any:
    """Gal, Hron and Kendall 2017: 1 - sigmoid((logit(p) + logit(u)) / T)."""
    with np.errstate(over="ignore"):
        odds = np.asarray(q / (1 - q) * (1 - u) / u, np.float64) ** (1 / temperature) if q < 1 else np.inf
        return 1 / (1 + 1 / odds)


def stretched(q: float, u: Any) -> Any:
    """Louizos et al. 2018 with beta 2/3, gamma -0.1, zeta 1.1; without u their gate of evaluation."""
    if q in (0, 1):
        return q
    log_a = np.log(q / (1 - q)) + 2 / 3 * np.log(0.1 / 1.1)
    v = log_a if u is None else (np.log(u / (1 - u)) + log_a) / (2 / 3)
    return np.clip(1.2 / (1 + np.exp(-v)) - 0.1, 0, 1)


def moments(law: Law, x: float, o: float, q: float) -> tuple[float, float]:
    """The mean and the variance of y, of the row's equation alone."""
    if isinstance(law.noise, Hard):
        kept, dropped = (float(law.y(np.asarray(x), np.asarray(o), q, np.asarray(on))) for on in (True, False))
        return q * kept + (1 - q) * dropped, q * (1 - q) * (kept - dropped) ** 2
    if law.noise.source == "uniform":
        y = midpoints(lambda u: law.y(x, o, q, u))
        return y.mean(), y.var()
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    y, weights = law.y(x, o, q, nodes), weights / weights.sum()
    return y @ weights, (y - y @ weights) ** 2 @ weights


@dataclass(frozen=True)
class Shared:
    """A row: a share, and which elements it keeps, said slowly."""

    name: str
    share: Any
    kept: Callable[[tuple[int, ...], float, Key], Any]
    q: Callable[[tuple[int, ...], float], float] = lambda shape, q: q  # the fraction really kept
    soft: bool = True  # whether soft laws can share so


def exactly_last(shape: tuple[int, ...], p: float, key: Key) -> Any:
    u = dropkit.uniform(shape, key)
    order = np.argsort(np.argsort(u, axis=-1, kind="stable"), axis=-1, kind="stable")
    return order < counted(shape, 1 - p) * shape[-1]


def counted(shape: tuple[int, ...], q: float) -> float:
    return int(np.floor(q * shape[-1] + 0.5)) / shape[-1]


def blocks(*sizes: int) -> Callable[..., Any]:
    """DropBlock along the last axes by loops: the blocks, then gamma, then whatever a dropped block holds."""

    def kept(shape: tuple[int, ...], p: float, key: Key) -> Any:
        extents = shape[len(shape) - len(sizes) :]
        ends = [extent - min(size, extent) + 1 for extent, size in zip(extents, sizes, strict=True)]
        held = np.zeros(extents)
        for begin in np.ndindex(*ends):
            held[tuple(slice(b, b + size) for b, size in zip(begin, sizes, strict=True))] += 1
        steps = bisect.bisect_left(range((1 << 23) + 1), p, key=lambda g: np.mean(1 - (1 - g * 2.0**-23) ** held))
        u, mask = dropkit.uniform(shape, key), np.ones(shape, bool)
        for begin in np.ndindex(*shape[: len(shape) - len(sizes)], *ends):
            if u[begin] < steps * 2.0**-23:
                lead, corner = begin[: len(shape) - len(sizes)], begin[len(shape) - len(sizes) :]
                mask[(*lead, *(slice(b, b + size) for b, size in zip(corner, sizes, strict=True)))] = False
        return mask

    return kept


SHARES = [
    Shared("elements", Axes(), lambda shape, p, key: dropkit.keep(shape, p, key)),
    Shared("axis", Axes((1,)), lambda shape, p, key: dropkit.keep(shape, p, key, share=(1,))),
    Shared("ends", Axes((0, -1)), lambda shape, p, key: dropkit.keep(shape, p, key, share=(0, -1))),
    Shared("exactly", Exactly((-1,)), exactly_last, counted, soft=False),
    Shared("block", Block(3, over=(-1,)), blocks(3), soft=False),
    Shared("block 2d", Block((2, 9)), blocks(2, 9), soft=False),
]


def clipped(*sizes: int) -> Callable[..., Any]:
    """Blocks that are cut at the border, by loops: each begins up to its size less 1 before the map."""

    def kept(shape: tuple[int, ...], p: float, key: Key) -> Any:
        lead, extents = shape[: len(shape) - len(sizes)], shape[len(shape) - len(sizes) :]
        ends = [extent + size - 1 for extent, size in zip(extents, sizes, strict=True)]
        steps = bisect.bisect_left(range((1 << 23) + 1), p, key=lambda g: 1 - (1 - g * 2.0**-23) ** np.prod(sizes))
        u, mask = dropkit.uniform((*lead, *ends), key), np.ones(shape, bool)
        for begin in np.ndindex(*lead, *ends):
            if u[begin] < steps * 2.0**-23:
                corner = begin[len(lead) :]
                cuts = [slice(max(b - size + 1, 0), b + 1) for b, size in zip(corner, sizes, strict=True)]
                mask[(*begin[: len(lead)], *cuts)] = False
        return mask

    return kept


def opposite(shape: tuple[int, ...], p: float, key: Key) -> Any:
    u = dropkit.uniform((*shape[:-1], (shape[-1] + 1) // 2), key).repeat(2, axis=-1)[..., : shape[-1]]
    return np.where(np.arange(shape[-1]) % 2 == 0, u, 1 - u) < 1 - p


def one_part(shape: tuple[int, ...], p: float, key: Key) -> Any:
    """Part k of the last axis is dropped if u of the first part lies in its arc."""
    u = dropkit.uniform(shape, key)[..., :1].astype(np.float64)
    return (u - np.arange(shape[-1]) * p) % 1 >= p


def prefix(shape: tuple[int, ...], p: float, key: Key) -> Any:
    """Unit j stays if u of its group is below r^j, r such that the mean of r^j over the n units is q."""
    n, q, u = shape[-1], 1 - p, dropkit.uniform(shape, key)[..., :1].astype(np.float64)
    if n * q <= 1:
        return (u < n * q) & (np.arange(n) == 0)
    r = bisect.bisect_left(range(10**12 + 1), q, key=lambda step: np.mean((step * 1e-12) ** np.arange(n))) * 1e-12
    return u < r ** np.arange(n)


def uniform_prefix(shape: tuple[int, ...], p: float, key: Key) -> Any:
    """Prefixes of 1 to n units, each as likely, mixed with all units up to the mean rate of that, then with none."""
    n, u = shape[-1], dropkit.uniform(shape, key)[..., :1].astype(np.float64)
    goes, rate = np.arange(n) / n, (n - 1) / (2 * n)
    return 1 - u > goes * p / rate if p <= rate else u < (1 - goes) * (1 - p) / (1 - rate)


# A new share joins here.
MORE_SHARES = [
    Shared("clipped", Block(3, over=(-1,), clipped=True), clipped(3), soft=False),
    Shared("clipped 2d", Block((2, 9), clipped=True), clipped(2, 9), soft=False),
    Shared("antithetic", Antithetic((-1,)), opposite, soft=False),
    Shared("exclusive", Exclusive((-1,)), one_part, soft=False),
    Shared("prefix", Prefix((-1,)), prefix, soft=False),
    Shared("uniform prefix", Prefix((-1,), "uniform"), uniform_prefix, soft=False),
]

# training -> is the noise on?
WHENS = {"train": {True: True, False: False}, "always": {True: True, False: True}, "never": {True: False, False: False}}


# ---------------------------------------------------------------------------------------------------------------------
# the oracle


def rounded_rate(p: float) -> float:
    return float(np.rint(p * 65536) / 65536)


def numbers(law: Law, share: Shared, shape: tuple[int, ...], p: float, key: Key) -> Any:
    if isinstance(law.noise, Soft):
        return np.asarray(getattr(dropkit, law.noise.source)(shape, key, share=share.share.axes), np.float64)
    return np.broadcast_to(share.kept(shape, rounded_rate(p), key), shape)


def wanted(law: Law, share: Shared, x: Any, o: Any, p: float, key: Key, on: bool = True) -> Any:
    """y in float64."""
    q = 1 - rounded_rate(p)
    if q == 1:
        return x
    if not on:
        return law.off(x, o, q)
    return law.y(x, o, share.q(x.shape, q), numbers(law, share, x.shape, p, key))


def wanted_gradients(law: Law, share: Shared, x: Any, o: Any, p: float, key: Key, grad: Any, on: bool = True) -> Any:
    """(dx, do): every law is affine in both."""

    def y(x: Any, o: Any) -> Any:
        return np.broadcast_to(wanted(law, share, x, o, p, key, on), grad.shape)

    zero, one = np.zeros_like(x), np.ones_like(x)
    o = one if o is None else o
    return grad * (y(one, o) - y(zero, o)), grad * (y(x, one) - y(x, zero))


# ---------------------------------------------------------------------------------------------------------------------
# what is checked: of each column, every law under every share


SHAPES = ((6, 8), (2, 3, 4, 5))
RATES = (0.3, 0.5, 1.0, 0.0)


def sample(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(seed))
    return (rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape)).astype(np.float32).astype(np.float64)


def others(law: Law, shape: tuple[int, ...]) -> Any:
    return sample(shape, 2) if law.noise.needs_other else None


def close(actual: Any, expected: Any, dtype: str, what: Any) -> None:
    """Equal to a few units in the last place of the type; zeros and infinities exactly."""
    expected = np.broadcast_to(expected, np.shape(actual))
    rtol = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 2**-7, "float16": 2**-9}[dtype]
    if dtype == "float64":
        rtol = 3e-6 if "soft" in what else rtol  # random numbers have the precision of float32
    elif "soft" in what:
        rtol *= 10
    assert np.asarray(actual).shape == expected.shape, (what, np.shape(actual), expected.shape)
    assert ((actual == 0) == (expected == 0)).all() or "soft" in what, what
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * 3, err_msg=str(what))


def combinations(column: Any) -> Any:
    for shape in SHAPES[:1] if getattr(column, "compiled", False) else SHAPES:
        for dtype in column.dtypes:
            yield shape, dtype


def named(law: Law, *rest: Any) -> tuple[Any, ...]:
    return (law.name, *rest, *(["soft"] if isinstance(law.noise, Soft) else []))


def forward(column: Any, law: Law, share: Shared) -> None:
    """y, with noise on and off, at ordinary rates and at both ends."""
    for shape, dtype in combinations(column):
        x, o = sample(shape), others(law, shape)
        for p in RATES:
            for training in (True, False):
                y = column.dropout(x, p, dtype, training=training, key=KEY, share=share.share, noise=law.noise, other=o)
                what = named(law, share.name, shape, p, dtype, training)
                close(y, wanted(law, share, x, o, p, KEY, training), dtype, what)


def backward(column: Any, law: Law, share: Shared) -> None:
    """dx and do."""
    for shape, dtype in combinations(column):
        x, o, grad = sample(shape), others(law, shape), sample(shape, 3)
        for p in RATES[:3]:
            for training in (True, False):
                dx, do = column.gradients(
                    x, p, grad, dtype, training=training, key=KEY, share=share.share, noise=law.noise, other=o
                )
                expected = wanted_gradients(law, share, x, o, p, KEY, grad, training)
                what = named(law, share.name, shape, p, dtype, training)
                close(dx, expected[0], dtype, (*what, "dx"))
                if o is not None:
                    close(do, expected[1], dtype, (*what, "do"))


def sharded(column: Any, law: Law, share: Shared) -> None:
    """Each piece of a tensor is that piece of the whole; rows find their place."""
    shape = SHAPES[0]
    x, o = sample(shape), others(law, shape)
    whole = wanted(law, share, x, o, 0.3, KEY)
    for piece in ((slice(2, 5), slice(0, 8)), (slice(0, 6), slice(3, 7)), (slice(1, 2), slice(7, 8))):
        place = {"offset": tuple(cut.start for cut in piece), "global_shape": shape}
        part = None if o is None else o[piece]
        y = column.dropout(
            x[piece], 0.3, "float32", training=True, key=KEY, share=share.share, noise=law.noise, other=part, **place
        )
        close(y, np.broadcast_to(whole, shape)[piece], "float32", named(law, share.name, piece))
    if 0 not in {axis % 2 for axis in (*share.share.axes, *getattr(share.share, "over", ()))}:
        rows = np.array([4, 0, 5])
        part = None if o is None else o[rows]
        y = column.dropout(
            x[rows], 0.3, "float32", training=True, key=KEY, share=share.share, noise=law.noise, other=part, rows=rows
        )
        close(y, np.broadcast_to(whole, shape)[rows], "float32", named(law, share.name, "rows"))


def moving(column: Any, law: Law, share: Shared) -> None:
    """A rate that is data, traced where the column compiles, gives what a plain number gives."""
    shape = SHAPES[0]
    x, o = sample(shape), others(law, shape)
    for p in (0.3, 0.75, 1.0):
        y = column.dropout(
            x, column.rate(p), "float32", training=True, key=KEY, share=share.share, noise=law.noise, other=o
        )
        close(y, wanted(law, share, x, o, p, KEY), "float32", named(law, share.name, p))
    off = column.dropout(
        x, column.rate(0.3), "float32", training=False, key=KEY, share=share.share, noise=law.noise, other=o
    )
    close(off, wanted(law, share, x, o, 0.3, KEY, False), "float32", named(law, share.name, "off"))


def layers(column: Any, law: Law, share: Shared) -> None:
    """A layer of the same axes: in every mode it does what its `when` says."""
    shape = SHAPES[0]
    x, o = sample(shape), others(law, shape)
    for when, modes in WHENS.items():
        for training, on in modes.items():
            y = column.layer(x, 0.3, KEY, training=training, share=share.share, when=when, noise=law.noise, other=o)
            expected = wanted(law, share, x, o, 0.3, KEY, on)
            close(y, expected, "float32", named(law, share.name, when, training))


def refusals(column: Any, law: Law, share: Shared) -> None:
    """What is no noise, no share, or lacks its other is a typed error that names it."""
    if getattr(column, "compiled", False):
        return
    x, o = sample((2, 3)), others(law, (2, 3))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("noise must be a value of dropkit.axes.noise", {"noise": "gauss"}),
        ("other", {"other": None if law.noise.needs_other else x}),
        ("share", {"share": Axes((5,))}),
        ("must be a dropkit.Key", {"key": 7}),
    ]
    for message, wrong in cases:
        given = {"training": True, "key": KEY, "share": share.share, "noise": law.noise, "other": o} | wrong
        try:
            column.dropout(x, 0.5, "float32", **given)
        except DropkitError as error:
            assert message in str(error), (message, error)
        else:
            raise AssertionError(f"{column.name} took {wrong}")


CHECKS = {check.__name__: check for check in (forward, backward, sharded, moving, layers, refusals)}


def more_pairs() -> list[tuple[Law, Shared]]:
    """Every further law by itself and under a shared axis; every further share of two laws."""
    laws = [(law, share) for law in MORE_LAWS for share in SHARES[:2]]
    return laws + [(law, share) for share in MORE_SHARES for law in (LAWS[0], LAWS[2])]


def pairs() -> list[tuple[Law, Shared]]:
    """Every law under every share that it can have."""
    return [(law, share) for law in LAWS for share in SHARES if isinstance(law.noise, Hard) or share.soft]


# ---------------------------------------------------------------------------------------------------------------------
# NumPy's column


@dataclass
class Numpy:
    """`dropkit.numpy`."""

    name: str = "numpy"
    dtypes: tuple[str, ...] = field(default=("float16", "float32", "float64"))

    def rate(self, p: float) -> Any:
        return np.array([p], np.float32)

    def dropout(self, x: Any, p: Any, dtype: str, **how: Any) -> Any:
        import dropkit.numpy

        if how["other"] is not None:
            how["other"] = how["other"].astype(dtype)
        return np.asarray(dropkit.numpy.dropout(x.astype(dtype), p, **how), np.float64)

    def gradients(self, x: Any, p: Any, grad: Any, dtype: str, **how: Any) -> Any:
        import dropkit.numpy

        how.pop("other")
        back = dropkit.numpy.dropout_backward(grad.astype(dtype), p, **how)
        return back if isinstance(back, tuple) else (back, None)

    def layer(self, x: Any, p: float, key: Key, *, training: bool, other: Any, **axes: Any) -> Any:
        import dropkit.numpy

        layer = dropkit.numpy.Dropout(p, seed=key.seed, site=key.site, **axes)
        layer.step = key.step
        return layer.forward(x.astype(np.float32), training=training, other=other)
