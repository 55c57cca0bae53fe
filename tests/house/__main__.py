"""Print what is out of place in a checkout: `python -m tests.house [checkout] [room ...]`."""

import collections
import sys
from pathlib import Path

from .arrows import placed
from .checks import CHECKS
from .docs import untold
from .sizes import core, tail
from .source import House


def main(root: Path, rooms: set[str]) -> int:
    """Faults by file and line, the longest functions and the core, and how many faults of which check a room has."""
    house = House.of(root)
    faults = {fault for check in CHECKS for fault in check(house)}
    faults |= set(untold(house, (root / "CONTRIBUTING.md").read_text()))
    shown = [fault for fault in sorted(faults, key=lambda fault: fault[1:]) if _of(fault.path, rooms)]
    for fault in shown:
        print(fault)
    p90, longer = tail(house)
    print(f"\nfunctions: nine of ten have at most {p90} code lines; {len(longer)} have more than 25")
    for n, file, node in longer:
        if _of(file.path, rooms):
            print(f"  {n:3} {file.path}:{node.lineno} {node.name}")
    sizes = core(house)
    print(f"core: {sum(sizes.values())} code lines: {sizes}")
    counted = collections.Counter((placed(fault.path)[0], fault.check) for fault in shown)
    for (room, check), n in sorted(counted.items()):
        print(f"{room:12} {check:18} {n}")
    return bool(shown)


def _of(path: str, rooms: set[str]) -> bool:
    return not rooms or placed(path)[0] in rooms


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2], set(sys.argv[2:])))
