"""What goes wrong around learned rates in a training loop, and is said once: n, penalties, weight decay, precision."""

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropkit.errors import DropkitError
from dropkit.torch.learned import (
    ConcreteDropout,
    HardConcrete,
    LearnableBernoulli,
    SparseVariationalConv2d,
    SparseVariationalLinear,
    VariationalGaussianDropout,
    VariationalLinear,
    base,
    groups,
    rate_parameters,
    regularizer,
)

DATA = torch.randn(2000, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_warned", set())


def net() -> nn.Sequential:
    head = nn.Linear(8, 1)
    return nn.Sequential(ConcreteDropout(0.1, layer=head), head)


def train(model: nn.Module, n: int, batches: list[torch.Tensor], call: Callable | None = None) -> None:
    optimizer = torch.optim.Adam(groups(model))
    for x in batches:
        optimizer.zero_grad()
        ((call or model)(x).square().mean() + regularizer(model, n=n)).backward()
        optimizer.step()


# ---------------------------------------------------------------------------------------------------------------------
# n


@pytest.mark.parametrize(
    ("n", "size"),
    [(64, 64), (2000 // 64, 64), (-(-2000 // 64), 64), (16, 64), (2000 // 100, 100)],
    ids=["the size of a batch", "drop_last batches", "batches", "less than a batch", "batches of 100"],
)
def test_an_n_that_is_less_than_the_samples_seen_warns_once(n: int, size: int) -> None:
    """Wrong n drives p from .003 to .47 in silence (G7)."""
    model = net()
    with pytest.warns(UserWarning, match=rf"n={n}\), but the model has been given \d+ different samples") as caught:
        train(model, n, list(DATA.split(size))[:12])
    assert len(caught) == 1
    assert "len(data), not the size of a batch or the number of batches" in str(caught[0].message)
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_an_n_of_a_model_whose_parts_are_called_by_themselves() -> None:
    """As in a LightningModule, whose training step calls what it holds."""
    holder = nn.ModuleDict({"body": nn.Linear(8, 8), "head": net()})
    with pytest.warns(UserWarning, match="n=50"):
        train(holder, 50, list(DATA.split(50))[:6], lambda x: holder["head"](holder["body"](x)))


@pytest.mark.parametrize(
    ("n", "batches"),
    [
        (2000, list(DATA.split(64))),
        (64, [DATA[:64]] * 12),  # the data set is one batch
        (100, [DATA[torch.randperm(100)][:40] for _ in range(12)]),  # a small one, many times
        (64, [DATA[torch.randperm(64)] for _ in range(12)]),
        (10**6, list(DATA.split(64))),
    ],
    ids=["right", "one batch", "small data", "shuffled", "too large"],
)
def test_an_n_that_may_be_right_is_silent(n: int, batches: list[torch.Tensor]) -> None:
    model = net()
    train(model, n, batches)
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_a_model_that_is_watched_can_be_copied_and_saved() -> None:
    model = net()
    train(model, 64, [DATA[:64]] * 2)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other(DATA[:3])


# ---------------------------------------------------------------------------------------------------------------------
# penalties


def accumulate(model: nn.Module, divided: bool, micro: int = 4) -> None:
    optimizer = torch.optim.Adam(groups(model))
    for _ in range(3):
        optimizer.zero_grad()
        for x in DATA[:64].chunk(micro):
            penalty = regularizer(model, n=2000)
            (model(x).square().mean() / micro + (penalty / micro if divided else penalty)).backward()
        optimizer.step()


def test_a_penalty_in_full_in_each_micro_batch_warns_once() -> None:
    with pytest.warns(
        UserWarning, match="in full into the losses of two micro-batches of one optimizer step"
    ) as caught:
        accumulate(net(), divided=False)
    assert len(caught) == 1


def test_a_penalty_that_is_divided_or_added_once_is_silent() -> None:
    accumulate(net(), divided=True)
    train(net(), 2000, list(DATA.split(200)))
    model = net()
    inplace = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        inplace.zero_grad(set_to_none=False)
        (model(DATA).square().mean() + regularizer(model, n=2000)).backward()
        inplace.step()
    for _ in range(3):  # without an optimizer
        model.zero_grad()
        (model(DATA).square().mean() + regularizer(model, n=2000)).backward()


def test_a_closure_that_is_run_many_times_in_a_step_is_silent() -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(DATA).square().mean() + regularizer(model, n=2000)
        loss.backward()
        return loss

    for _ in range(2):
        optimizer.step(closure)


# ---------------------------------------------------------------------------------------------------------------------
# optimizers


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    (model(DATA).square().mean() + regularizer(model, n=2000)).backward()
    optimizer.step()


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_weight_decay_on_a_rate_warns_once(make: type[torch.optim.Optimizer]) -> None:
    model = copy.deepcopy(net())
    optimizer = make(model.parameters(), lr=0.01, weight_decay=0.1)  # type: ignore[call-arg]
    with pytest.warns(UserWarning, match=r"rate of a ConcreteDropout in a group with weight_decay=0.1") as caught:
        step(model, optimizer)
        step(model, optimizer)
    assert len(caught) == 1
    assert "dropkit.torch.learned.groups(model)" in str(caught[0].message)


def test_groups_give_rates_no_weight_decay_and_a_learning_rate_of_their_own() -> None:
    model = net()
    optimizer = torch.optim.AdamW(groups(model, rate_lr=0.01), lr=0.001, weight_decay=0.1)
    step(model, optimizer)
    weights, rates = optimizer.param_groups
    assert (weights["lr"], weights["weight_decay"], len(weights["params"])) == (0.001, 0.1, 2)
    assert (rates["lr"], rates["weight_decay"], rates["params"]) == (0.01, 0.0, [model[0].logit])
    assert torch.optim.SGD(groups(model), lr=0.5).param_groups[1]["lr"] == 0.5


def test_groups_leave_out_what_is_frozen_or_not_there() -> None:
    model = net()
    model[1].requires_grad_(False)
    assert [len(group["params"]) for group in groups(model)] == [1]
    shared = nn.Sequential(model[0], model[0], nn.Linear(8, 8))
    assert [len(group["params"]) for group in groups(shared)] == [2, 1]
    for wrong in (lambda: groups(nn.Linear(2, 2)), lambda: groups(model, rate_lr=0)):
        with pytest.raises(DropkitError):
            wrong()


# ---------------------------------------------------------------------------------------------------------------------
# precision and shape

FAMILIES = [
    lambda: ConcreteDropout(0.1, inputs=8),
    lambda: LearnableBernoulli(0.1, estimator="straight-through", inputs=8),
    lambda: LearnableBernoulli(0.1, estimator="straight-through", scale=False, inputs=8),
    lambda: HardConcrete((8,)),
    lambda: HardConcrete(),
    lambda: VariationalGaussianDropout(inputs=8),
    lambda: VariationalLinear(8, 8),
    lambda: VariationalLinear(8, 8, per="weight"),
    lambda: SparseVariationalLinear(8, 8, log_sigma2=-2.0),
    lambda: SparseVariationalConv2d(1, 8, 1, log_sigma2=-2.0),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", FAMILIES)
def test_rates_stay_in_float32_and_move_where_the_model_is_in_half_precision(
    make: Callable[[], base.Learned], dtype: torch.dtype
) -> None:
    """Adam's step of .001 is lost in a bfloat16 logit of -2.2 (G8)."""
    model = nn.Sequential(nn.Linear(8, 8), make()).to(dtype)
    (rate,) = rate_parameters(model).values()
    assert rate.dtype == torch.float32
    assert model[0].weight.dtype == dtype
    before = rate.detach().clone()
    optimizer = torch.optim.Adam(groups(model), 1e-3)
    x = (
        DATA[:32].to(dtype)
        if not isinstance(model[1], SparseVariationalConv2d)
        else DATA[:32].view(32, 1, 1, 8).to(dtype)
    )
    y = model(x)
    assert y.dtype == dtype
    (y.float().square().mean() + regularizer(model, n=10)).backward()
    optimizer.step()
    assert (rate != before).all()
    assert model.eval()(x).dtype == dtype
    model.double()
    assert rate_parameters(model).popitem()[1].dtype == torch.float64


def test_rates_are_wide_however_they_come_about() -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = net()
    finally:
        torch.set_default_dtype(before)
    assert model[0].logit.dtype == torch.float32
    saved = {name: value.bfloat16() for name, value in net().state_dict().items()}
    model.load_state_dict(saved, assign=True)
    assert (model[0].logit.dtype, model[1].weight.dtype) == (torch.float32, torch.bfloat16)
    model[0].logit.grad = torch.ones(1)
    model.half()
    assert model[0].logit.grad.dtype == torch.float32
    assert model.to("meta")[0].logit.device.type == "meta"


def test_a_rate_that_something_made_narrow_warns_once() -> None:
    model = net()
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    with pytest.warns(UserWarning, match="the logit of a ConcreteDropout is torch.bfloat16") as caught:
        model(DATA.bfloat16())
        model(DATA.bfloat16())
    assert len(caught) == 1


@pytest.mark.parametrize("make", FAMILIES)
def test_no_rate_is_a_scalar_parameter_and_older_checkpoints_load(make: Callable[[], base.Learned]) -> None:
    """`fully_shard` takes no scalar (G10); the rate itself has the shape that was asked for."""
    site = make()
    state = site.state_dict()
    assert all(value.dim() for value in state.values())
    older = {name: value.squeeze() if value.numel() == 1 else value for name, value in state.items()}
    for assign in (False, True):
        other = make()
        other.load_state_dict(older, assign=assign)
        assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert ConcreteDropout(0.2).rate().shape == ()
    assert ConcreteDropout(0.2)(torch.tensor(1.0)).shape == ()


@pytest.mark.parametrize("make", FAMILIES)
def test_every_learned_site_has_a_text(make: Callable[[], base.Learned]) -> None:
    assert repr(make()).startswith(type(make()).__name__)


def test_the_weight_decay_of_other_parameters_is_silent() -> None:
    model = net()
    model(DATA)  # from here on optimizers are looked at
    plain = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=0.1)
    plain(torch.ones(1, 2)).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        optimizer.step()
