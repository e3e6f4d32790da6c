"""What tests run in other processes: ``python workers.py <function> <argument> …``."""

import datetime as dt
import pickle
import sys

from clipfarm_assets.ledger.leases import LeaseLost
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.published import publish
from clipfarm_assets.ledger.schema import Item, timestamp


def _items(name: str, batch: int, size: int) -> list[Item]:
    now = timestamp(dt.datetime.now(dt.UTC))
    return [Item(f"{name}-{batch}-{n}", "h", now, "success") for n in range(size)]


def commit_batches(database_url: str, store_id: str, name: str) -> None:
    """Commit 20 batches of 10 items of one's own and, each time, one shared item."""
    with Ledger.open(database_url, store_id) as ledger:
        for batch in range(20):
            now = timestamp(dt.datetime.now(dt.UTC))
            shared = [Item(f"shared-{n}", "h", now, "success") for n in range(5)]
            ledger.commit("stage", [*_items(name, batch, 10), *shared])


def publish_batches(database_url: str, pickled_store: str, name: str) -> None:
    """Commit and publish 8 batches of 5 items."""
    # Our own of a moment ago: how a store travels to a spawned worker.
    store = pickle.loads(bytes.fromhex(pickled_store))
    with Ledger.open(database_url, store.url) as ledger:
        for batch in range(8):
            ledger.commit("stage", _items(name, batch, 5))
            publish(ledger, store, "clipfarm/state/stage.sqlite", "stage")


def work_under_lease(database_url: str, store_id: str, scope: str, ttl: str) -> None:
    """Take the lease, wait for a line, then commit under it; say how that went."""
    with (
        Ledger.open(database_url, store_id) as ledger,
        ledger.lease(scope, ttl_seconds=float(ttl)) as lease,
    ):
        print("held", flush=True)
        sys.stdin.readline()
        try:
            ledger.commit("stage", _items("theirs", 0, 1), lease=lease)
        except LeaseLost as lost:
            print(type(lost).__name__, flush=True)
        else:
            print("committed", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
