"""Which framework an object belongs to is told without loading one."""

import subprocess
import sys
from types import ModuleType

import pytest
from torch import nn

from dropkit.frontends import is_keras, is_torch


def test_it_loads_no_framework() -> None:
    code = (
        "import sys; from dropkit.frontends import is_keras, is_torch; assert not is_torch(3) and not is_keras(3);"
        "sys.exit(bool({'torch', 'keras'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_keras_layer_on_torch_belongs_to_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    class Layer(nn.Module):
        """As Keras' own is, where torch is its backend."""

    keras = ModuleType("keras")
    monkeypatch.setitem(sys.modules, "keras", keras)
    assert is_torch(Layer()) and not is_keras(Layer())  # while Keras is being imported
    keras.Layer = Layer  # type: ignore[attr-defined]
    assert is_keras(Layer()) and not is_torch(Layer())
    assert is_torch(nn.Linear(1, 1)) and not is_keras(nn.Linear(1, 1))


@pytest.mark.parametrize("value", [None, 0.5, nn.Module, nn.functional.dropout])
def test_classes_and_functions_are_no_models(value: object) -> None:
    assert not is_torch(value) and not is_keras(value)
