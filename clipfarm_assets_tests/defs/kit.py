"""Runs of the real definitions on small stores, with encoders that cost nothing.

The encoder here is a hash of the raw bytes: it follows the protocol and keeps its promises (same
bytes, same vector), and knows no media. The real encoders have tests of their own, and the demo
runs with them.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dagster as dg
import numpy as np
from dagster_aws.s3 import S3Resource

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizon_csv import source_hash
from clipfarm_assets.definitions import definitions, defs
from clipfarm_assets.encoders.base import EmbeddingVersion, Encoded, MediaError
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.orchestration.io_managers import ParquetByPartition, TrainingDataIO
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore

DIM = 8
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
OPENED: list[str] = []


@cache
def _with_checks_alone():
    """The definitions with a job of every check by itself, too."""
    keys = [spec.key for check in defs.asset_checks for spec in check.check_specs]
    jobs = [dg.define_asset_job(_job_of(k), selection=dg.AssetSelection.checks(k)) for k in keys]
    return dg.Definitions.merge(defs, dg.Definitions(jobs=jobs))


def _job_of(check):
    return "__".join(("alone", *check.asset_key.path, check.name))


class HashEncoder:
    """Unit vectors from the sha256 of raw bytes and title."""

    is_stand_in = False
    group_size = 1
    note = "hashed"
    equivalence = None

    def __init__(self, modality, revision, config):
        self.version = EmbeddingVersion(
            modality, "hash", revision, "0" * 64, "hash-1", config.version_params(), DIM
        )

    def prepare(self, source, deadline):
        if source.raw.startswith(b"corrupt"):
            msg = "corrupt on purpose"
            raise MediaError(msg)
        return self.version.modality.encode() + source.raw + source.metadata["title"].encode()

    def encode(self, prepared):
        out = []
        for data in prepared:
            seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
            vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
            out.append(Encoded(vector / np.linalg.norm(vector)))
        return out


class HashEncoders(EncodersResource):
    """Opens hash encoders, and remembers that it did."""

    revision: str = "r1"

    def known_version(self, modality, config, models_lock):
        version = HashEncoder(modality, self.revision, config).version
        return models_lock.version(version.id)

    def open(self, modality, config, models_lock):
        OPENED.append(modality)
        return HashEncoder(modality, self.revision, config)


@dataclass
class Bench:
    """A folder store with its ledger and the definitions over it."""

    root: Path
    revision: str = "r1"

    @property
    def store(self):
        return ObjectStore.open(str(self.root / "store"))

    @property
    def layout(self):
        return Layout()

    def resource(self):
        return DeploymentResource(
            store=str(self.root / "store"),
            ledger=f"sqlite:///{self.root / 'ledger.sqlite'}",
            s3=S3Resource(),
        )

    def resources(self):
        deployment = self.resource()
        return {
            "s3": S3Resource(),
            "deployment": deployment,
            "encoders": HashEncoders(cache_dir=str(self.root), revision=self.revision),
            "parquet_by_partition": ParquetByPartition(deployment=deployment),
            "training_data": TrainingDataIO(deployment=deployment),
        }

    def defs(self):
        return definitions(self.resources())

    def deployment(self):
        return Deployment(
            self.store,
            self.layout,
            Ledger.open(f"sqlite:///{self.root / 'ledger.sqlite'}", self.store.url),
        )

    def run(
        self,
        instance,
        job,
        key=None,
        *,
        span=None,
        config=None,
        check=True,
        selection=None,
        tags=None,
    ):
        """One run of a job for one partition or a span of them, in this process."""
        tags = dict(tags or {})
        if span:
            tags |= {
                "dagster/asset_partition_range_start": span[0],
                "dagster/asset_partition_range_end": span[1],
            }
        # For a part of a job Dagster takes no other resources than its assets came with: then it is
        # definitions of its own, which cost a second.
        resources = None if selection else self.resources()
        return (
            (defs if resources else self.defs())
            .resolve_job_def(job)
            .execute_in_process(
                instance=instance,
                partition_key=key,
                tags=tags,
                run_config={**QUIET, **(config or {})},
                raise_on_error=check,
                asset_selection=selection,
                resources=resources,
            )
        )

    def check_alone(self, instance, asset, name, key=None):
        """One check of one partition, without its asset; `asset` is the path of its key."""
        check = dg.AssetCheckKey(dg.AssetKey(asset), name)
        # As tags: Dagster finds out a job's partitions from its assets, and this one has none.
        return (
            _with_checks_alone()
            .resolve_job_def(_job_of(check))
            .execute_in_process(
                instance=instance,
                tags={"dagster/partition": str(key)} if key else {},
                run_config=QUIET,
                raise_on_error=False,
                resources=self.resources(),
            )
        )

    def everything(self, instance, first="2026-02-05", last="2026-02-07"):
        """The whole pipeline over a range of dates."""
        self.run(instance, "clips_daily", span=(first, last))
        self.run(instance, "clips_lock", span=("concat", "max_pool"))
        self.run(instance, "clips_fuse", span=(f"{first}|concat", f"{last}|max_pool"))
        self.run(instance, "clips_publish", span=("concat", "max_pool"))

    def add_clips(self, *clips):
        """Write raw objects and the CSV: ``(video_id, date)`` each."""
        lines = ["video_id,url,captured_at,title,description,query"]
        for video_id, date in clips:
            url = f"https://youtu.be/{video_id}"
            lines.append(f"{video_id},{url},{date}T10:00:00+00:00,title of {video_id},,shorts")
            for modality in statuses.MODALITIES:
                raw = json.dumps({"transcript": f"words of {video_id}"}).encode()
                self.store.put(self.layout.raw(modality, video_id), raw)
        self.store.put(self.layout.metadata(), "\n".join([*lines, ""]).encode())


def nine_clips(root):
    """A bench with some clips of three dates."""
    made = Bench(root)
    made.add_clips(
        *((f"clip5-{i}", "2026-02-05") for i in range(4)),
        *((f"clip6-{i}", "2026-02-06") for i in range(3)),
        *((f"clip7-{i}", "2026-02-07") for i in range(2)),
    )
    return made


def hash_of(video_id):
    return source_hash(f"https://youtu.be/{video_id}")


def materialised(instance, name, group="clips"):
    """Partition -> metadata of the last materialisation."""
    found = materialisations(instance, name, group)
    return {key: each.metadata for key, each in found.items()}


def materialisations(instance, name, group="clips"):
    """Partition -> its last materialisation."""
    records = instance.fetch_materializations(dg.AssetKey([group, name]), limit=1000).records
    return {record.partition_key: record.asset_materialization for record in reversed(records)}


def check_results(instance, asset, check, group="clips"):
    """Partition -> (passed, metadata) of the last evaluation."""
    key = dg.AssetCheckKey(dg.AssetKey([group, asset]), check)
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1000)
    out = {}
    for record in reversed(records):
        if record.event is None or record.event.dagster_event is None:
            continue
        evaluation = record.event.dagster_event.event_specific_data
        if not hasattr(evaluation, "passed"):
            continue  # planned, and never reached
        out[evaluation.partition] = (evaluation.passed, evaluation.metadata)
    return out
