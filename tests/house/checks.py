"""All checks of a house: each gives the faults that it finds."""

from collections.abc import Callable

from .arrows import circles, former, missing, upward
from .docs import undocumented
from .names import patches, private, private_attributes
from .sizes import large_core, long_files, long_functions
from .source import Fault, House

CHECKS: tuple[Callable[[House], list[Fault]], ...] = (
    upward,
    circles,
    missing,
    former,
    private,
    private_attributes,
    patches,
    long_files,
    long_functions,
    large_core,
    undocumented,
)
