"""Print what is out of place in a checkout: `python -m tests.house [checkout] [room ...]`."""

import collections
import sys
from pathlib import Path

from .arrows import circles, missing, placed, upward
from .names import patches, private, private_attributes
from .sizes import CORE_LINES, core, large_core, long_files, tail
from .source import House

CHECKS = (upward, missing, circles, private, private_attributes, patches, long_files, large_core)


def main(root: Path, rooms: set[str]) -> int:
    house = House.of(root)
    faults = sorted({fault for check in CHECKS for fault in check(house)}, key=lambda fault: (fault.path, fault.line))
    faults = [fault for fault in faults if not rooms or placed(fault.path)[0] in rooms]
    for fault in faults:
        print(fault)
    p90, longer = tail(house)
    print(f"\nfunctions: nine of ten have at most {p90} code lines; {len(longer)} have more than 25")
    for n, file, node in longer:
        if not rooms or placed(file.path)[0] in rooms:
            print(f"  {n:3} {file.path}:{node.lineno} {node.name}")
    sizes = core(house)
    print(f"core: {sum(sizes.values())} of {CORE_LINES} code lines: {sizes}")
    counted = collections.Counter((placed(fault.path)[0], fault.check) for fault in faults)
    for (room, check), n in sorted(counted.items()):
        print(f"{room:12} {check:18} {n}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2], set(sys.argv[2:])))
