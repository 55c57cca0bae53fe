"""What the documentation says of each finding, carried by the package: `doctor.md` here is `docs/doctor.md`."""

import re
from functools import cache
from importlib.resources import files

from ...language import ENGLISH, Catalogue, catalogue


def about(code: str, lang: str | Catalogue = ENGLISH) -> str:
    """The section on a code, without its heading; empty for an unknown one; English where a language has no such page.

    >>> about("DK106")[:64]
    '**Dropout between the layers of a one-layer recurrent network.**'
    """
    found = catalogue(lang)
    return _sections(ENGLISH if found is None else found.html.partition("-")[0]).get(code, "")


@cache
def _sections(language: str) -> dict[str, str]:
    folder = files(__package__ or "")
    page = folder / f"doctor.{language}.md"
    text = (page if page.is_file() else folder / "doctor.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (DK\d+)\n", text, flags=re.MULTILINE)
    return {code: section.strip() for code, section in zip(parts[1::2], parts[2::2], strict=True)}
