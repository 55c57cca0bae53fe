"""`predict` for torch models: passes side by side in one batch, what precedes the first dropout run once."""

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from ...errors import DropkitValueError
from ...torch.changing.contexts import enabled, listed_rates
from ...torch.drawing.around import in_lanes
from ...torch.drawing.coordinates import at
from ...torch.drawing.lanes import InLanes, Lanes, NotInLanes
from ..asked import Asked, Block
from ..result import Prediction
from ..streaming import BINARY, Streaming
from .inputs import Inputs, batches, in_blocks, mapped, on_device, rows_of
from .keyed import evaluating, keyed, unwrapped
from .prefix import Plan, Prefix, Record, planned

SLOTS = {"cpu": 8}  # inputs of a pass: as few as keep a processor busy, so that few inputs waste little
OTHERS = 64


def predict(
    model: nn.Module,
    x: Any,
    asked: Asked,
    sites: str | Sequence[str] | None,
    rows: Any,
    progress: Callable[[int], None] | None,
) -> Prediction:
    """As `dropkit.uncertainty.predict` says."""
    inner = unwrapped(model)
    device = next((p.device for p in inner.parameters()), torch.device("cpu"))
    size = max(asked.chunk or SLOTS.get(device.type, OTHERS), 2)  # of one row nobody could tell the axis
    given = ((on_device(device, inputs), block) for inputs, block in in_blocks(batches(x, rows), size))
    first = next(given, None)
    if first is None:
        raise DropkitValueError("there are no inputs: x has length 0")
    with evaluating(inner):
        found = _prepared(inner, asked, sites, *first, size, False) or _prepared(
            inner, asked, sites, *first, size, True
        )
        assert found is not None
        with found as passes:
            return passes.over(itertools.chain([first], given), progress)


def _prepared(
    model: nn.Module, asked: Asked, sites: Any, inputs: Inputs, block: Block, size: int, run: bool
) -> "Passes | None":
    """The passes, or None where functions that nobody saw draw from torch's generator: these want a run to be seen."""
    passes = Passes(model, asked, sites, size)
    try:
        passes.stack.enter_context(keyed(model, asked.seed, rows_of(inputs, [0, 1]), run))
        passes.prepare(inputs, block, last=run)
    except BaseException:
        passes.stack.close()
        raise
    if passes.ambient and not run:
        passes.stack.close()
        return None
    return passes


class Passes:
    """A model prepared for passes."""

    def __init__(self, model: nn.Module, asked: Asked, sites: Any, size: int) -> None:
        self.model, self.asked, self.sites, self.size = model, asked, sites, size
        self.stack = ExitStack()
        self.prefix = Prefix(model)
        self.plan: Plan | None = None
        self.shapes: list[tuple[int, ...]] = []  # that a forward of one row drops
        self.apart = True  # whether passes can share a batch
        self.ambient = False
        self.sites_on: dict[str, None] = {}  # in the order of their first draws
        self.note = ""
        self.expected: Any = None  # what the first row gives in the first pass, if rows lie where they are taken to lie
        self.kept: Record | None = None  # of the first block
        self.bytes = 1

    def __enter__(self) -> "Passes":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stack.close()

    def prepare(self, inputs: Inputs, block: Block, last: bool) -> None:
        """Look at the first inputs: which dropouts are on, what they drop, what precedes them, what a row takes."""
        self.stack.enter_context(enabled(self.model, self.sites))
        self.stack.enter_context(at(seed=self.asked.seed))
        self.stack.enter_context(self.prefix.installed())
        before = torch.get_rng_state()
        rows = self._rows(block)
        record = self._recorded(inputs, rows)
        if not self.asked.prefix:
            record = Record()
        if not self.prefix.drew and torch.equal(before, torch.get_rng_state()):
            raise self._nothing_active()
        self.kept = record
        alone = rows_of(inputs, [0])
        if record.modules and not self._quick(record, alone, rows[:1]):
            self._slow(alone)
        elif not record.modules:
            self.note = (
                "the first dropout comes before any part of the model has ended, so nothing could be run once"
                if self.asked.prefix
                else "as asked, nothing was run once"
            )
            with self._counted():
                self._alone(alone, rows[:1])()
        self.ambient = not torch.equal(before, torch.get_rng_state())
        if self.ambient and last:
            warnings.warn(
                "some dropout of this model draws from torch's generator, out of reach of seed, step and rows, so that "
                "this prediction will not repeat: dropkit.torch.sites(model, x) shows it; leave it out by sites=",
                stacklevel=5,
            )
        self.lanes = self.asked.lanes(self.size, self.bytes) if self.apart else 1

    def _rows(self, block: Block) -> torch.Tensor:
        numbers = np.zeros(self.size, dtype=np.int64)
        if self.asked.share == "sample":
            numbers[block.slots] = block.rows
        return torch.from_numpy(numbers)

    def _recorded(self, inputs: Inputs, rows: torch.Tensor) -> Record:
        first = Lanes((0,), self.size, self.shapes, self._heard, self.apart)
        with in_lanes(first, rows), at(step=0):
            return self.prefix.recorded(lambda: self._called(inputs))

    def _quick(self, record: Record, alone: Inputs, row: torch.Tensor) -> bool:
        """Plan by the first row of what was recorded; the first pass shows whether the rows lie along axis 0."""
        try:
            with self._counted():
                self.plan, self.expected = planned(self.prefix, self._alone(alone, row), record.first(self.size))
        except (RuntimeError, ValueError, IndexError):  # the model's own, where shapes do not fit
            return False
        return self.expected is not None

    def _slow(self, alone: Inputs) -> None:
        """Plan by a forward of one row."""
        self.expected = None
        run = self._alone(alone, None)
        with self._counted():
            self.prefix.run(run, "record")
        self.plan, _ = planned(self.prefix, run, self.prefix.record)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        sizes = _Sizes(self.model)
        with sizes.counted():
            yield
        self.bytes = sizes.total

    def _nothing_active(self) -> DropkitValueError:
        named = "" if self.sites is None else f" of sites={self.sites!r}"
        return DropkitValueError(
            f"no dropout{named} became active in a forward of {type(self.model).__name__}, so all passes would be "
            f"equal; it has {listed_rates(self.model)}"
        )

    def _alone(self, alone: Inputs, row: torch.Tensor | None) -> Callable[[], Any]:
        """A forward of one row, at step 0."""

        def run() -> Any:
            try:
                return self._alone_once(alone, row)
            except InLanes:  # some layer asks for its draw by itself
                self.apart = False
                self.prefix.drew, self.prefix.next = False, 0
                return self._alone_once(alone, row)

        return run

    def _alone_once(self, alone: Inputs, row: torch.Tensor | None) -> Any:
        lanes = Lanes((0,), 1, None, self._heard, self.apart)
        with in_lanes(lanes, row), at(step=0):
            output = self._called(alone)
        self.shapes = lanes.shapes
        return output

    def _heard(self, site: Any) -> None:
        self.sites_on.setdefault(getattr(site, "name", "a dropout without a name"))
        self.prefix.heard()

    def _called(self, inputs: Inputs) -> Any:
        return _tensor(self.model(*inputs.args, **inputs.kwargs))

    def over(self, given: Iterator[tuple[Inputs, Block]], progress: Callable[[int], None] | None) -> Prediction:
        """All passes over all inputs."""
        found: list[tuple[NDArray[np.int64], dict[str, Any]]] = []
        done = 0
        for inputs, block in given:
            found.append((block.places, self._block(inputs, block)))
            done += len(block.places)
            if progress is not None:
                progress(done)
        return self._result(found)

    def _block(self, inputs: Inputs, block: Block) -> dict[str, Any]:
        asked = self.asked
        wanted = np.ones(len(block.slots), dtype=bool)
        rows = self._rows(block)
        record = None
        if self.plan is not None:
            record, self.kept = self.kept or self._recorded(inputs, rows), None
            if not self.plan.fits(record):
                record, self.note = None, "the model takes another way for other inputs, so nothing could be run once"
        streaming = Streaming(asked.outputs, asked.axis, asked.quantiles, asked.keep)
        start = 0
        while start < asked.samples and wanted.any():
            outputs = self._first_passed(inputs, rows, record) if self.expected is not None else None
            if outputs is None:
                outputs = self._passed(inputs, rows, start, record)
            streaming.add(outputs[: asked.samples - start, block.slots], wanted)
            start += len(outputs)
            if asked.stop is not None and start >= _LEAST:
                error = streaming.mean.error
                wanted = wanted & ~(error.reshape(len(error), -1).max(1) <= asked.stop)
        return streaming.finish()

    def _first_passed(self, inputs: Inputs, rows: torch.Tensor, record: Any) -> NDArray[Any] | None:
        """The first passes, if the rows lie where a quick look took them to; else None, after a look that is sure."""
        try:
            outputs = self._passed(inputs, rows, 0, record)
            if self._as_expected(outputs[0, 0]):
                return outputs
        except (RuntimeError, ValueError, IndexError):  # the model's own, where shapes do not fit
            pass
        self._slow(rows_of(inputs, [0]))
        return None

    def _as_expected(self, found: NDArray[Any]) -> bool:
        expected, self.expected = self.expected.double().cpu().numpy(), None
        return expected.shape == (1, *found.shape) and np.allclose(expected[0], found, 1e-3, 1e-4)

    def _passed(self, inputs: Inputs, rows: torch.Tensor, start: int, record: Any) -> NDArray[Any]:
        """The outputs of the next passes, (passes, slots, ...)."""
        count = self.lanes
        lanes = Lanes(tuple(range(start, start + count)), self.size, self.shapes, self._heard, self.apart)
        repeated = inputs if count == 1 else mapped(inputs, lambda x: x.repeat(count, *[1] * (x.dim() - 1)))
        try:
            with in_lanes(lanes, rows), at(step=start):
                if record is None:
                    output = self._called(repeated)
                else:
                    given = self.plan.given(record, count)  # type: ignore[union-attr]
                    output = self.prefix.run(lambda: self._called(repeated), "replay", given=given)
        except (InLanes, NotInLanes):
            if count == 1 and not self.apart:
                raise
            # what drops here has no rows that could be told apart: one pass after another
            self.lanes, self.apart = 1, self.apart and count > 1
            return np.concatenate([self._passed(inputs, rows, start + n, record) for n in range(count)])
        found = output.detach().double().cpu().numpy()
        if found.shape[0] != count * self.size:
            raise DropkitValueError(
                f"the model puts out a tensor of shape {found.shape} for a batch of {count * self.size}: its first "
                "axis must be that of the batch"
            )
        return found.reshape(count, self.size, *found.shape[1:])

    def _result(self, found: list[tuple[NDArray[np.int64], dict[str, Any]]]) -> Prediction:
        places = np.concatenate([place for place, _ in found])
        order = np.argsort(places)
        arrays: dict[str, Any] = {}
        for name in found[0][1]:
            axis = 1 if name in _FRONT else 0
            if name == "samples":
                most = max(each[name].shape[0] for _, each in found)
                parts = [_padded(each[name], most) for _, each in found]
            else:
                parts = [each[name] for _, each in found]
            arrays[name] = torch.from_numpy(np.take(np.concatenate(parts, axis), order, axis))
        count = arrays.pop("count").long()
        once = tuple(self._paths(self.plan.alone.modules)) if self.plan is not None else ()
        asked = self.asked
        axis = -1 if asked.outputs in BINARY else asked.axis
        sites = tuple(self.sites_on)
        return Prediction(asked.outputs, axis, asked.share, asked.quantiles, sites, once, self.note, count, arrays)

    def _paths(self, modules: Sequence[nn.Module]) -> Iterator[str]:
        paths = {id(part): path for path, part in self.model.named_modules()}
        return (paths[id(module)] for module in modules)


_LEAST = 10  # passes before the first look at a standard error
_FRONT = ("quantiles", "samples")


def _padded(samples: Any, count: int) -> Any:
    missing = count - samples.shape[0]
    return np.concatenate([samples, np.full((missing, *samples.shape[1:]), np.nan)]) if missing else samples


class _Sizes:
    """Bytes that the parts of a model put out in a forward, all of them together: more than lives at a time."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.total = model, 1

    def counted(self) -> ExitStack:
        """While it listens."""
        stack = ExitStack()
        for part in self.model.modules():
            if not part._modules:
                stack.callback(part.register_forward_hook(self._add).remove)
        return stack

    def _add(self, part: nn.Module, args: Any, output: Any) -> None:
        self.total += sum(x.nbytes for x in pytree.tree_leaves(output) if isinstance(x, torch.Tensor))


def _tensor(output: Any) -> Any:
    """The tensor of an output: the logits of a mapping, the first of several."""
    if isinstance(output, Mapping):
        output = output.get("logits", next(iter(output.values()), None))
    elif hasattr(output, "logits"):
        output = output.logits
    if isinstance(output, list | tuple) and output:
        output = output[0]
    return output
