"""Every law, share and when of the table, and laws of users' own, on the backend that runs."""

from typing import Any

import pytest

from dropkit.axes.noise import Hard
from tests.conformance.columns_keras import KERAS, PROGRAMS
from tests.conformance.laws import CHECKS, LAWS, SHARES, Law, more_pairs, pairs
from tests.conformance.own import OWN, Masked

eager = pytest.mark.parametrize("column", KERAS, ids=lambda column: column.name)
named = {row.name: row for row in (*LAWS, *OWN, *SHARES)}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("law", "share"), pairs(), ids=lambda row: row.name)
@eager
def test_conforms(column: Any, law: Any, share: Any, check: str) -> None:
    CHECKS[check](column, law, share)


@pytest.mark.parametrize(("law", "share"), more_pairs(), ids=lambda row: row.name)
@eager
def test_the_further_ones_conform(column: Any, law: Any, share: Any) -> None:
    for check in CHECKS.values():
        check(column, law, share)


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "refusals"])
@pytest.mark.parametrize("law", OWN, ids=lambda law: law.name)
@eager
def test_a_law_of_ones_own_conforms(column: Any, law: Any, check: str) -> None:
    if law.name == "masked" and check == "backward":
        law = Law("masked", Masked(), lambda x, o, q, kept: kept * x)
    for share in SHARES if isinstance(law.noise, Hard) else [share for share in SHARES if share.soft]:
        CHECKS[check](column, law, share)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "share", "check"),
    [("alpha", "axis", "moving"), ("inverted", "block", "moving"), ("gaussian", "elements", "moving"),
     ("inverted", "exactly", "layers"), ("doubling", "elements", "layers"), ("zoneout", "elements", "moving")],
)  # fmt: skip
@pytest.mark.parametrize("column", PROGRAMS, ids=lambda column: column.name)
def test_a_compiled_program_conforms(column: Any, law: str, share: str, check: str) -> None:
    """A few of each kind, with a rate that is traced; on TensorFlow with a batch whose size is not known, too."""
    CHECKS[check](column, named[law], named[share])
