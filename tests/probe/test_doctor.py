"""The findings on models that run: one that shows each, the nearest that does not, and healthy ones."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit
import dropkit.torch as dt
from dropkit.probe.findings import RULES, Finding

Made = tuple[nn.Module, torch.Tensor]


class Calls(nn.Module):
    """Linear, something, Linear."""

    def __init__(self, between: Callable[[nn.Module, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.first, self.last, self.between = nn.Linear(12, 24), nn.Linear(24, 3), between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self, self.first(x)))


class Attention(nn.Module):
    """One head block, with a rate that its forward gates or does not."""

    def __init__(self, gated: bool):
        super().__init__()
        self.qkv, self.out, self.p, self.gated = nn.Linear(16, 48), nn.Linear(16, 16), 0.25, gated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        p = self.p if self.training or not self.gated else 0.0
        return self.out(F.scaled_dot_product_attention(q, k, v, dropout_p=p).transpose(1, 2).flatten(2))


class Views(nn.Module):
    """Two views of a batch, as SimCSE has them, by a bound encoder."""

    def __init__(self, step: int | None, on_purpose: bool, apart: float):
        super().__init__()
        self.body = dt.bind(nn.Sequential(nn.Linear(12, 24), dt.Dropout(0.25), nn.Linear(24, 3)), seed=1)
        self.step, self.on_purpose, self.apart = step, on_purpose, apart

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        with dt.at(step=self.step):
            if not self.on_purpose:
                return [self.body(x), self.body(x + self.apart)]
            with dt.passes(self.body, 2) as each:
                return [self.body(x) for _ in each]


def views(step: int | None, on_purpose: bool = False, apart: float = 0.0) -> Made:
    return Views(step, on_purpose, apart), batch(64, 12)


class StaysInEval(nn.Dropout):
    def train(self, mode: bool = True) -> "StaysInEval":
        super().train(False)
        return self


class Checkpointed(nn.Module):
    def __init__(self, preserve_rng_state: bool, tail: bool):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Dropout(0.25))
        if tail:
            self.body.append(nn.ReLU())
        self.head, self.preserve = nn.Linear(64, 3), preserve_rng_state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False, preserve_rng_state=self.preserve))


class Recurrent(nn.Module):
    def __init__(self, layers: int):
        super().__init__()
        self.lstm, self.head = nn.LSTM(12, 16, layers, batch_first=True, dropout=0.25), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def batch(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def sequential(*between: nn.Module, width: int = 24) -> Made:
    return nn.Sequential(nn.Linear(12, width), *between, nn.Linear(width, 3)), batch(64, 12)


def calling(between: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> Made:
    return Calls(between), batch(64, 12)


def keyed(model: nn.Module, x: torch.Tensor, *sites: str) -> torch.Tensor:
    for site in sites:
        key = dropkit.Key(seed=1, site=site)
        x = torch.relu(dt.dropout(x, 0.25, training=model.training, key=key)) + 0.5
    return x


def unused(ran: bool) -> Made:
    class Branch(Calls):
        def __init__(self) -> None:
            super().__init__(lambda model, x: self.drop(x) if ran else x)
            self.drop = nn.Dropout(0.25)

    return Branch(), batch(64, 12)


def trunk(training: bool, frozen: bool) -> Made:
    body = nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.25))
    model = nn.Sequential(body.requires_grad_(not frozen), nn.Linear(24, 3))
    body.train(training)
    return model, batch(64, 12)


def adapted(early: bool) -> Made:
    """A frozen body behind a layer that is frozen as well, or trained."""
    body = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Dropout(0.25)).requires_grad_(False)
    first = nn.Linear(12, 24).requires_grad_(early)
    return nn.Sequential(first, body, nn.Linear(24, 3)), batch(64, 12)


def encoder(batch_first: bool) -> Made:
    """With dropouts that are on in evaluation, as asked by name."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.25, batch_first=batch_first)
    for name in ("dropout", "dropout1", "dropout2"):
        setattr(layer, name, dt.Dropout(0.25, when="always"))
    layer.self_attn.dropout = 0.0
    return nn.Sequential(layer, nn.Linear(16, 3)), batch(8, 5, 16)


def monte_carlo(batch_first: bool) -> Made:
    """In eval mode, but for the dropouts."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.25, batch_first=batch_first).eval()
    for drop in (layer.dropout, layer.dropout1, layer.dropout2):
        drop.train()
    model = nn.Sequential(layer, nn.Linear(16, 3))
    model.training = False
    return model, batch(8, 5, 16)


def checkpointed(preserve: bool, tail: bool) -> Made:
    return Checkpointed(preserve, tail), batch(64, 12)


def channels(drop: nn.Module, *shape: int) -> Made:
    """A dropout on the output of a layer that keeps every axis."""
    return nn.Sequential(nn.Linear(shape[-1], 16), drop, nn.Linear(16, 3)), batch(*shape)


# code: site, a model that shows it, the nearest that does not
class Masking(nn.Module):
    """Half of the elements, divided by what is given."""

    def __init__(self, divisor: float):
        super().__init__()
        self.divisor = divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.5)) / self.divisor if self.training else x


PAIRS: dict[str, list[tuple[str, Callable[[], Made], Callable[[], Made]]]] = {
    "DK101": [
        (
            ":dropout",
            lambda: calling(lambda model, x: F.dropout(x, 0.25)),
            lambda: calling(lambda model, x: F.dropout(x, 0.25, training=model.training)),
        ),
        (
            ":dropout",
            lambda: calling(lambda model, x: nn.Dropout(0.25)(x)),
            lambda: calling(lambda model, x: nn.Dropout(0.25).train(model.training)(x)),
        ),
    ],
    "DK102": [
        ("1", lambda: sequential(StaysInEval(0.25).eval()), lambda: sequential(nn.Dropout(0.25))),
        (
            ":dropout",
            lambda: calling(lambda model, x: F.dropout(x, 0.25, training=False)),
            lambda: calling(lambda model, x: F.dropout(x, 0.25, training=model.training)),
        ),
        ("drop", lambda: unused(ran=False), lambda: unused(ran=True)),
    ],
    "DK103": [
        ("0", lambda: trunk(training=True, frozen=True), lambda: trunk(training=False, frozen=True)),
        ("1", lambda: adapted(early=False), lambda: adapted(early=True)),
    ],
    "DK104": [("0", lambda: trunk(training=False, frozen=False), lambda: trunk(training=True, frozen=False))],
    "DK105": [
        (
            "0:scaled_dot_product_attention",
            lambda: (nn.Sequential(Attention(gated=False)), batch(8, 5, 16)),
            lambda: (nn.Sequential(Attention(gated=True)), batch(8, 5, 16)),
        )
    ],
    "DK106": [("lstm", lambda: (Recurrent(1), batch(8, 5, 12)), lambda: (Recurrent(2), batch(8, 5, 12)))],
    "DK107": [
        ("0.dropout", lambda: encoder(batch_first=True), lambda: encoder(batch_first=False)),
        ("0.dropout", lambda: monte_carlo(batch_first=True), lambda: monte_carlo(batch_first=False)),
    ],
    "DK108": [
        (
            "2",
            lambda: (nn.Sequential(nn.Linear(12, 24), nn.Linear(24, 3), nn.Dropout(0.25)), batch(64, 12)),
            lambda: (nn.Sequential(nn.Linear(12, 24), nn.Dropout(0.25), nn.Linear(24, 3)), batch(64, 12)),
        )
    ],
    "DK109": [
        (
            "2",
            lambda: sequential(nn.ReLU(), nn.Dropout(0.25), nn.BatchNorm1d(24)),
            lambda: sequential(nn.ReLU(), nn.BatchNorm1d(24), nn.Dropout(0.25)),
        )
    ],
    "DK110": [
        (
            "2",
            lambda: sequential(nn.ReLU(), nn.AlphaDropout(0.25)),
            lambda: sequential(nn.SELU(), nn.AlphaDropout(0.25)),
        ),
        (
            ":feature_alpha_dropout",
            lambda: calling(lambda model, x: F.feature_alpha_dropout(x, 0.25, training=model.training)),
            lambda: calling(lambda model, x: F.feature_alpha_dropout(F.selu(x), 0.25, training=model.training)),
        ),
    ],
    "DK111": [
        ("2", lambda: sequential(nn.SELU(), nn.Dropout(0.25)), lambda: sequential(nn.ELU(), nn.Dropout(0.25))),
    ],
    "DK112": [
        ("1", lambda: channels(nn.Dropout1d(0.25), 64, 12), lambda: channels(nn.Dropout1d(0.25), 8, 6, 12)),
        ("1", lambda: channels(nn.Dropout2d(0.25), 64, 12), lambda: channels(nn.Dropout2d(0.25), 8, 6, 4, 12)),
        ("1", lambda: channels(nn.Dropout2d(0.25), 8, 6, 12), lambda: channels(nn.Dropout1d(0.25), 8, 6, 12)),
        (
            "1",
            lambda: channels(nn.Dropout2d(0.25), 8, 6, 4, 2, 12),
            lambda: channels(nn.Dropout3d(0.25), 8, 6, 4, 2, 12),
        ),
        ("1", lambda: channels(nn.Dropout3d(0.25), 8, 6, 12), lambda: channels(nn.Dropout1d(0.25), 8, 6, 12)),
        ("1", lambda: channels(nn.Dropout3d(0.25), 8, 6, 4, 12), lambda: channels(nn.Dropout2d(0.25), 8, 6, 4, 12)),
    ],
    "DK113": [
        (
            ":dropout",
            lambda: calling(lambda model, x: keyed(model, keyed(model, x, "a"), "a")),
            lambda: calling(lambda model, x: keyed(model, keyed(model, x, "a"), "b")),
        )
    ],
    "DK114": [
        ("body.2", lambda: checkpointed(preserve=False, tail=True), lambda: checkpointed(preserve=True, tail=True)),
        ("body.2", lambda: checkpointed(preserve=False, tail=False), lambda: checkpointed(preserve=True, tail=False)),
    ],
    "DK115": [("1", lambda: sequential(nn.Dropout(0.8)), lambda: sequential(nn.Dropout(0.2)))],
    "DK116": [("1:bernoulli", lambda: sequential(Masking(1.0)), lambda: sequential(Masking(0.5)))],
    "DK118": [
        (
            ":dropout",
            lambda: calling(lambda model, x: F.dropout(x, 0.25) if model.training else x * 0.75),
            lambda: calling(lambda model, x: F.dropout(x, 0.25, model.training)),
        )
    ],
    "DK119": [
        (
            "1",
            lambda: sequential(nn.Dropout(0.25), nn.Sigmoid(), nn.Linear(24, 24)),
            lambda: sequential(nn.Sigmoid(), nn.Dropout(0.25), nn.Linear(24, 24)),
        )
    ],
    "DK120": [
        ("body.1", lambda: views(step=3), lambda: views(step=3, on_purpose=True)),
        ("body.1", lambda: views(step=3), lambda: views(step=None)),
        ("body.1", lambda: views(step=3), lambda: views(step=3, apart=1.0)),
    ],
}

CASES = [(code, *case) for code, cases in PAIRS.items() for case in cases]


def found(made: Made) -> tuple[Finding, ...]:
    return dropkit.doctor(*made)


def test_every_code_has_a_pair() -> None:
    assert sorted([*PAIRS, "DK117"]) == [code for code, *_ in RULES]  # DK117 is of Keras alone


@pytest.mark.filterwarnings(
    "ignore:dropout option adds dropout", "ignore:dropout[23]d. Received", "ignore:enable_nested"
)
@pytest.mark.parametrize(("code", "site", "shows", "neighbour"), CASES)
def test_a_model_shows_a_finding_and_its_neighbour_none(
    code: str, site: str, shows: Callable[[], Made], neighbour: Callable[[], Made]
) -> None:
    torch.manual_seed(0)
    findings = found(shows())
    assert code in {finding.code for finding in findings}, findings
    assert site in {finding.site for finding in findings if finding.code == code}
    assert {finding.code for finding in findings} == {code}, findings
    assert found(neighbour()) == ()


class DroppedBehindToo(nn.Module):
    """Dropout in front of a BatchNorm, and a call behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop, self.norm = nn.Conv2d(3, 16, 3), nn.Dropout2d(0.3), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.drop(self.conv(x).relu())).mean((2, 3))
        return self.head(nn.functional.dropout(x, 0.5, training=self.training))


def test_explain_tells_passes_on_purpose_and_equal_views() -> None:
    (site,) = dropkit.explain(*views(step=3, on_purpose=True)).sites
    assert (site.passes, site.views, site.calls) == (2, 0, 2)
    told = str(dropkit.explain(*views(step=3, on_purpose=True)))
    assert "drops in 2 passes on purpose, each a draw of the same step by its name: body.1 and body.1@1." in told
    told = str(dropkit.explain(*views(step=3)))
    assert "body.1 drops the same elements of the same input in 2 calls: their results are equal." in told
    assert "each with a mask of its own" not in told and "on purpose" not in told
    (site,) = dropkit.explain(*views(step=None)).sites
    assert (site.passes, site.views, site.calls) == (0, 0, 2)


def test_a_recomputed_forward_is_no_second_view() -> None:
    net = Checkpointed(preserve_rng_state=True, tail=True)
    (site,) = dropkit.explain(net, batch(64, 12)).sites
    assert site.views == 0


def test_dropout_behind_a_batchnorm_is_not_what_shifts_it() -> None:
    torch.manual_seed(0)
    found = dropkit.doctor(DroppedBehindToo(), torch.randn(16, 3, 8, 8))
    assert [(finding.code, finding.site) for finding in found] == [("DK109", "drop")]
