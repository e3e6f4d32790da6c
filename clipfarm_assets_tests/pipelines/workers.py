"""Runs in processes of their own: steps are names of `World` methods with their arguments.

Kill names a call after which, or before which, the process ends by SIGKILL: nothing of it runs any
more, no clean-up, no publishing.
"""

import itertools
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests import processes
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


def start(root, machine, steps, kill=None) -> processes.Process:
    """Run `steps`, as (method, arguments, options), in a new process."""
    # Through JSON: what a process is told holds nothing of the one that tells it.
    told = json.dumps([steps, kill and asdict(kill)])
    return processes.start(main, str(root), machine, told)


def together(world: World, name: str, count: str) -> None:
    """Wait until `count` processes have come here, so that they do run at once."""
    (world.root / f"here-{name}").touch()
    while len(list(world.root.glob("here-*"))) < int(count):
        time.sleep(0.005)


def main(root: str, machine: str, told: str) -> None:
    steps, kill = json.loads(told)
    with World(Path(root), machine) as world:
        if kill:
            install(Kill(**kill))
        for name, args, options in steps:
            if name == "together":
                together(world, *args)
            else:
                getattr(world, name)(*args, **options)
