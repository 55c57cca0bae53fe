"""Batches of several ranks, each taken to be as large as the others: whether they are, seen without a collective."""

import contextlib
import hashlib
import json
import warnings
from bisect import bisect_right
from collections import Counter
from typing import Any

import torch

from ..arithmetic.formula import PLAIN
from ..drawing import coordinates, ranks

_NEAR = 16  # ranks that compare with one another: a node's eight and more, and no load on the store
_FIRST, _LATER = 16, 16  # compare at each of the first forwards, and at one in so many of the later ones
_CHANGES = 64  # that a rank tells of; where sizes change at each step, enough has been compared by then

_watches: Counter[str] = Counter()  # begun so far, by what is watched; all ranks run their models in one order


class Sizes:
    """Compares the sizes of a bound model's batches with those of nearby ranks, step by step, until some differ.

    Each rank leaves in the store of the process group from which step on its batches have which size, which costs
    something only where the size changes; and looks there, now and then, for steps at which others had another size.
    Nobody waits for anybody: what another rank has not told yet is seen the next time.
    """

    def __init__(self) -> None:
        self.waiting = True  # for ranks that differ
        self._steps: list[int] = []  # from which on the sizes are those beside them
        self._sizes: list[tuple[str, int]] = []  # the site that was seen in these steps, and its size
        self.last = -1  # step
        self._forwards = 0
        self._store: Any = None

    def note(self, kind: str, site: str, step: int, size: int, piece: ranks.Piece) -> None:
        """The first dropout of this step is `site`, and its axis 0 has this size on this rank.

        Warns:
            UserWarning: once, if another rank has another size at one step.
        """
        if step < self.last:
            self.waiting = False  # what runs again is compared no more
            return
        self.last = step
        self._forwards += 1
        changed = not self._sizes or self._sizes[-1] != (site, size)
        if changed:
            self._steps.append(step)
            self._sizes.append((site, size))
        elif self._forwards > _FIRST and self._forwards % _LATER:
            return
        # A store that has gone with its process, or one that cannot be asked, leaves nothing to compare with.
        with contextlib.suppress(RuntimeError):
            if self._store is None:
                self._store = _store(kind, piece)
            if changed:
                self._store.append("sizes", json.dumps([step, site, size, piece.part]) + "\n")
            other = self._differing(piece.part)
            if other is not None:
                self.waiting = False
                self._warn(kind, piece.part, *other)
        if len(self._steps) == _CHANGES:
            self.waiting = False

    def _differing(self, part: int) -> tuple[int, int, int, int] | None:
        """A step at which another rank had another size: step, the own size, the other rank's number, its size."""
        if not self._store.check(["sizes"]):
            return None
        for line in self._store.get("sizes").decode().splitlines():
            step, site, size, other = json.loads(line)
            if other == part or not self._steps[0] <= step <= self.last:
                continue
            own_site, own_size = self._sizes[bisect_right(self._steps, step) - 1]
            if own_site == site and own_size != size:
                return step, own_size, other, size
        return None

    def _warn(self, kind: str, part: int, step: int, own: int, other: int, size: int) -> None:
        warnings.warn(
            f"batches of a bound {kind} differ in size: at step {step} rank {part} has {own} samples and rank {other} "
            f"has {size}. Rank r draws for samples r * B to (r + 1) * B, with its own B, so the ranks' masks overlap "
            "or leave samples out: say which samples these are, with dropkit.torch.at(rows=...), or give all ranks "
            "equal batches, with a DistributedSampler or drop_last=True",
            stacklevel=2,
        )


def _store(kind: str, piece: ranks.Piece) -> Any:
    """Where this rank and those near it in a split of the batch tell their sizes of this model."""
    members = hashlib.blake2b(",".join(map(str, sorted(piece.ranks))).encode(), digest_size=8).hexdigest()
    block = min(piece.part // _NEAR, max(piece.parts // _NEAR - 1, 0))  # the last one holds the rest too
    watched = f"{kind}/{members}"
    _watches[watched] += 1
    return ranks.store(f"sizes/{watched}/{_watches[watched]}/{block}")


def look(clock: Any, site: str, x: torch.Tensor) -> None:
    """Compare the size of axis 0 of what a site of this clock drops, where the clock says that it is a part of it."""
    sizes: Sizes = clock.sizes
    step = clock.counted
    if not sizes.waiting or step is None or step == sizes.last or torch.compiler.is_compiling():
        return
    at = coordinates.current()
    if at.step is not None or at.rows is not None or at.global_shape is not None or type(x) not in PLAIN or not x.dim():
        return
    if any(axis in (0, -x.dim()) for axis, _, _ in at.split or ()) or torch._C._current_graph_task_id() != -1:
        return  # said by hand, or a checkpoint's recomputation
    for piece in clock.pieces(at):
        if piece.parts > 1:
            sizes.note(clock.kind, site, step, x.shape[0], piece)
