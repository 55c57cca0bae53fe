"""Every difference from torch's dropout, shown by running both; `docs/coming-from-torch.md` is rendered from this file.

`python -m tests.torch_frontend.test_coming_from_torch` writes the page, and a test here compares it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

import dropkit.torch
from dropkit.torch import Dropout, at, bind, functional

from . import test_family, test_fused

# torch loads scripted modules of its own when it compiles, which it deprecates itself
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script.*deprecated:DeprecationWarning")

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-torch.md"
NAN, INF = float("nan"), float("inf")


@dataclass
class Difference:
    """A row of the table."""

    what: str
    torch: str
    dropkit: str


DIFFERENCES: dict[str, list[Difference]] = {}


def difference(group: str, what: str, *, torch: str, dropkit: str) -> Callable:
    """Enter a row; the decorated test asserts both of its sides."""

    def enter(test: Callable) -> Callable:
        DIFFERENCES.setdefault(group, []).append(Difference(what, torch, dropkit))
        return test

    return enter


VALUES, RATES, MASKS, GRADIENTS, GRAPHS, INPUTS = (
    "Values", "Rates", "Masks and the generator", "Gradients and memory", "Graphs and transforms", "Inputs",
)  # fmt: skip


def seeded(call: Callable[..., Any], *arguments: Any) -> Any:
    torch.manual_seed(0)
    return call(*arguments)


# ---------------------------------------------------------------------------------------------------------------------
# values


@difference(VALUES, "a dropped NaN or infinity", torch="NaN, in the gradient too", dropkit="0")
def test_dropped_nan() -> None:
    x = torch.tensor([NAN, INF, -INF] * 100)
    assert (nn.Dropout(0.5)(x) == 0).sum() == 0
    y = Dropout(0.5)(x)
    assert (y == 0).any()
    assert torch.equal((y == 0) | ~y.isfinite(), torch.ones_like(x, dtype=torch.bool))
    for make, nan in ((nn.Dropout, True), (Dropout, False)):
        leaf = torch.ones(300, requires_grad=True)
        y = seeded(make(0.5), leaf)
        (grad,) = torch.autograd.grad(y, leaf, x)
        assert bool(grad[y == 0].isnan().any()) is nan


@difference(VALUES, "p = 1", torch="x * 0: NaN stays NaN, the sign stays", dropkit="zeros")
def test_everything_dropped() -> None:
    x = torch.tensor([NAN, INF, -1.0])
    torchs, ours = nn.Dropout(1.0)(x), Dropout(1.0)(x)
    assert torchs[:2].isnan().all()
    assert torchs[2].signbit()
    assert not ours.any()
    assert not ours.signbit().any()


@difference(
    VALUES,
    "bfloat16 and float16",
    torch="1 / (1 - p) is rounded first: the mean is off by 0.16 % in bfloat16 at p = 0.1",
    dropkit="scaled in float32, rounded once: no bias",
)
def test_half_precision() -> None:
    x = 1 + torch.rand(1 << 20, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    off = []
    for make in (nn.Dropout, Dropout):
        y = seeded(make(0.1), x).double()
        off.append(float(y.sum() / x[y != 0].double().sum()) * 0.9 - 1)
    assert off[0] == pytest.approx(-0.0016, abs=1e-4)
    assert abs(off[1]) < 1e-4


@difference(
    VALUES,
    "`inplace=True` of `AlphaDropout` and `FeatureAlphaDropout`",
    torch="accepted but ignored",
    dropkit="done",
)
def test_alpha_in_place() -> None:
    for name in ("AlphaDropout", "FeatureAlphaDropout"):
        x = torch.ones(4, 8)
        assert getattr(nn, name)(0.5, inplace=True)(x) is not x
        assert torch.equal(x, torch.ones(4, 8))
        assert getattr(dropkit.torch, name)(0.5, inplace=True)(x) is x
        assert not torch.equal(x, torch.ones(4, 8))


@difference(
    VALUES,
    "`Dropout1d` on C x L, `Dropout3d` on C x D x H x W, in evaluation",
    torch="equal values in a new tensor object",
    dropkit="the very same object, as everywhere",
)
def test_unbatched_evaluation() -> None:
    for name, shape in (("Dropout1d", (4, 8)), ("Dropout3d", (4, 2, 2, 2))):
        x = torch.ones(shape)
        assert getattr(nn, name)(0.5).eval()(x) is not x
        assert getattr(dropkit.torch, name)(0.5).eval()(x) is x


# ---------------------------------------------------------------------------------------------------------------------
# rates


@difference(
    RATES,
    "p itself",
    torch="as given",
    dropkit="rounded to a multiple of 1/65536, below 1/131072 to 0; the scale is exact for the rounded p",
)
def test_rounded_rates() -> None:
    x = torch.ones(4_000_000)
    assert (seeded(nn.Dropout(7e-6), x) == 0).any()
    assert not (seeded(Dropout(7e-6), x) == 0).any()
    assert Dropout(0.1)(x).max() == 65536 / (65536 - 6554)


@difference(
    RATES,
    "NaN as p",
    torch="the constructor takes it, the forward raises RuntimeError",
    dropkit="the constructor raises ValueError",
)
def test_nan_rate() -> None:
    drop = nn.Dropout(NAN)
    with pytest.raises(RuntimeError, match="has to be between 0 and 1, but got nan"):
        drop(torch.ones(3))
    with pytest.raises(ValueError, match="has to be between 0 and 1, but got nan"):
        Dropout(NAN)


@difference(
    RATES,
    "a string or None as p",
    torch="TypeError: '<' not supported between instances of 'str' and 'int'",
    dropkit="TypeError: dropout probability must be a number, but got '0.5' of type str; pass a float in [0, 1]",
)
def test_rate_of_another_type() -> None:
    for bad in ("0.5", None):
        with pytest.raises(TypeError, match="'<' not supported between instances of"):
            nn.Dropout(bad)
        with pytest.raises(TypeError, match=r"dropout probability must be a number, but got .* of type"):
            Dropout(bad)


@difference(RATES, "`drop.p = 1.5`", torch="raises at the next forward", dropkit="raises at once; p keeps its value")
def test_assigned_rate() -> None:
    torchs, ours = nn.Dropout(0.5), Dropout(0.5)
    torchs.p = 1.5
    with pytest.raises(ValueError, match=r"but got 1\.5"):
        torchs(torch.ones(3))
    with pytest.raises(ValueError, match=r"but got 1\.5"):
        ours.p = 1.5
    assert ours.p == 0.5


@difference(
    RATES,
    "a tensor of rates, one for each channel or sample",
    torch="an error about an ambiguous bool",
    dropkit="`dropkit.torch.dropout(x, p, training=...)` takes any p that broadcasts to x",
)
def test_tensor_of_rates() -> None:
    x, p = torch.ones(1000, 3), torch.tensor([0.0, 0.5, 1.0])
    with pytest.raises(RuntimeError, match="ambiguous"):
        nn.functional.dropout(x, p)
    kept = (dropkit.torch.dropout(x, p, training=True) != 0).double().mean(0)
    assert kept[0] == 1
    assert 0.4 < kept[1] < 0.6
    assert kept[2] == 0


@difference(
    RATES,
    "another p, or a schedule of them, under `torch.compile`",
    torch="recompiles for each value, and gives up after eight",
    dropkit="does not recompile",
)
def test_recompilation() -> None:
    counts = []
    for drop in (nn.Dropout(0.5), Dropout(0.5)):
        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
        fast = torch.compile(drop, backend=counter)
        for step in range(12):
            drop.p = 0.1 + step / 20
            fast(torch.ones(8))
        counts.append(counter.frame_count)
    assert counts == [8, 1]


# ---------------------------------------------------------------------------------------------------------------------
# masks and the generator


@difference(
    MASKS,
    "the same seed",
    torch="a mask of torch's stream",
    dropkit="another mask of the same law, from a key of 64 bits; equal on every device",
)
def test_masks_are_not_torchs() -> None:
    x = torch.ones(1000)
    assert not torch.equal(seeded(nn.Dropout(0.5), x), seeded(Dropout(0.5), x))
    assert torch.equal(seeded(Dropout(0.5), x), seeded(Dropout(0.5), x))


@difference(
    MASKS,
    "what a call takes from torch's generator",
    torch="one number for each element",
    dropkit="two numbers, whatever the size; none if bound or given a key",
)
def test_what_a_call_takes() -> None:
    def next_after(drop: nn.Module, n: int) -> torch.Tensor:
        drop(torch.ones(n))
        return torch.rand(())

    assert seeded(next_after, nn.Dropout(0.5), 10) != seeded(next_after, nn.Dropout(0.5), 1000)
    assert seeded(next_after, Dropout(0.5), 10) == seeded(next_after, Dropout(0.5), 1000)


@difference(
    MASKS,
    "channels_last, transposed or sliced inputs",
    torch="another mask for the same seed",
    dropkit="the same mask: it belongs to coordinates, not to memory",
)
def test_memory_format() -> None:
    x = torch.randn(2, 8, 4, 4)
    last = x.to(memory_format=torch.channels_last)
    assert not torch.equal(seeded(nn.Dropout(0.5), x), seeded(nn.Dropout(0.5), last))
    assert torch.equal(seeded(Dropout(0.5), x), seeded(Dropout(0.5), last))


@pytest.mark.slow
@difference(
    MASKS,
    "eager and `torch.compile` with inductor",
    torch="different masks for the same seed",
    dropkit="the same mask, bit for bit",
)
def test_eager_and_compiled() -> None:
    x = torch.ones(1000)
    for drop, same in ((nn.Dropout(0.5), False), (Dropout(0.5), True)):
        torch._dynamo.reset()
        fast = torch.compile(drop, fullgraph=True)
        assert torch.equal(seeded(drop, x), seeded(fast, x)) is same


@difference(
    MASKS,
    "a sample in another batch",
    torch="another mask",
    dropkit="its own mask, by `with at(rows=sample_numbers)`",
)
def test_batch_independence() -> None:
    x, numbers = torch.ones(8, 100), torch.tensor([7, 3, 1, 4, 0, 6, 2, 5])
    torchs = nn.Dropout(0.5)
    assert not torch.equal(seeded(torchs, x)[numbers], seeded(torchs, x[numbers]))
    ours = Dropout(0.5)
    with at(rows=numbers):
        shuffled = seeded(ours, x[numbers])
    assert torch.equal(seeded(ours, x)[numbers], shuffled)


# ---------------------------------------------------------------------------------------------------------------------
# gradients and memory


@difference(
    GRADIENTS,
    "what is saved for backward",
    torch="noise as large as the input",
    dropkit="the key, at most 16 bytes; the mask is computed again",
)
def test_saved_bytes() -> None:
    saved = []
    for make in (nn.Dropout, Dropout):
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.untyped_storage().nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            make(0.5)(torch.ones(1000, requires_grad=True))
        saved.append(sum(sizes))
    assert saved[0] >= 4000
    assert saved[1] <= 16


@difference(
    GRADIENTS,
    "`checkpoint(..., preserve_rng_state=False)`",
    torch="another mask in backward: wrong gradients, no error",
    dropkit="the same mask, with any checkpointing",
)
def test_checkpointing() -> None:
    for drop, same in ((nn.Dropout(0.5), False), (Dropout(0.5), True)):
        x = torch.ones(1000, requires_grad=True)
        y = checkpoint(lambda x, drop=drop: drop(x) ** 2, x, use_reentrant=False, preserve_rng_state=False)
        (grad,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(grad != 0, y != 0) is same


# ---------------------------------------------------------------------------------------------------------------------
# graphs and transforms


@difference(
    GRAPHS,
    "`torch.func.vmap` without `randomness`",
    torch="RuntimeError",
    dropkit='one mask for all slices; `randomness="different"` gives each its own',
)
def test_vmap() -> None:
    x = torch.ones(5, 100)
    with pytest.raises(RuntimeError, match="called random operation while in randomness error mode"):
        torch.func.vmap(nn.Dropout(0.5))(x)
    assert len(torch.unique(torch.func.vmap(Dropout(0.5))(x), dim=0)) == 1
    assert len(torch.unique(torch.func.vmap(Dropout(0.5), randomness="different")(x), dim=0)) == 5


@difference(
    GRAPHS,
    "`torch.export` in evaluation",
    torch="a dropout node with `train=False` stays",
    dropkit="no node",
)
def test_export_in_evaluation() -> None:
    for make, nodes in ((nn.Dropout, ["aten.dropout.default"]), (Dropout, [])):
        program = torch.export.export(nn.Sequential(make(0.5)).eval(), (torch.ones(3),))
        assert test_family.called(program.graph) == nodes


@difference(
    GRAPHS,
    "`torch.export` in training",
    torch="`aten.dropout`",
    dropkit="the same; in a bound model `dropkit.dropout`: whatever runs the graph must import dropkit.torch",
)
def test_export_in_training() -> None:
    models = [nn.Sequential(nn.Dropout(0.5)), nn.Sequential(Dropout(0.5)), bind(nn.Sequential(Dropout(0.5)), seed=0)]
    for model, node in zip(models, ["aten.dropout.default"] * 2 + ["dropkit.dropout.default"], strict=True):
        program = torch.export.export(model, (torch.ones(3),))
        assert test_family.called(program.graph).count(node) == 1


class Seen(TorchFunctionMode):
    """The names of all that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(f"{function.__module__}.{function.__name__}" if hasattr(function, "__module__") else "")
        return function(*args, **(kwargs or {}))


@difference(
    GRAPHS,
    "what a `TorchFunctionMode` sees when a module runs",
    torch="`torch.nn.functional.dropout`",
    dropkit="the operations inside; calls of `dropkit.torch.functional` are seen by name",
)
def test_torch_function_modes() -> None:
    x = torch.ones(3)
    for call, names in (
        (nn.Dropout(0.5), {"torch.nn.functional.dropout"}),
        (Dropout(0.5), set()),
        (functional.dropout, {"dropkit.torch.functional.dropout"}),
    ):
        with Seen() as seen:
            call(x)
        assert {name for name in seen.names if name.endswith("dropout")} == names


# ---------------------------------------------------------------------------------------------------------------------
# inputs


@difference(
    INPUTS,
    "integer, bool, complex or sparse tensors in training",
    torch="\"bernoulli_scalar_cpu_\" not implemented for 'ComplexFloat', and the like",
    dropkit="errors of the same classes; the text names the dtype or layout and the remedy",
)
def test_dtypes() -> None:
    x = torch.ones(3, dtype=torch.complex64)
    with pytest.raises(NotImplementedError, match='"bernoulli_scalar_cpu_" not implemented'):
        nn.Dropout(0.5)(x)
    with pytest.raises(
        NotImplementedError, match=r"needs float16, bfloat16, float32 or float64, but x is torch.complex64"
    ):
        Dropout(0.5)(x)
    for make in (nn.Dropout, Dropout):
        with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output type Long"):
            make(0.5)(torch.ones(3, dtype=torch.int64))
        for p in (0.0, 1.0):  # where nothing is scaled
            assert make(p)(torch.ones(3, dtype=torch.int64)).dtype == torch.int64


@difference(INPUTS, "float8 at p = 1", torch="NotImplementedError", dropkit="zeros, as for every other dtype")
def test_float8() -> None:
    x = torch.ones(4).to(torch.float8_e4m3fn)
    with pytest.raises(NotImplementedError):
        nn.Dropout(1.0)(x)
    y = Dropout(1.0)(x)
    assert (y.dtype, bool(y.float().any())) == (x.dtype, False)


@difference(
    INPUTS,
    "nested (jagged) tensors in the channel classes",
    torch="RuntimeError",
    dropkit="whole channels of each row and position; sharing over the ragged axis is refused",
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype:UserWarning")
@pytest.mark.filterwarnings("ignore:dropout2d. Received a 3D input:UserWarning")
def test_nested_tensors() -> None:
    x = torch.nested.nested_tensor([torch.ones(2, 8), torch.ones(30, 8)], layout=torch.jagged)
    for name in ("Dropout1d", "Dropout2d", "FeatureAlphaDropout"):
        with pytest.raises(RuntimeError):
            getattr(nn, name)(0.5)(x)
        y = getattr(dropkit.torch, name)(0.5)(x).values()
        assert torch.equal(y.amin(1), y.amax(1))
        assert len(torch.unique(y)) == 2
    with pytest.raises(ValueError, match="names the batch or the ragged axis"):
        Dropout(0.5, share=(1,))(x)


# ---------------------------------------------------------------------------------------------------------------------
# the page

# What is the same, and where that is tested.
SAME: dict[str, list[Callable]] = {
    "Signatures: all arguments of torch's, in its order, with its defaults. What dropkit adds is keyword-only.": [
        test_family.test_functions_have_torchs_signature, test_family.test_classes_have_torchs_protocol,
    ],
    "Classes: each is a subclass of torch's of the same name, so `isinstance` checks and tools that look for dropout "
    "keep working; `repr`, `__constants__`, an empty `state_dict`; old checkpoints load.": [
        test_family.test_classes_have_torchs_protocol, test_family.test_the_idiom_of_monte_carlo_dropout,
        test_family.test_checkpoints_of_torchs_class_load,
    ],
    "Copies: `pickle`, `torch.save`, `copy.deepcopy` keep p, `inplace` and the mode.": [
        test_family.test_copies_draw_on_from_the_shared_generator,
    ],
    "Shapes: which inputs are batched, which warn and which are refused, with torch's texts.": [
        test_family.test_shape_rules_texts_and_warnings_are_torchs,
        test_family.test_modules_follow_the_same_shape_rules,
    ],
    "Errors: except for what is listed above, each error is also of the class that torch raises there, and contains "
    "torch's text if that is about dropout.": [
        test_family.test_bad_rates_raise_torchs_text, test_family.test_in_place,
        test_family.test_dtypes_are_refused_as_torch_refuses_them,
    ],
    "Off is off: in evaluation, at p = 0 and for empty tensors the same object comes back.": [
        test_family.test_nothing_dropped_gives_the_object_back,
    ],
    "Integers: taken at p = 0 and 1, where nothing is scaled; refused between. `dropkit.torch.dropout`, which is no "
    "function of torch's, refuses them in training at every p.": [
        test_dtypes,
        test_fused.test_integers_are_refused_at_every_p,
    ],
    "The generator: `torch.manual_seed`, `get_rng_state`, `set_rng_state`, `fork_rng`; it does not advance if no "
    "number is needed.": [
        test_family.test_torchs_generator_governs,
        test_family.test_generator_stands_still_where_no_number_is_needed,
    ],
    "Output: dtype, memory format, autocast, meta and fake tensors.": [
        test_family.test_autocast_leaves_the_dtype_alone, test_family.test_meta_and_fake_tensors,
        test_family.test_logical_mask_for_any_strides,
    ],
    "Autograd: double backward, forward mode, `torch.func`.": [test_family.test_function_transforms],
    "Graphs: `torch.compile(fullgraph=True)`, `torch.jit.script` and `trace`, `torch.fx` leaves, ONNX.": [
        test_family.test_compiled, test_family.test_scripted, test_family.test_traced,
        test_family.test_symbolically_traced_as_a_leaf, test_family.test_exported_to_onnx,
    ],
}  # fmt: skip

HEAD = """\
# Coming from torch

Change the import:

```python
from dropkit.torch import Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout
from dropkit.torch import functional  # functional.dropout(x, p, training) and its five siblings
```

An existing model keeps its weights and its optimizer; only its dropout layers are replaced:

```python
import torch, dropkit.torch

model = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1)
receipt = dropkit.torch.swap(model)  # receipt.restore() gives torch's layers back
```

Only what is listed below changes: torch's generator still determines the masks, and training continues as before.
Dropout inside `nn.MultiheadAttention` or `nn.LSTM`, functional calls, layers of other libraries and LayerDrop are not
replaced; `swap` and `bind` name them in one warning. `dropkit.torch.sites(model, x)` lists every place where a model
drops something.

To make masks a function of seed, module path and step, the same on every device and after every resume, bind the model:

```python
import torch, dropkit.torch

model = torch.nn.Sequential(torch.nn.Linear(8, 8), dropkit.torch.Dropout(0.5))
dropkit.torch.bind(model, seed=0)
```

The masks of a bound model do not depend on how it is split. Under DDP, FSDP2, tensor or sequence parallelism, each rank
draws its slice of the mask that one device would draw. [torch.md](torch.md) has the rules for keys, steps and
coordinates.

In new code, prefer `dropkit.torch.dropout(x, p, training=self.training)`. Its mode has no default, because dropout left
on in evaluation is the most frequent bug around it.

## What is different

Each row is a test in `tests/torch_frontend/test_coming_from_torch.py` that runs torch 2.13 and dropkit, and this page
is rendered from those tests.
"""


def page() -> str:
    """The text of the page."""
    rows = ["| | torch 2.13 | dropkit |", "|---|---|---|"]
    for group, differences in DIFFERENCES.items():
        rows.append(f"| **{group}** | | |")
        rows += [f"| {row.what} | {row.torch} | {row.dropkit} |" for row in differences]
    same = "\n".join(f"- {text}" for text in SAME)
    return f"{HEAD}\n" + "\n".join(rows) + f"\n\n## What is the same\n\n{same}\n"


def test_the_page_is_what_these_tests_say() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.torch_frontend.test_coming_from_torch"


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    tests = [name for name, value in globals().items() if name.startswith("test_") and callable(value)]
    assert len(tests) - 2 == sum(map(len, DIFFERENCES.values()))  # but for this test and its neighbour
    assert all(callable(test) for tests in SAME.values() for test in tests)
    cells = [cell for rows in DIFFERENCES.values() for row in rows for cell in vars(row).values()]
    assert not [cell for cell in cells if "|" in cell or "\n" in cell]


if __name__ == "__main__":
    PAGE.write_text(page())
