"""What a surgery on a model did, and how it is taken back, whatever the framework."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

from .errors import DropkitRuntimeError


class Edit(Protocol):
    """One change of one part of a model, which knows its way back."""

    @property
    def line(self) -> str:
        """What is changed, for people."""

    def do(self) -> None:
        """Make the change."""

    def stands(self) -> bool:
        """Whether nothing has been put over it since."""

    def undo(self) -> None:
        """Take it back."""


class Receipt:
    """What a surgery did, in `lines`; `restore()` gives the original back, once. As a context it does so at the end.

    Args:
        edits: made one after the other; where one fails, those before it are taken back.
        notes: further lines.
        halves: whether an edit that fails may be half done, and is taken back as well.
    """

    __slots__ = ("_edits", "_restored", "lines")

    def __init__(self, edits: Sequence[Edit], notes: Sequence[str], halves: bool = False) -> None:
        self.lines = (*(edit.line for edit in edits), *notes)
        self._edits = edits
        self._restored = False
        for number, edit in enumerate(edits):
            try:
                edit.do()
            except BaseException:
                for done in reversed(edits[: number + halves]):
                    done.undo()
                raise

    def restore(self) -> None:
        """Give the original back.

        Raises:
            DropkitRuntimeError: it was restored already; something else stands in a place that was edited, so that a
                later surgery has to be restored first. Nothing is changed then.
        """
        if self._restored:
            raise DropkitRuntimeError("this receipt was restored already; a receipt restores once")
        fallen = [edit.line for edit in self._edits if not edit.stands()]
        if fallen:
            raise DropkitRuntimeError(
                f"something else stands where this surgery was done ({fallen[0]}); restore what came later first"
            )
        for edit in reversed(self._edits):
            edit.undo()
        self._restored = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        if not self._restored:
            self.restore()

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return "\n  ".join([f"Receipt ({'restored' if self._restored else 'in force'})", *self.lines])
