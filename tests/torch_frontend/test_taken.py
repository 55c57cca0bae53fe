"""swap(model, x) takes over what a model calls: after bind no draw is left on torch's generator, whatever the form."""

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dropkit
import dropkit.torch as dt
from dropkit import DropkitError, Key

from . import zoo
from .architectures import snapshot

BATCH, LENGTH, WIDTH = 3, 5, 8
X = torch.randn(BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections")
        yield


class MultiHead(nn.Module):
    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.3, batch_first=True, **how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Weighted(MultiHead):
    """Which returns its weights, so that torch takes another way through it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM, **how: Any) -> None:
        super().__init__()
        self.layers = kind(WIDTH, 6, 3, dropout=0.4, batch_first=True, **how)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)[0]


class Packed(Recurrent):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [5, 3, 2], batch_first=True)
        return self.layers(packed)[0].data


class Functional(nn.Module):
    """Calls in several forms, one of them in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.p = nn.Linear(WIDTH, WIDTH), 0.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = F.dropout(self.linear(x), self.p, self.training)
        x = torch.dropout(x, 0.2, self.training)
        x = F.dropout1d(x, 0.2, self.training) + F.alpha_dropout(x, 0.1, training=self.training)
        return F.scaled_dot_product_attention(x, x, x, dropout_p=self.p if self.training else 0.0)


def decoder() -> nn.Module:
    return zoo_like(nn.TransformerDecoderLayer(WIDTH, 2, 16, dropout=0.3, batch_first=True))


def zoo_like(layer: nn.Module) -> nn.Module:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x, x)

    return Twice()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "multi-head": MultiHead,
    "multi-head with weights": Weighted,
    "multi-head with zero attention": lambda: Weighted(add_zero_attn=True, add_bias_kv=True),
    "encoder": lambda: nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.3, batch_first=True),
    "decoder": decoder,
    "lstm": Recurrent,
    "lstm both ways": lambda: Recurrent(bidirectional=True, proj_size=3),
    "gru": lambda: Recurrent(nn.GRU),
    "rnn": lambda: Recurrent(nn.RNN, nonlinearity="relu"),
    "packed": Packed,
    "functions": Functional,
}


def taken(model: nn.Module, *inputs: Any, **kwargs: Any) -> nn.Module:
    """Taken over and bound, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="LSTM with projections")
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")  # of nested checkpoints
        dt.swap(model.train(), *inputs, **kwargs)
        return dt.bind(model, seed=1)


def at_step(model: nn.Module, step: int, x: Any = X) -> torch.Tensor:
    with dt.at(step=step):
        return model(x)


@pytest.mark.parametrize("name", MODELS)
def test_two_forwards_of_a_step_are_one_and_the_generator_rests(name: str) -> None:
    model = taken(MODELS[name](), X)
    before = torch.get_rng_state()
    first, second, third = at_step(model, 0), at_step(model, 0), at_step(model, 1)
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert torch.equal(model(X), first) and torch.equal(model(X), third)  # counted by the clock
    assert torch.equal(torch.get_rng_state(), before)
    report = dt.check(model, X)
    assert report.ok and "reached from outside" not in str(report)


def test_check_sees_that_a_recomputation_draws_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = taken(Functional(), X)
    monkeypatch.setattr(dt.drawing.recomputation, "draw", lambda fresh, stated: fresh())  # nothing is remembered
    report = dt.check(model, X)
    assert not report.ok and ":scaled_dot_product_attention" in str(report.failures)


@pytest.mark.parametrize("name", MODELS)
def test_copies_and_pickles_draw_alike_and_go_their_own_way(name: str) -> None:
    if name == "decoder":
        pytest.skip("a class of a function is not pickled")
    model = taken(MODELS[name](), X)
    wanted = at_step(model, 3)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(at_step(other, 3), wanted)
        for weight in other.parameters():
            torch.nn.init.zeros_(weight)
        assert not torch.equal(at_step(other, 3), wanted)
    assert torch.equal(at_step(model, 3), wanted)


@pytest.mark.parametrize("name", MODELS)
def test_off_and_on_reach_what_is_taken(name: str) -> None:
    model = taken(MODELS[name](), X)
    model.eval()
    plain = model(X)
    with dt.enabled(model):
        assert not torch.allclose(model(X), plain)
    model.train()
    with dt.disabled(model):
        torch.testing.assert_close(model(X), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_everything_comes_back(name: str) -> None:
    model = MODELS[name]().train()
    before, keys = snapshot(model), list(model.state_dict())
    torch.manual_seed(3)
    wanted = model(X)
    receipt = dt.swap(model, X)
    assert list(model.state_dict()) == keys
    receipt.restore()
    assert snapshot(model) == before
    torch.manual_seed(3)
    assert torch.equal(model(X), wanted)


def test_evaluation_and_rate_zero_are_torchs_to_rounding() -> None:
    for name, make in MODELS.items():
        model = make()
        wanted = model.eval()(X)
        found = taken(model, X).eval()(X)
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6), name


def test_an_lstm_is_its_layers_with_a_dropout_between() -> None:
    model = taken(Recurrent(), X)
    lstm: Any = model.layers
    parts = [nn.LSTM(6 if n else WIDTH, 6, batch_first=True) for n in range(3)]
    for n, part in enumerate(parts):
        part.load_state_dict(
            {key[:-1] + "0": value for key, value in lstm.state_dict().items() if key.endswith(str(n))}
        )
    x = X
    for n, part in enumerate(parts):
        if n:
            site = "layers:layers" + ("#1" if n == 2 else "")
            x = dt.dropout(x, 0.4, training=True, key=Key(1, site, 5))
        x = part(x)[0]
    torch.testing.assert_close(at_step(model, 5), x)
    y, (h, c) = lstm(X)
    assert h.shape == c.shape == (3, BATCH, 6) and torch.equal(h[2], y[:, -1])


def test_multi_head_attention_drops_by_the_mask_of_global_coordinates() -> None:
    model = taken(MultiHead(), X)
    attention: Any = model.attention
    q, k, v = F.linear(X, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (2, WIDTH // 2)).transpose(1, 2) for part in (q, k, v))
    keep = torch.from_numpy(dropkit.keep((BATCH, 2, LENGTH, LENGTH), 0.3, Key(1, "attention:attention", 4)).copy())
    weights = (q @ k.transpose(-1, -2) / 2).softmax(-1) * keep / (1 - 0.3)
    wanted = attention.out_proj((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(at_step(model, 4), wanted, rtol=1e-4, atol=1e-5)


def test_sites_are_named_by_path_and_function() -> None:
    model = taken(nn.Sequential(Functional(), MultiHead()), X)
    clock: Any = model.__dict__["_dropkit_bond"].clock
    names = {drop.site.name for drop in clock.drops}
    assert {"0:dropout", "0:attention", "1.attention:dropout", "1.attention:attention"} == names
    assert [site.name for site in dt.sites(model, X)][:2] == ["0:dropout", "0:dropout#1"]


def test_checkpointing_changes_nothing() -> None:
    class Around(nn.Module):
        def __init__(self, part: nn.Module, again: bool) -> None:
            super().__init__()
            self.part, self.again = part, again

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.part, x, use_reentrant=False) if self.again else self.part(x)

    for name in ("multi-head", "lstm", "functions", "encoder"):
        part = MODELS[name]()
        grads = []
        for again in (False, True):
            model = taken(Around(copy.deepcopy(part), again), X)
            x = X.clone().requires_grad_()
            at_step(model, 2, x).square().sum().backward()
            grads.append(x.grad)
        assert torch.equal(*grads), name  # type: ignore[misc]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_inside_a_forward_that_calls_changes_nothing(reentrant: bool) -> None:
    """What is run again is a part of a module's forward, which by then is not running."""

    class Within(nn.Module):
        def __init__(self, again: int) -> None:
            super().__init__()
            self.again, self.inner, self.linear = again, Functional(), nn.Linear(WIDTH, WIDTH)

        def part(self, x: torch.Tensor) -> torch.Tensor:
            x = F.dropout(self.linear(F.dropout(self.inner(x), 0.3, self.training)), 0.2, self.training)
            return self.run(self.deep, x, self.again > 1)

        def deep(self, x: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(self.inner(x), x, x, dropout_p=0.2 if self.training else 0.0)

        def run(self, part: Any, x: torch.Tensor, again: bool) -> torch.Tensor:
            return checkpoint(part, x, use_reentrant=reentrant) if again else part(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(self.run(self.part, x, self.again > 0), 0.2, self.training)

    grads = []
    for again in (0, 1, 2):
        torch.manual_seed(0)
        x = X.clone().requires_grad_()
        model = taken(nn.Sequential(Within(again)), x)
        before = torch.get_rng_state()
        at_step(model, 2, x).square().sum().backward()
        assert torch.equal(torch.get_rng_state(), before)
        grads.append([x.grad, *(weight.grad for weight in model.parameters())])
    for other in grads[1:]:
        torch.testing.assert_close(other, grads[0], rtol=1e-4, atol=1e-5)  # added up in another order


@pytest.mark.parametrize("name", ["multi-head", "encoder", "functions"])
def test_compiled_it_draws_the_same(name: str) -> None:
    model = taken(MODELS[name](), X)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for step in (0, 1):
        with dt.at(step=step), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The .grad attribute")  # the compiler looks at what comes out
            found = compiled(X)
        torch.testing.assert_close(found, at_step(model, step), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["multi-head", "multi-head with weights", "encoder", "decoder", "functions"])
def test_compiled_inside_enabled_it_draws_by_its_sites(name: str) -> None:
    model = taken(MODELS[name](), X).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    plain = model(X)
    before = torch.get_rng_state()
    with dt.enabled(model), dt.at(step=2), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute")
        found, wanted = compiled(X), model(X)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert not torch.equal(wanted, plain) and torch.equal(torch.get_rng_state(), before)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The .grad attribute")
        torch.testing.assert_close(compiled(X), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in zoo.CASES if name not in ("ours", "nothing", "sampling")])
def test_no_form_of_dropout_is_left_on_the_generator(name: str) -> None:
    case = zoo.CASES[name]
    if name == "attention without dropout":
        with pytest.raises(DropkitError, match="no dropout"):
            dt.swap(case.make(), *case.inputs)
        return
    model = taken(case.make(), *case.inputs)
    before = torch.get_rng_state()
    with dt.at(step=1):
        first, second = (torch.utils._pytree.tree_leaves(model(*case.inputs))[0] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)


def test_modules_in_one_another_share_one_mode_and_each_draws_by_its_own_sites() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.depths = Functional(), []  # type: ignore[var-annotated]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.depths.append(torch._C._len_torch_function_stack())
            return F.dropout(self.inner(F.dropout(x, 0.2, self.training)), 0.2, self.training)

    model = taken(Around(), X)
    inner = model.inner.forward
    model.depths.clear()
    found: list[int] = []
    model.inner.forward = lambda x: (found.append(torch._C._len_torch_function_stack()), inner(x))[1]  # type: ignore
    first, second = at_step(model, 1), at_step(model, 1)
    assert torch.equal(first, second) and found == model.depths
    y = dt.dropout(X, 0.2, training=True, key=Key(1, ":dropout", 1))
    heard: list[torch.Tensor] = []
    model.inner.linear.register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    at_step(model, 1)
    assert torch.equal(heard[0], y)
    with pytest.raises(RuntimeError, match=r"must match|invalid|shapes cannot"):  # which leaves nothing behind
        model(torch.ones(2, 3))
    assert torch.equal(at_step(model, 1), first)


def test_a_forward_that_somebody_replaced_is_kept() -> None:
    model = Functional().train()
    calls: list[int] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return Functional.forward(model, x)

    model.forward = forward  # type: ignore[method-assign]
    receipt = dt.swap(model, X)
    calls.clear()
    model(X)
    receipt.restore()
    assert calls == [1] and model.forward is forward


def test_what_fails_says_so_and_changes_nothing() -> None:
    model = Functional()
    before = snapshot(model)
    with pytest.raises(DropkitError, match="cannot be run"):
        dt.swap(model, torch.ones(2, 3))
    assert snapshot(model) == before
    with pytest.raises(DropkitError, match=r"already|no dropout"):
        dt.swap(model, X)
        dt.swap(model, X)


# ---------------------------------------------------------------------------------------------------------------------
# models of transformers, from configurations

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 60}
IDS = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))
SPEECH = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in
          (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
HUGGING: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Bert": ("Model", SMALL, {"input_ids": IDS}),
    "GPT2": ("Model", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60}, {"input_ids": IDS}),
    "ViT": (
        "Model",
        {**SMALL, "image_size": 32, "patch_size": 8, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
        {"pixel_values": torch.ones(2, 3, 32, 32)},
    ),
    "T5": (
        "Model",
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 60},
        {"input_ids": IDS, "decoder_input_ids": IDS},
    ),
    "Llama": ("Model", {**SMALL, "attention_dropout": 0.1, "num_key_value_heads": 2}, {"input_ids": IDS}),
    "Whisper": (
        "Model",
        {
            **SPEECH, "d_model": 32, "vocab_size": 60, "num_mel_bins": 8, "max_source_positions": 16, "dropout": 0.1,
            "max_target_positions": 16, "attention_dropout": 0.1, "activation_dropout": 0.1, "pad_token_id": 0,
            "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "encoder_layerdrop": 0.1,
        },
        {"input_features": torch.ones(2, 8, 32), "decoder_input_ids": IDS},
    ),
    "Wav2Vec2": (
        "Model",
        {
            **SMALL, "conv_dim": (16, 16), "conv_kernel": (4, 4), "conv_stride": (2, 2), "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0,
        },
        {"input_values": torch.sin(torch.arange(400.0)).reshape(2, 200)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", HUGGING)
def test_models_of_hugging_face_are_repeatable(name: str, attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    kind, settings, inputs = HUGGING[name]
    config = getattr(transformers, f"{name}Config")(**settings, attn_implementation=attention)
    model = taken(getattr(transformers, f"{name}{kind}")(config), **inputs)
    before = torch.get_rng_state()
    with dt.at(step=3):
        first, second = (model(**inputs)[0] for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, model(**inputs)[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", HUGGING)
def test_gradient_checkpointing_of_hugging_face_changes_nothing(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    kind, settings, inputs = HUGGING[name]
    plain = getattr(transformers, f"{name}{kind}")(getattr(transformers, f"{name}Config")(**settings))
    found = []
    for again in (False, True):
        model = copy.deepcopy(plain)
        if again:
            model.activation_checkpointing_enable({"use_reentrant": False})
        how = {**inputs, "use_cache": False} if hasattr(plain.config, "use_cache") else inputs
        taken(model, **how)
        with dt.at(step=3):
            model(**how)[0].square().sum().backward()
        found.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
