"""The folder of a run or of several: what it says of itself, and whether it holds what is asked for."""

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import OutputError
from ..files import claim, read_sealed_json, write_sealed


def open_folder(
    folder: Path,
    config: Mapping[str, Any],
    *,
    resume: bool,
    may_grow: tuple[str, ...],
    ignore: tuple[str, ...] = (),
) -> bool:
    """Claim a folder and write its config.json; or, on resume, check that it holds the same run.

    Args:
        folder: of the run.
        config: plain values.
        resume: continue what the folder holds; an empty one is started.
        may_grow: names whose values may be larger than before: numbers, or lists of names.
        ignore: names that are not compared.

    Returns:
        Whether the folder held a run.

    Raises:
        OutputError: it cannot be written, is taken, or holds a run with other settings.
    """
    started = claim(folder, resume=resume)
    if started:
        compared = {name: value for name, value in config.items() if name not in ignore}
        check_same(folder, compared, may_grow)
    write_sealed(folder / "config.json", {**config, "environment": environment()})
    return started


def check_same(folder: Path, now: Mapping[str, Any], may_grow: tuple[str, ...]) -> None:
    """Check that a folder holds a run of these settings.

    Raises:
        DataError: its config.json is damaged.
        OutputError: it holds a run with other settings.
    """
    before = read_sealed_json(folder / "config.json")
    for name in now:
        old, new = before.get(name), now[name]
        if old == new or (name in may_grow and _grows(old, new)):
            continue
        if name == "settings" and isinstance(old, dict):
            name = next(part for part in new if old.get(part) != new[part])
            old, new = old.get(name), new[name]
        more = "; it may grow on --resume, not shrink" if name in may_grow else ""
        raise OutputError(
            f"{folder} holds a run with {name} {old!r}, this one has {new!r}{more}: "
            "repeat the first settings or choose another --out"
        )


def _grows(old: Any, new: Any) -> bool:
    if isinstance(new, list):
        return isinstance(old, list) and set(old) <= set(new)
    return isinstance(old, int) and old <= new


def environment() -> dict[str, Any]:
    """What a run's numbers also depend on: versions and threads. Recorded, not compared."""
    import numpy
    import torch

    from ... import __version__

    keras = sys.modules.get("keras")
    return {
        "dropkit": __version__,
        **({} if keras is None else {"keras": keras.__version__}),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
