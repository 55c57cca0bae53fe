"""Hugging Face's eager attention runs by its own interface: without weights, by the mask of its site."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import dropkit
import dropkit.torch as dt
from dropkit import Key
from dropkit.torch import eager

from .architectures import snapshot
from .test_taken import HUGGING, IDS, SMALL, taken

transformers = pytest.importorskip("transformers")
GROUPED = {**SMALL, "attention_dropout": 0.1, "num_key_value_heads": 2}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **{name: (settings, inputs) for name, (_, settings, inputs) in HUGGING.items()},
    "Mistral": ({**GROUPED, "sliding_window": 4}, {"input_ids": IDS}),
    "GPTNeoX": ({**SMALL, "attention_dropout": 0.1, "hidden_dropout": 0.1}, {"input_ids": IDS}),
}
STORING: dict[str, dict[str, Any]] = {
    "Gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 4},  # a soft cap
    "GptOss": {**GROUPED, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},  # sinks
}
PADDED = torch.ones(2, 12, dtype=torch.long)
PADDED[0, :4] = 0  # the first queries of a causal model see nothing


def made(name: str, implementation: str = "eager") -> nn.Module:
    torch.manual_seed(0)
    settings = MODELS[name][0] if name in MODELS else STORING[name]
    config = getattr(transformers, f"{name}Config")(**settings, attn_implementation=implementation)
    return getattr(transformers, f"{name}Model")(config).train()  # type: ignore[no-any-return]


def run(model: nn.Module, step: int = 3, **inputs: Any) -> Any:
    with dt.at(step=step):
        return model(**inputs)


def largest(model: nn.Module, **inputs: Any) -> int:
    """Elements of the largest tensor of four axes that is saved for backward, which weights are."""
    sizes = [0]
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.append(x.numel() if x.dim() == 4 else 0) or x, lambda x: x
    ):
        model(**inputs)
    return max(sizes)


@pytest.mark.parametrize("name", MODELS)
def test_no_weights_are_made_and_those_asked_for_have_the_same_mask(name: str) -> None:
    inputs = MODELS[name][1]
    model = taken(made(name), **inputs)
    first, asked = run(model, **inputs), run(model, **inputs, output_attentions=True)
    torch.testing.assert_close(asked[0], first[0], rtol=1e-4, atol=1e-5)
    weights = asked.encoder_attentions if "encoder_attentions" in asked else asked.attentions
    assert 0 < (weights[0] == 0).float().mean() < 0.8
    assert first.get("attentions") is None and first.get("encoder_attentions") is None


@pytest.mark.parametrize("name", MODELS)
def test_in_evaluation_and_back_again_it_is_what_it_was(name: str) -> None:
    inputs, model = MODELS[name][1], made(name)
    before, wanted = snapshot(model), model.eval()(**inputs)[0]
    model.train()
    torch.manual_seed(3)
    drawn = model(**inputs)[0]
    configs = {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}
    with dt.swap(model, **inputs):
        assert "dropkit" in {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}
        torch.testing.assert_close(model.eval()(**inputs)[0], wanted, rtol=1e-4, atol=1e-5)
        model.train()
    assert configs == {module.config._attn_implementation for module in model.modules() if hasattr(module, "config")}
    assert snapshot(model) == before
    torch.manual_seed(3)
    assert torch.equal(model(**inputs)[0], drawn) and torch.equal(model.eval()(**inputs)[0], wanted)


def test_the_mask_is_that_of_global_coordinates() -> None:
    model: Any = taken(made("Llama"), input_ids=IDS)
    weights = run(model, input_ids=IDS, output_attentions=True).attentions
    for layer in range(2):
        key = Key(1, f"layers.{layer}.self_attn:attention", 3)
        keep = torch.from_numpy(dropkit.keep((2, 4, 12, 12), 0.1, key).copy())
        assert torch.equal(weights[layer] != 0, keep & torch.ones(12, 12, dtype=torch.bool).tril())


@pytest.mark.parametrize("name", ["Llama", "Bert", "GPT2"])
def test_padding_hides_what_it_hid(name: str) -> None:
    model, inputs = made(name), {"input_ids": IDS, "attention_mask": PADDED}
    wanted = model.eval()(**inputs)[0]
    taken(model, input_ids=IDS)
    torch.testing.assert_close(model.eval()(**inputs)[0], wanted, rtol=1e-4, atol=1e-5)
    model.train()
    found, stored = run(model, **inputs)[0], run(model, **inputs, output_attentions=True)[0]
    torch.testing.assert_close(found, stored, rtol=1e-4, atol=1e-5)


def test_nothing_of_the_size_of_weights_is_kept() -> None:
    ids = torch.randint(0, 50, (1, 600))  # more than 2^20 weights, which one block would keep
    config = transformers.BertConfig(**SMALL, max_position_embeddings=600, attn_implementation="eager")
    model = transformers.BertModel(config).train()
    assert largest(model, input_ids=ids) == 4 * 600 * 600
    taken(model, input_ids=IDS)
    assert largest(model, input_ids=ids) < 600 * 600


@pytest.mark.parametrize("name", STORING)
def test_what_computes_more_than_a_softmax_is_named_and_keyed(name: str) -> None:
    model = made(name)
    receipt = dt.swap(model, input_ids=IDS)
    assert "eager function stays, which stores its weights: it computes more than the softmax" in str(receipt)
    dt.bind(model, seed=1)
    state = torch.get_rng_state()
    assert torch.equal(run(model, input_ids=IDS)[0], run(model, input_ids=IDS)[0])
    assert torch.equal(torch.get_rng_state(), state) and dt.check(model, input_ids=IDS).ok


def test_other_implementations_may_be_set_before_and_after() -> None:
    model: Any = taken(made("Bert"), input_ids=IDS)
    wanted = run(model, input_ids=IDS)[0]
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(run(model, input_ids=IDS)[0], wanted)
    model.set_attn_implementation("eager")
    assert torch.equal(run(model, input_ids=IDS)[0], run(model, input_ids=IDS)[0])  # keyed, by another site
    model.set_attn_implementation("dropkit")
    assert torch.equal(run(model, input_ids=IDS)[0], wanted)

    model = made("Bert", "sdpa")
    plain = model.eval()(IDS)[0]
    model.set_attn_implementation("dropkit")  # nobody has taken it over: what it was with "eager"
    torch.testing.assert_close(model(IDS)[0], plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(taken(model, input_ids=IDS), input_ids=IDS)[0], wanted)


def test_copies_pickles_and_files_go_their_own_way(tmp_path: Any) -> None:
    model: Any = taken(made("Bert"), input_ids=IDS)
    wanted = run(model, input_ids=IDS)[0]
    data = pickle.dumps(model)
    transformers.AttentionInterface._global_mapping.pop(eager.NAME)  # as in another process
    for other in (pickle.loads(data), copy.deepcopy(model)):
        assert torch.equal(run(other, input_ids=IDS)[0], wanted)
    model.save_pretrained(tmp_path)
    assert "dropkit" not in (tmp_path / "config.json").read_text()
    again = transformers.BertModel.from_pretrained(tmp_path, attn_implementation="eager")
    torch.testing.assert_close(again(IDS)[0], model.eval()(IDS)[0], rtol=1e-4, atol=1e-5)


def test_switches_reach_it() -> None:
    model: Any = taken(made("Llama"), input_ids=IDS)
    with dt.disabled(model):
        off = model(IDS)[0]
    model.eval()
    torch.testing.assert_close(model(IDS)[0], off, rtol=1e-4, atol=1e-5)
    with dt.enabled(model, "*.self_attn"):
        assert not torch.allclose(model(IDS)[0], off)


def test_compiled_and_checkpointed_it_is_the_same() -> None:
    model: Any = taken(made("Llama"), input_ids=IDS, use_cache=False)
    inputs = {"input_ids": IDS, "use_cache": False}
    wanted = run(model, **inputs)[0]
    torch._dynamo.reset()  # hooks of the clock are compiled for a few classes of models at most
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute")
        torch.testing.assert_close(run(compiled, **inputs)[0], wanted, rtol=1e-4, atol=1e-5)
    wanted.sum().backward()
    grads = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": False})
    run(model, **inputs)[0].sum().backward()
    assert all(torch.equal(weight.grad, grad) for weight, grad in zip(model.parameters(), grads, strict=True))


def test_a_function_that_heeds_more_is_found_out() -> None:
    from transformers.models.bert.modeling_bert import eager_attention_forward

    q, k = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    assert eager.plain(eager_attention_forward, nn.Identity(), q, k, scaling=0.5, dropout=0.1)

    def capped(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        scores = 50 * ((query @ key.transpose(2, 3)) * 0.5 / 50).tanh() + mask
        return ((scores.softmax(-1)) @ value).transpose(1, 2), None

    def sunk(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        scores = (query @ key.transpose(2, 3)) * 0.5 + mask
        scores = torch.cat([scores, torch.full_like(scores[..., :1], -3.0)], -1)
        return ((scores.softmax(-1))[..., :-1] @ value).transpose(1, 2), None

    def deaf(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
        return (((query @ key.transpose(2, 3)) * 0.5).softmax(-1) @ value).transpose(1, 2), None

    for function in (capped, sunk, deaf):
        assert not eager.plain(function, nn.Identity(), q, k, scaling=0.5), function.__name__


def test_an_older_layout_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(transformers.masking_utils, "AttentionMaskInterface")
    model = made("Bert")
    assert f"transformers {transformers.__version__} lets no attention" in str(dt.swap(model, input_ids=IDS))
    assert model.config._attn_implementation == "eager"
