"""Dropout for FlexAttention: both forms have the mask of `dropkit.torch.attention`, its outputs and its gradients."""

import inspect
import warnings
from typing import Any

import pytest
import torch

from dropkit import DropkitError, Key
from dropkit.torch import at, attention, flex_attention
from dropkit.torch.attention.flex import FORMS

torchs = pytest.importorskip("torch.nn.attention.flex_attention")
KEY = Key(3, "attention", 1)

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore:.*is deprecated. Please switch to:DeprecationWarning"),  # inductor's own
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # torch.compile looks at what it is given
]


def tensors(heads: int = 2, few: int = 2, queries: int = 20, keys: int = 33, **how: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, n, length, 16, **how) for n, length in ((heads, queries), (few, keys), (few, keys))]


def causal(batch: Any, head: Any, query: Any, key: Any) -> Any:
    return key <= query + 4


def tilted(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
    return score + 0.1 * (query - key) * (head + 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "how",
    [{}, {"p": 0.1}, {"p": 0.0}, {"p": 1.0}, {"training": False}, {"share": (2,)}, {"rows": [7, 2]},
     {"offset": (0, 2, 3, 5), "global_shape": (2, 9, 99, 99)}],
    ids=str,
)  # fmt: skip
def test_values_are_those_of_attention(form: str, how: dict[str, Any]) -> None:
    q, k, v = tensors()
    rest = {"p": 0.5, "training": True, "key": KEY} | how
    torch.testing.assert_close(flex_attention(q, k, v, form=form, **rest), attention(q, k, v, **rest))


@pytest.mark.parametrize("form", FORMS)
def test_mods_of_the_user_and_blocks_of_keys(form: str) -> None:
    """Ragged keys, several heads of q for one of k, blocks that are whole, mixed and left out."""
    q, k, v = tensors(4, 2, 40, 50)
    query, key = torch.arange(40)[:, None], torch.arange(50)
    tilt = 0.1 * (query - key) * torch.arange(1, 5)[:, None, None]
    blocks = torchs.create_block_mask(causal, None, None, 40, 50, device="cpu", BLOCK_SIZE=16)
    mixed, full = int(blocks.kv_num_blocks.sum()), int(blocks.full_kv_num_blocks.sum())
    assert mixed and full and mixed + full < 12
    out = flex_attention(
        q, k, v, p=0.5, training=True, key=KEY, form=form, score_mod=tilted, block_mask=blocks, enable_gqa=True
    )
    mask = tilt.masked_fill(key > query + 4, -torch.inf)
    wanted = attention(q, k, v, p=0.5, training=True, key=KEY, mask=mask, enable_gqa=True)
    torch.testing.assert_close(out, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_in_float64(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's own derivative of what it composes, which it refuses on a CPU."""
    monkeypatch.setattr(torchs, "_validate_device", lambda *_: None)
    q, k, v = tensors(dtype=torch.float64, requires_grad=True)
    found = []
    for call in (flex_attention, attention):
        how = {"form": form, "score_mod": tilted} if call is flex_attention else {"mask": _tilt()}
        out = call(q, k, v, p=0.9, training=True, key=KEY, **how)
        found.append([out, *torch.autograd.grad((out * out).sum(), (q, k, v))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def _tilt() -> torch.Tensor:
    return (0.1 * (torch.arange(20)[:, None] - torch.arange(33)) * torch.arange(1, 3)[:, None, None]).double()


def test_what_is_said_around_it_keys_it() -> None:
    q, k, v = tensors()
    with at(seed=1, site="a", step=2):
        out = flex_attention(q, k, v, p=0.5, training=True)
    assert torch.equal(out, flex_attention(q, k, v, p=0.5, training=True, key=Key(1, "a", 2)))


@pytest.mark.slow
def test_compiled_on_a_cpu_a_new_step_compiles_nothing_again() -> None:
    import torch._dynamo.testing

    torch.compiler.reset()
    counted = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    flex = torch.compile(torchs.flex_attention, backend=counted)
    q, k, v = tensors()
    for step in range(3):
        rest = {"p": 0.5, "training": True, "key": Key(1, "a", step)}
        with torch.no_grad():
            torch.testing.assert_close(flex_attention(q, k, v, flex=flex, **rest), attention(q, k, v, **rest))
    assert counted.frame_count == 1


def test_what_torch_cannot_do_yet() -> None:
    """Once this fails, the page may say so: a backward pass on a CPU, and a dropout of its own."""
    q, k, v = tensors(requires_grad=True)
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        torchs.flex_attention(q, k, v)
    assert not [name for name in inspect.signature(torchs.flex_attention).parameters if "drop" in name]


Q = torch.zeros(2, 4, 5, 8)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"p": 1.5}, "1.5"),
        ({"form": "both"}, "'both'"),
        ({"k": Q[:, :3], "v": Q[:, :3], "enable_gqa": True}, "4 heads.*multiple of 3"),
        ({"k": Q[:, :2], "v": Q[:, :2]}, "4 heads.*2.*enable_gqa"),
        ({"training": None}, "training"),
        ({"key": 3}, "3"),
        ({"offset": (0, 0, 3, 0), "global_shape": (2, 4, 6, 5)}, "offset"),
        ({"offset": (0, 0, 0, 0), "global_shape": (2**40, 4, 2**20, 2**20)}, "2\\*\\*63"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_does_not_fit_is_told(arguments: dict[str, Any], words: str) -> None:
    given = {"q": Q, "k": Q, "v": Q, "p": 0.1, "training": True, "key": KEY} | arguments
    with pytest.raises(DropkitError, match=words):
        flex_attention(given.pop("q"), given.pop("k"), given.pop("v"), **given)


def test_a_block_mask_of_other_lengths_is_told() -> None:
    with warnings.catch_warnings(), pytest.raises(DropkitError, match=r"\(5, 7\) queries and keys.*\(5, 5\)"):
        blocks = torchs.create_block_mask(causal, None, None, 5, 7, device="cpu", BLOCK_SIZE=16)
        flex_attention(Q, Q, Q, p=0.1, training=True, key=KEY, block_mask=blocks)


def test_inside_a_compiled_function_it_says_what_to_compile() -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(DropkitError, match=r"flex=torch\.compile"):
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        flex_attention(Q, Q, Q, p=0.1, training=True, key=KEY)
