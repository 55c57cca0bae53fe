"""Every dropout site of real architectures, counted by hand, and none invented."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from dropkit.lab.recipes.mlp import FIXED, MLP
from dropkit.probe import Explanation, explain

from .torch_zoo import ConvNeXt, encoder

IDS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]])
SDPA = "scaled_dot_product_attention"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    yield


def rates(explanation: Explanation) -> dict[str, float | None]:
    return {site.name: site.p for site in explanation.sites}


def all_on_in_train_only(explanation: Explanation) -> bool:
    return all(site.train and site.eval is False for site in explanation.sites)


def test_mlp_recipe() -> None:
    model = MLP.build(MLP.settings("tiny", "digits"), (8, 8), 10, 0)
    for name, p in FIXED.items():
        model.get_submodule(name).p = p
    explanation = explain(model, torch.randn(16, 8, 8))
    # two hidden layers, a dropout after each
    assert rates(explanation) == {"dropout1": 0.2, "dropout2": 0.5}
    first, second = explanation.sites
    assert (first.zeroes, second.zeroes) == (("hidden1",), ("hidden2",))
    assert first.changes == ("", "hidden2", "relu2", "dropout2", "output")
    assert second.changes == ("", "output")
    assert first.gradients == second.gradients == ("hidden1", "hidden2", "output")
    assert (first.follows, first.mask_shape) == ("relu", (16, 256))


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder(norm_first: bool) -> None:
    model, inputs = encoder(norm_first)
    explanation = explain(model, *inputs)
    # per layer: attention weights, after attention, between the linear layers, after them
    parts = ("self_attn", "dropout1", "dropout", "dropout2")
    assert rates(explanation) == {f"layers.{n}.{part}": 0.2 for n in range(2) for part in parts}
    assert all_on_in_train_only(explanation)
    zeroes = {site.name: site.zeroes for site in explanation.sites}
    for n in range(2):
        assert [zeroes[f"layers.{n}.{part}"] for part in parts] == [
            (), (f"layers.{n}.self_attn",), (f"layers.{n}.linear1",), (f"layers.{n}.linear2",)
        ]  # fmt: skip
    # the last one: the norm behind it where there is one, and the blocks around it
    assert explanation.sites[-1].changes == (("", "layers.1") if norm_first else ("", "layers.1", "layers.1.norm2"))
    assert len(explanation.sites[-1].gradients) == 2 * 6  # attention and its projection, two linear layers, two norms


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, classifier_dropout=0.3,
        attn_implementation=attention,
    )  # fmt: skip
    explanation = explain(transformers.BertForSequenceClassification(config), IDS)
    # embeddings; per layer the attention's weights, its output's, and the output's; the classifier's
    function = SDPA if attention == "sdpa" else "dropout"
    expected = {"bert.embeddings.dropout": 0.1, "dropout": 0.3}
    for n in range(2):
        layer = f"bert.encoder.layer.{n}"
        expected |= {f"{layer}.attention.self:{function}": 0.2}
        expected |= {f"{layer}.attention.output.dropout": 0.1, f"{layer}.output.dropout": 0.1}
    assert rates(explanation) == expected
    assert all_on_in_train_only(explanation)
    assert Counter(site.target for site in explanation.sites) == {"output": 6, "attention weights": 2}
    # each attention module has a dropout layer that lends its rate to a function and never runs
    assert len(explanation.notes) == 2
    last = explanation.site("dropout")
    assert (last.zeroes, last.changes, last.follows) == (("bert.pooler.dense",), ("", "classifier"), "tanh")
    assert explanation.site("bert.embeddings.dropout").zeroes == ("bert.embeddings.LayerNorm",)
    first = explanation.layer("bert.encoder.layer.0.attention.self.query")
    assert first.inputs == ("bert.embeddings.dropout",)
    assert explanation.layer("bert.encoder.layer.0.attention.output.dense").inputs == tuple(
        f"bert.encoder.layer.0.attention.self.{name}" for name in ("query", "key", "value")
    )


@pytest.mark.parametrize("how", ["sdpa", "eager", "checkpointed"])
def test_gpt2(how: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2, embd_pdrop=0.1, attn_pdrop=0.2, resid_pdrop=0.3,
        bos_token_id=0, eos_token_id=0, use_cache=False, attn_implementation="eager" if how == "eager" else "sdpa",
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    if how == "checkpointed":
        model.activation_checkpointing_enable()
    explanation = explain(model, IDS)
    # embeddings; per block the attention's weights, its output, and the output of the linear layers
    function = "dropout" if how == "eager" else SDPA
    expected = {"transformer.drop": 0.1}
    for n in range(2):
        block = f"transformer.h.{n}"
        expected |= {f"{block}.attn:{function}": 0.2, f"{block}.attn.resid_dropout": 0.3, f"{block}.mlp.dropout": 0.3}
    assert rates(explanation) == expected
    assert list(rates(explanation)) == list(expected)  # in order of execution
    assert all_on_in_train_only(explanation)
    assert explanation.site("transformer.drop").zeroes == ("transformer.wte", "transformer.wpe")
    assert explanation.site("transformer.h.1.mlp.dropout").zeroes == ("transformer.h.1.mlp.c_proj",)
    assert not any(site.gradient_check.startswith("FAILED") for site in explanation.sites)
    # residual: the embeddings' dropout is an input of every norm further on
    assert explanation.layer("transformer.ln_f").inputs == (
        "transformer.drop", "transformer.h.0.attn.resid_dropout", "transformer.h.0.mlp.dropout",
        "transformer.h.1.attn.resid_dropout", "transformer.h.1.mlp.dropout",
    )  # fmt: skip


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_vit(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, attn_implementation=attention,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    explanation = explain(model, torch.randn(3, 3, 8, 8))
    # embeddings; per layer the attention's weights, and one dropout layer for the outputs of both halves
    function = SDPA if attention == "sdpa" else "dropout"
    expected = {"vit.embeddings.dropout": 0.1}
    for n in range(2):
        expected |= {f"vit.layers.{n}.attention:{function}": 0.2, f"vit.layers.{n}.dropout": 0.1}
    assert rates(explanation) == expected
    assert all_on_in_train_only(explanation)
    # position embeddings and class token are added and joined; what they are added to is zeroed with them
    assert explanation.site("vit.embeddings.dropout").zeroes == ("vit.embeddings.patch_embeddings.projection",)
    shared = explanation.layer("vit.layers.1.dropout")
    assert shared.calls == 2
    assert shared.inputs == ("vit.layers.1.attention.o_proj", "vit.layers.1.mlp.fc2")
    assert explanation.layer("vit.embeddings").gradient == "changed"


def test_convnext_with_stochastic_depth() -> None:
    explanation = explain(ConvNeXt(), torch.randn(8, 3, 8, 8))
    # four blocks with rates 0, 0.1, 0.2, 0.3, of which the first has no DropPath at all
    assert rates(explanation) == {
        "stages.0.1.drop_path": 0.1, "stages.1.0.drop_path": 0.2, "stages.1.1.drop_path": 0.3,
    }  # fmt: skip
    assert all_on_in_train_only(explanation)
    for site in explanation.sites:
        block = site.name.removesuffix(".drop_path")
        assert (site.kind, site.mask_shape, site.zeroes) == ("DropPath", (8, 1, 1, 1), (f"{block}.pwconv2",))
        assert len(site.gradients) == 4 * 5 + 4  # per block four layers and its own scale; stem, down, norm, head
    assert explanation.sites[-1].changes == ("", "stages.1", "stages.1.1", "norm", "head")
    assert not explanation.layer("stages.0.0").changed_by


def test_large_models_take_as_many_passes() -> None:
    layers: list[nn.Module] = []
    for _ in range(60):
        layers += [nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.1)]
    explanation = explain(nn.Sequential(*layers), torch.randn(8, 16))
    assert (len(explanation.sites), explanation.forwards, explanation.backwards) == (60, 9, 2)


def test_it_is_plain_values() -> None:
    model, inputs = encoder()
    assert json.loads(json.dumps(explain(model, *inputs).to_dict()))["sites"][0]["p"] == 0.2
