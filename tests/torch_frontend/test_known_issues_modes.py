"""Reports about dropout on or off by mistake, and about log-probabilities that do not match because of it.

Wrong with torch's means alone, right with ours. Of the reports not here: trl PR 3234 and the trainers around it change
defaults of another library; what they rest on is `test_trl_2042_...`.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dropkit.torch as dt
from dropkit.torch import Dropout, at, bind, disabled, enabled, replay, set_rate, sites, swap

from .architectures import zeros

X = torch.linspace(-1, 1, 2 * 5 * 8).view(2, 5, 8)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Attention(nn.Module):
    """`dropout_p` as the code base has it, which forgets about the mode."""

    def __init__(self, rate: Callable[[Any], float], **attributes: Any) -> None:
        super().__init__()
        self.rate = rate
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=self.rate(self), is_causal=True)


def drops_in_evaluation(attention: Attention, attribute: str | None) -> None:
    """`eval()` does not help; `sites` says where, `disabled` turns it off."""
    model = nn.Sequential(nn.Linear(8, 8), attention).eval()
    with torch.no_grad():
        assert not torch.equal(model(X), model(X))
        (site,) = [site for site in sites(model, X) if site.eval]
        assert (site.name, site.p) == ("1:scaled_dot_product_attention", 0.5)
        assert site.attribute == (None if attribute is None else ("1", attribute))
        with disabled(model):
            x = model[0](X)
            assert torch.equal(model(X), F.scaled_dot_product_attention(x, x, x, is_causal=True))


def test_pytorch_124464_attention_has_no_training_flag() -> None:
    drops_in_evaluation(Attention(lambda self: 0.5), None)
    with pytest.raises(TypeError, match="training"):
        dt.dropout(X, 0.5)  # type: ignore[call-arg]  # ours has no default that could be forgotten


def test_nanogpt_240_attention_of_a_gpt() -> None:
    drops_in_evaluation(Attention(lambda self: self.dropout, dropout=0.5), "dropout")


def test_timm_1978_attention_reads_the_rate_of_a_layer() -> None:
    drops_in_evaluation(Attention(lambda self: self.attn_drop.p, attn_drop=nn.Dropout(0.5)), None)


def test_wenet_2699_attention_of_a_conformer() -> None:
    drops_in_evaluation(Attention(lambda self: self.dropout_rate, dropout_rate=0.5), "dropout_rate")


class Policy(nn.Module):
    def __init__(self, drop: type[nn.Module]) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(8, 64), drop()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.linear(x))


def test_lerobot_3668_evaluation_never_restores_the_mode() -> None:
    def rollout(policy: nn.Module, fails: bool) -> Tensor:
        if fails:
            raise ConnectionError("the simulator is gone")
        return policy(X)

    def evaluate(policy: nn.Module, fails: bool) -> Tensor:
        policy.eval()
        with torch.no_grad():
            return rollout(policy, fails)

    def evaluate_with_ours(policy: nn.Module, fails: bool) -> Tensor:
        with disabled(policy), torch.no_grad():
            return rollout(policy, fails)

    for fails in (False, True):
        for drop, evaluation, trains in ((nn.Dropout, evaluate, False), (Dropout, evaluate_with_ours, True)):
            policy = Policy(drop).train()
            assert zeros(policy(X)) > 0.3
            if fails:
                with pytest.raises(ConnectionError):
                    evaluation(policy, fails)
            else:
                assert zeros(evaluation(policy, fails)) == 0
            assert (zeros(policy(X)) > 0.3) is trains


def epochs(model: nn.Module, step: Callable[[nn.Module], Tensor]) -> list[bool]:
    """Whether each of three epochs trains with dropout, where each ends in an evaluation: `train()` is called once."""
    model.train()
    dropped = []
    for _ in range(3):
        dropped.append(zeros(step(model)) > 0.3)
        model.eval()
        assert zeros(model(X)) == 0
    return dropped


def test_simpletransformers_941_evaluation_during_training() -> None:
    def step(model: nn.Module) -> Tensor:
        with enabled(model):
            return model(X)

    assert epochs(Policy(nn.Dropout), lambda model: model(X)) == [True, False, False]
    assert epochs(Policy(Dropout), step) == [True, True, True]
    assert epochs(Policy(nn.Dropout), step) == [True, True, True]


def test_ethics_5_eval_mode_after_the_first_epoch() -> None:
    """Nothing told that training went on without dropout; the clock of a bound model does: it stands still."""
    theirs, ours = Policy(nn.Dropout), bind(Policy(Dropout))
    assert epochs(theirs, lambda model: model(X)) == [True, False, False]
    assert list(theirs.state_dict()) == ["linear.weight", "linear.bias"]
    assert epochs(ours, lambda model: model(X)) == [True, False, False]
    assert int(ours.dropkit_step) == 1  # of 3


def pretrained() -> nn.Sequential:
    """A backbone in eval mode, as loaders return it, under a new head."""
    backbone = nn.Sequential(OrderedDict(norm=nn.BatchNorm1d(5), linear=nn.Linear(8, 64), drop=nn.Dropout()))
    return nn.Sequential(OrderedDict(backbone=backbone.eval(), head=nn.Dropout(0.1)))


def validate(model: nn.Module) -> None:
    """As trainers do now: each part gets back the mode that it had."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    model(X)
    for part, training in modes.items():
        part.training = training


def test_autogluon_4965_a_backbone_that_is_loaded_in_eval_mode() -> None:
    model: Any = pretrained()
    validate(model)
    assert model.training
    assert zeros(model.backbone(X)) == 0  # fine-tuned without dropout
    mean = model.backbone.norm.running_mean.clone()
    with enabled(model, sites="backbone.*"):
        assert zeros(model.backbone(X)) > 0.3
    assert torch.equal(model.backbone.norm.running_mean, mean)  # nothing else is switched
    swap(model)
    idle = [name for name, part in model.named_modules() if isinstance(part, Dropout) and not part.active]
    assert idle == ["backbone.drop"]


def test_lightning_18930_a_frozen_backbone_is_put_in_train_mode() -> None:
    """The trainer calls `train()` on all of the model when fitting begins and after each validation."""
    model: Any = pretrained().train()
    assert zeros(model.backbone(X)) > 0.3
    with disabled(model.backbone):
        for _ in range(2):
            model.train()
            assert zeros(model.backbone(X)) == 0
            assert zeros(model(torch.ones(16, 5, 8))) > 0.02  # the head drops
            model.eval()


# ---------------------------------------------------------------------------------------------------------------------
# log-probabilities of policies


class Block(nn.Module):
    """Dropout as a layer, as an attribute that attention reads, and as a literal."""

    def __init__(self, config: Any, drop: type[nn.Module]) -> None:
        super().__init__()
        self.attention_dropout = config.attention_dropout
        self.qkv, self.drop = nn.Linear(16, 48), drop(config.hidden_dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        p = self.attention_dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return x + self.drop(F.dropout(y, 0.1, self.training))


class Gpt(nn.Module):
    def __init__(self, drop: type[nn.Module] = nn.Dropout, attention: float = 0.1, hidden: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(attention_dropout=attention, hidden_dropout=hidden)
        self.embed, self.head = nn.Embedding(32, 16), nn.Linear(16, 32)
        self.blocks = nn.ModuleList(Block(self.config, drop) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return 3 * self.head(x)


TOKENS = torch.randint(0, 32, (6, 12), generator=torch.Generator().manual_seed(1))


def logps(model: nn.Module, tokens: Tensor = TOKENS) -> Tensor:
    return model(tokens[:, :-1]).log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)


def kl(policy: Tensor, reference: Tensor) -> float:
    """Mean over tokens of the estimate that trainers use, exp(d) - d - 1 of the difference d."""
    d = (reference - policy).detach()
    return float((d.exp() - d - 1).mean())


def modules_only(model: nn.Module) -> None:
    """What trainers do to disable dropout: set p of every `nn.Dropout`."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0


def test_trl_3500_divergence_before_the_first_step() -> None:
    """The same weights, and the KL between policy and reference is far from 0: dropout is on in one of them."""
    policy = Gpt().train()
    reference = copy.deepcopy(policy).eval()
    expected = logps(reference)
    assert kl(logps(policy), expected) > 0.01
    with disabled(policy):
        torch.testing.assert_close(logps(policy), expected)
        assert kl(logps(policy), expected) < 1e-9
    # Or dropout stays on, in both alike: new and old policy differ by their weights only.
    assert kl(logps(policy), logps(policy)) > 0.01
    with replay(policy, reference.train()):
        old = logps(reference)
        assert torch.equal(logps(policy), old)
    assert not torch.allclose(old, expected)


def test_trl_744_the_loss_of_equal_models_is_log_two() -> None:
    """DPO starts from policy = reference, at -logsigmoid(0), whose gradient is not 0. With dropout it does not."""
    policy = Gpt().train()
    reference = copy.deepcopy(policy)
    chosen, rejected = TOKENS[:3], TOKENS[3:]

    def loss() -> Tensor:
        with torch.no_grad():
            base = logps(reference, chosen).sum(-1) - logps(reference, rejected).sum(-1)
        return -F.logsigmoid(logps(policy, chosen).sum(-1) - logps(policy, rejected).sum(-1) - base).mean()

    assert abs(loss().item() - math.log(2)) > 0.01
    with disabled(policy), disabled(reference):
        start = loss()
        assert start.item() == pytest.approx(math.log(2), abs=1e-6)
        start.backward()
    assert policy.head.weight.grad is not None
    assert float(policy.head.weight.grad.abs().max()) > 0.01


def test_trl_2042_dropout_that_setting_the_layers_misses() -> None:
    policy = Gpt().train()
    expected = logps(copy.deepcopy(policy).eval())
    halfway = copy.deepcopy(policy)
    modules_only(halfway)
    assert kl(logps(halfway), expected) > 1e-3  # attention and literals still drop
    with disabled(policy):
        torch.testing.assert_close(logps(policy), expected)
    assert [block.drop.p for block in policy.blocks] == [0.1, 0.1]  # type: ignore[union-attr]


def test_reef_536_a_default_rate_that_nobody_set() -> None:
    """A framework's 0.1, which the imported config does not mention: half of the tokens were clipped."""
    trainer = Gpt().train()
    engine = copy.deepcopy(trainer).eval()
    served = logps(engine)
    assert (logps(trainer) - served).abs().mean() > 0.03
    on = {site.attribute: site.p for site in sites(trainer, TOKENS) if site.train and site.attribute}
    rates = [(f"blocks.{i}", "attention_dropout") for i in (0, 1)] + [(f"blocks.{i}.drop", "p") for i in (0, 1)]
    assert on == dict.fromkeys(rates, 0.1)
    with set_rate(trainer, "*", 0.0):
        left = [site.name for site in sites(trainer, TOKENS) if site.train]
        assert left == ["blocks.0:dropout", "blocks.1:dropout"]  # literals: for `disabled`
        with disabled(trainer):
            torch.testing.assert_close(logps(trainer), served)
    assert (logps(trainer) - served).abs().mean() > 0.03


def test_llamafactory_10779_numbers_that_attention_reads() -> None:
    """Paired comparisons under dropout; the config must stay, or exported checkpoints lose their rates."""
    policy = Gpt(hidden=0.0).train()
    modules_only(policy)
    policy.config.attention_dropout = 0.0  # too late: the blocks have copied it
    assert not torch.equal(logps(policy), logps(policy))
    policy = Gpt().train()
    config, before = policy.config, dict(vars(policy.config))
    with disabled(policy):
        assert torch.equal(logps(policy), logps(policy))
        assert policy.config is config
        assert vars(config) == before
    assert [block.attention_dropout for block in policy.blocks] == [0.1, 0.1]
    assert not torch.equal(logps(policy), logps(policy))


def test_rl_2399_masks_of_the_rollout_in_every_epoch() -> None:
    """Consistent dropout: each sample keeps its mask, in whatever mini-batch an epoch puts it."""

    def largest_ratio(model: nn.Module, where: Callable[[Tensor], Any]) -> float:
        rows = torch.arange(6)
        with torch.no_grad(), where(rows):
            old = logps(model)
        ratios = []
        for batch in torch.tensor([5, 0, 3, 1, 4, 2]).split(4):
            with where(batch):
                ratios.append((logps(model, TOKENS[batch]) - old[batch]).detach().abs().max())
        return float(torch.stack(ratios).max())

    def model(drop: type[nn.Module]) -> nn.Module:
        block = nn.Sequential(nn.Embedding(32, 16), drop(), nn.Linear(16, 16), drop(), nn.Linear(16, 32))
        return block.train()

    assert largest_ratio(model(nn.Dropout), lambda rows: torch.random.fork_rng()) > 0.1
    assert largest_ratio(bind(model(Dropout)), lambda rows: at(step=0, rows=rows)) < 1e-5
