"""What DropBlock really drops: requested rates against those of torchvision's class, of timm's and of this one.

    python benchmarks/blocks.py                  # table, and build/bench/blocks.csv
    python benchmarks/blocks.py --quick          # fewer maps

Blocks of 7 on maps of 14 x 14. Where torchvision or timm cannot be imported, its published formula stands in, and the
table says so: torchvision draws seeds with `gamma = p H W / (size^2 (H - size + 1) (W - size + 1))` at the places where
a whole block fits, timm with the same gamma at all H x W places, with blocks cut at the border. A rate is the share of
zeros among ones, each map one observation.
"""

import argparse
import csv
import importlib.util
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional as F

import dropkit
import dropkit.torch

SIDE, SIZE, RATES = 14, 7, (0.1, 0.3, 0.5)
Drop = Callable[[torch.Tensor, float], torch.Tensor]


def gamma(p: float) -> float:
    """Of the paper, to first order."""
    return p * SIDE**2 / (SIZE**2 * (SIDE - SIZE + 1) ** 2)


def whole_blocks(x: torch.Tensor, p: float) -> torch.Tensor:
    """Seeds where a whole block fits."""
    inside = SIDE - SIZE + 1
    seeds = torch.rand(*x.shape[:2], inside, inside) < gamma(p)
    return x * ~spread(F.pad(seeds, [SIZE - 1] * 4), 0)


def cut_blocks(x: torch.Tensor, p: float) -> torch.Tensor:
    """Seeds everywhere, the middle of a block each."""
    return x * ~spread(torch.rand(x.shape) < gamma(p), SIZE // 2)


def spread(seeds: torch.Tensor, padding: int) -> torch.Tensor:
    """Each seed as the block that it drops."""
    return F.max_pool2d(seeds.float(), SIZE, 1, padding) > 0


def torchvisions() -> tuple[str, Drop]:
    """torchvision's own class, or its formula."""
    try:
        from torchvision.ops import DropBlock2d

        return f"torchvision {version('torchvision')}", lambda x, p: DropBlock2d(p, SIZE)(x)
    except (ImportError, RuntimeError):
        return "torchvision's formula", whole_blocks


def timms() -> tuple[str, Drop]:
    """timm's own class, by the file that has it, as the package around it needs torchvision; or its formula."""
    module = file_of("timm", "layers/drop.py")
    if module is None:
        return "timm's formula", cut_blocks
    return f"timm {version('timm')}", lambda x, p: module.DropBlock2d(p, SIZE, couple_channels=False)(x)


def file_of(package: str, path: str) -> Any:
    """A file of a package as a module, without the package; None where it is not installed or differs."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    spec = importlib.util.spec_from_file_location(f"{package}_file", Path(found.submodule_search_locations[0], path))
    if spec is None or spec.loader is None:
        return None
    module: ModuleType = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError):
        return None
    return module if hasattr(module, "DropBlock2d") else None


def ours(x: torch.Tensor, p: float) -> torch.Tensor:
    """dropkit's."""
    return dropkit.torch.DropBlock2d(p, SIZE)(x)


def rates(drop: Drop, p: float, maps: int) -> tuple[float, float]:
    """The mean rate of as many maps, and its standard error."""
    torch.manual_seed(0)
    parts = [(drop(torch.ones(1000, 1, SIDE, SIDE), p) == 0).double().mean((1, 2, 3)) for _ in range(maps // 1000)]
    each = torch.cat(parts)
    return float(each.mean()), float(each.std() / len(each) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description="What DropBlock really drops.")
    parser.add_argument("--quick", action="store_true", help="fewer maps")
    maps = 2000 if parser.parse_args().quick else 50_000
    contestants = [torchvisions(), timms(), (f"dropkit {dropkit.__version__}", ours)]
    rows = []
    for p in RATES:
        for name, drop in contestants:
            mean, error = rates(drop, p, maps)
            rows.append((p, name, f"{mean:.4f}", f"{error:.4f}"))
    print(f"blocks of {SIZE} on {SIDE} x {SIDE}, {maps:,} maps: asked, and dropped (+- one standard error)")
    for row in rows:
        print(f"{row[0]:5} {row[1]:24} {row[2]} +- {row[3]}")
    folder = Path("build/bench")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "blocks.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("p", "who", "dropped", "error"), *rows])


if __name__ == "__main__":
    main()
