"""Attributes that several blocks and receipts change at once: each counts, and the original comes back after the last.

What shows is the value of the latest that still stands, or of one that wins over them all. So blocks may end in any
order, in any thread. A value that somebody else assigns in between is left alone, and is the original from then on.
"""

import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

from ..reading.structure import held, put

_MISSING: Any = object()
_lock = threading.RLock()


@dataclass(eq=False)
class Overlay:
    """A value put over an attribute of a module, a config object or a dict.

    wins: it shows whatever was put there earlier or later.

    >>> class Owner: p = 0.5
    >>> owner = Owner()
    >>> first, second = Overlay(owner, "p", 0.1), Overlay(owner, "p", 0.2)
    >>> first.lay(); second.lay(); first.lift(); owner.p
    0.2
    >>> second.lift(); owner.p
    0.5
    """

    owner: Any
    attribute: str
    value: Any
    wins: bool = False
    before: Any = field(default=_MISSING, init=False)  # what was there when it was laid
    _stack: "_Stack | None" = field(default=None, init=False)

    def lay(self) -> None:
        """Put it there."""
        with _lock:
            self._stack = _Stack.of(self.owner, self.attribute)
            self.before = held(self.owner, self.attribute)
            entry = _Entry(self.value, self.wins, weakref.ref(self))
            self._stack.entries.append(entry)
            try:
                self._stack.show()
            except BaseException:
                self._stack.entries.remove(entry)
                raise

    def lift(self, *, even_if_changed: bool = False) -> None:
        """Take it away.

        Args:
            even_if_changed: bring back what was there before also where somebody has assigned another value since.
        """
        with _lock:
            stack = self._stack
            assert stack is not None
            stack.notice()
            mine = next((entry for entry in stack.entries if entry.laid_by() is self), None)
            if mine is None:
                if even_if_changed:
                    assign(self.owner, self.attribute, self.before)
                return
            if even_if_changed:  # what was put over it for good goes too
                above = stack.entries[stack.entries.index(mine) :]
                stack.entries = [e for e in stack.entries if e not in above or e.laid_by() is not None]
            stack.entries.remove(mine)
            stack.show()


def assign(owner: Any, attribute: str, value: Any) -> None:
    """Assign for good; where an overlay wins, what it will leave behind."""
    if not _stacks:  # a schedule does this for every site at every step
        if held(owner, attribute) != value:
            put(owner, attribute, value)
        return
    with _lock:
        stack = _stacks.get((id(owner), attribute))
        if stack is not None:
            stack.notice()
            winning = [entry for entry in stack.entries if entry.wins]
            if winning:
                stack.entries, stack.base = winning, value
                return
        if held(owner, attribute) != value:
            put(owner, attribute, value)


def beneath(owner: Any, attribute: str) -> Any:
    """What shows, or would show without the overlays that win."""
    with _lock:
        stack = _stacks.get((id(owner), attribute))
        if stack is None:
            return held(owner, attribute)
        stack.notice()
        rest = [entry.value for entry in stack.entries if not entry.wins]
        return rest[-1] if rest else stack.base


@dataclass(eq=False)
class _Entry:
    value: Any
    wins: bool
    laid_by: "weakref.ref[Overlay]"  # gone where a receipt was thrown away: it is for good


class _Stack:
    """What lies over one attribute."""

    def __init__(self, owner: Any, attribute: str) -> None:
        self.owner, self.attribute = owner, attribute
        self.base = self.shown = held(owner, attribute)
        self.own = attribute in getattr(owner, "__dict__", (attribute,))  # or a class holds it
        self.entries: list[_Entry] = []

    @classmethod
    def of(cls, owner: Any, attribute: str) -> "_Stack":
        stack = _stacks.get((id(owner), attribute))
        if stack is None:
            stack = _stacks[id(owner), attribute] = cls(owner, attribute)
        stack.notice()
        return stack

    def notice(self) -> None:
        """Whoever assigned in between has the last word."""
        now = held(self.owner, self.attribute)
        if now is not self.shown and now != self.shown:
            self.entries, self.base, self.shown, self.own = [], now, now, True

    def show(self) -> None:
        winning = [entry for entry in self.entries if entry.wins] or self.entries
        if winning:
            put(self.owner, self.attribute, winning[-1].value)
        elif not self.own and self.attribute in self.owner.__dict__:
            delattr(self.owner, self.attribute)
        elif held(self.owner, self.attribute) is not self.base:
            put(self.owner, self.attribute, self.base)
        self.shown = held(self.owner, self.attribute)


_stacks: "weakref.WeakValueDictionary[tuple[int, str], _Stack]" = weakref.WeakValueDictionary()
