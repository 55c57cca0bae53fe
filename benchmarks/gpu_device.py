"""Where the GPU's figures are taken, and how: the device, a clock, CUDA graphs, lines of JSON.

With DROPKIT_GPU_DRY=1 everything runs at toy sizes on the CPU, the Triton kernels interpreted. That shows that the
scripts work; its times mean nothing.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DRY = os.environ.get("DROPKIT_GPU_DRY") == "1"
if DRY:  # this module comes before dropkit and Triton, which settle it for the process
    os.environ |= {"TRITON_INTERPRET": "1", "DROPKIT_CPU": "off"}

import torch  # noqa: E402

DEVICE = "cpu" if DRY else "cuda"
COMPILER = "eager" if DRY else "inductor"
MIB = 1 << 20
NO_DEVICE = "No CUDA device: nothing was measured. DROPKIT_GPU_DRY=1 goes through all of it at toy sizes, interpreted."


class Clock:
    """Medians in milliseconds, of CUDA events; every repetition starts with a cold L2."""

    def __init__(self, repetitions: int):
        self.repetitions = 1 if DRY else repetitions
        self.flush = torch.empty(1 if DRY else 256 * MIB, dtype=torch.int8, device=DEVICE)

    def median_ms(self, call: Callable[[], Any]) -> float:
        for _ in range(1 if DRY else 5):
            call()
        return statistics.median(self._once(call) for _ in range(self.repetitions))

    def _once(self, call: Callable[[], Any]) -> float:
        self.flush.zero_()
        if DRY:
            begun = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - begun)
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop)


class Graph:
    """A call captured in a CUDA graph. A dry run calls it anew, and the calls believe that they are captured."""

    def __init__(self, call: Callable[[], Any]):
        self.call = call
        if DRY:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = call()

    def replay(self) -> Any:
        if DRY:
            return as_captured(self.call)
        self.graph.replay()
        return self.result


def as_captured(call: Callable[[], Any]) -> Any:
    """A call that takes the way of a captured one, without a capture."""
    from dropkit.torch.arithmetic import cuda

    before = cuda.capturing
    cuda.capturing = lambda: True
    try:
        return call()
    finally:
        cuda.capturing = before


def synchronize() -> None:
    if not DRY:
        torch.cuda.synchronize()


class Lines:
    """JSON lines of one part of the run, written one by one: what was measured before it is stopped is kept."""

    def __init__(self, path: Path | None, part: str):
        self.path, self.part = path, part

    def add(self, **row: Any) -> None:
        line = json.dumps({"part": self.part, **row})
        print(line, flush=True)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(line + "\n")
