"""Print the keep vectors as lines "k0 k1 t first n hex" for `driver.cpp`."""

import json
import math
import sys
from pathlib import Path


def lines(path: Path) -> list[str]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
    from dropkit.counter import fold

    result = []
    for row in json.loads(path.read_text())["keep"]:
        k0, k1 = fold(row["seed"], row["site"], row["step"])
        head = f"{k0} {k1} {row['T'] >> 16}"
        if "shape" in row:
            result.append(f"{head} 0 {math.prod(row['shape'])} {row['bits']}")
        else:
            result += [f"{head} {i} 1 {int(bit):02x}" for i, bit in zip(row["index"], row["bits"], strict=True)]
    return result


if __name__ == "__main__":
    print("\n".join(lines(Path(__file__).parents[1] / "golden" / "mask_vectors.json")))
