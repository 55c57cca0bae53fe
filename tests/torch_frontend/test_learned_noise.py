"""Keyed uniform and normal numbers in torch: the values of the definition, wherever a tensor lies in the whole."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.testing

import dropkit
from dropkit import Key
from dropkit.mask import known_place
from dropkit.torch.arithmetic import continuous

KEY = Key(3, "noise", 11)
PLACES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((5, 7), {}),
    "one": ((1,), {}),
    "scalar": ((), {}),
    "empty": ((0, 3), {}),
    "long": ((3, 4099), {}),
    "share": ((4, 3, 5, 5), {"share": (2, 3)}),
    "share batch": ((4, 9), {"share": (0,)}),
    "rows": ((4, 7), {"rows": np.array([9, 2, 2, 10**9])}),
    "shard": ((3, 6), {"offset": (2, 3), "global_shape": (11, 13)}),
    "far": ((2, 6), {"offset": (2**33, 1), "global_shape": (2**34, 13)}),
    "middle axis": ((2, 3, 5), {"offset": (0, 4, 0), "global_shape": (2, 9, 5)}),
}


def torch_place(shape: tuple[int, ...], where: dict[str, Any]) -> Any:
    rows = {"rows": torch.from_numpy(where["rows"])} if "rows" in where else {}
    return dropkit.layout.layout(shape, **{**where, **rows})


@pytest.mark.parametrize("name", PLACES)
def test_uniforms_equal_the_definition_bit_for_bit(name: str) -> None:
    shape, where = PLACES[name]
    got = continuous.uniform(KEY.words, torch_place(shape, where))
    wanted = dropkit.uniform(shape, KEY, **where)
    assert got.dtype == torch.float32
    assert np.array_equal(np.broadcast_to(got.numpy(), shape), wanted)


@pytest.mark.parametrize("name", PLACES)
def test_normals_equal_the_definition_to_rounding(name: str) -> None:
    shape, where = PLACES[name]
    got = continuous.normal(KEY.words, torch_place(shape, where))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(
        np.broadcast_to(got.numpy(), shape), dropkit.normal(shape, KEY, **where), rtol=2e-5, atol=2e-6
    )


def test_another_key_gives_other_numbers() -> None:
    place = known_place((50,))
    assert not torch.equal(continuous.uniform(KEY.words, place), continuous.uniform(Key(3, "noise", 12).words, place))


@pytest.mark.parametrize("draw", [continuous.uniform, continuous.normal])
def test_a_key_may_be_a_tensor_or_lie_in_device_memory(draw: Any) -> None:
    place = known_place((3, 5))
    wanted = draw(KEY.words, place)
    assert torch.equal(draw(torch.tensor(KEY.words), place), wanted)
    seed, step = torch.tensor(3), torch.tensor(11)
    assert torch.equal(
        draw(SimpleNamespace(seed=seed, site=dropkit.counter.site_id("noise"), step=step), place), wanted
    )


@pytest.mark.parametrize("draw", [continuous.uniform, continuous.normal])
def test_compiled_equals_eager_and_a_new_key_compiles_nothing(draw: Any) -> None:
    torch._dynamo.reset()
    place = known_place((3, 50))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda key: draw(key, place) * 2, fullgraph=True, backend=counter)
    for step in range(3):
        key = torch.tensor(Key(2**63, "compiled", step).words)
        torch.testing.assert_close(compiled(key), draw(key, place) * 2, rtol=0, atol=0)
    assert counter.frame_count == 1
