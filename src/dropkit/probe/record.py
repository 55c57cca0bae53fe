"""All that a probe found, and the findings alone, as JSON."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from ..finding import Finding
from ..plain import json_text
from .facts import Facts
from .findings.rules import findings
from .sentences import sentences

FORMAT = 1  # of the JSON


def to_dict(explanation: Facts) -> Mapping[str, Any]:
    """What `to_json` writes, as plain values."""
    found = [finding_dict(finding) for finding in findings(explanation)]
    return {"format": FORMAT, "sentences": sentences(explanation), "findings": found, **asdict(explanation)}


def finding_dict(finding: Finding) -> dict[str, str]:
    """A finding, whose place is the name of a site or a layer."""
    return {"site" if name == "place" else name: value for name, value in asdict(finding).items()}


def to_json(explanation: Facts) -> str:
    """All that a probe found, with summary and findings, as JSON; a number that is not finite becomes null.

    Returns:
        An object with `format` (1), `sentences`, `findings` and the fields of an `Explanation`, in this order.

    >>> from dropkit.probe.explanation import Explanation, Layer
    >>> layers = (Layer(name="", parent=None, kind="Net"),)
    >>> import json
    >>> text = to_json(Explanation(model="Net", framework="torch", inputs=((1, 3),), layers=layers, sites=()))
    >>> json.loads(text)["sentences"]
    ['No dropout was found in this model.']
    """
    return json_text(to_dict(explanation))


def findings_json(explanation: Facts, ignore: Collection[str] = ()) -> str:
    """The findings alone: an object with `format`, `model`, `framework`, `sites` (their number) and `findings`."""
    found = [finding_dict(finding) for finding in findings(explanation, ignore)]
    about = {"model": explanation.model, "framework": explanation.framework, "sites": len(explanation.sites)}
    return json_text({"format": FORMAT, **about, "findings": found})
