"""Everything that needs a GPU, in one run of less than 8 minutes: `make gpu`, or `python benchmarks/gpu_run.py`.

Needs torch and Triton, no network, no installation, no compiled CPU kernels. Each part is a process with a limit of its
own; a part that fails or is stopped keeps what it has written, and the next one begins. The whole has a budget, and
what it leaves no time for is said to be skipped. Writes to $OUT, or to build/gpu:

    gpu.jsonl    every figure, a line as soon as it is measured
    gpu.md       the same as tables, ready for docs/gpu.md
    gpu.log      what the parts printed

Exit status 0 if every part ended well, 1 if one did not, 2 without a CUDA device. CIFAR-10 is read from
build/gpu-data/cifar10, or from DROPKIT_DATA; without it `vgg` trains on noise of its shape, and says so.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_device import DRY, NO_DEVICE
from gpu_tables import page

HERE = Path(__file__).parent
BUDGET = 450.0  # seconds; the rest of the 8 minutes is for starting
LEAST = 15.0  # with less than this left no part is begun


@dataclass(frozen=True)
class Part:
    name: str
    command: tuple[str, ...]
    limit: float  # seconds

    @classmethod
    def of(cls, name: str, limit: float) -> "Part":
        return cls(name, ("gpu_parts.py", name), limit)


KERNELS = ("gpu.py", "--repetitions", "20") + (() if DRY else ("--sizes", "1024", "64"))
PARTS = (  # what must be right first, then what is dearest to know
    Part.of("graph", 45),
    Part.of("large", 45),
    Part.of("tests", 120),
    Part.of("host", 60),
    Part.of("training", 130),
    Part("kernels", KERNELS, 130),
    Part("attention", ("gpu_attention.py",), 90),
    Part.of("vgg", 90),
)


def attempt(part: Part, left: float, rows: Path, log: Path) -> str:
    """Run a part within its limit and the seconds that are left; its outcome in words, "ok" if it ended well."""
    if left < LEAST:
        return f"skipped: {max(left, 0):.0f} s of the budget were left"
    seconds = min(part.limit, left)
    source = HERE.parent / "src"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(source), str(HERE.parent), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "JAX_PLATFORMS": "cpu",
        "DROPKIT_CPU": "off",  # what is compared with is the definition itself, and needs nothing compiled
    }
    script, *options = part.command
    command = [sys.executable, str(HERE / script), *options, "--out", str(rows)]
    with log.open("a") as file:
        print(f"==== {part.name}", file=file, flush=True)
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"stopped after {seconds:.0f} s"
    if status == 0:
        return "ok"
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"failed, status {status}: {said[-1][:200]}"


def machine() -> dict[str, Any]:
    import triton

    if DRY:
        name, memory = "none: a dry run, the kernels interpreted; its times mean nothing", 0.0
    else:
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 2**30
    versions = {"torch": torch.__version__, "triton": triton.__version__, "python": sys.version.split()[0]}
    return {"part": "machine", "gpu": name, "memory_gib": round(memory, 1), **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description="Everything that needs a GPU, in one run of less than 8 minutes.")
    names = [part.name for part in PARTS]
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, metavar="PART", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts together")
    options = parser.parse_args()
    if not DRY and not torch.cuda.is_available():
        print(NO_DEVICE, file=sys.stderr)
        sys.exit(2)
    begun = time.monotonic()
    out = Path(os.environ.get("OUT") or HERE.parent / "build" / "gpu")
    out.mkdir(parents=True, exist_ok=True)
    rows, log = out / "gpu.jsonl", out / "gpu.log"
    log.write_text("")
    rows.write_text(json.dumps(machine()) + "\n")
    outcomes = []
    for part in (part for part in PARTS if part.name in options.only):
        start, left = time.monotonic(), options.budget - (time.monotonic() - begun)
        outcomes.append(outcome := attempt(part, left, rows, log))
        row = {"part": "run", "name": part.name, "outcome": outcome, "seconds": round(time.monotonic() - start, 1)}
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        (out / "gpu.md").write_text(page([json.loads(line) for line in rows.read_text().splitlines()]))
        print(f"{part.name:10} {row['seconds']:6.1f} s  {outcome}", flush=True)
    print((out / "gpu.md").read_text())
    print(f"Written: {', '.join(str(out / name) for name in ('gpu.jsonl', 'gpu.md', 'gpu.log'))}")
    sys.exit(any(outcome != "ok" for outcome in outcomes))


if __name__ == "__main__":
    main()
