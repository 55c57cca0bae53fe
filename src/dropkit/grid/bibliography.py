"""`papers.bib`: the papers of the grid as BibTeX, read when somebody asks."""

import re
from functools import cache
from importlib.resources import files

from ..errors import UnknownNameError


@cache
def entries() -> dict[str, str]:
    """Every entry of the file, by its key.

    >>> "srivastava2014dropout" in entries()
    True
    """
    text = files(__package__).joinpath("papers.bib").read_text(encoding="utf-8")
    whole = re.finditer(r"^@\w+\{([^,]+),\n.*?^\}", text, flags=re.DOTALL | re.MULTILINE)
    return {match[1]: match[0] for match in whole}


def entry(key: str) -> str:
    """The entry of a key.

    Raises:
        UnknownNameError: a key that the file does not have.
    """
    if key not in entries():
        raise UnknownNameError("paper", key, list(entries()))
    return entries()[key]
