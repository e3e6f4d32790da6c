"""What the decoders of tests do: what a file's bytes say, up to the first blank. No media."""

import ctypes
import errno
import json
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np

from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.sandbox import confinement
from clipfarm_assets.encoders.sandbox.tasks import Arrays, Task

TASK = Task("planted", "planted", {}, Arrays(4096, "uint8", (0,), (2**31,)), lambda *_: True)
"""Its deeds may give bytes and tell anything."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_C = ctypes.PyDLL(None)  # whose functions keep the interpreter locked, as one that never returns


def _give(rest, deadline, give):
    return {"given": give(np.frombuffer(rest, np.uint8)), "pid": os.getpid()}


def _sleep(rest, deadline, give):
    _C.sleep(1000)
    return {}


def _wait_for_word(rest, deadline, give):
    signal.sigwait([signal.SIGUSR1])
    return {"pid": os.getpid()}


def _spin(rest, deadline, give):
    while True:
        pass


def _poll(rest, deadline, give):
    while True:
        time.sleep(0.01)
        deadline.check("polling")


def _exit(rest, deadline, give):
    os._exit(3)


def _take(rest, deadline, give):
    return {"sum": int(np.ones(int(rest), np.uint8).sum())}


def _grow(rest, deadline, give):
    return {"sum": int(np.ones(2**40, np.uint8).sum())}


def _grow_on(rest, deadline, give):
    pieces = []
    while True:
        pieces.append(bytes(2**24))


def _share(rest, deadline, give):
    for n in range(40):
        give.__self__._memory.write(bytes(2**24), n * 2**24)
    return {}


def _refuse(rest, deadline, give):
    msg = "cannot decode the planted: it says so"
    raise MediaError(msg)


def _stumble(rest, deadline, give):
    return {}["what is not there"]


def _lie(rest, deadline, give):
    return {"given": give(np.zeros(3))}  # of a type that no job hands over


def _say(rest, deadline, give):
    """These very messages, beside zeros in shared memory, and nothing more."""
    given = give.__self__
    given._memory.write(bytes(2**16))
    *messages, last = json.loads(rest)
    for message in messages:
        given._channel.send(message)
        given._channel.receive()
    given._channel.send(last)
    os._exit(0)


def _flood(rest, deadline, give):
    """The same message for ever, and read nothing."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    while True:
        give.__self__._channel.send(json.loads(rest))


def _open(rest, deadline, give):
    return {"read": len(Path(rest.decode()).read_bytes())}


def _connect(rest, deadline, give):
    with socket.socket() as end:
        end.connect(("127.0.0.1", 9))
    return {}


def _truncate(rest, deadline, give):
    os.truncate(rest, 0)
    return {}


def _remove(rest, deadline, give):
    Path(rest.decode()).unlink()
    return {}


def _rename(rest, deadline, give):
    path = Path(rest.decode())
    path.rename(path.with_name("renamed"))
    return {}


def _signal(rest, deadline, give):
    os.kill(int(rest), signal.SIGCONT)
    return {}


class _Piece(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def _look_into(rest, deadline, give):
    """Read another process's memory: its id, where, and how much."""
    pid, at, size = map(int, rest.split())
    found = ctypes.create_string_buffer(size)
    here, there = _Piece(ctypes.addressof(found), size), _Piece(at, size)
    if _LIBC.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return {"found": found.value.decode()}


def _fork(rest, deadline, give):
    if os.fork() == 0:
        os._exit(0)
    return {}


def _wait_beyond(rest, deadline, give):
    """Hang, and let no alarm end it."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _C.sleep(1000)
    return {}


def _environment(rest, deadline, give):
    return {"names": sorted(os.environ), "session": os.getsid(0)}


DEEDS = {
    "give": _give,
    "sleep": _sleep,
    "wait_for_word": _wait_for_word,
    "spin": _spin,
    "poll": _poll,
    "crash": lambda *_: os.kill(os.getpid(), signal.SIGSEGV),
    "abort": lambda *_: os.abort(),
    "killed": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
    "exit": _exit,
    "take": _take,
    "grow": _grow,
    "grow_on": _grow_on,
    "share": _share,
    "refuse": _refuse,
    "stumble": _stumble,
    "lie": _lie,
    "say": _say,
    "flood": _flood,
    "open": _open,
    "connect": _connect,
    "truncate": _truncate,
    "remove": _remove,
    "rename": _rename,
    "signal": _signal,
    "look_into": _look_into,
    "fork": _fork,
    "wait_beyond": _wait_beyond,
    "environment": _environment,
}


def _planted():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # of all that are forked; see above

    def run(raw, arguments, deadline, give):
        word, _, rest = raw.partition(b" ")
        return DEEDS[word.decode()](rest, deadline, give)

    return run


def _uninstalled():
    msg = "no module named what this job needs"
    raise ImportError(msg)


def _crowded():
    """The next two forks find no room for one more process."""
    fork, short = os.fork, [errno.EAGAIN, errno.ENOMEM]

    def crowded():
        os.fork = crowded if len(short) > 1 else fork
        code = short.pop()
        raise OSError(code, os.strerror(code))

    os.fork = crowded
    return _planted()


def _full():
    """No fork finds room any more."""

    def full():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    os.fork = full
    return _planted()


def _on_an_old_kernel():
    confinement.landlock_version = lambda: 0
    return _planted()


JOBS = {
    "on_an_old_kernel": _on_an_old_kernel,
    "planted": _planted,
    "frames": _planted,  # the names of the real ones, and so what these may answer
    "sound": _planted,
    "uninstalled": _uninstalled,
    "crowded": _crowded,
    "full": _full,
}
