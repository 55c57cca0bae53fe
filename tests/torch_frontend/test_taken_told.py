"""What is taken over is told by the module that calls it: by sites, check, explain and the doctor."""

import pytest

import dropkit
import dropkit.torch as dt

from .test_taken import HUGGING, taken

transformers = pytest.importorskip("transformers")
ATTENTION = {
    "Bert": [f"encoder.layer.{layer}.attention.self" for layer in range(2)],
    "Llama": [f"layers.{layer}.self_attn" for layer in range(2)],
}


@pytest.mark.parametrize(("name", "implementation"), [("Bert", "sdpa"), ("Bert", "eager"), ("Llama", "eager")])
def test_calls_are_told_by_the_path_of_their_module(name: str, implementation: str) -> None:
    _, settings, inputs = HUGGING[name]
    config = getattr(transformers, f"{name}Config")(**settings, attn_implementation=implementation)
    plain = getattr(transformers, f"{name}Model")(config).train()
    before = dt.sites(plain, **inputs)
    model = taken(plain, **inputs)
    calls = [f"{path}:scaled_dot_product_attention" for path in ATTENTION[name]]

    found = {site.name: site for site in dt.sites(model, **inputs)}
    assert [name for name in found if ":" in name] == calls
    assert all(found[call].p == 0.1 and found[call].train and found[call].eval is False for call in calls)
    assert all(found[call].mask_shape == (2, 4, 12, 12) for call in calls)
    assert len(found) == len(before)

    report = dt.check(model, **inputs)
    assert report.ok and all(call in str(report) for call in calls) and "reached from outside" not in str(report)

    told = dropkit.explain(model, **inputs)
    assert all(path in str(told) for path in ATTENTION[name])
    assert {site.name for site in told.sites} >= set(calls)
    assert not [finding for finding in dropkit.doctor(model, **inputs) if "generator" in finding.measure]

    clock = model.__dict__["_dropkit_bond"].clock
    assert {f"{path}:attention" for path in ATTENTION[name]} <= {drop.site.name for drop in clock.drops}
