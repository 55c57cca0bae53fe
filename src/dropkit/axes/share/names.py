"""Axes by name."""

from ...errors import DropkitTypeError, DropkitValueError


def axes_named(layout: str, names: str) -> tuple[int, ...]:
    """The numbers of axes by their names, for any argument that takes axis numbers.

    Args:
        layout: the names of all axes in their order, between blanks. "..." stands for any number of axes without a
            name; what comes after it is counted from the end.
        names: those wanted, between blanks.

    Raises:
        DropkitTypeError: no text.
        DropkitValueError: a name twice, or one that the layout does not have; more than one "...".

    >>> axes_named("N T C", "T"), axes_named("N ... C", "N C")
    ((1,), (0, -1))
    """
    if not isinstance(layout, str) or not isinstance(names, str):
        raise DropkitTypeError(f"layout and names must be text such as 'N C H W', got {layout!r} and {names!r}")
    known, wanted = layout.split(), names.split()
    if len(set(known)) != len(known) or len(set(wanted)) != len(wanted):
        raise DropkitValueError(f"layout {layout!r} or names {names!r} has a name twice")
    after = known.index("...") if "..." in known else len(known)
    for name in wanted:
        if name not in known or name == "...":
            raise DropkitValueError(f"layout {layout!r} has no axis {name!r}")
    return tuple(at if (at := known.index(name)) < after else at - len(known) for name in wanted)
