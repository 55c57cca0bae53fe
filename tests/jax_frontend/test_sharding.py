"""On a mesh each device computes its own slice of the one mask, without asking another."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dropkit import choice

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["kernels", "off"])
def cases(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    off = request.param == "off"
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    if off:  # few cases: without kernels they take longer to compile
        environment["DROPKIT_CPU"] = "off"
    command = [sys.executable, "tests/jax_frontend/sharded.py", *(["few"] if off else [])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for one in found:
        one["expects_kernel"] = request.param == "kernels" and choice.xla() is not None
    return found


@pytest.mark.slow
def test_the_mask_does_not_depend_on_the_mesh(cases: list[dict[str, Any]]) -> None:
    assert len(cases) in (4 * 5, 4 * (5 + 8 + 5))
    assert [one for one in cases if not one["same"]] == []


def test_no_device_asks_another(cases: list[dict[str, Any]]) -> None:
    compiled = [one for one in cases if "mesh" in one]
    assert [one for one in compiled if one["collectives"]] == []
    assert [one for one in compiled if one["devices"] != one["mesh"][0] * one["mesh"][1]] == []


def test_the_result_is_cut_as_its_input(cases: list[dict[str, Any]]) -> None:
    assert [one for one in cases if not one.get("kept_sharding", True)] == []


def test_one_compilation(cases: list[dict[str, Any]]) -> None:
    assert {one["compilations"] for one in cases if "mesh" in one} == {1}


def test_slices_go_through_the_kernels(cases: list[dict[str, Any]]) -> None:
    # Rates by element, and a mesh of which one axis is left to the partitioner, are XLA's own operations.
    formula = {"rates"}
    for one in (one for one in cases if "mesh" in one):
        partly = one["name"] == "shard_map over one axis of two" and one["mesh"] != [1, 1]
        assert one["kernel"] == (one["expects_kernel"] and one["name"] not in formula and not partly), one
