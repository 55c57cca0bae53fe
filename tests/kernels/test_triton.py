"""The Triton kernels: interpreted on the CPU, and compiled as far as machine code. Neither needs a GPU.

Triton settles whether it interprets when it is first imported, for the whole process, so each runs in one of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dropkit.kernels.triton as package

HERE = Path(__file__).parent / "triton"
installed = pytest.mark.skipif(
    package.info()["triton"] == "not installed", reason="Triton is not installed: pip install triton"
)


def run(*command: str, interpret: bool) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TRITON_INTERPRET": str(int(interpret))}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env)


@pytest.mark.slow
@installed
def test_interpreted() -> None:
    """See them one by one with: TRITON_INTERPRET=1 pytest tests/kernels/triton"""
    done = run("-m", "pytest", "-p", "no:cacheprovider", str(HERE), interpret=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.slow
@installed
def test_compiled_for_hopper() -> None:
    """Contiguous memory moves by 16 bytes, no multiply-add is fused, another key, rate or base is the same kernel."""
    done = run(str(HERE / "compile_all.py"), interpret=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    report = result["kernels"]
    assert {"dropout", "unaligned", "stored key", "gathered", "shared", "by rate", "residual"} < set(report)
    simple = {"dropout", "unaligned", "stored key", "affine", "affine, stored", "residual"}
    for name in simple | {"gelu", "gelu backward", "norm", "norm backward"}:
        assert report[name]["wide_loads"] > 0, name
        assert report[name]["narrow_stores"] == 0, name
        assert report[name]["fused_multiply_adds"] == 0, name
    for name in ("forward", "query", "key"):
        assert report[f"attention, {name}"]["tensor_cores"] > 0, name
        assert report[f"attention, {name}"]["loads_ahead"] > 0, name
    assert report["attention, float32"]["tensor_cores"] == 0  # which would round it to 10 bits
    assert all(kernel["shared"] < 99 << 10 for kernel in report.values())
    assert result["variants"] == 1
    assert result["variants of a tuple"] > 1  # why key and place are no tuples; once Triton mends this, they may be


def test_the_package_alone_loads_neither_triton_nor_torch() -> None:
    code = "import sys, dropkit.kernels.triton as k; print(*sys.modules)"
    done = run("-c", code, interpret=False)
    assert "dropkit.kernels.triton" in done.stdout.split()
    assert not {"triton", "torch"} & set(done.stdout.split())


def test_info_says_why() -> None:
    why = package.info()["why"]
    assert package.available() == (why is None)
    if package.info()["triton"] == "not installed":
        assert why == "triton is not installed"
