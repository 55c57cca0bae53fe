"""What a model computes before its first dropout, once for each input.

Modules that have ended when the first draw of a forward begins depend on no draw. Their outputs are recorded in one
forward, which ends at that draw, and given in the next ones without running them. An output on which nothing depends
but other recorded modules need not hold the lanes of a batch: gradients say so at first, and then a run in which it
holds NaN has to give the same outputs to the last bit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from ...torch.named import Named

Run = Callable[[], Any]


class Drawn(BaseException):
    """The first draw of a forward has begun, and no more of it was wanted."""


class Record:
    """The outputs of modules that ran to their end before the first draw, in order, the outermost of each."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.outputs: list[list[Any]] = []  # leaves
        self.specs: list[Any] = []
        self.versions: list[list[int]] = []

    def add(self, module: nn.Module, output: Any, before: int) -> bool:
        """An output, in the place of those recorded since there were `before`; False if it is none that can be kept."""
        leaves, spec = pytree.tree_flatten(output)
        if not all(leaf is None or isinstance(leaf, torch.Tensor | bool | int | float | str) for leaf in leaves):
            return False
        for kept in (self.modules, self.outputs, self.specs, self.versions):
            del kept[before:]
        self.modules.append(module)
        self.outputs.append(leaves)
        self.specs.append(spec)
        self.versions.append([leaf._version if isinstance(leaf, torch.Tensor) else 0 for leaf in leaves])
        return True

    def first(self, rows: int) -> "Record":
        """Of the first row alone, if the rows lie along axis 0."""
        found = Record()
        found.modules, found.specs = self.modules, self.specs
        found.outputs = [
            [x[:1] if isinstance(x, torch.Tensor) and x.dim() and x.shape[0] == rows else x for x in leaves]
            for leaves in self.outputs
        ]
        return found

    @property
    def written(self) -> bool:
        """Whether somebody has written into an output since it was recorded."""
        pairs = zip(self.outputs, self.versions, strict=True)
        return any(
            isinstance(leaf, torch.Tensor) and leaf._version != version
            for leaves, versions in pairs
            for leaf, version in zip(leaves, versions, strict=True)
        )


class Prefix:
    """Forwards of a model that record what precedes the first draw, or take it as recorded."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.mode = "off"
        self.drew = False
        self.ends = False  # whether the forward ends at its first draw
        self.copies = False  # whether outputs are written into, so that copies have to be kept
        self.record = Record()
        self.given: list[list[Any]] = []
        self.next = 0

    def heard(self) -> None:
        """A draw begins."""
        first, self.drew = not self.drew, True
        if first and self.ends:
            raise Drawn

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While it stands in the place of the forwards of all parts of the model."""
        done: list[tuple[nn.Module, Any]] = []
        try:
            for module in self.model.modules():
                if module is not self.model and not isinstance(module, Named) and type(module) is not nn.ModuleDict:
                    before = module.__dict__.get("forward")
                    done.append((module, before))
                    module.__dict__["forward"] = self._around(module, module.forward)
            if type(self.model).forward is nn.Sequential.forward and "forward" not in self.model.__dict__:
                done.append((self.model, None))
                self.model.__dict__["forward"] = self._around(self.model, self.model.forward)
            yield
        finally:
            for module, before in reversed(done):
                del module.__dict__["forward"]
                if before is not None:
                    module.__dict__["forward"] = before

    def _around(self, module: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
        chain: list[nn.Module] | None = list(module) if type(module).forward is nn.Sequential.forward else None

        def around(*args: Any, **kwargs: Any) -> Any:
            if self.drew or self.mode == "off":
                return forward(*args, **kwargs)
            if self.mode == "record":
                before = len(self.record.modules)
                output = forward(*args, **kwargs)
                if not self.drew and module is not self.model:
                    self.record.add(module, self._kept(output), before)
                return output
            if self.next < len(self.given) and self.record.modules[self.next] is module:
                self.next += 1
                return pytree.tree_unflatten(self.given[self.next - 1], self.record.specs[self.next - 1])
            if chain is not None and (skipped := self._leading(chain)):
                self.next += skipped
                x = pytree.tree_unflatten(self.given[self.next - 1], self.record.specs[self.next - 1])
                for part in chain[skipped:]:
                    x = part(x)
                return x
            return forward(*args, **kwargs)

        return around

    def _leading(self, chain: list[nn.Module]) -> int:
        """How many of the first parts of a chain are the next in the record."""
        following = self.record.modules[self.next :]
        count = 0
        while count < min(len(chain), len(following)) and following[count] is chain[count]:
            count += 1
        return count

    def _kept(self, output: Any) -> Any:
        return pytree.tree_map(_leaf, output) if self.copies else output

    def run(self, run: Run, mode: str, *, ends: bool = False, given: list[list[Any]] | None = None) -> Any:
        """A forward; None if it ended at its first draw."""
        self.mode, self.drew, self.ends, self.next = mode, False, ends, 0
        if mode == "record":
            self.record = Record()
        if given is not None:
            self.given = given
        try:
            return run()
        except Drawn:
            return None
        finally:
            self.mode, self.ends = "off", False

    def recorded(self, run: Run) -> Record:
        """What precedes the first draw, for these inputs."""
        self.run(run, "record", ends=True)
        if self.record.written and not self.copies:
            self.copies = True
            self.run(run, "record", ends=True)
        return self.record


class Plan:
    """Which outputs of a record every lane needs, and along which axes the rows lie in them.

    Args:
        alone: the record of one row.
        needed: for each leaf of each output whether what follows depends on it.
    """

    def __init__(self, alone: Record, needed: list[list[bool]]) -> None:
        self.alone, self.needed = alone, needed

    def fits(self, record: Record) -> bool:
        """Whether another input took the same way."""
        return (
            len(record.modules) == len(self.alone.modules)
            and all(a is b for a, b in zip(record.modules, self.alone.modules, strict=True))
            and all(len(a) == len(b) for a, b in zip(record.outputs, self.alone.outputs, strict=True))
        )

    def given(self, record: Record, lanes: int) -> list[list[Any]]:
        """The outputs for a batch of so many lanes of the recorded rows."""
        found = []
        for several, one, needed in zip(record.outputs, self.alone.outputs, self.needed, strict=True):
            found.append(
                [
                    _in_lanes(leaf, alone, lanes) if wanted else alone
                    for leaf, alone, wanted in zip(several, one, needed, strict=True)
                ]
            )
        return found


def _in_lanes(leaf: Any, alone: Any, lanes: int) -> Any:
    """A tensor repeated along the axes of its rows, those along which it is longer than that of one row."""
    if not isinstance(leaf, torch.Tensor) or not isinstance(alone, torch.Tensor) or leaf.dim() != alone.dim():
        return leaf
    times = [lanes if size != single else 1 for size, single in zip(leaf.shape, alone.shape, strict=True)]
    return leaf.repeat(times) if leaf.dim() else leaf.clone()


def planned(prefix: Prefix, run: Run, record: Record) -> tuple[Plan, Any]:
    """What has to be given, found by runs of one row, and the outputs of that row.

    Args:
        prefix: installed.
        run: a forward of one row, its draws always the same.
        record: of that row.
    """
    every = [[isinstance(leaf, torch.Tensor) for leaf in leaves] for leaves in record.outputs]
    wanted, expected = _with_gradients(prefix, run, record)
    if wanted is None or wanted == every:
        return Plan(record, every), expected
    poisoned = [
        [
            _leaf(leaf) if need or not isinstance(leaf, torch.Tensor) else _poison(leaf)
            for leaf, need in zip(*pair, strict=True)
        ]
        for pair in zip(record.outputs, wanted, strict=True)
    ]
    found = prefix.run(run, "replay", given=poisoned)
    same = isinstance(found, torch.Tensor) and isinstance(expected, torch.Tensor) and torch.equal(found, expected)
    return Plan(record, wanted if same else every), expected


def _leaf(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x


def _poison(x: torch.Tensor) -> torch.Tensor:
    return torch.full_like(x, torch.nan) if x.is_floating_point() else x.clone()


def _with_gradients(prefix: Prefix, run: Run, record: Record) -> tuple[list[list[bool]] | None, Any]:
    """Which leaves the outputs depend on, by autograd, and these; None where it does not say."""
    leaves = [
        [
            x.clone().requires_grad_() if isinstance(x, torch.Tensor) and x.is_floating_point() else _leaf(x)
            for x in each
        ]
        for each in record.outputs
    ]
    floating = [x for each in leaves for x in each if isinstance(x, torch.Tensor) and x.requires_grad]
    frozen = [(weight, weight.requires_grad) for weight in prefix.model.parameters()]
    try:
        for weight, _ in frozen:
            weight.requires_grad_(False)
        with torch.enable_grad():
            # another object for each: what writes into one must not write into a leaf of the graph
            output = prefix.run(run, "replay", given=[[_view(x) for x in each] for each in leaves])
            if not isinstance(output, torch.Tensor) or not output.requires_grad:
                return None, _detached(output)
            grads = iter(torch.autograd.grad(output.sum(), floating, allow_unused=True))
    except RuntimeError:
        return None, None
    finally:
        for weight, learns in frozen:
            weight.requires_grad_(learns)
    used = [
        [
            next(grads) is not None if isinstance(x, torch.Tensor) and x.requires_grad else isinstance(x, torch.Tensor)
            for x in each
        ]
        for each in leaves
    ]
    return used, output.detach()


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, torch.Tensor) else x


def _view(x: Any) -> Any:
    return x * 1.0 if isinstance(x, torch.Tensor) and x.requires_grad else x
