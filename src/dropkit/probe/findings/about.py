"""What the documentation says of each finding, carried by the package: `doctor.md` here is `docs/doctor.md`."""

import re
from functools import cache
from importlib.resources import files


def about(code: str) -> str:
    """The section on a code, without its heading; empty for an unknown one.

    >>> about("DK106")[:64]
    '**Dropout between the layers of a one-layer recurrent network.**'
    """
    return _sections().get(code, "")


@cache
def _sections() -> dict[str, str]:
    text = (files(__package__ or "") / "doctor.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (DK\d+)\n", text, flags=re.MULTILINE)
    return {code: section.strip() for code, section in zip(parts[1::2], parts[2::2], strict=True)}
