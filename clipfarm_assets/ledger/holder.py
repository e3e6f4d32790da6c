"""Who holds a lease, in words that also tell whether it still runs."""

import functools
import hashlib
import os
import re
import socket
from pathlib import Path

_HERE = re.compile(r"(?P<host>[^@]*):(?P<pid>\d+)@(?P<machine>[0-9a-f]{12})( run .*)?")


def this_process(run_id: str = "") -> str:
    """Host and process, what tells this machine from others, and the run if there is one.

    For example ``render-2:4711@9c41f0e2a3b5 run 2cbaaf30``.
    """
    run = f" run {run_id}" if run_id else ""
    return f"{socket.gethostname()}:{os.getpid()}{f'@{_machine()}' if _machine() else ''}{run}"


def is_gone(holder: str) -> bool:
    """Whether a process that was of this machine is no more; False wherever that can't be told."""
    match = _HERE.fullmatch(holder)
    if match is None or match["machine"] != _machine():
        return False
    try:
        os.kill(int(match["pid"]), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass  # another user's
    return False


@functools.cache
def _machine() -> str:
    """Names the boot of this machine, and the room its process ids count in; empty if unknown.

    A host's name is no proof: two machines, or two containers of one, may share it.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        room = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{room}".encode()).hexdigest()[:12]
