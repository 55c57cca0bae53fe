"""A Schedule sets rates in a model: which, when, under the compiler, resumed, and what it refuses."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing
from torch import nn

from dropkit import DropkitError
from dropkit.axes.rate import Constant, Early, From, Gap, Linear, Warmup, linear_in_depth
from dropkit.errors import DataError, DropkitTypeError, DropkitValueError, OutputError
from dropkit.torch import Dropout, bind
from dropkit.torch.learned import ConcreteDropout
from dropkit.torch.rate_log import RateLog
from dropkit.torch.schedule import Schedule, site_rates


class DropPath(nn.Module):
    """As in timm: the rate is a number in `drop_prob`."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop, self.path = nn.Linear(4, 4), Dropout(0.1), DropPath(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.path(self.drop(self.linear(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Dropout2d(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


DROPS = ["blocks.0.drop", "blocks.1.drop", "blocks.2.drop"]
PATHS = ["blocks.0.path", "blocks.1.path", "blocks.2.path"]
IN_ORDER = [name for pair in zip(DROPS, PATHS, strict=True) for name in pair] + ["head"]


def pair() -> nn.Sequential:
    return nn.Sequential(Dropout(), nn.Linear(4, 4), Dropout())


# ---------------------------------------------------------------------------------------------------------------------
# which sites


def test_one_rate_for_all() -> None:
    model = Net()
    schedule = Schedule(model, Linear(0.5, 0.1, steps=4))
    assert list(schedule.rates()) == IN_ORDER
    for step, p in enumerate([0.5, 0.4, 0.3, 0.2, 0.1, 0.1]):
        found = [model.blocks[0].drop.p, model.blocks[2].path.drop_prob, model.head.p]  # type: ignore[union-attr]
        assert found == pytest.approx([p] * 3, abs=1e-15)
        assert schedule.now == step
        schedule.step()


def test_patterns_match_paths_and_the_later_one_wins() -> None:
    model = Net()
    schedule = Schedule(model, {"*": 0.3, "blocks.*.path": 0.2, "blocks.2.*": 0.0})
    assert schedule.rates() == dict(zip(IN_ORDER, [0.3, 0.2, 0.3, 0.2, 0.0, 0.0, 0.3], strict=True))
    assert site_rates(model) == schedule.rates()


def test_sites_that_no_pattern_matches_keep_their_rate() -> None:
    model = Net()
    schedule = Schedule(model, {"head": 0.7})
    schedule.step()
    assert schedule.rates() == {"head": 0.7}
    assert set(site_rates(model).values()) == {0.1, 0.7}


def test_a_list_goes_over_the_sites_in_module_order() -> None:
    model = Net()
    schedule = Schedule(model, {"*.path": linear_in_depth(Warmup(0.3, steps=10), 3)})
    schedule.step(to=10)
    assert [block.path.drop_prob for block in model.blocks] == pytest.approx([0.1, 0.2, 0.3])  # type: ignore[union-attr]


def test_a_shared_module_is_one_site_under_all_its_names() -> None:
    drop = Dropout(0.1)
    model = nn.ModuleDict({"first": drop, "second": drop})
    assert Schedule(model, {"second": 0.4}).rates() == {"first": 0.4}


def test_wrapped_models_keep_their_paths() -> None:
    compiled = torch.compile(pair(), backend="eager")
    assert list(Schedule(compiled, 0.5).rates()) == ["0", "2"]
    assert list(Schedule(nn.DataParallel(compiled), 0.5).rates()) == ["0", "2"]
    inner = nn.Sequential(torch.compile(Dropout(), backend="eager"))  # type: ignore[arg-type]
    assert list(Schedule(inner, {"0": 0.2}).rates()) == ["0"]


def test_a_rate_assigned_by_others_is_set_again() -> None:
    model = pair()
    schedule = Schedule(model, 0.25)
    model[0].p = 0.9
    schedule.step()
    assert model[0].p == 0.25


def test_learned_sites_are_logged_and_not_scheduled() -> None:
    model = nn.Sequential(Dropout(0.5), ConcreteDropout(0.25))
    assert list(Schedule(model, {"*": 0.1}).rates()) == ["0"]
    assert site_rates(model) == pytest.approx({"0": 0.1, "1": 0.25})


# ---------------------------------------------------------------------------------------------------------------------
# under the compiler


@pytest.mark.slow
def test_a_thousand_rates_compile_once_and_drop_as_eager_does() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    model = bind(pair(), seed=3)
    twin = bind(copy.deepcopy(pair()), seed=3)
    twin.load_state_dict(model.state_dict())
    fast = torch.compile(model, backend=counter, fullgraph=True)
    rates = {"0": From(lambda step: step / 999), "2": From(lambda step: (step * 37 % 1000) / 1000)}
    schedule, eager = Schedule(fast, rates), Schedule(twin, rates)
    x, dropped, every = torch.ones(16, 4), 0.0, []
    for step in range(1000):
        actual, expected = fast(x), twin(x)
        assert torch.equal(actual, expected), step
        dropped += float((actual == 0).double().mean())
        every.append(schedule.rates()["0"])
        if step < 999:
            schedule.step()
            eager.step()
    assert counter.frame_count == 1  # neither compiled again nor broken
    assert len(set(every)) == 1000
    # Elements of the last dropout are 0 with its p, whose mean over the thousand steps is 0.4995. Each of them has one
    # draw of its own per step: 64,000 independent ones, standard deviation below 0.0017.
    assert abs(dropped / 1000 - 0.4995) < 5 * 0.0017


# ---------------------------------------------------------------------------------------------------------------------
# controllers and state


def test_controllers_move_at_once_and_each_once() -> None:
    model = pair()
    gap = Gap(0.1, start=0.2, gain=0.5)
    schedule = Schedule(model, {"0": gap, "2": Constant(0.3).then(gap, at=1)})
    assert schedule.controllers == [gap]
    schedule.update(train=0.3, validation=0.5)
    assert gap.state()["updates"] == 1
    assert schedule.rates() == pytest.approx({"0": 0.25, "2": 0.3})
    schedule.step()
    assert model[2].p == model[0].p == pytest.approx(0.25)


def test_controllers_of_two_kinds_take_their_own_metric() -> None:
    schedule = Schedule(pair(), {"0": Gap(0.0, gain=1), "2": Gap(0.0, metric="accuracy", gain=1)})
    schedule.update(train={"loss": 1.0, "accuracy": 0.9}, validation={"loss": 1.05, "accuracy": 0.88})
    assert schedule.rates() == pytest.approx({"0": 0.05, "2": 0.02})


def curve(schedule: Schedule, epochs: range) -> list[dict[str, float]]:
    found = []
    for epoch in epochs:
        for _ in range(3):
            found.append(schedule.rates())
            schedule.step()
        schedule.update(train=0.5 / (1 + epoch), validation=0.7)
    return found


def rates_of_both_kinds() -> dict[str, object]:
    return {"0": Gap(0.05, smoothing=0.5, proportional=0.2), "2": Linear(0.5, 0.0, steps=20).then(Gap(0.1), at=7)}


def test_resumed_from_any_epoch_the_curves_are_the_same() -> None:
    whole = curve(Schedule(pair(), rates_of_both_kinds()), range(6))  # type: ignore[arg-type]
    assert len({tuple(row.values()) for row in whole}) > 10
    for killed in range(6):
        first = Schedule(pair(), rates_of_both_kinds())  # type: ignore[arg-type]
        before = curve(first, range(killed))
        saved = json.dumps(first.state_dict())
        second = Schedule(pair(), rates_of_both_kinds())  # type: ignore[arg-type]
        second.load_state_dict(json.loads(saved))
        assert second.rates() == first.rates()
        assert before + curve(second, range(killed, 6)) == whole


def test_state_of_other_controllers_is_refused() -> None:
    saved = Schedule(pair(), {"0": Gap(0.1)}).state_dict()
    other = Schedule(pair(), {"2": Gap(0.1, start=0.3)})
    with pytest.raises(DropkitValueError, match="controllers at '0', but this schedule has them at '2'"):
        other.load_state_dict(saved)
    with pytest.raises(DropkitValueError, match="must hold 'now' and 'controllers'"):
        other.load_state_dict({})
    with pytest.raises(DropkitError, match="step"):
        other.load_state_dict({"now": -1, "controllers": {"2": Gap(0.1).state()}})
    assert other.state_dict() == {"now": 0, "controllers": {"2": Gap(0.1, start=0.3).state()}}


# ---------------------------------------------------------------------------------------------------------------------
# what it refuses


def test_nothing_matched_lists_what_there_is() -> None:
    with pytest.raises(DropkitValueError) as caught:
        Schedule(Net(), {"encoder.*": 0.5})
    names = ", ".join(repr(name) for name in IN_ORDER)
    assert str(caught.value) == f"pattern 'encoder.*' matches no dropout in Net; it has {names}"
    with pytest.raises(DropkitValueError, match="matches no dropout in Linear; it has none"):
        Schedule(nn.Linear(2, 2), 0.5)


def test_a_pattern_that_later_ones_cover_is_refused() -> None:
    with pytest.raises(DropkitValueError, match=r"pattern 'head' has no dropout left: .* put general patterns first"):
        Schedule(Net(), {"head": 0.5, "*": 0.1})


@pytest.mark.parametrize(
    ("rates", "kind", "message"),
    [
        ({}, DropkitValueError, "needs at least one"),
        ({"*": 1.5}, DropkitValueError, "pattern '\\*': p must lie in \\[0, 1\\], got 1.5"),
        ({"*": "0.5"}, DropkitTypeError, "pattern '\\*': "),
        ({"*": lambda step: 0.5}, DropkitTypeError, "wrap it: From"),
        ({"*": [0.1, 0.2]}, DropkitValueError, "2 rates for 7 dropouts"),
        ({0: 0.5}, DropkitTypeError, "pattern must be a str such as 'encoder.*', got 0"),
    ],
)
def test_bad_rates(rates: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Schedule(Net(), rates)  # type: ignore[arg-type]


def test_no_module() -> None:
    with pytest.raises(DropkitTypeError, match=r"needs a torch\.nn\.Module, got dict"):
        Schedule({"*": 0.5}, Net())  # type: ignore[arg-type]


class Leaves:
    """A rate of the user's own, with no check in it."""

    def at(self, step: int) -> float:
        return 0.5 * step


@pytest.mark.parametrize("rate", [From(lambda step: 0.5 * step, name="half"), Leaves()])
def test_a_schedule_that_leaves_the_range_names_step_and_site(rate: From | Leaves) -> None:
    model = pair()
    schedule = Schedule(model, {"0": 0.1, "2": rate})
    schedule.step()
    schedule.step()
    with pytest.raises(DropkitValueError, match=r"dropout '2': .*1\.5|dropout '2': .*step 3") as caught:
        schedule.step()
    assert "step 3" in str(caught.value)
    assert "1.5" in str(caught.value)
    assert schedule.now == 2
    assert model[2].p == 1.0


def test_a_controller_without_a_validation_metric() -> None:
    schedule = Schedule(pair(), {"0": Gap(0.1, start=0.2), "2": Gap(0.1, metric="accuracy")})
    before = schedule.state_dict()
    with pytest.raises(DropkitValueError, match="a Gap controller without a validation metric"):
        schedule.update(train=0.5)
    # The first controller could have moved, and does not.
    with pytest.raises(DropkitValueError, match="a Gap controller without a validation metric"):
        schedule.update(train={"loss": 0.5, "accuracy": 0.5}, validation={"loss": 0.9})
    assert schedule.state_dict() == before
    with pytest.raises(DropkitValueError, match="none of the rates is a controller"):
        Schedule(pair(), 0.5).update(train=0.5, validation=0.6)


# ---------------------------------------------------------------------------------------------------------------------
# the log


class Writer:
    def __init__(self) -> None:
        self.points: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.points.append((tag, scalar_value, global_step))


def test_log_of_a_killed_and_resumed_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    schedule, whole = Schedule(pair(), Early(0.3, 7)), RateLog(tmp_path / "whole.csv")
    rows = []
    for epoch in range(5):
        rows.append(schedule.rates())
        whole.add(epoch, schedule.rates())
        schedule.step()
    first = RateLog(tmp_path / "cut.csv")
    for epoch in range(4):  # the checkpoint is from the end of epoch 1: two rows are too many
        first.add(epoch, rows[epoch] if epoch < 2 else {"0": 0.9, "2": 0.9})
    second = RateLog(tmp_path / "cut.csv")
    for epoch in range(2, 5):
        second.add(epoch, rows[epoch])
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert [{k: v for k, v in row.items() if k != "epoch"} for row in RateLog(tmp_path / "cut.csv").rows] == rows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.csv", "whole.csv"]


def test_log_to_a_writer() -> None:
    writer = Writer()
    RateLog(writer=writer).add(3, {"drop6": 0.5, "drop7": 0.25})
    assert writer.points == [("dropout/drop6", 0.5, 3), ("dropout/drop7", 0.25, 3)]


def test_log_refuses(tmp_path: Path) -> None:
    with pytest.raises(DropkitValueError, match="keeps nothing"):
        RateLog()
    log = RateLog(tmp_path / "rates.csv")
    log.add(0, {"a": 0.5})
    with pytest.raises(DropkitValueError, match="before epoch 1 are of the sites a, and this one of b; use another"):
        log.add(1, {"b": 0.5})
    with pytest.raises(DropkitValueError, match="no rates to log at epoch 1"):
        log.add(1, {})
    log.add(0, {"b": 0.5})  # a new start
    assert RateLog(tmp_path / "rates.csv").rows == [{"epoch": 0, "b": 0.5}]
    (tmp_path / "other.csv").write_text("step,a\n0,0.5\n")
    (tmp_path / "short.csv").write_text("epoch,a\n0\n")
    for name in ("other", "short"):
        with pytest.raises(DataError, match=f"{name}.csv as a log of rates"):
            RateLog(tmp_path / f"{name}.csv")
    with pytest.raises(OutputError, match="cannot write"):
        RateLog(tmp_path / "nowhere" / "rates.csv").add(0, {"a": 0.5})
