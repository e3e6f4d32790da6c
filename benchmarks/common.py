"""What every benchmark needs: child processes measured one at a time, and tables to paste.

A measurement is one child process that prints one JSON object as its last line. It times its own
work (imports are not in it) and tells its own peak memory. The parent loads less than any
child: on Linux a child's peak begins at what its parent had.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

_BUSY = 0.15
"""Share of all cores that others may use before the start."""
PACKAGES = ("numpy", "polars", "pyarrow", "obstore", "av", "torch", "transformers", "scikit-learn")


def options(
    description: str | None, *, repeats: int | None = 5, folder: str = ""
) -> argparse.ArgumentParser:
    """A parser with the options that most benchmarks share; see `begin`.

    Args:
        description: The benchmark's docstring.
        repeats: Default of ``--repeats``, or None for a benchmark without.
        folder: Help on ``--folder``, a path; empty for a benchmark without.
    """
    parser = argparse.ArgumentParser(description=description)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help="rounds; medians are told")
    if folder:
        parser.add_argument("--folder", type=Path, help=folder)
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for on the command line, after saying on which machine it is done."""
    asked = parser.parse_args()
    print(machine(), flush=True)
    return asked


def machine() -> str:
    """Processor, cores, memory, Python and package versions, in one line each."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    used = _used_by_others()
    told = (
        f"Machine: {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}; "
        f"{used:.0%} of the cores in use before the start\n"
        f"Versions: Python {platform.python_version()}, {versions}"
    )
    if used > _BUSY:
        # Threads of a linear algebra library wait for each other on cores they don't get: one
        # matrix product was seen to take ten times as long.
        told += "\nTHE MACHINE IS BUSY: these figures are not to be quoted; run again when idle."
    return told


def _used_by_others(seconds: float = 1.0) -> float:
    """The share of all cores in use over a moment in which this process sleeps.

    Not the load average, which remembers a benchmark that ended a minute ago.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return os.getloadavg()[0] / (os.cpu_count() or 1)

    def ticks() -> tuple[int, int]:
        user, nice, system, idle, waiting, *rest = map(int, stat.read_text().split()[1:9])
        return idle + waiting, user + nice + system + idle + waiting + sum(rest)

    idle, total = ticks()
    time.sleep(seconds)
    idle_after, total_after = ticks()
    return 1 - (idle_after - idle) / max(1, total_after - total)


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


def alternate(
    ways: Mapping[str, Callable[[], dict[str, Any]]], repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Run every way in turn, `repeats` times, each round beginning with another one.

    A machine's speed drifts over minutes: neighbours in time are compared, and no way always
    runs first. Says a line a run on stderr.
    """
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            runs[name].append(ways[name]())
            seconds = runs[name][-1].get("seconds", float("nan"))
            print(
                f"round {turn + 1}/{repeats}: {name} {seconds:.3f} s", file=sys.stderr, flush=True
            )
    return runs


def same(runs: Mapping[str, Sequence[Mapping[str, Any]]], field: str = "digest") -> None:
    """Hold all runs of all ways to one value of `field`.

    Raises:
        SystemExit: They gave different results: there is nothing to compare.
    """
    found = {name: sorted({str(run[field]) for run in some}) for name, some in runs.items()}
    if len({value for values in found.values() for value in values}) != 1:
        raise SystemExit(f"all ways must give the same {field}, found {found}")


@dataclass(frozen=True)
class Target:
    """What a path should reach against the plain way: at least this ratio, and the aim."""

    at_least: float
    aim: float

    def verdict(self, ratio: float) -> str:
        """``aim met``, ``met`` or ``NOT MET``."""
        return "aim met" if ratio >= self.aim else "met" if ratio >= self.at_least else "NOT MET"


RATIO_COLUMNS = ("path", "plain", "ours", "ratio", "spread", "at least", "aim", "verdict")


def ratio_row(
    path: str,
    plain: Sequence[Mapping[str, Any]],
    ours: Sequence[Mapping[str, Any]],
    target: Target | None,
    *,
    field: str = "seconds",
    per: str = "items",
) -> list[str]:
    """One line of a table of `RATIO_COLUMNS`: medians of seconds an item, and their ratio.

    ``spread`` is the smallest and the largest ratio of the runs of one round. A run's items are its
    field `per`, so that the plain way may do a part of the work where all of it would take hours.
    Without a target the row is for information.
    """
    slow, fast = ([float(run[field]) / float(run[per]) for run in runs] for runs in (plain, ours))
    ratio = median(slow) / median(fast)
    ratios = [one / other for one, other in zip(slow, fast, strict=True)]
    return [
        path,
        f"{_duration(median(slow))} ({plain[0][per]} {per})",
        f"{_duration(median(fast))} ({ours[0][per]} {per})",
        f"**{ratio:.2f}x**",
        f"{min(ratios):.2f}-{max(ratios):.2f}",
        f"{target.at_least:g}x" if target else "-",
        f"{target.aim:g}x" if target else "-",
        target.verdict(ratio) if target else "-",
    ]


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit} each"
    return f"{seconds * 1e6:.3g} us each"


def medians(runs: Sequence[Mapping[str, Any]], *names: str) -> list[float]:
    """The median of each field over the runs."""
    return [median(float(run[name]) for run in runs) for name in names]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)
