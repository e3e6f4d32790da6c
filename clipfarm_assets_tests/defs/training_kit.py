"""A store with vectors of known content, and the training jobs run on it."""

import csv
import io
import shutil
from dataclasses import dataclass

import polars as pl

from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets_tests.defs import kit

CLIPS = 150
DIMS = {"video": 8, "audio": 8, "text": 8}
FAMILIES = ["mean", "ridge", "metadata_only"]
KEYS = ("30|concat", "7|concat")
SPAN = ("7|concat", "30|concat")


@dataclass
class TrainingBench(kit.Bench):
    """A bench whose vectors and views are generated, with suites that cost little."""

    def make(self):
        self.deployment().ledger.close()
        make_planted_store(
            self.store, self.layout, clips=CLIPS, dims=DIMS, strategies=["concat", "sum_pool"]
        )
        return self

    def copy(self, root):
        shutil.copytree(self.root, root)
        return type(self)(root)

    def train(self, instance, key=None, *, only=None, check=True, tags=None, dataset=None, **suite):
        """The training job, for a partition or, without one, for both horizons of concat."""
        config = {
            "ops": {
                "clips__training_dataset": {"config": dataset or {}},
                "clips__model_snapshots": {"config": {"families": FAMILIES, **suite}},
            }
        }
        if only is not None:
            step = f"clips__{only.path[-1]}"
            config["ops"] = {step: config["ops"][step]}
        return self.run(
            instance,
            "clips_train",
            key,
            span=None if key else SPAN,
            config=config,
            check=check,
            selection=None if only is None else [only],
            tags=tags,
        )

    def configured(self, instance, job, asset, key=None, *, check=True, **config):
        """A job of one asset with a configuration."""
        ops = {"ops": {f"clips__{asset}": {"config": config}}}
        return self.run(instance, job, key, config=ops, check=check)

    def objects(self, *, but=()):
        """Everything in the store whose key holds none of `but`."""
        keys = [info.key for info in self.store.list("clipfarm/")]
        return {k: self.store.get(k) for k in keys if not any(part in k for part in but)}

    def csv(self):
        """The metadata CSV, all text."""
        text = self.store.get(self.layout.metadata()).decode()
        head, *rows = csv.reader(io.StringIO(text, newline=""))
        return pl.DataFrame(rows, dict.fromkeys(head, pl.String), orient="row")

    def put_csv(self, rows):
        self.store.put(self.layout.metadata(), rows.write_csv().encode())

    def check_alone(self, instance, asset, name, key=None):
        return super().check_alone(instance, ("clips", asset), name, key)
