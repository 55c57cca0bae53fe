"""Mistakes of dropout tutorials: one module for three layers, evaluation scaled, masks before a sigmoid, p = 1."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
import dropkit.torch as dt
from dropkit.probe import Explanation

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


def explained(model: nn.Module, x: torch.Tensor = X) -> Explanation:
    return dropkit.explain(model, x)


def codes(found: Explanation) -> list[str]:
    return [finding.code for finding in found.findings]


def measured(found: Explanation, code: str) -> str:
    (finding,) = (finding for finding in found.findings if finding.code == code)
    return finding.measured


# ---------------------------------------------------------------------------------------------------------------------
# one module, called several times


class Thrice(nn.Module):
    """A discriminator with one dropout for three layers."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = nn.Linear(16, 32), nn.Linear(32, 24), nn.Linear(24, 8), nn.Linear(8, 1)
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.fc1, self.fc2, self.fc3):
            x = self.drop(F.leaky_relu(layer(x)))
        return self.fc4(x)


@pytest.mark.parametrize("drop", [nn.Dropout(0.25), dt.Dropout(0.25)], ids=["torch", "ours"])
def test_a_module_called_several_times_counts_and_names_each_call(drop: nn.Module) -> None:
    found = explained(Thrice(drop))
    (site,) = found.sites
    assert (site.calls, site.draws_of_a_forward) == (3, 64)
    assert site.call_masks == ((64, 32), (64, 24), (64, 8))
    assert site.call_zeroes == (("fc1",), ("fc2",), ("fc3",))
    told = " ".join(found.sentences)
    assert "each of 32 units, each of 24 units and each of 8 units, call by call, per sample." in told
    assert (
        "drop is called 3 times in a forward, each with a mask of its own and all with one rate: on fc1 (32), fc2 (24) "
        "and fc3 (8)."
    ) in told
    assert "one of 2^64 sub-networks" in told
    assert "Active on average: 48 of 64 units in 3 calls at drop." in told


def test_calls_that_are_alike_are_counted() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.drop = nn.Linear(16, 16), nn.Dropout(0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = self.drop(self.fc(x))
            return self.fc(x)

    told = explained(Loop()).sentences
    assert "drop is called 3 times in a forward, each with a mask of its own and all with one rate." in told
    assert "Active on average: 8 of 16 units in each of 3 calls at drop." in told
    assert not any("is called" in told for told in explained(nn.Sequential(nn.Linear(16, 4), nn.Dropout())).sentences)


# ---------------------------------------------------------------------------------------------------------------------
# evaluation scaled by 1 - p after inverted training


def by_hand(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    if not training:
        return x * (1 - p)
    mask = (torch.rand_like(x) > p).float()
    return mask * x / (1 - p)


def by_function(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.dropout(x, p, True) if training else x * (1 - p)


def by_ours(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    y = dt.dropout(x, p, training=training)
    return y if training else y.mul(1 - p)


class Layer(nn.Dropout):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) if self.training else input * (1 - self.p)


def of_2012(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return x * torch.bernoulli(torch.full_like(x, 1 - p)) if training else x * (1 - p)


def right(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.dropout(x, p, training)


def undone(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.dropout(x, p, training) * (1 - p)


def undone_in_training(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    return F.dropout(x, p, True) * (1 - p) if training else x


class Net(nn.Module):
    def __init__(self, drop: Any, p: float = 0.5) -> None:
        super().__init__()
        self.first, self.last, self.p = nn.Linear(16, 64), nn.Linear(64, 2), p
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        return self.last(self.drop(h) if isinstance(self.drop, nn.Module) else self.drop(h, self.p, self.training))


@pytest.mark.parametrize("p", [0.2, 0.5])
@pytest.mark.parametrize("drop", [by_hand, by_function, by_ours, Layer], ids=lambda drop: drop.__name__)
def test_evaluation_scaled_after_inverted_training_is_found_and_measured(drop: Any, p: float) -> None:
    torch.manual_seed(0)
    found = explained(Net(drop(p) if drop is Layer else drop, p))
    assert codes(found) == ["DK118"]
    said = measured(found, "DK118")
    assert "mean in training 1.0" in said or "mean in training 0.99" in said
    assert f"in evaluation {1 - p:.2f}" in said


@pytest.mark.parametrize("drop", [of_2012, right, undone, nn.Dropout(0.5)], ids=lambda drop: type(drop).__name__)
def test_scaling_that_fits_is_none(drop: Any) -> None:
    torch.manual_seed(0)
    assert codes(explained(Net(drop))) == []


def test_scaling_the_other_way_changes_the_mean() -> None:
    found = explained(Net(undone_in_training))
    assert codes(found) == ["DK116"]
    assert "mean in training 0.50 of that in evaluation" in measured(found, "DK116")


def test_a_law_that_scales_by_design_is_no_finding() -> None:
    from .test_laws import Scaled

    assert codes(explained(Net(dt.Dropout(0.5, noise=Scaled())))) == []


# ---------------------------------------------------------------------------------------------------------------------
# a mask before a function with f(0) != 0


@pytest.mark.parametrize(
    ("function", "at_zero"),
    [
        (nn.Sigmoid(), 0.5),
        (torch.sigmoid, 0.5),
        (nn.Hardsigmoid(), 0.5),
        (nn.Softplus(), 0.693),
        (F.softplus, 0.693),
        (nn.LogSigmoid(), -0.693),
        (torch.exp, 1),
        (torch.cos, 1),
    ],
)
@pytest.mark.parametrize("drop", [nn.Dropout, dt.Dropout])
def test_a_mask_before_a_function_that_is_not_0_at_0_is_found(
    function: Any, at_zero: float, drop: Callable[[float], nn.Module]
) -> None:
    torch.manual_seed(0)
    layer = drop(0.5)
    found = explained(Net(nn.Sequential(nn.Linear(64, 64), layer, Applied(function))))
    assert codes(found) == ["DK119"]
    said = measured(found, "DK119")
    assert f"which makes {at_zero:.3g} of a dropped 0; the mean of its output moves by " in said


class Applied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def test_the_shift_is_that_of_the_mean() -> None:
    model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.5), nn.Softplus(), nn.Linear(64, 2))
    with torch.no_grad():
        model[0].bias.fill_(-3.0)  # softplus of the input is small, and of a dropped one 0.693
    found = explained(model)
    h = model[0](X)
    kept, dropped = F.softplus(2 * h).mean() / 2, 0.6931 / 2
    assert found.sites[0].shift == pytest.approx((kept + dropped - F.softplus(h).mean()).item(), abs=0.02)


@pytest.mark.parametrize("function", [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Softsign(), torch.abs])
def test_a_mask_before_a_function_that_is_0_at_0_is_none(function: Any) -> None:
    assert codes(explained(Net(nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.5), Applied(function))))) == []


def test_a_mask_that_does_not_drop_to_0_and_one_behind_the_function_are_none() -> None:
    from .test_laws import NOISES

    assert codes(explained(Net(nn.Sequential(nn.Sigmoid(), nn.Dropout(0.5))))) == []
    assert codes(explained(Net(nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 64), nn.Sigmoid())))) == []
    lifted = dt.Dropout(0.5, noise=NOISES["lifting"])
    assert codes(explained(Net(nn.Sequential(nn.Linear(64, 64), lifted, nn.Sigmoid())))) == []


# ---------------------------------------------------------------------------------------------------------------------
# p = 1


@pytest.mark.parametrize("drop", [nn.Dropout, dt.Dropout])
def test_rate_1_leaves_no_gradient(drop: Callable[[float], nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), drop(1.0), nn.Linear(8, 2))
    found = explained(model)
    assert [found.layer(name).gradient for name in "024"] == ["zero", "zero", "changed"]
    told = found.sentences
    assert told[0].startswith("3 (Dropout, p 1) zeroes all of the output of 2 (Linear)")
    assert "dropout 3 makes the gradient of 0 (Linear) and 2 (Linear) zero: nothing is learned there." in told
    assert "dropout 3 changes the gradient of 4 (Linear)." in told


def test_below_rate_1_the_gradient_is_changed() -> None:
    found = explained(nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.99), nn.Linear(8, 2)))
    assert [found.layer(name).gradient for name in "02"] == ["changed", "changed"]


# ---------------------------------------------------------------------------------------------------------------------
# batch x time x features


def elements(model: nn.Module, *shape: int) -> list[str]:
    return [told for told in explained(model, torch.randn(*shape)).sentences if "single elements" in told]


def test_of_batch_time_features_it_says_that_single_elements_are_dropped_and_what_to_write_for_neurons() -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.25), nn.Linear(8, 2))
    (told,) = elements(model, 4, 5, 16)
    assert told == (
        "dropout 1 drops single elements, not neurons: along axis 1 each entry draws its own. To drop whole neurons, "
        "the same at every step: dropkit.torch.Dropout(0.25, share=(1,))."
    )
    assert elements(model, 4, 16) == []
    model[1] = dt.Dropout(0.25, share=(1,))
    assert elements(model, 4, 5, 16) == []
    channels = nn.Sequential(nn.Conv1d(3, 8, 1), nn.Dropout(0.25), nn.Conv1d(8, 2, 1))
    assert "To drop whole channels: dropkit.torch.Dropout(0.25, share=(2,))." in elements(channels, 4, 3, 9)[0]


def test_many_are_told_in_one_sentence() -> None:
    model = nn.Sequential(
        *(layer for _ in range(6) for layer in (nn.Linear(16, 16), nn.Dropout(0.1))), nn.Linear(16, 2)
    )
    (told,) = elements(model, 4, 5, 16)
    assert told.startswith("dropout 1, dropout 3, dropout 5, dropout 7 and 2 more drop single elements")
