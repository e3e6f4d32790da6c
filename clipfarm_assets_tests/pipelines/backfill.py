"""One of many workers that backfill the same store with one ledger: a process of its own."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets_tests.pipelines.kit import Door, HashEncoder, World, version_of
from clipfarm_assets_tests.pipelines.workers import Kill, install

STRATEGY = "concat"
LONG = 240.0
# The machine has enough to do with the processes.
FEW_THREADS = {"workers": 1, "fetch_workers": 1, "encode_workers": 1, "put_workers": 1}


@dataclass
class Logging(HashEncoder):
    """Writes down whatever it embeds, one line each: modality, clip, process."""

    log: Path = field(default_factory=Path)

    def encode(self, prepared):
        clips = [title.split()[-1] for _, title in prepared]
        with self.log.open("a") as log:  # written at once: lines of several processes don't mix
            log.write("".join(f"{self.version.modality} {c} {os.getpid()}\n" for c in clips))
        return super().encode(prepared)


class SharedWorld(World):
    """A worker's view of the store: the ledger is all workers' together."""

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        self.deployment = replace(self.deployment, ledger=Ledger.open(url, self.store.url))

    @property
    def log(self) -> Path:
        return self.root / "log"

    def backfill(self, dates: Sequence[str], batch_size: int) -> None:
        for modality in MODALITIES:
            by = Door(Logging(version_of(modality), log=self.log))
            self.embed(modality, *dates, by=by, batch_size=batch_size, **FEW_THREADS)
        self.lock(STRATEGY)
        self.fuse(*dates, strategy=STRATEGY)


def work(
    root: str, url: str, dates: Sequence[str], batch_size: int, waits: bool, kill: Kill | None
) -> None:
    """Do the dates; if it `waits`, from when another has begun."""
    if kill is not None:
        install(kill)
    with SharedWorld(Path(root), url) as world:
        end = time.monotonic() + LONG
        while waits and not world.log.exists():
            assert time.monotonic() < end
            time.sleep(0.005)
        world.backfill(dates, batch_size)
