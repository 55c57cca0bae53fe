"""Torch's classes for branches, layers, weights, heads and pooling: one row each. A new class joins by one row.

A row says what the class makes of its inputs for given masks or numbers, written for NumPy from the paper's equation;
the masks are those of `dropkit.keep`, the numbers those of `dropkit.uniform`, of the site "d" and of its later calls
"d#1", ... Mean and variance follow from the same equation: over all masks, or over a fine grid of numbers.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import dropkit
import dropkit.torch as dt
from dropkit import Key
from dropkit.axes.noise import Mixout, Raw, Shakeout

SEED, STEP, P = 5, 3, 0.25
Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Row:
    """What a class does.

    Args:
        make: of p, the class.
        inputs: shapes of what it is called with.
        draws: of each call of a forward, what is drawn: "keep" or "uniform", and its shape.
        y: of the inputs, what was drawn, q, and the module: the output.
        off: the output of evaluation.
        samples: whether its draws have a row for each sample.
        moves: whether it has a rate.
        mean: whether its expectation in training is what evaluation gives.
        whole: what its inputs are like.
    """

    name: str
    make: Callable[[float], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    draws: tuple[tuple[str, tuple[int, ...]], ...]
    y: Callable[[Arrays, Arrays, float, Any], np.ndarray]
    off: Callable[[Arrays, float, Any], np.ndarray]
    samples: bool = True
    moves: bool = True
    mean: bool = True
    like: str = "normal"


def weight(module: Any, name: str = "weight") -> np.ndarray:
    return module.get_parameter(name).detach().double().numpy()


def linear(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x @ np.swapaxes(w, -1, -2)


def branch() -> nn.Module:
    return nn.Linear(2, 2, bias=False)


def path(x: Arrays, n: Arrays, q: float, module: Any) -> np.ndarray:
    return x[0] * n[0] / q


def residual(x: Arrays, n: Arrays, q: float, module: Any) -> np.ndarray:
    return x[0] + linear(x[0], weight(module, "branch.weight")) * n[0] / q


def layered(x: np.ndarray, module: Any, kept: Callable[[int], Any], scale: float = 1.0) -> np.ndarray:
    for number in range(len(module)):
        x = x + (linear(x, weight(module, f"{number}.weight")) - x) * kept(number) * scale
    return x


def shaken(x: Arrays, n: Arrays, q: float, module: Any) -> np.ndarray:
    return x[0] * np.where(n[0] < q, 1.0, 2 * (n[0] - q) / (1 - q) - 1)


def joined(x: Arrays, n: Arrays, q: float, module: Any) -> np.ndarray:
    u = n[0][:, :, None]  # rows, branches
    kept = (u >= 1 - q) | (u == u.max(1, keepdims=True))
    stacked = np.stack(x, 1)
    return (stacked * kept).sum(1) / kept.sum(1)


def moved(p: float) -> nn.Module:
    """Mixout of weights that are twice what they were when they began."""
    layer = dt.WeightDrop(branch(), "weight", p, noise=Mixout())
    layer.module.weight.data.mul_(2)
    return layer


def mixed(module: Any, kept: np.ndarray, q: float) -> np.ndarray:
    w, r = weight(module, "module.weight"), module.began_0.double().numpy()
    return (np.where(kept, w, r) - (1 - q) * r) / q


def shaken_out(w: np.ndarray, kept: np.ndarray, q: float) -> np.ndarray:
    return np.where(kept, (w + 0.1 * (1 - q) * np.sign(w)) / q, -0.1 * np.sign(w))


def windows(x: np.ndarray) -> np.ndarray:
    """Of N x C x H x W, windows of two by two: ... x 4."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)


def picked(x: Arrays, n: Arrays, q: float, module: Any) -> np.ndarray:
    a = windows(x[0])
    past = a.cumsum(-1) > n[0][..., None] * a.sum(-1, keepdims=True)
    return np.take_along_axis(a, past.argmax(-1)[..., None], -1)[..., 0]


def ordered(x: Arrays, q: float, module: Any) -> np.ndarray:
    return (-np.sort(-windows(x[0]), -1) * q * (1 - q) ** np.arange(4)).sum(-1)


def noisy(x: Arrays, n: Arrays, q: float, module: Any) -> np.ndarray:
    size = 5 / np.sqrt(x[0].shape[-1] * x[0].shape[-2]) * np.sqrt(3 * (1 - q) / q)
    return x[0] + size * (2 * n[0] - 1)


def same(x: Arrays, q: float, module: Any) -> np.ndarray:
    return x[0]


# fmt: off
ROWS = [
    Row("stochastic depth row", lambda p: dt.StochasticDepth(p, "row"), ((3, 2),), (("keep", (3, 1)),), path, same),
    Row("stochastic depth batch", lambda p: dt.StochasticDepth(p, "batch"), ((3, 2),), (("keep", (1, 1)),), path, same,
        samples=False),
    Row("drop path", lambda p: dt.DropPath(p), ((3, 2),), (("keep", (3, 1)),), path, same),
    Row("drop path raw", lambda p: dt.DropPath(p, False), ((3, 2),), (("keep", (3, 1)),),
        lambda x, n, q, m: x[0] * n[0], same, mean=False),
    Row("residual row", lambda p: dt.ResidualDrop(branch(), p), ((3, 2),), (("keep", (3, 1)),), residual,
        lambda x, q, m: residual(x, [np.array(1.0)], 1.0, m)),
    Row("residual batch", lambda p: dt.ResidualDrop(branch(), p, "batch"), ((3, 2),), (("keep", (1, 1)),), residual,
        lambda x, q, m: residual(x, [np.array(1.0)], 1.0, m), samples=False),
    Row("layer drop batch", lambda p: dt.LayerDrop([branch() for _ in range(3)], p), ((2, 2),), (("keep", (3,)),),
        lambda x, n, q, m: layered(x[0], m, lambda k: n[0][k]), lambda x, q, m: layered(x[0], m, lambda k: 1),
        samples=False, mean=False),
    Row("layer drop row", lambda p: dt.LayerDrop([branch() for _ in range(3)], p, "row"), ((2, 2),),
        (("keep", (2, 3)),), lambda x, n, q, m: layered(x[0], m, lambda k: n[0][:, k : k + 1]),
        lambda x, q, m: layered(x[0], m, lambda k: 1), mean=False),
    Row("layer drop scaled", lambda p: dt.LayerDrop([branch() for _ in range(3)], p, scale=True), ((2, 2),),
        (("keep", (3,)),), lambda x, n, q, m: layered(x[0], m, lambda k: n[0][k], 1 / q),
        lambda x, q, m: layered(x[0], m, lambda k: 1), samples=False),
    Row("shake drop", lambda p: dt.ShakeDrop(p), ((3, 2),), (("uniform", (3, 1)), ("uniform", (3, 1))), shaken,
        lambda x, q, m: q * x[0]),
    Row("shake shake", lambda p: dt.ShakeShake(), ((3, 2), (3, 2)), (("uniform", (3, 1)), ("uniform", (3, 1))),
        lambda x, n, q, m: n[0] * x[0] + (1 - n[0]) * x[1], lambda x, q, m: (x[0] + x[1]) / 2, moves=False),
    Row("swapout", lambda p: dt.Swapout(p), ((2, 2), (2, 2)), (("keep", (2, 2)), ("keep", (2, 2))),
        lambda x, n, q, m: n[0] * x[0] + n[1] * x[1], lambda x, q, m: q * (x[0] + x[1])),
    Row("fractal join", lambda p: dt.FractalJoin(p, "row"), ((1, 2), (1, 2)), (("uniform", (1, 2)),), joined,
        lambda x, q, m: (x[0] + x[1]) / 2),
    Row("weight drop", lambda p: dt.WeightDrop(branch(), "weight", p), ((2, 2),), (("keep", (2, 2)),),
        lambda x, n, q, m: linear(x[0], weight(m, "module.weight") * n[0] / q),
        lambda x, q, m: linear(x[0], weight(m, "module.weight")), samples=False),
    Row("mixout", moved, ((2, 2),), (("keep", (2, 2)),), lambda x, n, q, m: linear(x[0], mixed(m, n[0], q)),
        lambda x, q, m: linear(x[0], weight(m, "module.weight")), samples=False),
    Row("shakeout", lambda p: dt.WeightDrop(branch(), "weight", p, noise=Shakeout()), ((2, 2),),
        (("keep", (1, 2)),), lambda x, n, q, m: linear(x[0], shaken_out(weight(m, "module.weight"), n[0] > 0, q)),
        lambda x, q, m: linear(x[0], weight(m, "module.weight")), samples=False),
    Row("drop connect", lambda p: dt.DropConnect(2, 2, False, p), ((2, 2),), (("keep", (2, 2)),),
        lambda x, n, q, m: linear(x[0], weight(m) * n[0] / q), lambda x, q, m: linear(x[0], weight(m)), samples=False),
    Row("drop connect row", lambda p: dt.DropConnect(2, 2, False, p, "row"), ((2, 2),), (("keep", (2, 2, 2)),),
        lambda x, n, q, m: linear(x[0][:, None], weight(m) * n[0] / q)[:, 0], lambda x, q, m: linear(x[0], weight(m))),
    Row("drop connect raw", lambda p: dt.DropConnect(2, 2, False, p, noise=Raw()), ((2, 2),), (("keep", (2, 2)),),
        lambda x, n, q, m: linear(x[0], weight(m) * n[0]), lambda x, q, m: linear(x[0], q * weight(m)), samples=False),
    Row("embedding dropout", lambda p: dt.EmbeddingDropout(nn.Embedding(4, 2), p), ((2, 3),), (("keep", (4, 1)),),
        lambda x, n, q, m: (weight(m, "embedding.weight") * n[0] / q)[x[0]],
        lambda x, q, m: weight(m, "embedding.weight")[x[0]], samples=False, like="words"),
    Row("multi sample", lambda p: dt.MultiSampleDropout(branch(), p, 2), ((2, 2),), (("keep", (2, 2)),) * 2,
        lambda x, n, q, m: linear((x[0] * n[0] + x[0] * n[1]) / (2 * q), weight(m, "head.weight")),
        lambda x, q, m: linear(x[0], weight(m, "head.weight"))),
    Row("embedding noise", lambda p: dt.EmbeddingNoise(5.0, p), ((2, 3, 2),), (("uniform", (2, 3, 2)),), noisy, same),
    Row("word dropout", lambda p: dt.WordDropout(p, unknown=9), ((3, 2),), (("keep", (3, 2)),),
        lambda x, n, q, m: np.where(n[0] > 0, x[0], 9), lambda x, q, m: x[0], mean=False, like="words"),
    Row("stochastic pool", lambda p: dt.StochasticPool2d(2), ((2, 1, 2, 2),), (("uniform", (2, 1, 1, 1)),), picked,
        lambda x, q, m: (windows(x[0]) ** 2).sum(-1) / windows(x[0]).sum(-1), moves=False, like="positive"),
    Row("max pool dropout", lambda p: dt.MaxPoolDropout2d(2, p), ((2, 1, 2, 2),), (("keep", (2, 1, 2, 2)),),
        lambda x, n, q, m: windows(x[0] * n[0]).max(-1), ordered, like="positive"),
]
# fmt: on


class Held(nn.Module):
    """A model whose only dropout has the path "d"."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.d = module

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.d(*inputs)


def model(row: Row, p: float = P, dtype: torch.dtype = torch.float64) -> Held:
    """A bound model, with the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        held = Held(row.make(p)).to(dtype)
    return dt.bind(held, SEED)


def inputs(row: Row, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    rng = np.random.Generator(np.random.Philox(7))
    if row.like == "words":
        return [torch.tensor(rng.integers(4, size=row.inputs[0]))]
    made = [rng.uniform(0.5, 2, shape) for shape in row.inputs]
    signs = [1 if row.like == "positive" else rng.choice([-1, 1], shape) for shape in row.inputs]
    return [torch.tensor(x * sign).to(dtype) for x, sign in zip(made, signs, strict=True)]


def arrays(tensors: list[torch.Tensor]) -> Arrays:
    return [tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy() for tensor in tensors]


def rounded(p: float) -> float:
    return 1 - np.rint(p * 65536) / 65536


def drawn(row: Row, p: float, step: int) -> Arrays:
    """Masks and numbers of a step, of `dropkit.keep` and `dropkit.uniform`."""
    found = []
    for number, (kind, shape) in enumerate(row.draws):
        key = Key(SEED, f"d#{number}" if number else "d", step)
        found.append(dropkit.keep(shape, p, key) if kind == "keep" else dropkit.uniform(shape, key))
    return [np.asarray(each, np.float64) for each in found]


def wanted(row: Row, held: Held, x: list[torch.Tensor], p: float = P, step: int = STEP) -> np.ndarray:
    return row.y(arrays(x), drawn(row, p, step), rounded(p), held.d)


def every(row: Row, p: float) -> Iterator[tuple[float, Arrays]]:
    """All that can be drawn, with its probability; numbers as the midpoints of a grid."""
    q, sizes = rounded(p), [int(np.prod(shape)) for _, shape in row.draws]
    if row.draws[0][0] == "keep":
        for bits in itertools.product((0.0, 1.0), repeat=sum(sizes)):
            parts = np.split(np.array(bits), np.cumsum(sizes)[:-1])
            kept = sum(bits)
            masks = [part.reshape(shape) for part, (_, shape) in zip(parts, row.draws, strict=True)]
            yield q**kept * (1 - q) ** (len(bits) - kept), masks
    else:  # each number acts on elements of its own, but those of a join, which are two
        one = (np.arange(400) + 0.5) / 400
        if row.name == "fractal join":
            few = (np.arange(100) + 0.5) / 100
            for a, b in itertools.product(few, few):
                for more in (1e-5, -1e-5):  # of two equal numbers each is the larger one in half of all cases
                    yield 1 / (2 * 100**2), [np.array([[a + more, b]])]
        else:
            for u in one:
                yield 1 / 400, [np.full(shape, u) for _, shape in row.draws]


def moments(row: Row, held: Held, x: list[torch.Tensor], p: float = P) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every element of the output."""
    first = second = 0.0
    for chance, n in every(row, p):
        y = row.y(arrays(x), n, rounded(p), held.d)
        first, second = first + chance * y, second + chance * y * y
    return np.asarray(first), np.asarray(second - np.asarray(first) ** 2)


# ---------------------------------------------------------------------------------------------------------------------
# what is checked of each


def forward(row: Row) -> None:
    """The equation for the masks of the oracle, in each dtype, at several rates and at both ends."""
    for dtype, error in ((torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 0.04), (torch.float16, 0.005)):
        for p in (P, 0.5, 0.0, 1.0) if row.moves and dtype is torch.float64 else (P,):
            held, x = model(row, p, dtype), inputs(row, dtype)
            with dt.at(step=STEP):
                y = held(*x)
            assert y.dtype == (dtype if y.is_floating_point() else torch.int64)
            if p == 1.0:
                assert torch.isfinite(y).all()
            elif p == 0.0 and row.mean:
                np.testing.assert_allclose(y.detach().numpy(), row.off(arrays(x), 1.0, held.d), rtol=1e-12)
            elif p:
                expected = wanted(row, held, x, p)
                size = abs(expected).max() + 1
                np.testing.assert_allclose(y.detach().double().numpy(), expected, rtol=error, atol=error * size)


def statistics(row: Row) -> None:
    """Mean and variance of each element over steps, within 5 standard errors of the exact ones; nothing is biased."""
    held, x, steps = model(row), inputs(row), 600
    mean, variance = moments(row, held, x)
    found = []
    for step in range(steps):
        with dt.at(step=step), torch.no_grad():
            found.append(held(*x).numpy())
    y = np.stack(found)
    assert (abs(y.mean(0) - mean) < 5 * np.sqrt(variance / steps) + 1e-3 * abs(mean)).all()
    fourth = ((y - mean) ** 4).mean(0)
    assert (abs(y.var(0) - variance) < 5 * np.sqrt(fourth / steps) + 2e-3 * variance + 1e-12).all()
    if row.mean:
        np.testing.assert_allclose(mean, row.off(arrays(x), rounded(P), held.d), rtol=2e-3, atol=2e-3)


def rate(row: Row) -> None:
    """Its masks are the oracle's at 100 steps, of whose bits a binomial (two-sided 1e-6) allows what is dropped.

    Numbers are uniform, by the test of Kolmogorov and Smirnov.
    """
    from scipy import stats

    dropped = bits = 0
    numbers = []
    held, x = model(row), inputs(row)
    for step in range(600):
        if step % 6 == 0:
            with dt.at(step=step), torch.no_grad():
                y, expected = held(*x).numpy(), wanted(row, held, x, step=step)
            np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
        for (kind, _), n in zip(row.draws, drawn(row, P, step), strict=True):
            if kind == "keep":
                dropped, bits = dropped + int((n == 0).sum()), bits + n.size
            else:
                numbers += n.ravel().tolist()
    if bits:
        assert stats.binomtest(dropped, bits, 1 - rounded(P)).pvalue > 1e-6
    if numbers:
        assert stats.kstest(numbers, "uniform").pvalue > 1e-6


def gradients(row: Row) -> None:
    """Of inputs and weights, by finite differences; ShakeDrop and ShakeShake have others on purpose."""
    held, x = model(row), inputs(row)
    weights = list(held.parameters())
    if row.name.startswith("shake d") or row.name.startswith("shake s"):
        x = [one.requires_grad_() for one in x]
        with dt.at(step=STEP):
            (first, *_) = torch.autograd.grad(held(*x).sum(), x)
        u, v = drawn(row, P, STEP)
        factor = v if row.name == "shake shake" else np.where(u < rounded(P), 1.0, v)
        np.testing.assert_allclose(first.numpy(), np.broadcast_to(factor, first.shape), rtol=1e-6)
        return
    floating = [one.requires_grad_() for one in x if one.is_floating_point()]

    def run(*_: torch.Tensor) -> torch.Tensor:
        with dt.at(step=STEP):
            return held(*x)

    def of(*values: torch.Tensor) -> torch.Tensor:
        with dt.at(step=STEP):
            names = [name for name, _ in held.named_parameters()]
            given = list(values[: len(floating)]) if floating else x
            return torch.func.functional_call(
                held, dict(zip(names, values[len(floating) :], strict=True)), tuple(given)
            )

    if row.name in ("weight drop", "mixout", "shakeout"):  # they hold their weights' names themselves
        assert torch.autograd.gradcheck(run, tuple(floating))
        (weight,) = weights
        with dt.at(step=STEP):
            (g,) = torch.autograd.grad(held(*x).sum(), weight)
        assert torch.isfinite(g).all() and g.shape == weight.shape
        return
    if not (floating or weights):
        return
    assert torch.autograd.gradcheck(of, (*floating, *(w.detach().requires_grad_() for w in weights)))


def evaluation(row: Row) -> None:
    """Nothing is drawn, and the output is that of the paper's evaluation; `when` says otherwise."""
    held, x = model(row).eval(), inputs(row)
    before = torch.get_rng_state()
    np.testing.assert_allclose(held(*x).detach().numpy(), row.off(arrays(x), rounded(P), held.d), rtol=1e-9)
    assert torch.equal(before, torch.get_rng_state())
    with dt.enabled(held), dt.at(step=STEP):
        np.testing.assert_allclose(held(*x).detach().numpy(), wanted(row, held, x), rtol=1e-6, atol=1e-6)
    with dt.disabled(held.train()):
        np.testing.assert_allclose(held(*x).detach().numpy(), row.off(arrays(x), rounded(P), held.d), rtol=1e-9)


def state(row: Row) -> None:
    """A model that is loaded into another goes on with its masks; the keys are the weights' own and the clock's."""
    held, other, x = model(row), model(row), inputs(row)
    first = [held(*x) for _ in range(2)]
    other.load_state_dict(held.state_dict())
    then, there = ([one(*x) for _ in range(12)] for one in (held, other))
    assert all(torch.equal(a, b) for a, b in zip(then, there, strict=True))
    assert any(not torch.equal(first[0], y) for y in then)
    kinds = {key.rpartition(".")[2] for key in dt.plain_state_dict(held)}
    assert kinds <= {"weight", "began_0"}, kinds


def sharded(row: Row) -> None:
    """Samples that run by themselves get what they get in their batch, by their numbers; others the mask of all."""
    held, x = model(row), inputs(row)
    with dt.at(step=STEP):
        whole = held(*x)
    for number in range(len(x[0])):
        with dt.at(step=STEP, rows=[number]) if row.samples else dt.at(step=STEP):
            alone = held(*(one[number : number + 1] for one in x))
        torch.testing.assert_close(alone, whole[number : number + 1], rtol=1e-9, atol=1e-9)


def errors(row: Row) -> None:
    """Rates that are none are refused by name, when it is made and later."""
    from dropkit.errors import DropkitError

    if not row.moves:
        return
    for bad in (1.5, -0.1, float("nan"), "half"):
        for make in (lambda bad=bad: row.make(bad), lambda bad=bad: setattr(row.make(P), "p", bad)):
            try:
                make()
            except DropkitError as error:
                assert str(bad) in str(error), (bad, error)
            else:
                raise AssertionError(f"{row.name} took p = {bad!r}")


CHECKS = {check.__name__: check for check in (forward, statistics, rate, gradients, evaluation, state, sharded, errors)}
