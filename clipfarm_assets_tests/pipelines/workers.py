"""A run in a process of its own: ``python -m … <folder> <machine> <steps> <kill>``, both JSON.

Steps are names of `World` methods with their arguments. Kill names a call after which, or before
which, the process ends by SIGKILL: nothing of it runs any more, no clean-up, no publishing.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import World

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kill:
    """Die before or after the `nth` call of `method` whose key or stage contains `match`."""

    method: str  # e.g. ObjectStore.put
    match: str
    nth: int = 1
    when: str = "before"


def install(kill: Kill) -> None:
    owner_name, name = kill.method.split(".")
    owner = {"ObjectStore": ObjectStore, "Ledger": Ledger}[owner_name]
    original, calls = getattr(owner, name), itertools.count(1)

    def deadly(self, key, *args, **kwargs):
        dies = kill.match in key and next(calls) == kill.nth
        if dies and kill.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, key, *args, **kwargs)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def start(root, machine, steps, kill=None) -> subprocess.Popen:
    """Run `steps`, as (method, arguments, options), in a new process."""
    arguments = [str(root), machine, json.dumps(steps), json.dumps(kill and asdict(kill))]
    command = [sys.executable, "-m", "clipfarm_assets_tests.pipelines.workers", *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY)


def run_all(*started: subprocess.Popen) -> list[int]:
    """Wait for processes; their exit statuses."""
    try:
        return [process.wait(60) for process in started]
    finally:
        for process in started:
            process.kill()


def together(world: World, name: str, count: str) -> None:
    """Wait until `count` processes have come here, so that they do run at once."""
    (world.root / f"here-{name}").touch()
    while len(list(world.root.glob("here-*"))) < int(count):
        time.sleep(0.005)


def main(root: str, machine: str, steps: str, kill: str) -> None:
    with World(Path(root), machine) as world:
        if json.loads(kill):
            install(Kill(**json.loads(kill)))
        for name, args, options in json.loads(steps):
            if name == "together":
                together(world, *args)
            else:
                getattr(world, name)(*args, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
