"""Plain values as JSON, which has no number that is not finite."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any) -> str:
    """Indented JSON with a line's end; NaN and infinity become null.

    >>> json_text({"loss": math.nan, "steps": (1, 2)}).split()
    ['{', '"loss":', 'null,', '"steps":', '[', '1,', '2', ']', '}']
    """
    # Delete is the one control character that JSON may hold as it is.
    return json.dumps(finite(value), indent=2, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def finite(value: Any) -> Any:
    """The value as JSON can hold it: lists for tuples, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
