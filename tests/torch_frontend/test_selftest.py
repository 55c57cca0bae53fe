"""`check` passes what is right, fails what is wrong, says what it cannot see, and leaves everything as it was."""

import json
import os
import random
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit.torch as ours
from dropkit.errors import DropkitRuntimeError, DropkitTypeError
from dropkit.torch.finding import trials
from dropkit.torch.finding.selftest import Checked, Report, check

from . import zoo

X = torch.randn(8, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(5)


class Block(nn.Module):
    """A layer called twice, one that writes into its input, all six kinds and a functional call."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 32)
        self.norm = nn.BatchNorm1d(32)
        self.drop, self.inplace, self.alpha = ours.Dropout(0.1), ours.Dropout(0.5, inplace=True), ours.AlphaDropout(0.3)
        self.two, self.three = ours.Dropout2d(0.4), ours.Dropout3d(0.25)
        self.one, self.feature = ours.Dropout1d(0.5), ours.FeatureAlphaDropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(F.relu(self.drop(self.norm(self.up(x)))))  # half of the second input is zero
        self.inplace(x)
        x = F.selu(self.alpha(F.selu(x)))
        x = self.three(self.two(self.one(x[:, :, None])[..., None])[..., None]).flatten(1)
        return ours.functional.dropout(self.feature(x[..., None])[..., 0], 0.2, self.training)


class Redrawn(torch.autograd.Function):
    """A dropout whose backward draws another mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p = p
        return x * torch.empty_like(x).bernoulli_(1 - p) / (1 - p)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * torch.empty_like(grads[0]).bernoulli_(1 - ctx.p) / (1 - ctx.p), None


class BrokenDropout(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return Redrawn.apply(x, self.p) if self.training else x


class Part(nn.Module):
    """A dropout in a part that is recomputed without the generator's state."""

    def __init__(self, drop: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.drop, self.reentrant = drop, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda x: torch.sin(self.drop(x)), x, use_reentrant=self.reentrant, preserve_rng_state=False)


class Attending(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if self.training else 0.0)


def of(report: Report, name: str) -> Checked:
    return next(site for site in report.sites if site.name == name)


@pytest.mark.parametrize("bound", [False, True])
def test_ours_are_well(bound: bool) -> None:
    model: nn.Module = Block()
    if bound:
        with pytest.warns(UserWarning, match=r"the model itself \(dropkit.functional.dropout\)"):
            ours.bind(model, seed=3)
    report = check(model, X)
    assert report.ok, str(report)
    assert len(report.sites) == 8
    for site in report.sites:
        done = {name: result for name, result in site.checks.items() if name != "ranks"}
        assert done == dict.fromkeys(done, "ok"), site.name
        assert site.ranks == "not checked: one process"
    report.raise_for_failures()


@pytest.mark.parametrize("reentrant", [False, True])
def test_torchs_own_fails_without_the_generators_state(reentrant: bool) -> None:
    x = X.clone().requires_grad_()
    report = check(Part(nn.Dropout(0.5), reentrant), x)
    site = of(report, "drop")
    assert site.gradient == "ok"
    assert site.recomputation.startswith("FAILED: forward and recomputation draw other masks, which differ in ")
    assert "and the model checkpoints it with preserve_rng_state=False; dropkit.torch.swap(model)" in site.recomputation
    assert not report.ok
    for bound in (False, True):
        model: nn.Module = Part(ours.Dropout(0.5), reentrant)
        assert check(ours.bind(model) if bound else model, x).ok


class Draws(nn.Module):
    """Recomputed under torch's default, by a generator that torch puts back, or by one that it knows nothing of."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.drop = DropsBy(function)

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda x: torch.sin(self.drop(x)), x, use_reentrant=False)


class DropsBy(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.drop_prob, self.function = 0.5, function

    def forward(self, x: Tensor) -> Tensor:
        return x * self.function(x) if self.training else x


def test_what_a_checkpoint_restores_is_conditional_and_what_it_does_not_fails() -> None:
    """As every model of Hugging Face is built: its checkpoints keep the state of the generator."""
    x = X.clone().requires_grad_()
    for model in (
        Attending(),
        nn.Sequential(nn.Dropout(0.5)),
        Draws(lambda x: torch.bernoulli(torch.full_like(x, 0.5))),
    ):
        report = check(model, x)
        assert report.ok, str(report)
        assert report.sites[0].recomputation.startswith("conditional: right while checkpoints restore the generator")
        assert len(report.conditions) == 1
        report.raise_for_failures()
    own = torch.Generator().manual_seed(0)
    report = check(Draws(lambda x: torch.bernoulli(torch.full_like(x, 0.5), generator=own)), x)
    assert report.sites[0].recomputation.startswith("FAILED: forward and recomputation draw other masks")
    assert report.conditions == []
    with pytest.raises(DropkitRuntimeError, match="drop, recomputation"):
        report.raise_for_failures()


def test_a_site_that_the_model_skips_at_random_is_tried_until_it_runs() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layerdrop = 0.5
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5)) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                if not (self.training and torch.rand([]) < self.layerdrop):
                    x = layer(x)
            return x

    report = check(Skips(), X)
    assert report.ok, str(report)
    found = [site.recomputation.partition(":")[0] for site in report.sites if site.kind == "Dropout"]
    assert found == ["not checked", "conditional", "conditional", "conditional"]  # the look skipped the first


def test_a_backward_that_draws_again_fails() -> None:
    report = check(nn.Sequential(nn.Linear(32, 32), BrokenDropout(0.3)), X)
    assert of(report, "1").gradient.startswith("FAILED: forward and backward draw other masks, which differ in ")
    with pytest.raises(DropkitRuntimeError, match="1, gradient: forward and backward draw other masks"):
        report.raise_for_failures()


def test_attention_that_draws_again_fails() -> None:
    x = X.view(2, 4, 4, 8)
    assert of(check(Attending(), x), ":scaled_dot_product_attention").gradient == "ok"

    def weights(x: Tensor) -> Tensor:
        return F.dropout(torch.softmax(x @ x.mT, -1), 0.3)

    class Attend(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x.detach())
            return weights(x) @ x

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            return weights(*ctx.saved_tensors).mT @ grads[0]

    # torch's kernel cannot be broken from here, so what looks at it is shown a broken one.
    trial = trials.Trial(site := ours.sites(Attending(), x)[0])
    trials._examine_attention(trial, trials._Called(lambda q, k, v: Attend.apply(v), (x, x, x), {}, None))
    assert trial.gradient.verdict(site) == "FAILED: forward and backward draw other masks"


def test_on_in_evaluation_fails() -> None:
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ours.functional.dropout(x, 0.5)

    site = of(check(Always(), X), ":dropout")
    assert site.off_in_eval.startswith("FAILED: it drops in evaluation; pass training=self.training")
    assert site.gradient == site.recomputation == site.on_in_train == "ok"
    made = check(zoo.MadeInside(), X).sites[0].off_in_eval
    assert made.endswith("eval() does not reach it; make it in __init__")
    attention = check(zoo.Attention(gated=False), torch.ones(2, 3, 8)).sites[0].off_in_eval
    assert attention == "FAILED: it drops in evaluation; pass dropout_p=p if self.training else 0.0"
    monte_carlo = check(nn.Sequential(ours.Dropout(0.5, when="always"), ours.Dropout(0.5, when="never")), X)
    assert monte_carlo.ok
    assert monte_carlo.sites[0].off_in_eval == "not checked: when='always' has it drop in any mode"
    assert monte_carlo.sites[1].on_in_train == "not checked: when='never' has it drop in no mode"


def test_modes_that_do_not_agree_fail() -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), ours.Dropout(0.5)) for _ in range(2)))
    model[1].eval()
    report = check(model, X)
    assert of(report, "0.1").on_in_train == "ok"
    stuck = "FAILED: its module is in evaluation mode, the model in training; call model.train()"
    assert of(report, "1.1").on_in_train == stuck
    model.eval()
    model[0].train()
    left = "FAILED: its module is in training mode, the model in evaluation; call model.eval()"
    assert of(check(model, X), "0.1").off_in_eval == left
    assert check(model.eval(), X).ok


def test_what_never_drops_in_training_fails() -> None:
    class Frozen(nn.Sequential):
        def train(self, mode: bool = True) -> "Frozen":
            super().train(False)
            return self

    report = check(nn.Sequential(nn.Linear(32, 32), Frozen(ours.Dropout(0.5))), X)
    dead = "FAILED: it never drops in training, p=0.5; let train() reach the module"
    assert of(report, "1.0").on_in_train == dead
    assert of(report, "1.0").gradient == "not checked: it never drops in training"


def test_the_fast_path_of_an_encoder_fails() -> None:
    model = zoo.CASES["encoder"].make().train()
    with pytest.warns(UserWarning, match="self_attn"):
        ours.swap(model)
    layer = model.get_submodule("layers.0")
    layer.training = False  # its parts go on training
    report = check(model, torch.randn(2, 3, 8))
    assert "fast path skips it under no_grad" in of(report, "layers.0.dropout1").on_in_train
    assert of(report, "layers.0.dropout1").on_in_train.startswith("FAILED")


def test_what_cannot_be_seen_is_not_called_well() -> None:
    report = check(zoo.SelfAttention(), torch.randn(2, 3, 8))
    assert report.sites[0].gradient == "not checked: its mask stays inside a kernel that shows only the result"
    assert report.sites[0].recomputation == (
        "conditional: right while checkpoints restore the generator, as they do by default; "
        "keep preserve_rng_state=True in checkpoints around it"
    )
    for site in check(zoo.Recurrent(), torch.randn(2, 3, 8)).sites[:2]:
        assert site.gradient.startswith("not checked")
        assert site.recomputation.startswith("conditional")
    small = check(nn.Sequential(ours.Dropout(0.01)), torch.ones(1, 1)).sites[0]
    assert small.gradient == "not checked: its masks are too small to tell; pass a larger batch"
    idle = next(site for site in check(zoo.Shared(), X).sites if site.name == "idle")
    assert idle.gradient == idle.on_in_train == "not checked: not reached with these inputs"
    assert check(nn.Sequential(ours.Dropout(0.0)), X).sites[0].gradient == "not checked: p is 0"
    assert check(nn.Sequential(ours.Dropout(1.0)), X).sites[0].gradient == "ok"


@pytest.mark.parametrize("name", zoo.CASES)
def test_every_site_of_the_zoo_has_a_row(name: str) -> None:
    case = zoo.CASES[name]
    model = case.make()
    report = check(model, *case.inputs)
    assert [(site.name, site.kind) for site in report.sites] == [row[:2] for row in case.rows]
    assert not any(site.gradient.startswith("FAILED") for site in report.sites)


def test_the_model_goes_on_with_its_own_numbers() -> None:
    """What comes after a site gets x * keep / (1 - p), whatever the site was given to find the mask."""
    seen: list[Tensor] = []

    class After(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach().clone())
            return x

    check(nn.Sequential(ours.Dropout(0.5), After()), X)
    assert len(seen) >= 4
    for y in seen[:1] + seen[2:]:  # all but the evaluation
        assert torch.equal(y, torch.where(y == 0, 0.0, 2 * X))
        assert 0 < int((y == 0).sum()) < y.numel()


def _state(model: nn.Module) -> Any:
    modes = [module.training for module in model.modules()]
    held = [
        (sorted(vars(module)), len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()
    ]
    tensors = {name: x.clone() for name, x in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    generators = (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    return modes, held, tensors, grads, generators


def _same(before: Any, after: Any) -> None:
    assert before[:2] == after[:2]
    torch.testing.assert_close(after[2], before[2], rtol=0, atol=0)
    torch.testing.assert_close(after[3], before[3], rtol=0, atol=0)
    assert before[4] == after[4]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_changed(fails: bool) -> None:
    class Late(Block):
        forwards = 0

        def forward(self, x: Tensor) -> Tensor:
            Late.forwards += 1
            x = super().forward(x)
            if fails and Late.forwards > 4:  # past two of `sites`, one run and one backward below
                raise ValueError("late")
            return x

    model = ours.bind(Late(), seed=2)
    model(X).sum().backward()
    model.three.eval()
    x = X.clone()
    before = _state(model)
    late = pytest.raises(DropkitRuntimeError, match=r"cannot be run in training mode .*ValueError: late")
    with late if fails else nullcontext():
        check(model, x)
    _same(before, _state(model))
    assert torch.equal(x, X)


def test_without_gradient_and_in_compiled_models() -> None:
    model = Block()
    with torch.no_grad():
        assert check(model, X).ok
        assert not torch.is_grad_enabled()
    assert check(torch.compile(Block(), backend="eager"), X).ok

    class Vectorised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = ours.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(self.drop, randomness="different")(x)

    report = check(Vectorised(), X)
    assert report.sites[0].gradient == "not checked: it runs in inference mode or inside a function transform"


def test_tensors_of_every_kind() -> None:
    channels = nn.Sequential(nn.Conv2d(3, 8, 3), ours.Dropout2d(0.3), nn.ReLU(), ours.Dropout(0.2))
    image = torch.randn(4, 3, 8, 8)
    assert check(channels.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)).ok
    with torch.autocast("cpu", torch.bfloat16):
        assert check(channels, image).ok
    assert check(channels.bfloat16(), image.bfloat16()).ok
    odd = X.clone()
    odd[0], odd[1], odd[2] = torch.nan, torch.inf, 0.0
    jagged = torch.nested.nested_tensor([X[:5], X[5:]], layout=torch.jagged)
    for x in (odd, jagged, X.double(), X.T):
        site = check(nn.Sequential(ours.Dropout(0.3)), x).sites[0]
        assert site.gradient == site.recomputation == "ok"
        if x is not jagged:  # which has no bernoulli_
            assert check(nn.Sequential(BrokenDropout(0.3)), x).sites[0].gradient.startswith("FAILED")


def test_report_reads_well() -> None:
    report = check(nn.Sequential(nn.Dropout(0.5), ours.Dropout(0.5)), X)
    lines = str(report).splitlines()
    assert lines[0].split() == ["site", "kind", "p", *report.sites[0].checks]
    assert lines[1].split() == ["0", "Dropout", "0.5", "ok", "if", "-", "ok", "ok"]
    assert lines[2].split() == ["1", "Dropout", "0.5", "ok", "ok", "-", "ok", "ok"]
    assert "ranks not checked: one process (0, 1)" in lines
    (condition,) = report.conditions
    assert condition.startswith("0, recomputation: right while checkpoints restore the generator")
    assert "recomputation conditional: right while checkpoints restore the generator, as they do by default" in str(
        report
    )
    assert lines[-1] == "2 sites, nothing failed"
    assert str(check(Part(nn.Dropout(0.5)), X.clone().requires_grad_())).splitlines()[-1] == "1 site, 1 failed"
    assert lines[0].index("kind") == lines[1].index("Dropout")
    assert str(check(nn.Linear(32, 32), X)).splitlines()[-1] == "no dropout was found"
    with pytest.raises(DropkitTypeError, match=r"check needs a torch\.nn\.Module, got int"):
        check(3, X)


# Several processes


def _on_this_rank(rank: int, folder: str) -> dict[str, str]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    from torch.nn.parallel import DistributedDataParallel

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    warnings.simplefilter("ignore")
    torch.manual_seed(0)

    def bound(seed: int = 0, **more: Any) -> nn.Module:
        return ours.bind(nn.Sequential(nn.Linear(32, 32), ours.Dropout(0.5)), seed=seed, **more)

    drop = nn.Sequential(ours.Dropout(0.5))
    wrapped = DistributedDataParallel(bound())
    found = {
        "whole": check(bound(data_parallel=False), torch.ones(8, 32)),
        "seeds": check(ours.bind(nn.Sequential(ours.Dropout(0.5)), seed=rank, data_parallel=False), X),
        "ddp": check(wrapped, X),
        "ambient": check(drop, X),
        "replicated": check(ours.bind(drop, seed=1), distribute_tensor(X, mesh, [Replicate()])),
        "sharded": check(drop, distribute_tensor(X, mesh, [Shard(1)])),
        "torch, replicated": check(nn.Sequential(nn.Dropout(0.5)), distribute_tensor(X, mesh, [Replicate()])),
    }
    results = {name: report.sites[0].ranks for name, report in found.items()}
    results["well"] = str([name for name, report in found.items() if "FAILED" in report.sites[0].gradient])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return results


@pytest.mark.slow
def test_ranks(tmp_path: Path) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "tests.torch_frontend.test_selftest"]
    runs = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment, cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]  # fmt: skip
    ends = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], ends
    first, second = (json.loads(output) for output, _ in ends)
    assert first == second  # every rank reports the same
    assert first["well"] == "[]"
    assert first["whole"] == first["replicated"] == "ok"
    assert first["seeds"].startswith("FAILED: ranks 0 and 1 hold the same part of a tensor and draw other masks for it")
    assert first["ddp"] == first["sharded"] == "not checked: no two ranks hold the same part"
    assert first["ambient"] == "not checked: its masks are not keyed"


if __name__ == "__main__":
    print(json.dumps(_on_this_rank(int(sys.argv[1]), sys.argv[2])), flush=True)
    os._exit(0)  # threads of gloo may outlive the group, and then end the interpreter with an error
