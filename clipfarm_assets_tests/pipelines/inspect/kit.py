"""A planner over a test's store, and what there is to compare before and after."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.inspect.encoders import PlannedEncoder
from clipfarm_assets.pipelines.inspect.foreseen import ForeseenLedger, ForeseenStore
from clipfarm_assets.pipelines.inspect.plan import Planner, restore
from clipfarm_assets.pipelines.inspect.run_settings import RunSettings
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, World, version_of


class Template:
    """A world that is made once, and opened as it was by every test that wants it."""

    def __init__(self, folder: Path, make: Callable[[World], None]) -> None:
        self._root, self._kept = folder / "world", folder / "kept"
        self._root.mkdir()
        with World(self._root) as world:
            make(world)
        shutil.copytree(self._root, self._kept)

    @contextmanager
    def opened(self) -> Iterator[World]:
        """At the same place each time: a store is known by its address."""
        shutil.rmtree(self._root)
        shutil.copytree(self._kept, self._root)
        with World(self._root) as world:
            yield world


@contextmanager
def planner(world, machine="machine", revision="r1", **settings):
    """What plans for the kit's encoders, of that revision."""
    store = ForeseenStore(str(world.root / "store"))
    url = f"sqlite:///{world.root / machine}.sqlite"
    with ForeseenLedger.open(url, store.url) as ledger:
        deployment = Deployment(store, Layout(), ledger)
        restore(deployment)
        encoders = {m: PlannedEncoder(version_of(m, revision)) for m in MODALITIES}
        yield Planner(deployment, store, ledger, RunSettings(DAY_1, DAY_2, **settings), encoders)


def plan_of(world, *arguments, **settings):
    with planner(world, **settings) as planned:
        return planned.plan(*arguments)


def reasons(plan):
    """(stage, date) -> reason -> clips, of those that are taken up."""
    return {(part.stage, part.date): dict(part.reasons) for part in plan.parts if part.reasons}


def expected(plan):
    return {(part.stage, part.date): dict(part.expected) for part in plan.parts if part.reasons}


def files(folder: Path):
    """Every file below a folder, byte by byte; and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
