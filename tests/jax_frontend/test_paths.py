"""Which implementation runs: the kernels' custom call on a CPU, XLA's operations where it is absent or unwanted."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from dropkit import DropkitError, Key, choice
from dropkit.jax import dropout, primitive
from dropkit.kernels import cpu
from dropkit.kernels.cpu import ffi

MODULE = """
import jax, jax.numpy as jnp
from dropkit import Key
from dropkit.jax import dropout
call = jax.jit(lambda x, p: dropout(x, p, training=True, key=Key(1)))
print("dropkit_dropout" in call.lower(jnp.ones(100), 0.5).compile().as_text())
"""


def calls_the_kernel(x: jax.Array, rate: object) -> bool:
    call = jax.jit(lambda x, p: dropout(x, p, training=True, key=Key(1)))
    return "dropkit_dropout" in call.lower(x, rate).compile().as_text()


@pytest.mark.skipif(choice.xla() is None, reason="built without XLA's headers")
def test_the_kernel_where_it_takes_the_arrays() -> None:
    assert calls_the_kernel(jnp.ones((3, 5)), 0.5)
    assert calls_the_kernel(jnp.ones((3, 5), jnp.bfloat16), 0.5)
    assert not calls_the_kernel(jnp.ones((3, 5)), jnp.full(5, 0.5))  # rates by element
    assert not calls_the_kernel(jnp.ones((1,) * 15), 0.5)  # more axes than the kernels walk


@pytest.mark.parametrize("path", ["off", *cpu.paths()])
def test_the_path_that_is_asked_for(path: str) -> None:
    environment = {**os.environ, "DROPKIT_CPU": path}
    done = subprocess.run([sys.executable, "-c", MODULE], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == str(path != "off" and ffi.available())


@pytest.mark.skipif(not ffi.available(), reason="built without XLA's headers")
def test_every_path_can_be_set() -> None:
    library = ffi._library()
    assert library is not None
    before = ffi._configure(library, None)
    assert before == cpu.paths()[-1]
    try:
        for name in cpu.paths():
            assert ffi._configure(library, name) == name
    finally:
        ffi._configure(library, os.environ.get("DROPKIT_CPU"))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffi, "_library", lambda: None)
    assert not ffi.available()
    assert choice.xla() is None
    with pytest.raises(DropkitError, match=r"built without XLA's headers; reinstall dropkit with -C cmake\.define"):
        ffi.handler()
    primitive._kernels.cache_clear()
    try:
        assert not calls_the_kernel(jnp.ones((3, 7)), 0.5)
    finally:
        primitive._kernels.cache_clear()


@pytest.mark.skipif(not ffi.available(), reason="built without XLA's headers")
def test_a_jax_that_refuses_the_library_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("another version of the interface")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    primitive._kernels.cache_clear()
    try:
        with pytest.warns(
            UserWarning, match="XLA's own operations take the place of the CPU kernels, .* another version"
        ):
            assert not calls_the_kernel(jnp.ones((3, 9)), 0.5)
        assert not calls_the_kernel(jnp.ones((3, 11)), 0.5)
    finally:
        primitive._kernels.cache_clear()
