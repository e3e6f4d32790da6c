"""A manifest too large to be rewritten at each update: a base, and deltas beside it."""

from dataclasses import dataclass, replace
from pathlib import Path

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard, strings
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.manifest import ManifestOptions, load_manifest, update_manifest
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.contracts.builders import make_lock, make_shard
from clipfarm_assets_tests.stores import CountingStore

LAYOUT = Layout()
LOCK = LAYOUT.schema_lock("concat")
BASE = LAYOUT.fused_manifest("concat")
DELTAS = LAYOUT.manifest_deltas_prefix("concat")
SHARDS = LAYOUT.shards_prefix("concat")
DAY = "2026-02-05"
# Never whole because it is small, and never full.
BESIDE = {"whole_rows": 0, "delta_share": 1e9, "max_deltas": 10**6}


@dataclass
class Bench:
    """A store with a lock, into which shards are put as fusion would."""

    root: Path

    def __post_init__(self) -> None:
        self.store = CountingStore(str(self.root / "store"))
        ledger = Ledger.open(f"sqlite:///{self.root / 'ledger.sqlite'}", self.store.url)
        self.deployment = Deployment(self.store, LAYOUT, ledger)
        self.lock(1)

    def lock(self, version: int) -> None:
        lock = replace(make_lock(), lock_version=version)
        self.store.put(LOCK, lock.to_json())

    def put(self, part: int, *ids: str, captured: str = DAY, **declared) -> str:
        key = LAYOUT.shard("concat", DAY, part)
        shard = make_shard(ids, (), **declared)
        shard = replace(shard, captured_at=strings([captured] * len(ids)))
        self.store.put_if_absent(key, shard.to_npz())
        return key

    def update(self, compact: str = "auto", **options):
        chosen = ManifestOptions(compact, **{**BESIDE, **options})
        return update_manifest(self.deployment, "concat", options=chosen)

    def manifest(self) -> FusedManifest:
        return load_manifest(self.deployment, "concat")

    def ids(self) -> list[str]:
        return self.manifest().rows["video_id"].to_pylist()

    def deltas(self) -> list[str]:
        return manifest_store.list_deltas(self.deployment, "concat")

    def base(self) -> bytes:
        return self.store.get(BASE)

    def plainly(self, lock_version: int = 1) -> FusedManifest:
        """What the shards say, merged all at once by the contract's rule."""
        keys = [info.key for info in self.store.list(SHARDS)]
        shards = {key: FusedShard.from_npz(self.store.get(key), key) for key in keys}
        rows = [
            shard.manifest_rows(key)
            for key, shard in shards.items()
            if shard.lock_version() == lock_version
        ]
        return FusedManifest.empty(lock_version).merged(rows, keys)

    def check(self) -> None:
        """Readers see what the shards say; compacting makes it one file of the same bytes."""
        expected = self.plainly()
        assert self.manifest() == expected
        self.update("always")
        assert self.deltas() == []
        assert self.base() == manifest_file.to_bytes(expected)


def hooked(monkeypatch, name, match, act):
    """Do something once, before the first call of a store's method whose key contains `match`."""
    original, done = getattr(ObjectStore, name), []

    def first(store, key, *arguments, **options):
        if not done and match in str(key):
            done.append(key)
            act()
        return original(store, key, *arguments, **options)

    monkeypatch.setattr(ObjectStore, name, first)
    return done
