"""What the probe follows in one run, against runs with each site alone, compared bit for bit."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn

from dropkit.probe import explain
from dropkit.probe.torch.measure import Measuring, Run
from dropkit.probe.torch.passes import mean_square
from dropkit.probe.torch.watch import Watch, tensors
from dropkit.torch import sites
from dropkit.torch.finding.intercept import Call, Intercept
from dropkit.torch.finding.inventory import Site
from dropkit.torch.finding.trace import copied, undisturbed
from dropkit.torch.layers import Drawn

from .torch_zoo import ZOO

_MASKS = {"convnext": 4}  # of the others 2; here whole samples go, and seldom


Loss = Callable[[Any], torch.Tensor]


def linear(output: Any) -> torch.Tensor:
    """A loss whose gradient does not know the output."""
    return torch.stack([y.sum() for y in tensors(output)]).sum()


def alone(
    model: nn.Module, inputs: Sequence[Any], loss: Loss, found: Sequence[Site], site: Site | None, seed: int
) -> Run:
    """A run in which this site drops and no other; None is none."""
    off = [other for other in found if site is None or other.name != site.name]
    places = {(other.name.partition(":")[0], other.kind, other.place) for other in off if other.place}

    def answer(call: Call) -> tuple[Any, bool] | None:
        return (call.p, False) if (call.path, call.kind, call.place) in places else None

    measuring = Measuring()
    with ExitStack() as stack:
        stack.enter_context(undisturbed(model, inputs))
        model.train()
        torch.manual_seed(seed)
        for other in off:
            if other.attribute is not None and other.attribute[0] in dict(model.named_modules()):
                setattr(model.get_submodule(other.attribute[0]), other.attribute[1], 0.0)
        for path, module in model.named_modules():
            if isinstance(module, Drawn) and (site is None or path != site.name):
                module.when = "never"
        for name, buffer in model.named_buffers():
            if name.endswith("dropkit_step"):
                buffer.add_(seed)
        stack.enter_context(Intercept(model, answer))
        stack.enter_context(Watch(model, [], [measuring]))
        loss(model(*copied(tuple(inputs)))).backward()
        measuring.differentiated(dict(model.named_parameters()))
    return measuring.run


def differences(off: Run, runs: Sequence[Run]) -> tuple[set[str], set[str]]:
    """Layers whose output, and those whose parameters' gradient, is another in some of these runs."""
    changed: set[str] = set()
    gradients: set[str] = set()
    for on in runs:
        changed |= {path for path in off.outputs if on.outputs[path] != off.outputs[path]}
        names = {*off.gradients, *on.gradients}  # a learned rate gets one only where it is on
        gradients |= {name for name in names if on.gradients.get(name) != off.gradients.get(name)}
    return changed, {name.rpartition(".")[0] for name in gradients}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("loss", [mean_square, linear])
@pytest.mark.filterwarnings("ignore:dropout option adds dropout after all but last")
def test_following_one_run_finds_what_runs_of_each_site_alone_show(name: str, loss: Loss) -> None:
    torch.manual_seed(1)
    model, inputs = ZOO[name]()
    found = sites(model, *inputs)
    explanation = explain(model, *inputs, loss=loss)
    known = {site.name: site for site in found}
    off = alone(model, inputs, loss, found, None, 0)
    for site in explanation.sites:
        other = known.get(site.name, Site(site.name, site.kind, site.p or 0.0))
        seeds = range(_MASKS.get(name, 2) if site.train else 0)
        changed, gradients = differences(off, [alone(model, inputs, loss, found, other, seed) for seed in seeds])
        assert (site.name, set(site.changes)) == (site.name, changed - ({site.name} if other.place is None else set()))
        assert (site.name, set(site.gradients)) == (site.name, gradients)
    assert [site.name for site in explanation.sites if site.train]
