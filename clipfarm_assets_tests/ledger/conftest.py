"""Ledgers and stores to test against."""

import datetime as dt
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.schema import Item, timestamp
from clipfarm_assets_tests.servers import postgres_url
from clipfarm_assets_tests.stores import folder, s3, store  # noqa: F401 - fixtures

WORKERS = Path(__file__).with_name("workers.py")
START = dt.datetime(2026, 2, 5, 12, tzinfo=dt.UTC)


def item(video_id: str, minutes: float = 0, **fields: object) -> Item:
    """A state written `minutes` after `START`."""
    fields = {"source_hash": "h", "status": "success"} | fields
    moment = timestamp(START + dt.timedelta(minutes=minutes))
    return Item(video_id=video_id, **({"processed_at": moment} | fields))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return postgres_url()
    return f"sqlite:///{tmp_path}/new/folders/ledger.sqlite"


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    with Ledger.open(database_url, f"store-{uuid.uuid4().hex}") as opened:
        yield opened


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[Callable[[str], Ledger]]:
    """Opens SQLite ledgers by name: two names are two machines."""
    opened: list[Ledger] = []

    def open_one(name: str) -> Ledger:
        opened.append(Ledger.open(f"sqlite:///{tmp_path}/{name}.sqlite", "store"))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def run_workers() -> Callable[..., None]:
    """Run a function of workers.py in several processes at once, one for each argument list."""

    def run(name: str, *calls: list[str]) -> None:
        started = [subprocess.Popen([sys.executable, str(WORKERS), name, *call]) for call in calls]
        assert [process.wait(60) for process in started] == [0] * len(calls)

    return run
