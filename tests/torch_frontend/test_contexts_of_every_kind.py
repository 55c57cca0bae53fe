"""disabled and enabled on every kind of dropout that `sites` knows."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from dropkit.torch.changing.contexts import disabled, enabled
from dropkit.torch.finding.inventory import sites

from .zoo import CASES

# A call in training only shifts the numbers of later ones; a layer skipped by a comparison is no call that could be on.
ONLY_IN_TRAINING = {("branches", ":dropout#1"), ("bart", ":rand")}
RANDOM_BY_ITSELF = {"sampling"}
ON_IN_TRAINING = [
    (case, site.name)
    for case, made in CASES.items()
    for site in sites(made.make(), *made.inputs)
    if site.train and site.p > 0 and (case, site.name) not in ONLY_IN_TRAINING
]


def passes(model: nn.Module, inputs: Any, count: int = 20) -> int:
    """How many different outputs some forwards give."""
    outputs = [torch.cat([y.flatten() for y in tree_leaves(model(*inputs)) if y is not None]) for _ in range(count)]
    return len(torch.unique(torch.stack(outputs), dim=0))


@pytest.mark.filterwarnings("ignore:dropout")  # torch's on ranks
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", sorted(set(CASES) - RANDOM_BY_ITSELF))
def test_disabled_leaves_no_randomness(case: str, training: bool) -> None:
    model = CASES[case].make().train(training)
    with torch.no_grad(), disabled(model):
        assert passes(model, CASES[case].inputs) == 1


@pytest.mark.filterwarnings("ignore:dropout")
@pytest.mark.parametrize(("case", "name"), ON_IN_TRAINING)
def test_each_site_can_be_enabled_by_its_name(case: str, name: str) -> None:
    torch.manual_seed(0)
    model = CASES[case].make().eval()
    with torch.no_grad(), enabled(model, name):
        assert passes(model, CASES[case].inputs) > 1
