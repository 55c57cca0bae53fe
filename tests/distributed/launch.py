"""Run checks on several processes of this machine: `python -m tests.distributed.launch RANKS FOLDER`.

The processes meet through a file, so no port is chosen, and report through files; the first error ends all of them.
"""

import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

LIMIT = 240  # seconds for all checks of a launch
Report = dict[str, Any]  # name of a check -> what it returned on each rank; "error" -> text


def launch(ranks: int, folder: Path) -> Report:
    """The report of a launch; `folder` is shared with later launches, which find there what earlier ones left."""
    command = [sys.executable, "-m", "tests.distributed.launch", str(ranks), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    begun = time.monotonic()
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, env=environment, cwd=Path(__file__).parents[2]
        )
        error = run.stderr if run.returncode else None
    except subprocess.TimeoutExpired as expired:
        error = f"no end after {LIMIT} s\n{expired.stderr!r}"
    report: Report = {"error": error, "seconds": time.monotonic() - begun}
    for rank in range(ranks):
        lines = (folder / f"report.{ranks}.{rank}").read_text().splitlines() if error is None else []
        for name, result in map(json.loads, lines):
            report.setdefault(name, []).append(result)
    return report


def result(report: Report, check: str) -> list[Any]:
    """What each rank returned; fails with the traceback of the rank that ended the launch."""
    assert report["error"] is None, report["error"]
    return report[check]


def checks() -> list[Callable[..., Any]]:
    from . import (
        batches,
        clocks,
        depth,
        generators,
        known_issues,
        learned,
        pipelines,
        plans,
        rings,
        slices,
        training,
    )

    modules = (generators, slices, batches, clocks, depth, known_issues, learned, pipelines, plans, rings, training)
    return [check for module in modules for check in module.CHECKS]


def _work(rank: int, ranks: int, folder: Path) -> None:
    import torch

    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # of views as outputs, which nobody writes into here
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")  # torch.compile looks at what a hook is given
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet.{ranks}", rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    with (folder / f"report.{ranks}.{rank}").open("w") as report:
        for check in checks():
            try:
                print(json.dumps([check.__name__, check(rank, ranks, folder)]), file=report, flush=True)
            except BaseException:
                raise RuntimeError(f"{check.__name__} on rank {rank} of {ranks}:\n{traceback.format_exc()}") from None
            torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    import torch.multiprocessing

    torch.set_num_threads(1)
    checks()  # imported before the processes part, so once
    if sys.argv[1] == "2":
        import torch._dynamo  # the ranks that compile
    torch.multiprocessing.start_processes(
        _work, args=(int(sys.argv[1]), Path(sys.argv[2])), nprocs=int(sys.argv[1]), start_method="fork"
    )
