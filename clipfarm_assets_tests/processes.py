"""Processes of their own, forked from one that has imported the costly libraries and done nothing.

As steps of a Dagster run are. To start Python and import torch takes seconds, a fork milliseconds.
The server is an interpreter of its own, with another hash seed and other addresses than the tests',
and not the one that `multiprocessing` shares: what is tested may have its own needs of that.
"""

import importlib
import os
from collections.abc import Callable
from multiprocessing import Pipe, context, forkserver, popen_forkserver
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

_SERVER = forkserver.ForkServer()
_SERVER.set_forkserver_preload(["clipfarm_assets_tests.preloaded"])


class _Popen(popen_forkserver.Popen):
    def _launch(self, process_obj: context.ForkServerProcess) -> None:
        connect = _SERVER.connect_to_new_process
        with mock.patch.object(forkserver, "connect_to_new_process", connect):
            super()._launch(process_obj)


class Process(context.ForkServerProcess):
    """As of `multiprocessing`; its target and arguments are pickled."""

    @staticmethod
    def _Popen(process_obj: context.ForkServerProcess) -> _Popen:  # noqa: N802 - as it is there
        return _Popen(process_obj)


def start(function: Callable[..., object], *arguments: object) -> Process:
    """A process that runs a module's function, in our environment, and ends."""
    return _start(None, function, arguments)


def _start(
    answer: Connection | None, function: Callable[..., object], arguments: tuple[object, ...]
) -> Process:
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    with mock.patch.dict(os.environ, PYTHONHASHSEED=seed):
        _SERVER.ensure_running()
    # By name: what its module imports may look at the environment.
    name = (function.__module__, function.__name__)
    process = Process(target=_run, args=(dict(os.environ), name, arguments, answer))
    process.start()
    return process


def _run(
    environment: dict[str, str],
    name: tuple[str, str],
    arguments: tuple[object, ...],
    answer: Connection | None,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    module, function = name
    found = getattr(importlib.import_module(module), function)(*arguments)
    if answer is not None:
        answer.send(found)


def ended(*processes: Process, seconds: float = 60) -> list[int | None]:
    """How processes ended, once they have: ``-9`` if killed, None if one still runs."""
    try:
        for process in processes:
            process.join(seconds)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()


def call(function: Callable[..., Any], *arguments: object) -> Any:
    """What a module's function gives in another process."""
    receive, send = Pipe(duplex=False)
    process = _start(send, function, arguments)
    send.close()
    with receive:
        try:
            found = receive.recv()
        except EOFError:
            found = None
    assert ended(process) == [0], "what it raised is on stderr"
    return found
