"""Several processes: which piece of the batch each holds, and whether their generators are as they should be."""

import contextlib
import hashlib
import sys
import warnings
import weakref
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch.nn.parallel import DistributedDataParallel

from ...errors import DropkitRuntimeError, DropkitTypeError, DropkitValueError

_c10d: Any = getattr(torch.distributed, "distributed_c10d", None)
# torch may have been built without torch.distributed
world: Any = getattr(_c10d, "_world", None) or SimpleNamespace(_default_pg=None)
_NEAR = 16  # how far ranks look for another that draws alike: past a node's eight, and no load on the store


class Piece(NamedTuple):
    """Piece `part` of `parts` equal ones along an axis, and the ranks that hold all of them."""

    axis: int
    part: int
    parts: int
    ranks: frozenset[int]


def several() -> bool:
    """Whether this process is one of a process group."""
    return world._default_pg is not None


def broadcasts_buffers() -> bool:
    """Whether a DistributedDataParallel runs that writes one rank's buffers into those of the others."""
    active = DistributedDataParallel._active_ddp_module
    return active is not None and bool(active.broadcast_buffers)


def piece_of(axis: int, group: Any) -> Piece:
    """The piece that this rank holds of what is split over a ProcessGroup or a DeviceMesh (in C order of its axes).

    Raises:
        DropkitTypeError: neither of the two.
        DropkitValueError: this rank is no member of it.
    """
    if hasattr(group, "get_coordinate"):
        place, ranks = group.get_coordinate(), group.mesh.flatten().tolist()
        index = -1 if place is None else 0
        for position, size in zip(place or (), group.mesh.shape, strict=False):
            index = index * size + position
    elif several() and isinstance(group, torch.distributed.ProcessGroup):
        index, ranks = torch.distributed.get_rank(group), torch.distributed.get_process_group_ranks(group)
    else:
        raise DropkitTypeError(f"need a ProcessGroup or a DeviceMesh, got {group!r}")
    if index < 0:
        raise DropkitValueError(
            f"rank {torch.distributed.get_rank()} is no member of {group!r}; give each rank its own group"
        )
    piece = Piece(axis, index, len(ranks), frozenset(ranks))
    _told[piece.ranks] = group
    return piece


# group or mesh by its ranks; not in the pieces, which are copied and saved with the model, as a group cannot be
_told: dict[frozenset[int], Any] = {}


def groups_of(piece: Piece) -> list[Any]:
    """The process groups that together hold the ranks of a piece; sums over each, one after the other, are its sum."""
    group = _told.get(piece.ranks)
    if group is None:
        return []
    return [group.get_group(axis) for axis in range(group.ndim)] if hasattr(group, "get_coordinate") else [group]


def store(name: str) -> Any:
    """A part, of this name, of the store through which the process group has met; reading it is no collective."""
    return _c10d.PrefixStore(f"dropkit/{name}", _c10d._get_default_store())


class Batch:
    """The piece of the batch that a bound model gets on this rank, as told or as whatever wraps the model says.

    Args:
        model: the bound model.
        split: a ProcessGroup or DeviceMesh; False for a batch that every rank has whole; None to look for
            DistributedDataParallel and fully_shard around or inside the model.
    """

    def __init__(self, model: torch.nn.Module, split: Any = None):
        self.model = model
        self.told: tuple[Piece, ...] | None = None
        if split is False:
            self.told = ()
        elif split is not None:
            self.told = (piece_of(0, split),)
        self._warned = False
        self._seen: tuple[Any, int] | None = None
        self._found: tuple[Piece, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_seen": None, "_found": (), "_model": None}

    @property
    def model(self) -> torch.nn.Module | None:
        """The bound model; None if it is gone."""
        return _called(self._model)

    @model.setter
    def model(self, model: torch.nn.Module) -> None:
        self._model = weakref.ref(model)  # or the model would be in a cycle of references

    def pieces(self, at: Any) -> tuple[Piece, ...]:
        """One piece, or none where the batch is whole; `at` holds the coordinates of the call.

        Warns:
            UserWarning: once, if several processes run the model and neither a wrapper nor `at` says what each has.
        """
        if self.told is not None:
            return self.told
        model = self.model
        if not several() or model is None:
            return ()
        # What wraps a model may change until its first forward, and `DistributedDataParallel` shows itself only while
        # it runs.
        active = DistributedDataParallel._active_ddp_module
        states = len(_shard_states())
        if self._seen is None or self._seen[1] != states or _called(self._seen[0]) is not active:
            self._found = _wrapped(model, active)
            self._seen = (None if active is None else weakref.ref(active), states)
        if not self._found and not self._warned and not placed(at):
            self._warned = True
            if world._default_pg.size() > 1 and not _tensor_parallel(model):
                warn_of_unknown_split(model)
        return self._found


def placed(at: Any) -> bool:
    """Whether coordinates say by themselves where a tensor lies on the ranks."""
    return at.rows is not None or bool(at.global_shape or at.split or at.together)


def _tensor_parallel(model: torch.nn.Module) -> bool:
    """Whether ranks hold parts of the parameters, so that those without a wrapper around them share their samples."""
    return any(hasattr(parameter, "device_mesh") for parameter in model.parameters())


def _called(reference: Any) -> Any:
    return None if reference is None else reference()


def _shard_states() -> Any:
    """What torch knows of modules under `fully_shard`; empty until somebody has loaded that part of torch."""
    states = sys.modules.get("torch.distributed._composable_state")
    return {} if states is None else states._module_state_mapping


def pieces_within(model: torch.nn.Module) -> tuple[Piece, ...]:
    """The piece of the batch that the wrapper around a model, or in it, leaves this rank; none without a wrapper."""
    return _wrapped(model, None)


def reshard(part: torch.nn.Module) -> None:
    """Let go of the gathered parameters around a part: a forward without gradient keeps them, soon out of date."""
    for module, reference in list(_shard_states().items()):
        if getattr(reference(), "_fsdp_param_groups", ()) and any(other is part for other in module.modules()):
            module.reshard()


def sharded_parameter(module: torch.nn.Module, name: str) -> Any:
    """A parameter as the optimizer has it, also where `fully_shard` has put the gathered one in its place."""
    for reference in _shard_states().values():
        for group in getattr(reference(), "_fsdp_param_groups", ()):
            for held in group.fsdp_params:
                if held._module_info.module is module and held._module_info.param_name == name:
                    return held.sharded_param
    return getattr(module, name)


def _wrapped(model: torch.nn.Module, active: Any) -> tuple[Piece, ...]:
    """The largest split of the batch that a wrapper around the model, or inside it, makes."""
    parts = set(model.modules())
    groups = [part.process_group for part in parts if isinstance(part, DistributedDataParallel)]
    if active is not None:
        groups.append(active.process_group)
    pieces = [piece_of(0, group) for group in groups]
    for module, reference in _shard_states().items():
        sharded = getattr(reference(), "_fsdp_param_groups", ())
        if sharded and (module in parts or any(part is model for part in module.modules())):
            pieces.append(_of_mesh(sharded[0].mesh_info))
    pieces.sort(key=lambda piece: -piece.parts)
    return tuple(pieces[:1])


def _of_mesh(info: Any) -> Piece:
    """The batch under `fully_shard`: split over what shards the parameters and over what replicates them."""
    index = getattr(info, "replicate_mesh_rank", 0) * getattr(info, "shard_mesh_size", 1)
    ranks = frozenset(info.mesh.mesh.flatten().tolist())
    return Piece(0, index + getattr(info, "shard_mesh_rank", 0), len(ranks), ranks)


def warn_of_unknown_split(model: torch.nn.Module) -> None:
    """Say that every rank will draw the same masks, which is right only where every rank has the same samples."""
    warnings.warn(
        f"a bound {type(model).__name__} runs on {world._default_pg.size()} ranks, and nothing says which samples each "
        "has, so all draw the same masks: wrap it in DistributedDataParallel or fully_shard, pass "
        "bind(model, seed, data_parallel=group), or data_parallel=False where every rank has the whole batch; in a "
        "pipeline call dropkit.torch.pipelined(schedule)",
        stacklevel=2,
    )


class RankComparison:
    """Compares, once, the generators of ranks that draw ambient keys. No collective: not every rank need get here.

    Each rank leaves a digest of its generator's state in the store of the process group and looks for the others'.
    Whoever comes later sees who came before, so of any two ranks at least one sees the other.
    """

    def __init__(self, name: str = "generators") -> None:
        self.name = name  # in the store
        self.waiting = True  # for the first ambient draw among several processes
        self._compared: set[frozenset[int]] = set()

    def alone(self) -> None:
        """Warn if another rank draws as this one does: most likely it has other samples, and they share masks."""
        self.waiting = False
        if _in_a_loader() or (same := self._neighbours("alone", range(world._default_pg.size()), True)) is None:
            return
        warnings.warn(
            f"ambient dropout draws the same masks on ranks {same[0]} and {same[1]}, whose generators are in the same "
            "state: other samples with equal masks are less noise than you asked for. Bind the model with "
            "dropkit.torch.bind(model, seed), whose masks follow the samples, or call torch.manual_seed(seed + rank). "
            "Ranks that hold the same samples, as in tensor parallelism, are right to draw alike: bind says so too",
            stacklevel=2,
        )

    def together(self, ranks: frozenset[int]) -> None:
        """Refuse to draw for a tensor of which these ranks hold parts, if their generators differ.

        Raises:
            DropkitRuntimeError: they do.
        """
        if ranks in self._compared:
            return
        self._compared.add(ranks)
        name = "together/" + ",".join(map(str, sorted(ranks)))
        if several() and not _in_a_loader() and (other := self._neighbours(name, ranks, False)) is not None:
            raise DropkitRuntimeError(
                f"ranks {other[0]} and {other[1]} hold parts of one tensor, but their generators differ, and so would "
                "their ambient masks: bind the model with dropkit.torch.bind(model, seed), or call torch.manual_seed "
                "with the same seed on these ranks"
            )

    def _neighbours(self, name: str, ranks: Iterable[int], equal: bool) -> tuple[int, int] | None:
        """This rank and one near it whose generator's state is equal to this one's, or is not."""
        digest = hashlib.blake2b(bytes(torch.get_rng_state().numpy()), digest_size=16).hexdigest()
        me = torch.distributed.get_rank()
        # A store that has gone with its process, or one that cannot be asked, leaves nothing to compare with.
        with contextlib.suppress(RuntimeError):
            held = store(f"{self.name}/{name}")
            held.set(str(me), digest)
            for rank in ranks:
                near = rank != me and abs(rank - me) <= _NEAR
                if near and held.check([str(rank)]) and (held.get(str(rank)).decode() == digest) is equal:
                    return min(me, rank), max(me, rank)
        return None


def _in_a_loader() -> bool:
    """Whether this is a process forked to load data, whose copy of the group's connection is not to be used."""
    return torch.utils.data.get_worker_info() is not None


watch = RankComparison()
