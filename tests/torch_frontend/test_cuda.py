"""The way of CUDA tensors, with the Triton kernels interpreted on the CPU: the same suite, the same bits.

Triton settles whether it interprets when it is first imported, so these run in processes of their own. With
DROPKIT_DEVICE=cuda nothing is interpreted, and the same runs on a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
ROOT = Path(__file__).parents[2]
DEVICE = os.environ.get("DROPKIT_DEVICE", "cpu")
INTERPRETED = {"TRITON_INTERPRET": "1", "DROPKIT_CPU": "off"}
ENVIRONMENT = {**os.environ, **(INTERPRETED if DEVICE == "cpu" else {})}
ON_DEVICE = f"import torch\ntorch.set_default_device({DEVICE!r})\n"


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_conformance() -> None:
    """See it one by one with: TRITON_INTERPRET=1 DROPKIT_CPU=off pytest tests/conformance -k test_conforms"""
    checks = "torch and (golden_vectors or layouts or sharing or rows or gradient or not_finite or identity or errors)"
    out = run("-m", "pytest", "-p", "no:cacheprovider", "tests/conformance", "-k", f"test_conforms and {checks}")
    assert " passed" in out


FUSED = """
import torch
from torch.nn import functional
from dropkit import Key
from dropkit.torch import bias_act_dropout, dropout, dropout_add, dropout_add_norm, ops
torch.manual_seed(0)
x, r = torch.randn(4, 33, requires_grad=True), torch.randn(4, 33, requires_grad=True)
b = torch.randn(33, requires_grad=True)
assert ops.kernels_for(x).__name__ == "dropkit.torch.arithmetic.cuda"
key = dict(training=True, key=Key(1, "s"))
one, two = dropout_add(x, r, 0.3, **key), r + dropout(x, 0.3, **key)
assert torch.equal(one, two)
one, two = bias_act_dropout(x, b, 0.3, activation="gelu", **key), dropout(functional.gelu(x + b), 0.3, **key)
torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
for a, c in zip(torch.autograd.grad(one.sum(), (x, b)), torch.autograd.grad(two.sum(), (x, b))):
    torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)
w = torch.rand(33, requires_grad=True)
for norm, bias in (("layer", b), ("rms", None)):
    one = dropout_add_norm(x, r, w, bias, 0.3, norm=norm, **key)
    leaves = [x, r, w] + ([b] if bias is not None else [])
    z = dropout_add(x, r, 0.3, **key)
    same = functional.layer_norm(z, (33,), w, b) if norm == "layer" else functional.rms_norm(z, (33,), w, 1e-5)
    assert torch.equal(one[1], z)
    torch.testing.assert_close(one[0], same, rtol=1e-4, atol=1e-5)
    loss, other = one[0].square().sum() + one[1].sum(), same.square().sum() + z.sum()
    for a, c in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(other, leaves)):
        torch.testing.assert_close(a, c, rtol=1e-3, atol=1e-4)
y = torch.ones(64)
assert dropout(y, 0.5, inplace=True, **key) is y and (y == 0).any()
"""


def test_fused_and_in_place() -> None:
    run("-c", ON_DEVICE + FUSED)


CAPTURED = """
import torch
from torch import nn
from dropkit.torch import Dropout, bind
from dropkit.torch.arithmetic import cuda
import dropkit
x = torch.ones(4, 40, requires_grad=True)
plain = bind(nn.Sequential(Dropout(0.5), Dropout(0.25)), seed=2**64 - 3).to(x.device)
model = bind(nn.Sequential(Dropout(0.5), Dropout(0.25)), seed=2**64 - 3).to(x.device)
for step in range(3):
    wanted = plain(x)
    cuda.capturing = lambda: True  # what a capture would see; nothing may be read on the host
    y = model(x)
    later = model(x)  # a forward that advances the step before the first backward
    (grad,) = torch.autograd.grad(y.sum(), x)
    cuda.capturing = lambda: False
    assert torch.equal(y, wanted), step
    assert torch.equal(grad, y)  # x is ones: the gradient is the mask of its own forward
    assert not torch.equal(y, later)
    assert torch.equal(later, plain(x))
    assert model[0].site.clock.step == 2 * step + 2
    assert torch.equal(model(x), plain(x)) and (model.dropkit_step.sub_(1), plain.dropkit_step.sub_(1))
cuda.capturing = lambda: True
try:
    Dropout(0.5)(x)
except dropkit.DropkitError as error:
    assert "ambient dropout in a CUDA graph" in str(error)
else:
    raise SystemExit("an ambient dropout was captured")
"""


def test_what_a_captured_graph_reads() -> None:
    run("-c", ON_DEVICE + CAPTURED)


ATTENDED = """
import torch
from dropkit import Key
from dropkit.torch import at, attention, attention_mask_block
from dropkit.torch.attention import call, tiled
torch.manual_seed(0)
q, k, v = (torch.randn(2, heads, length, 16, requires_grad=True) for heads, length in ((2, 20), (1, 33), (1, 33)))
seen, added = torch.rand(2, 1, 20, 33) > 0.3, torch.randn(20, 33)
rest = dict(p=0.5, training=True, key=Key(1, "s"), enable_gqa=True, return_lse=True)
whole = dict(offset=(0, 0, 3, 5), global_shape=(2, 2, 99, 99))
cases = [
    dict(mask=seen, is_causal=True), dict(mask=added, before_softmax=True), dict(share=(2, 3)), dict(rows=[5, 2**33]),
    dict(is_causal=True, **whole), dict(p=1.0), dict(p=0.0), dict(training=False),
]
for case in cases:
    found = []
    for kernels in (tiled, None):
        call._kernels_for = lambda *_: kernels
        out, lse = attention(q, k, v, **rest | case)
        found.append([out, lse, *torch.autograd.grad((out * out).sum() + lse.exp().sum(), (q, k, v))])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda text: f"{case}: {text}")
"""
TAKES = """
from dropkit.torch.attention import call, tiled
from dropkit.torch.attention.request import Masked, Request
import torch
q, shape = torch.zeros(1, 1, 3, 8), (1, 1, 3, 3)
request = Request(Masked(None, None), 1.0, False)
learned = Request(Masked(torch.zeros(1, 1, 3, 3, requires_grad=True), None), 1.0, False)
assert call._kernels_for(q, q, q, shape, request) is tiled
assert call._kernels_for(q.double(), q.double(), q.double(), shape, request) is None
assert call._kernels_for(q, q, q, shape, learned) is None
wide = torch.zeros(1, 1, 3, 257)
assert call._kernels_for(wide, wide, q, shape, request) is None
assert call._kernels_for(q, q, wide, shape, request) is None
"""


@pytest.mark.slow
def test_attention_is_the_composed_one() -> None:
    """By the kernel and by operations of torch, for what a call may say; and which calls the kernel takes."""
    run("-c", ON_DEVICE + TAKES + ATTENDED)
