"""What lies here runs in processes of its own, started by ../test_triton.py; or on a GPU, with DROPKIT_DEVICE=cuda."""

import os
from collections.abc import Iterator

import pytest

DEVICE = os.environ.get("DROPKIT_DEVICE", "cpu")
collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" or DEVICE != "cpu" else ["*.py"]


@pytest.fixture(autouse=True)
def on_device() -> Iterator[None]:
    """New tensors lie on the device."""
    if DEVICE == "cpu":
        yield
        return
    import torch

    with torch.device(DEVICE):
        yield
