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
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
