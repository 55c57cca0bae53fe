"""What docs/attention.md says of torch's attention, shown with the torch that is installed."""

import inspect
from pathlib import Path

import pytest
import torch
from torch.nn import attention as package
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.profiler import profile

FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"
MATH = "aten::_scaled_dot_product_attention_math"


def inputs(length: int = 64) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3)]


def operators(p: float) -> set[str]:
    with profile() as seen:
        sdpa(*inputs(), dropout_p=p)
    return {event.key for event in seen.key_averages()}


def test_on_a_cpu_dropout_leaves_the_fast_path() -> None:
    assert FLASH in operators(0.0) and MATH not in operators(0.0)
    assert MATH in operators(0.1) and FLASH not in operators(0.1)
    flash = package.sdpa_kernel(package.SDPBackend.FLASH_ATTENTION)
    with flash, pytest.warns(UserWarning), pytest.raises(RuntimeError, match="No available kernel"):
        sdpa(*inputs(), dropout_p=0.1)


def test_that_path_stores_the_weights_and_their_mask() -> None:
    """What is saved for backward: of the size of the weights with dropout, of that of the inputs without."""

    def saved(p: float) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            sdpa(*inputs(256), dropout_p=p)
        return max(sizes)

    assert saved(0.1) >= 2 * 256 * 256 > saved(0.0)


def test_no_mask_can_be_stated() -> None:
    """No seed, no generator, no place; a block has not the mask that it has in the whole, at one seed."""
    said = str(sdpa.__doc__).split("Args:")[0].split('"""')[0][:400]
    assert "dropout_p" in said and "generator" not in said and "seed" not in said
    x = torch.ones(1, 1, 64, 64)
    v = torch.eye(64)[None, None]
    masks = []
    for part in (x, x[:, :, 32:]):
        torch.manual_seed(0)
        masks.append(sdpa(part, x, v, dropout_p=0.5) != 0)
    assert not torch.equal(masks[0][:, :, 32:], masks[1])


@pytest.mark.parametrize("name", ["_fa3", "_fa4"])
def test_torchs_hooks_of_flash_attention_3_and_4_take_no_dropout(name: str) -> None:
    path = Path(inspect.getfile(package)).parent / f"{name}.py"
    if not path.exists():
        pytest.skip(f"this torch, {torch.__version__}, has no {name}")
    assert "dropout_p must be 0" in path.read_text()
