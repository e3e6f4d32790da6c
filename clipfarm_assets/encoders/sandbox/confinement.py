"""What Linux takes from a process for good, on the process's own demand. Elsewhere: nothing.

Sources: the kernel's manual pages prctl(2), landlock(7); ``linux/prctl.h``, ``linux/landlock.h``.
"""

import ctypes
import os
import signal
import struct
import sys
from typing import Final

LANDLOCK_SEALS: Final = 6
"""Landlock's version (of Linux 6.12) from which on it does all that `seal` tells."""

_IS_LINUX: Final = sys.platform == "linux"
_C: Final = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
# The same on all architectures, as of all system calls that are younger than Linux 5.1.
_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
_GIVE_VERSION: Final = 1
# From which version on which rights are known: to files, to TCP, to others beyond itself.
_FILES: Final = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_NETWORK: Final = ((4, 0b11),)
_BEYOND: Final = ((6, 0b11),)


def die_with(parent: int) -> None:
    """Be killed as soon as the parent is gone, also where it is gone already."""
    if _IS_LINUX:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def landlock_version() -> int:
    """Of the kernel; 0 if it has none, or none that may be used."""
    if not _IS_LINUX:
        return 0
    return max(0, _syscall(_LANDLOCK_CREATE_RULESET, None, 0, _GIVE_VERSION))


def seal() -> int:
    """Give up all access to files by name, and to other processes.

    No file can be opened, made, truncated, removed or renamed (before version 3 of Landlock:
    truncated), no TCP connection made (4), no process outside be signalled (6), traced, or its
    memory read. What is open stays so.

    Returns:
        The version of Landlock that did so; 0: the kernel has none, and nothing happened.

    Raises:
        OSError: It has, and refused.
    """
    if _IS_LINUX:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    version = landlock_version()
    if not version:
        return 0
    rules = struct.pack(
        "QQQ",
        *(
            sum(bits for since, bits in rights if since <= version)
            for rights in (_FILES, _NETWORK, _BEYOND)
        ),
    )
    # No rule follows, which would be an exception.
    ruleset = _checked(_syscall(_LANDLOCK_CREATE_RULESET, rules, len(rules), 0))
    try:
        _checked(_syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return version


def _prctl(option: int, value: int) -> None:
    none = ctypes.c_ulong(0)
    _checked(_C.prctl(ctypes.c_int(option), ctypes.c_ulong(value), none, none, none))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return int(_C.syscall(ctypes.c_long(number), *converted))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
