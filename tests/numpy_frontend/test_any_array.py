"""Whatever NumPy calls an array: any strides, byte order, number of axes and subclass; what is none is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dropkit import Key, keep
from dropkit.axes.noise import Hard, Numbers, Plain
from dropkit.errors import DropkitTypeError, DropkitValueError
from dropkit.kernels import cpu
from dropkit.numpy import ConcreteDropout, Dropout, alpha_dropout, alpha_dropout_backward, dropout, dropout_backward
from dropkit.numpy import ops as numpy_ops

KEY = Key(3, "any", 1)
RNG = np.random.Generator(np.random.Philox(9))


def record(values: np.ndarray, before: str) -> np.ndarray:
    """The values as a field of records, behind one of another size."""
    table = np.zeros(values.shape, [("before", before), ("value", values.dtype)])
    table["value"] = values
    return table["value"]


def window(values: np.ndarray) -> np.ndarray:
    """Rows that overlap in memory: each begins one element after the one above."""
    flat = np.resize(values, values.shape[0] + values.shape[1])
    return np.lib.stride_tricks.as_strided(flat, values.shape, (flat.itemsize, flat.itemsize))


def shifted(values: np.ndarray) -> np.ndarray:
    """The values at an address that is no multiple of their item."""
    room = np.zeros(values.nbytes + 1, np.uint8)
    found = room[1:].view(values.dtype).reshape(values.shape)
    found[...] = values
    return found


def readonly(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flags.writeable = False
    return values


# of an array its twin: equal values, held otherwise
MEMORY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "field, stride no multiple": lambda a: record(a, "u1"),
    "field, stride a multiple and a half": lambda a: record(a, "V4" if a.itemsize == 8 else "V2"),
    "field, reversed": lambda a: record(a[::-1], "u1")[::-1],
    "field, every second": lambda a: record(np.repeat(a, 2, axis=1), "u1")[:, ::2],
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "one row for all": lambda a: np.broadcast_to(a[0], a.shape),
    "one number for all": lambda a: np.broadcast_to(a[0, 0], a.shape),
    "overlapping windows": window,
    "unaligned": shifted,
    "bytes swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "bytes swapped in a field": lambda a: record(a.astype(a.dtype.newbyteorder()), "u1"),
    "read-only": readonly,
}


def plain(a: np.ndarray) -> np.ndarray:
    return np.array(a, a.dtype.newbyteorder("="), order="C")


@pytest.fixture(params=["kernels", "array operations"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "array operations":
        monkeypatch.setattr(numpy_ops, "_KERNELS", None)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("function", [dropout, alpha_dropout, alpha_dropout_backward])
def test_x_of_any_memory_is_dropped_as_its_copy_is(function: Any, dtype: type, memory: str) -> None:
    x = MEMORY[memory](RNG.normal(size=(10, 100)).astype(dtype))
    y = function(x, 0.3, training=True, key=KEY)
    assert y.dtype == x.dtype and y.shape == x.shape
    wanted = function(plain(x), 0.3, training=True, key=KEY)
    assert plain(y).tobytes() == wanted.tobytes()
    kept = keep(x.shape, 0.3, KEY)
    assert 200 < (~kept).sum() < 400  # not nothing


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rates_of_any_memory_drop_as_their_copy_does(dtype: type, memory: str) -> None:
    """R2: strides that are no multiple of the item."""
    x = RNG.normal(size=(10, 100)).astype(np.float32)
    rates = MEMORY[memory](RNG.uniform(size=(10, 100)).astype(dtype))
    for function in (dropout, alpha_dropout):
        y = function(x, rates, training=True, key=KEY)
        assert y.tobytes() == function(x, plain(rates), training=True, key=KEY).tobytes()


def test_rates_in_a_record_that_broadcast() -> None:
    x = np.ones((7, 4, 5), np.float64)
    rates = record(RNG.uniform(size=(4, 1)), "u1")
    assert rates.strides[0] % rates.itemsize
    y = dropout(x, rates, training=True, key=KEY)
    assert y.tobytes() == dropout(x, rates.copy(), training=True, key=KEY).tobytes()
    assert ((y != 0) == keep(x.shape, rates.copy(), KEY)).all()


@pytest.mark.parametrize("memory", ["reversed", "every third", "bytes swapped", "repeated", "in a record", "unsigned"])
def test_rows_of_any_memory(memory: str) -> None:
    x = np.ones((6, 40), np.float32)
    rows = np.array([9, 2, 5, 0, 7, 3])
    held = {
        "reversed": lambda: rows[::-1],
        "every third": lambda: np.repeat(rows, 3)[::3],
        "bytes swapped": lambda: rows.astype(">i8"),
        "repeated": lambda: np.broadcast_to(rows[:1], (6,)),
        "in a record": lambda: record(rows, "u1"),
        "unsigned": lambda: rows.astype(np.uint16),
    }[memory]()
    y = dropout(x, 0.5, training=True, key=KEY, rows=held)
    for number, row in enumerate(held.tolist()):
        one = dropout(x[:1], 0.5, training=True, key=KEY, rows=[row])
        assert y[number].tobytes() == one[0].tobytes()


def axes(rank: int) -> tuple[int, ...]:
    """`rank` axes of which 12 are longer than 1, some of them at either end."""
    shape = [1] * rank
    for axis in (*range(6), *range(rank - 6, rank)):
        shape[axis] = 2
    return tuple(shape)


@pytest.mark.parametrize("rank", [15, 16, 20, 32, 33, 64])
def test_any_number_of_axes(rank: int) -> None:
    """R9."""
    shape = axes(rank)
    flat = RNG.normal(size=2**12).astype(np.float32)
    x = flat.reshape(shape)
    for p in (0.3, np.float64(0.3).reshape([1] * rank) * np.linspace(0, 1, 2).reshape(*[1] * (rank - 1), 2)):
        whole = np.broadcast_to(p, shape).reshape(-1) if isinstance(p, np.ndarray) else p
        wanted = dropout(flat, whole, training=True, key=KEY)
        assert dropout(x, p, training=True, key=KEY).reshape(-1).tobytes() == wanted.tobytes()
        other = np.ascontiguousarray(x.T).T  # the same values, the strides the other way round
        assert dropout(other, p, training=True, key=KEY).reshape(-1).tobytes() == wanted.tobytes()
    ones = np.ones([1] * rank, np.float32)
    assert dropout(ones, 0.5, training=True, key=KEY).shape == ones.shape


@pytest.mark.parametrize("rank", [15, 17])
def test_many_axes_longer_than_one(rank: int) -> None:
    flat = RNG.normal(size=2**rank).astype(np.float32)
    x = np.ascontiguousarray(flat.reshape([2] * rank).T).T
    assert dropout(x, 0.3, training=True, key=KEY).reshape(-1).tobytes() == (
        dropout(flat, 0.3, training=True, key=KEY).tobytes()
    )
    y = alpha_dropout(x, 0.3, training=True, key=KEY)
    assert y.reshape(-1).tobytes() == alpha_dropout(flat, 0.3, training=True, key=KEY).tobytes()


@pytest.mark.parametrize("rank", [15, 32, 64])
def test_many_axes_shared_gathered_and_cut(rank: int) -> None:
    shape = axes(rank)
    x = np.ones(shape, np.float32)
    few = x.reshape(64, 64)
    share = range(rank - 6, rank)
    y = dropout(x, 0.5, training=True, key=KEY, share=share)
    assert y.reshape(64, 64).tobytes() == dropout(few, 0.5, training=True, key=KEY, share=[1]).tobytes()
    every_second = dropout(x, 0.5, training=True, key=KEY, share=range(0, rank, 2))
    assert ((every_second != 0) == keep(shape, 0.5, KEY, share=range(0, rank, 2))).all()
    rows = dropout(x, 0.5, training=True, key=KEY, rows=[5, 1])
    wanted = [dropout(x[:1], 0.5, training=True, key=KEY, rows=[row]).tobytes() for row in (5, 1)]
    assert [row.tobytes() for row in rows] == wanted
    whole = (4, *shape[1:])
    part = dropout(x, 0.5, training=True, key=KEY, offset=(1, *[0] * (rank - 1)), global_shape=whole)
    assert part.tobytes() == dropout(np.ones(whole, np.float32), 0.5, training=True, key=KEY)[1:3].tobytes()


def test_no_elements_on_many_axes() -> None:
    x = np.zeros([2] * 32 + [1] * 31 + [0], np.float32)
    assert dropout(x, 0.5, training=True, key=KEY) is x
    assert keep(x.shape, 0.5, KEY).shape == x.shape
    assert keep(x.shape, 0.5, KEY, share=range(0, 63, 2)).shape == x.shape


@pytest.mark.parametrize("x", [[1.0, 2.0], (1.0,), None, 1.0, 3, "abc", b"abc", range(3), object, {1: 2}])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_no_array_is_refused(x: Any, training: bool) -> None:
    """R19."""
    for function in (dropout, alpha_dropout, alpha_dropout_backward):
        with pytest.raises(DropkitTypeError, match=r"x must be a NumPy array, got .*; convert with np.asarray\(x, np"):
            function(x, 0.5, training=training, key=KEY)


def test_a_long_list_is_not_repeated_whole() -> None:
    with pytest.raises(DropkitTypeError) as caught:
        Dropout(0.5).forward([0.5] * 10_000, training=True)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("x", [np.array([1.0, None]), np.array(["a"]), np.zeros(2, [("a", "f4")]), np.ones(2, complex)])
def test_arrays_of_other_things_are_refused(x: np.ndarray) -> None:
    with pytest.raises(DropkitTypeError, match=r"needs float16, float32 or float64, but x is .*; convert with"):
        dropout(x, 0.5, training=True, key=KEY)


def test_scalars_and_arrays_without_axes() -> None:
    found = {float(dropout(np.array(3.0, np.float32), 0.5, training=True, key=Key(0, "s", step))) for step in range(20)}
    assert found == {0.0, 6.0}
    for step in range(4):
        y = dropout(np.float32(3), 0.5, training=True, key=Key(0, "s", step))
        assert type(y) is np.float32
        assert y == dropout(np.array(3, np.float32), 0.5, training=True, key=Key(0, "s", step))


def test_a_masked_array_keeps_its_mask() -> None:
    data, mask = RNG.normal(size=(6, 50)), RNG.uniform(size=(6, 50)) < 0.5
    x = np.ma.MaskedArray(data, mask)
    for function in (dropout, alpha_dropout):
        y = function(x, 0.5, training=True, key=KEY)
        assert isinstance(y, np.ma.MaskedArray) and (y.mask == mask).all() and y.mask is not x.mask
        assert y.data.tobytes() == function(data, 0.5, training=True, key=KEY).tobytes()
    assert dropout(np.ma.MaskedArray(data), 0.5, training=True, key=KEY).mask is np.ma.nomask
    assert dropout(x, 0.5, training=False) is x


def test_other_subclasses_stay_what_they_are(tmp_path: Any) -> None:
    x = RNG.normal(size=(6, 50))
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.matrix(x)
        y = dropout(matrix, 0.5, training=True, key=KEY)
    mapped = np.memmap(tmp_path / "x", x.dtype, "w+", shape=x.shape)
    mapped[...] = x
    for kind, found in ((np.matrix, y), (np.memmap, dropout(mapped, 0.5, training=True, key=KEY))):
        assert isinstance(found, kind)
        assert found.tobytes() == dropout(x, 0.5, training=True, key=KEY).tobytes()


# ---- the kernels themselves


needs_kernels = pytest.mark.skipif(not cpu.available(), reason=str(cpu.info()["why"]))


@needs_kernels
@pytest.mark.parametrize("memory", MEMORY)
def test_kernels_copy_what_they_cannot_count_in_elements(memory: str) -> None:
    x, r = (MEMORY[memory](RNG.normal(size=(10, 100)).astype(np.float32)) for _ in range(2))
    found, wanted = np.empty((2, 10, 100), x.dtype.newbyteorder("="))
    if x.dtype != found.dtype:
        with pytest.raises(DropkitValueError, match="broadcast and cast them alike"):
            cpu.walk(cpu.RESIDUAL, [x, r], found, KEY.words, 40000, (100, 1))
        return
    cpu.walk(cpu.RESIDUAL, [x, r], found, KEY.words, 40000, (100, 1))
    cpu.walk(cpu.RESIDUAL, [x.copy(), r.copy()], wanted, KEY.words, 40000, (100, 1))
    assert found.tobytes() == wanted.tobytes()


@needs_kernels
def test_kernels_write_over_an_input_that_lies_elsewhere() -> None:
    room = RNG.normal(size=1100).astype(np.float32)
    x = room[:1000].copy()
    wanted = np.empty_like(x)
    cpu.walk(cpu.SCALE, [x], wanted, KEY.words, 40000, (1,))
    for start in (0, 1, 7, 100):
        held = np.resize(room, 1100).copy()
        held[:1000] = x
        cpu.walk(cpu.SCALE, [held[:1000]], held[start : start + 1000], KEY.words, 40000, (1,))
        assert held[start : start + 1000].tobytes() == wanted.tobytes()
    held = x.copy()
    cpu.walk(cpu.SCALE, [held[::-1]], held, KEY.words, 40000, (1,))
    cpu.walk(cpu.SCALE, [x[::-1].copy()], wanted, KEY.words, 40000, (1,))
    assert held.tobytes() == wanted.tobytes()


@needs_kernels
def test_kernels_refuse_an_output_that_they_cannot_count_in_elements() -> None:
    x = np.ones((10, 100), np.float32)
    for memory in ("field, stride no multiple", "unaligned", "one row for all", "read-only"):
        with pytest.raises(DropkitValueError, match="cannot be written to element by element"):
            cpu.walk(cpu.SCALE, [x], MEMORY[memory](x), KEY.words, 40000, (100, 1))


@needs_kernels
@pytest.mark.parametrize("rank", [15, 17, 32])
def test_words_of_many_axes(rank: int) -> None:
    shape = axes(rank)
    noise = [int(np.prod(shape[axis + 1 :])) for axis in range(rank)]
    wanted = cpu.words((2**12,), KEY.words, 40000, (1,))
    assert cpu.words(shape, KEY.words, 40000, noise).tobytes() == wanted.tobytes()


class Halving(Hard):
    """y = x where kept, 0 elsewhere; q x where no noise is on."""

    def numbers(self, q: Any, xp: Any = Plain) -> Numbers:
        return 1.0, 0.0, 0.0

    def off(self, q: Any) -> Any:
        return q, 0.0


def test_a_rate_for_each_element_in_evaluation() -> None:
    x = np.ones((2, 4), np.float32)
    for p in (np.array([0.25], np.float32), np.array([0.0, 0.25, 0.5, 1.0], np.float32)):
        y = dropout(x, p, training=False, noise=Halving())
        assert np.array_equal(y, np.broadcast_to(1 - p, x.shape))
        dx = dropout_backward(x, p, training=False, noise=Halving())
        assert np.array_equal(dx, y)


@pytest.mark.parametrize("p", [0, 0.5, 1], ids=str)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex64, object])
def test_what_cannot_be_scaled_is_refused_at_every_p(dtype: Any, p: float) -> None:
    x, layer = np.arange(16).reshape(2, 8).astype(dtype), Dropout(p)
    layer.forward(np.ones((2, 8), np.float32), training=True)
    calls: list[Callable[[Any], Any]] = [
        lambda x: dropout(x, p, training=True, key=KEY),
        lambda x: dropout(x, np.full((2, 8), p), training=True, key=KEY),
        lambda x: dropout_backward(x, p, training=True, key=KEY),
        lambda x: alpha_dropout(x, p, training=True, key=KEY),
        lambda x: Dropout(p).forward(x, training=True),
        lambda x: Dropout(p, when="always").forward(x, training=False),
        layer.backward,
        lambda x: ConcreteDropout(0.5).forward(x, training=True),
    ]
    for call in calls:
        for given in (x, x[:0], np.ma.masked_array(x)):
            with pytest.raises(DropkitTypeError, match=r"needs float16, .* but x is .*; convert with x.astype"):
                call(given)
    assert dropout(x, p, training=False) is x
    assert Dropout(p).forward(x, training=False) is x
