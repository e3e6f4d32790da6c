"""What every benchmark needs: child processes measured one at a time, and tables to paste.

A measurement is one child process that prints one JSON object as its last line. It times its own
work (imports are not in it) and tells its own peak memory. The parent loads less than any
child: on Linux a child's peak begins at what its parent had.
"""

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

_BUSY = 0.5
PACKAGES = ("numpy", "polars", "pyarrow", "obstore", "torch", "scikit-learn")


def machine() -> str:
    """Processor, cores, memory, Python and package versions, in one line each."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    load = os.getloadavg()[0]
    told = (
        f"Machine: {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}; "
        f"load before the start {load:.1f}\n"
        f"Versions: Python {platform.python_version()}, {versions}"
    )
    if load > _BUSY:
        # Threads of a linear algebra library wait for each other on cores they don't get: one
        # matrix product was seen to take ten times as long.
        told += "\nTHE MACHINE IS BUSY: these figures are not to be quoted; run again when idle."
    return told


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` returns; its wall time, and processor time of all threads, in seconds."""
    started, used = time.perf_counter(), time.process_time()
    result = work()
    seconds = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
    }
    return result, seconds


def answer(fields: Mapping[str, Any]) -> None:
    """A child's last line."""
    print(json.dumps({**fields, "peak_mib": peak_mib()}), flush=True)


def child(
    module: str, arguments: Sequence[object], timeout_seconds: float | None = None
) -> dict[str, Any] | None:
    """Run ``python -m module arguments`` and return its answer; None if it took too long.

    Raises:
        subprocess.CalledProcessError: The child failed; its messages are on stderr.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    try:
        done = subprocess.run(  # our own modules, no shell
            command, stdout=subprocess.PIPE, check=True, text=True, timeout=timeout_seconds
        )
    except subprocess.TimeoutExpired:
        return None
    fields: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return fields


def medians(runs: Sequence[Mapping[str, Any]], *names: str) -> list[float]:
    """The median of each field over the runs."""
    return [median(float(run[name]) for run in runs) for name in names]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)
