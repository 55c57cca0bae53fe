"""Dropout written out by hand: random operations that are no known dropout, and whether they keep the mean."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dropkit
from dropkit.probe import Explanation

Drop = Callable[[torch.Tensor, float], torch.Tensor]


class Net(nn.Module):
    """Two layers, and between them whatever is given, in training, or in both modes."""

    def __init__(self, drop: Drop, p: float = 0.5, always: bool = False):
        super().__init__()
        self.one, self.two, self.drop, self.p, self.always = nn.Linear(8, 64), nn.Linear(64, 4), drop, p, always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.one(x))
        if self.training or self.always:
            h = self.drop(h, self.p)
        return self.two(h)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def explained(model: nn.Module, *shape: int) -> Explanation:
    return dropkit.explain(model, torch.randn(shape or (16, 8), generator=torch.Generator().manual_seed(1)))


def assigned(h: torch.Tensor, p: float) -> torch.Tensor:
    h = h.clone()
    h[torch.rand_like(h) < p] = 0
    return h


def drawn_by_numpy(h: torch.Tensor, p: float) -> torch.Tensor:
    return h * torch.from_numpy(np.random.binomial(1, 1 - p, tuple(h.shape))).float()  # noqa: NPY002


def drawn_by_a_generator_of_numpy(h: torch.Tensor, p: float) -> torch.Tensor:
    return h * torch.tensor(np.random.default_rng().random(tuple(h.shape)) > p)


UNSCALED: dict[str, Drop] = {
    "bernoulli": lambda h, p: h * torch.bernoulli(torch.full_like(h, 1 - p)),
    "rand": lambda h, p: h * (torch.rand(h.shape) > p),
    "rand_like": lambda h, p: h * (torch.rand_like(h) > p).to(h.dtype),
    "bernoulli in place": lambda h, p: h * torch.empty_like(h).bernoulli_(1 - p),
    "product in place": lambda h, p: h.clone().mul_(torch.empty_like(h).bernoulli_(1 - p)),
    "masked_fill": lambda h, p: h.masked_fill(torch.rand_like(h) < p, 0.0),
    "where": lambda h, p: torch.where(torch.rand_like(h) < p, torch.zeros_like(h), h),
    "assigned": assigned,
    "from_numpy": drawn_by_numpy,
    "NumPy's generator": drawn_by_a_generator_of_numpy,
    "distributions": lambda h, p: h * torch.distributions.Bernoulli(1 - p).sample(h.shape),
    "a mask for all samples": lambda h, p: h * torch.bernoulli(torch.full((64,), 1 - p)),
    "randint": lambda h, p: h * torch.randint(0, 2, h.shape),
}


@pytest.mark.parametrize("name", UNSCALED)
def test_masks_that_are_not_rescaled_are_found_with_their_ratio(name: str) -> None:
    explanation = explained(Net(UNSCALED[name]))
    (site,) = explanation.sites
    assert (site.by_hand, site.effect, site.p, site.train, site.eval) == (True, "drops", None, True, False)
    assert site.zeroes == ("one",) and site.changes == ("", "two") and site.gradients == ("one", "two")
    file, _, line = site.source.rpartition(":")
    assert file == __file__ and line.isdecimal()
    (finding,) = explanation.findings
    assert (finding.code, finding.site) == ("DK116", site.name)
    assert site.mean_ratio == pytest.approx(0.5, abs=0.06) and site.zero_share == pytest.approx(0.5, abs=0.05)
    assert f"mean in training {site.mean_ratio:.2f} of that in evaluation" in finding.measured
    assert "dropkit.torch.dropout(x, p, training=self.training)" in finding.remedy
    assert not any("No dropout" in sentence for sentence in explanation.sentences)


def test_the_line_is_the_one_that_draws() -> None:
    (site,) = explained(Net(assigned)).sites
    assert (
        Path(__file__).read_text().splitlines()[int(site.source.rpartition(":")[2]) - 1].strip().startswith("h[torch")
    )


SCALED: dict[str, Drop] = {
    "bernoulli": lambda h, p: h * torch.bernoulli(torch.full_like(h, 1 - p)) / (1 - p),
    "mask divided first": lambda h, p: h * ((torch.rand_like(h) > p).float() / (1 - p)),
    "input divided first": lambda h, p: h.div(1 - p) * (torch.rand_like(h) + 1 - p).floor(),
    "gaussian": lambda h, p: h * (1 + 0.5 * torch.randn_like(h)),
    "masked_fill": lambda h, p: h.masked_fill(torch.rand_like(h) < p, 0.0) * (1 / (1 - p)),
    "from_numpy": lambda h, p: drawn_by_numpy(h, p) / (1 - p),
    "noise that is added": lambda h, p: h + 0.1 * torch.randn_like(h),
}


@pytest.mark.parametrize("name", SCALED)
def test_masks_that_keep_the_mean_are_sites_and_no_finding(name: str) -> None:
    explanation = explained(Net(SCALED[name], p=0.25))
    (site,) = explanation.sites
    assert site.by_hand and explanation.findings == ()
    assert (site.effect == "adds") == (name == "noise that is added")


class Original(nn.Module):
    """As in 2012: masks in training, and the product with 1 - p in evaluation."""

    def __init__(self, right: bool):
        super().__init__()
        self.one, self.two, self.right = nn.Linear(8, 64), nn.Linear(64, 4), right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x).tanh()
        if self.training:
            h = h * torch.bernoulli(torch.full_like(h, 0.75))
            return self.two(h)
        return self.two(h * (0.75 if self.right else 0.25))


def test_rescaling_in_evaluation_counts() -> None:
    assert explained(Original(right=True)).findings == ()
    (finding,) = explained(Original(right=False)).findings
    assert finding.code == "DK116" and "mean in training 3.0" in finding.measured


@pytest.mark.parametrize("drop", [UNSCALED["bernoulli"], SCALED["bernoulli"], SCALED["gaussian"]])
def test_masks_that_no_mode_turns_off_are_found_in_evaluation(drop: Drop) -> None:
    explanation = explained(Net(drop, always=True))
    (site,) = explanation.sites
    assert site.train and site.eval
    (finding,) = explanation.findings
    assert finding.code == "DK101" and site.source in finding.measured


class Inverted(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x).relu()
        return self.two(h if self.training else self.drop(h, self.p))


def test_a_check_the_wrong_way_round_is_found() -> None:
    explanation = explained(Inverted(SCALED["bernoulli"]))
    (site,) = explanation.sites
    assert (site.train, site.eval) == (False, True)
    assert [finding.code for finding in explanation.findings] == ["DK101"]


class Dropper(nn.Module):
    """A dropout layer of someone's own, with a rate that the structure shows."""

    def __init__(self, p: float, scaled: bool):
        super().__init__()
        self.p, self.scaled = p, scaled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        kept = x * (torch.rand_like(x) > self.p)
        return kept / (1 - self.p) if self.scaled else kept


class MyDropout(Dropper):
    pass


@pytest.mark.parametrize("scaled", [True, False])
def test_the_mean_of_dropout_layers_of_one_s_own_is_measured(scaled: bool) -> None:
    explanation = explained(nn.Sequential(nn.Linear(8, 64), nn.Tanh(), MyDropout(0.5, scaled), nn.Linear(64, 4)))
    (site,) = explanation.sites
    assert (site.name, site.p, site.by_hand) == ("2", 0.5, False)
    assert site.mean_ratio == pytest.approx(1.0 if scaled else 0.5, abs=0.05)
    assert [finding.code for finding in explanation.findings] == ([] if scaled else ["DK116"])


def test_each_of_two_masks_is_measured_for_itself() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.one(x).relu()
            if self.training:
                h = h * torch.bernoulli(torch.full_like(h, 0.5))
            h = self.two(h).relu()
            if self.training:
                h = h * torch.bernoulli(torch.full_like(h, 0.75))
            return self.three(h)

    one, two = explained(Two()).sites
    assert one.mean_ratio == pytest.approx(0.5, abs=0.05) and two.mean_ratio == pytest.approx(0.75, abs=0.05)


# What is random in healthy models and is no dropout


class Healthy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.strength = nn.Linear(8, 32), nn.Linear(32, 8), nn.Parameter(torch.ones(32))


class NoiseInjection(Healthy):
    """As in the generators of GANs: in both modes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        return self.two((h + self.strength * torch.randn_like(h)).relu())


class Latent(Healthy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x) + self.one(torch.randn(x.shape[0], 8)))


class Variational(Healthy):
    """The means of a VAE in evaluation, or samples in both modes."""

    def __init__(self, both: bool):
        super().__init__()
        self.both = both

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, log = self.one(x).chunk(2, dim=-1)
        z = mean + torch.randn_like(mean) * (0.5 * log).exp() if self.training or self.both else mean
        return F.linear(z, self.two.weight[:, :16])


class Leaky(Healthy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(F.rrelu(self.one(x), training=self.training))


class Masked(Healthy):
    """As masked autoencoders do: a random part is kept, in both modes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = torch.rand(8).argsort()[:6]
        return self.two(F.pad(self.one(x)[:, kept], (0, 26)))


class Token(Healthy):
    """A learned token in place of a random part, in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.one(x)
        if self.training:
            h = torch.where(torch.rand(h.shape[0], 1) < 0.1, self.strength, h)
        return self.two(h)


class Diffusion(Healthy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.linspace(0.1, 0.9, 10)[torch.randint(0, 10, (x.shape[0], 1))]
        return self.two(self.one(steps.sqrt() * x + (1 - steps).sqrt() * torch.randn_like(x)).relu())


class Depth(Healthy):
    """Stochastic depth by hand, one decision a batch, and right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.two(self.one(x).relu())
        if not self.training:
            return x + branch
        return x + branch * ((torch.rand(1) < 0.8).float() / 0.8)


class Skipped(Healthy):
    """LayerDrop by hand: what is drawn decides in Python."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.rand(()) < 0.3:
            return x
        return x + self.two(self.one(x).relu())


class Gumbel(Healthy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(F.gumbel_softmax(self.one(x)))


HEALTHY = [NoiseInjection(), Latent(), Variational(True), Variational(False), Leaky(), Masked(), Token(), Diffusion(),
           Depth(), Skipped(), Gumbel()]  # fmt: skip


@pytest.mark.parametrize("model", HEALTHY, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("training", [True, False])
def test_other_randomness_is_no_finding(model: nn.Module, training: bool) -> None:
    explanation = explained(model.train(training))
    assert explanation.findings == ()
    assert "No dropout was found in this model." not in explanation.sentences


def test_what_is_random_and_no_site_is_said() -> None:
    explanation = explained(Leaky())
    assert explanation.sites == ()
    assert explanation.sentences[0] == "No dropout that is known was found in this model, but it is random in training."


def test_models_without_randomness_cost_no_further_passes() -> None:
    assert explained(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))).forwards < 10


class Twice(nn.Module):
    """One function by hand, called for two layers of other widths."""

    def __init__(self, drop: Drop) -> None:
        super().__init__()
        self.one, self.two, self.three, self.drop = nn.Linear(8, 64), nn.Linear(64, 32), nn.Linear(32, 4), drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.one, self.two):
            x = F.relu(layer(x))
            x = self.drop(x, 0.5) if self.training else x
        return self.three(x)


@pytest.mark.parametrize("name", ["bernoulli", "mask divided first"])
def test_each_call_of_a_function_by_hand_is_told(name: str) -> None:
    explanation = explained(Twice(SCALED[name]))
    (site,) = explanation.sites
    assert site.call_masks == ((16, 64), (16, 32)) and site.call_zeroes == (("one",), ("two",))
    assert (
        f"{site.name} is called 2 times in a forward, each with a mask of its own: on one (64) and two (32)."
    ) in explanation.sentences


@pytest.mark.parametrize("model", [Net(SCALED["bernoulli"]), Twice(SCALED["bernoulli"])], ids=["once", "twice"])
def test_dropout_by_hand_is_no_randomness_beside_dropout(model: nn.Module) -> None:
    """It cannot be switched off, so nothing is compared with dropout off: no variance over that without dropout."""
    explanation = explained(model)
    assert not any(layer.random for layer in explanation.layers)
    assert all(layer.variance_ratio is None for layer in explanation.layers)


def test_other_randomness_is_still_told_of_its_layers() -> None:
    explanation = explained(NoiseInjection())
    assert explanation.layer("two").random and explanation.layer("two").variance_ratio is None
