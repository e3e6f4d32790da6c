"""How many workers a stage gets, and how far they may run ahead of each other."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from clipfarm_assets.contracts.statuses import Modality

IO_WORKERS: Final = 8
"""Requests at once: at 20 ms each they move 400 objects a second, more than CPUs embed."""
PUT_WORKERS: Final = 4
CPU: Final = "cpu"

_GIB: Final = 2**30
# Peak of one item's forward by a base-size model in float32. wav2vec 2.0's first convolution gives
# 512 channels at a fifth of the sample rate: for 90 s two arrays of 0.6 GB, and as much for the
# norm. Of the memory some is left to libraries, weights, decoding and the executor's other step.
_FOR_FORWARDS: Final = 0.75
_AUDIO_SECONDS: Final = 90.0
_FORWARD_BYTES: Final[dict[Modality, int]] = {"video": _GIB, "audio": 3 * _GIB, "text": _GIB // 2}
_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use.

    Attributes:
        cores: CPUs.
        memory: Bytes.
    """

    cores: int
    memory: int

    @classmethod
    def here(cls, cgroup: Path = _CGROUP) -> Self:
        """This machine, or the part of it that the process is confined to.

        Args:
            cgroup: Where the kernel tells a container's limits (version 2 of the interface).
        """
        if hasattr(os, "sched_getaffinity"):
            cores = len(os.sched_getaffinity(0))
        else:
            cores = os.cpu_count() or 1
        quota = _words(cgroup / "cpu.max")
        if len(quota) == 2 and quota[0].isdigit():
            cores = min(cores, -(-int(quota[0]) // int(quota[1])))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = _words(cgroup / "memory.max")
        if limit and limit[0].isdigit():
            memory = min(memory, int(limit[0]))
        return cls(max(1, cores), memory)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a user may set; None leaves it to `plan_work`.

    Attributes:
        fetch_workers: Threads that read raw objects.
        decode_workers: Threads that decode them.
        encode_workers: Threads that run the model.
        put_workers: Threads that write vectors.
        threads: Torch's threads for one item: so many cores an encode worker takes.
        queue_depth: Items a worker of each queue that may be waiting, running or done.
        audio_seconds: The longest sound: the memory of a forward grows with it.
    """

    fetch_workers: int | None = None
    decode_workers: int | None = None
    encode_workers: int | None = None
    put_workers: int | None = None
    threads: int = 1
    queue_depth: int | None = None
    audio_seconds: float = _AUDIO_SECONDS


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """Threads and queue depths of one embedding run.

    A depth counts what a stage has taken and not handed on: waiting, running or done.

    Attributes:
        fetch_workers: Threads that read raw objects.
        decode_workers: Threads that decode.
        encode_workers: Threads that run the model.
        put_workers: Threads that write vectors.
        fetch_ahead: Depth of fetching, in items.
        decode_ahead: Depth of decoding, in items.
        encode_ahead: Depth of encoding, in groups.
        cores: CPUs they share.
        on_accelerator: Whether the model has a processor of its own.
        threads: Torch's threads of an encode worker.
    """

    fetch_workers: int
    decode_workers: int
    encode_workers: int
    put_workers: int
    fetch_ahead: int
    decode_ahead: int
    encode_ahead: int
    cores: int
    on_accelerator: bool
    threads: int = 1


def plan_work(
    options: WorkerOptions, modality: Modality, machine: Machine, device: str = CPU
) -> WorkPlan:
    """Workers and depths from what the machine has.

    On a CPU the model is given one thread an item (`EncoderConfig.threads`) and as many items side
    by side as there are cores: no thread waits for another as those of one matrix product do. Then
    decoding may have as many threads again: both are pure computation without locks, so that
    oversubscribed threads merely share the cores in time, and no core is idle while either has
    work. On an accelerator one thread feeds the model and the cores decode.

    Items take unequal times and are handed on in order, so that a slow one holds up the finished
    ones behind it; depths of several items a worker keep workers busy meanwhile.

    Args:
        options: What the user set; it is taken as it is.
        modality: What is embedded: memory limits how many sounds are encoded at once.
        machine: Its cores and memory.
        device: Kind of device the model runs on: ``cpu``, ``cuda`` or ``mps``.
    """
    on_accelerator = device != CPU
    at_once = 1 if on_accelerator else machine.cores // options.threads
    forward = _FORWARD_BYTES[modality]
    if modality == "audio":
        forward = max(_GIB // 2, int(forward * options.audio_seconds / _AUDIO_SECONDS))
    fit = at_once if on_accelerator else int(_FOR_FORWARDS * machine.memory) // forward
    fetch = options.fetch_workers or IO_WORKERS
    decode = options.decode_workers or machine.cores
    encode = options.encode_workers or max(1, min(at_once, fit))
    return WorkPlan(
        fetch_workers=fetch,
        decode_workers=decode,
        encode_workers=encode,
        put_workers=options.put_workers or PUT_WORKERS,
        fetch_ahead=(options.queue_depth or 2) * fetch,
        decode_ahead=(options.queue_depth or 4) * decode,
        encode_ahead=(options.queue_depth or 4) * encode,
        cores=machine.cores,
        on_accelerator=on_accelerator,
        threads=options.threads,
    )


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []  # no such interface here
