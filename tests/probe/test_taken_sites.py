"""An explanation knows calls that swap has taken over as it knows torch's."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit.torch as dt
from dropkit.probe import explain


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = 0.25 if self.training else 0.0
        h = self.first(x)[:, None]
        h = F.scaled_dot_product_attention(h, h, h, dropout_p=p)
        return self.last(F.dropout(h[:, 0], 0.25, self.training))


@pytest.mark.parametrize("bound", [False, True])
def test_calls_that_were_taken_over_have_the_effects_of_torchs(bound: bool) -> None:
    torch.manual_seed(0)
    model, x = Model(), torch.randn(4, 5, 8)
    wanted = explain(model, x)
    dt.swap(model, x)
    if bound:
        dt.bind(model, seed=0)
    assert str(explain(model, x)).splitlines()[:4] == str(wanted).splitlines()[:4]
    assert "attention changes no" not in str(wanted)
