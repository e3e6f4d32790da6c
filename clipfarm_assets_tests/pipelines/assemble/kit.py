"""A planted store to assemble from, and the plain row-by-row way to do it."""

import csv
import io
from dataclasses import replace

import numpy as np

from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.assemble import AssembleOptions, assemble
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npy import npy_to_vector
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet

LAYOUT = Layout()
DIMS = {"video": 10, "audio": 8, "text": 6}
CLIPS = 90


class Bench:
    """A planted store in a folder, and what tests do to it."""

    def __init__(self, folder, **options):
        self.store = ObjectStore.open(str(folder / "store"))
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.sqlite", self.store.url)
        self.deployment = Deployment(self.store, LAYOUT, self.ledger)
        options = {"clips": CLIPS, "dims": DIMS, "shard_rows": 40, **options}
        self.report = make_planted_store(self.store, LAYOUT, **options)
        self.said = []

    def assemble(self, strategy="concat", horizon=7, **options):
        chosen = AssembleOptions(**options)
        return assemble(self.deployment, strategy, horizon, chosen, self.said.append)

    def rows(self):
        text = self.store.get(LAYOUT.metadata()).decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def write_rows(self, rows, columns=None):
        text = io.StringIO(newline="")
        names = list(rows[0]) if columns is None else columns
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.store.put(LAYOUT.metadata(), text.getvalue().encode())

    def edit_rows(self, edit):
        self.write_rows([edit(dict(row)) for row in self.rows()])

    def manifest(self, strategy="concat"):
        data = self.store.get(LAYOUT.fused_manifest(strategy))
        return FusedManifest.from_table(parquet_to_table(data))

    def write_manifest(self, rows, strategy="concat"):
        """Put a manifest of these rows, given as dicts."""
        old = self.manifest(strategy)
        table = old.rows.slice(0, 0).from_pylist(rows, schema=old.rows.schema)
        new = replace(old, rows=table)
        data = table_to_parquet(new.rows, new.file_metadata())
        self.store.put(LAYOUT.fused_manifest(strategy), data)

    def edit_manifest(self, edit, strategy="concat"):
        rows = self.manifest(strategy).rows.to_pylist()
        self.write_manifest([edit(row) for row in rows], strategy)

    def edit_shards(self, edit, strategy="concat"):
        for info in list(self.store.list(LAYOUT.shards_prefix(strategy))):
            shard = FusedShard.from_npz(self.store.get(info.key), info.key)
            self.store.put(info.key, edit(shard).to_npz())

    def ids(self):
        return self.report.truth["video_id"].to_list()

    def id_with_text(self):
        return self.report.truth.filter("has_text")["video_id"][0]


def plainly(bench, strategy, horizon):
    """Row by row: open what the row points at."""
    latest = {}
    for row in bench.rows():
        if float(row["horizon_days"]) == horizon:
            held = latest.get(row["video_id"])
            if held is None or row["captured_at"] >= held["captured_at"]:
                latest[row["video_id"]] = row
    pointers = {row["video_id"]: row for row in bench.manifest(strategy).rows.to_pylist()}
    out = []
    for video_id in sorted(latest.keys() & pointers.keys()):
        pointer, store = pointers[video_id], bench.store
        with np.load(io.BytesIO(store.get(pointer["fused_key"])), allow_pickle=False) as shard:
            fused = shard["vectors"][pointer["shard_idx"]]
        vectors = {
            modality: npy_to_vector(store.get(pointer[f"{modality}_emb_key"]))
            if pointer[f"{modality}_emb_key"]
            else np.zeros(DIMS[modality], np.float32)
            for modality in MODALITIES
        }
        views = float(latest[video_id]["horizon_view_count"] or 0)
        out.append((video_id, fused, vectors, pointer["text_present"], views))
    return out
