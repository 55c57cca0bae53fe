"""The masks under dieharder's tests: packed words at p = 0.5, along index, along step, along site and along seed.

    python benchmarks/battery.py                    # all four streams; Debian's package `dieharder` must be there
    python benchmarks/battery.py --stream step --tests 0,2

Each stream is a sequence of 32-bit keep-words in which one coordinate counts up and the others stand still: consecutive
words of one mask, or the first word of the masks of consecutive steps, sites and seeds. A p-value below 1e-6 or above
1 - 1e-6 counts as a failure; of some hundred p-values a few below 0.005 are what chance gives.
"""

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dropkit.counter import FOLD_ROUNDS, MASK32, Key, philox4x32
from dropkit.mask import keep_words, threshold

STREAMS = ("index", "step", "site", "seed")
HALF = threshold(0.5)
CHUNK = 1 << 17
# dieharder's tests that it calls good, without those that want tens of gigabytes; and the tuple length of some
TESTS = {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 8: 0, 9: 0, 10: 0, 11: 0, 12: 0, 13: 0, 15: 0, 16: 0, 100: 0, 101: 0, 102: 0,
         200: 4, 201: 3, 202: 3, 203: 4, 204: 0, 205: 0, 206: 0, 207: 0, 208: 0}  # fmt: skip


def words(stream: str) -> Iterator[np.ndarray]:
    """Keep-words with one coordinate counting up from 0."""
    fixed = Key(seed=20260101, site="battery", step=7)
    zero = np.zeros(CHUNK, np.uint64)
    for start in range(0, 1 << 62, CHUNK):
        count = np.arange(start, start + CHUNK, dtype=np.uint64)
        if stream == "index":
            yield keep_words(count, HALF, fixed.words).astype("<u4")
            continue
        low, high = count & MASK32, count >> 32
        # (site_lo, site_hi, step_lo, step_hi) and (seed_lo, seed_hi): docs/mask.md, for many keys at once
        counter = {"step": (5, 0, low, high), "site": (low, high, 7, 0), "seed": (zero + 5, zero, 7, 0)}[stream]
        seed = (low, high) if stream == "seed" else (20260101, 0)
        k0, k1, _, _ = philox4x32(counter, seed, FOLD_ROUNDS)
        yield keep_words(zero, HALF, (k0, k1)).astype("<u4")


def write(stream: str) -> None:
    """The stream's bytes to standard output, until nobody reads any more."""
    try:
        for chunk in words(stream):
            sys.stdout.buffer.write(chunk.tobytes())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at exit


def run(stream: str, test: int) -> list[dict[str, str]]:
    """One test's rows on one stream."""
    source = subprocess.Popen([sys.executable, __file__, "--write", stream], stdout=subprocess.PIPE)
    command = ["dieharder", "-g", "200", "-d", str(test), "-c", "|"]
    if TESTS.get(test):
        command += ["-n", str(TESTS[test])]
    done = subprocess.run(command, stdin=source.stdout, capture_output=True, text=True, check=True)
    assert source.stdout is not None
    source.stdout.close()
    source.terminate()
    source.wait()
    rows = []
    for line in done.stdout.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 6 and not line.startswith("#") and fields[0] != "test_name":
            rows.append(
                dict(zip(("test", "ntuple", "tsamples", "psamples", "p"), fields, strict=False)) | {"stream": stream}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", choices=STREAMS, action="append")
    parser.add_argument("--tests", help="numbers of dieharder's tests, comma-separated")
    parser.add_argument("--out", type=Path, default=Path("build/battery.csv"))
    parser.add_argument("--jobs", type=int, default=1, help="tests at a time")
    parser.add_argument("--write", choices=STREAMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(options.write)
        return
    tests = [int(test) for test in options.tests.split(",")] if options.tests else list(TESTS)
    jobs = [(stream, test) for test in tests for stream in options.stream or STREAMS]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    with ThreadPoolExecutor(options.jobs) as pool, options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("stream", "test", "ntuple", "tsamples", "psamples", "p"))
        writer.writeheader()
        for found in pool.map(lambda job: run(*job), jobs):
            for row in found:
                print("{stream:<6} {test:<24} {ntuple:>3} {p}".format(**row), flush=True)
            writer.writerows(found)
            file.flush()
            rows += found
    values = np.array([float(row["p"]) for row in rows])
    failed = [row for row in rows if not 1e-6 < float(row["p"]) < 1 - 1e-6]
    print(f"{len(rows)} p-values, {(values < 0.005).sum()} below 0.005, {(values > 0.995).sum()} above 0.995")
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
