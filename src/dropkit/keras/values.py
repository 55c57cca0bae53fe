"""Laws and shares in the config of a layer, as plain values: their class by name, and its numbers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from ..axes import noise, share
from ..axes.noise import Hard, Soft
from ..axes.share import Axes, Refining
from ..errors import DropkitTypeError, DropkitValueError

_HOMES = {"noise": (noise, Hard | Soft), "share": (share, Axes | Refining)}


def plain(axis: str, value: Any) -> dict[str, Any]:
    """A law or a share as what JSON can hold.

    Args:
        axis: "noise" or "share".
        value: of that axis. One of a user's own gives its numbers by `get_config`, or is a dataclass.

    Raises:
        DropkitTypeError: a user's own that says nothing of its numbers.

    >>> from dropkit.axes.share import Exactly
    >>> plain("share", Exactly((-1,)))
    {'class_name': 'Exactly', 'config': {'over': [-1]}}
    """
    kind = type(value)
    name = kind.__name__ if _own(axis, kind.__name__) is kind else keras.saving.get_registered_name(kind)
    return {"class_name": name, "config": _config(axis, value)}


def _config(axis: str, value: Any) -> Any:
    if hasattr(value, "get_config"):
        return {name: _listed(number) for name, number in value.get_config().items()}
    if dataclasses.is_dataclass(value):
        return {field.name: _listed(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if not getattr(value, "__dict__", None):
        return {}
    raise DropkitTypeError(
        f"{axis} {value!r} cannot be saved: make {type(value).__name__} a dataclass, or give it get_config"
    )


def of_plain(axis: str, given: Any) -> Any:
    """The law or share of which `plain` made this; what is none of its making is given back.

    A class is looked up among dropkit's and among those registered with `keras.saving`. Nothing is imported.

    Raises:
        DropkitValueError: a class that is not known here.
        DropkitTypeError: a known class of something else.

    >>> of_plain("noise", {"class_name": "Alpha", "config": {}})
    Alpha()
    """
    if not isinstance(given, Mapping):
        return given
    name, config = given.get("class_name"), given.get("config")
    kind = _own(axis, name) or (keras.saving.get_registered_object(name) if isinstance(name, str) else None)
    if kind is None:
        raise DropkitValueError(
            f"the saved {axis} is a {name!r}, which is not known here: register its class with "
            "keras.saving.register_keras_serializable, or load with custom_objects={" + f"{name!r}: its class" + "}"
        )
    if not (isinstance(kind, type) and issubclass(kind, _HOMES[axis][1])) or not isinstance(config, Mapping):
        raise DropkitTypeError(f"the saved {axis} {given!r} is no value of dropkit.axes.{axis}")
    if hasattr(kind, "from_config"):
        return kind.from_config(dict(config))
    return kind(**{field: _tupled(value) for field, value in config.items()})


def _own(axis: str, name: Any) -> Any:
    """dropkit's class of this name."""
    home, base = _HOMES[axis]
    kind = vars(home).get(name)
    ours = isinstance(kind, type) and issubclass(kind, base) and kind.__module__.startswith(f"{home.__name__}.")
    return kind if ours else None


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(part) for part in value) if isinstance(value, list | tuple) else value
