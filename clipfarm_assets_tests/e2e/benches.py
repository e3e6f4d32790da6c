"""The pipeline in process with hash encoders, deployed as environment variables say."""

import json
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster._serdes import serialize_value

from clipfarm_assets.definitions import definitions
from clipfarm_assets.defs.resources import resources_from
from clipfarm_assets_tests.defs import kit

CLIPS = (
    *((f"clip5-{i}", "2026-02-05") for i in range(3)),
    *((f"clip6-{i}", "2026-02-06") for i in range(2)),
)


@dataclass
class EnvironBench(kit.Bench):
    """Resources come from the environment, as in a deployment; only the encoders are the tests'.

    The environment given must be the process's own: what is secret is read there alone.
    """

    environ: dict = field(default_factory=dict)

    @property
    def store(self):
        return self.resource().open_store()

    def resource(self):
        return resources_from(self.environ)["deployment"]

    def resources(self):
        encoders = kit.HashEncoders(cache_dir=str(self.root), revision=self.revision)
        return {**resources_from(self.environ), "encoders": encoders}

    def defs(self):
        return definitions(self.resources())


def all_of_it(bench):
    """Fill the store, run everything, and give back every event of it, serialised."""
    bench.add_clips(*CLIPS)
    bench.store.put(bench.layout.raw("video", "clip6-1"), b"corrupt")
    bench.store.delete(bench.layout.raw("audio", "clip5-0"))
    with dg.DagsterInstance.ephemeral() as instance:
        bench.run(instance, "clips_observe")
        bench.everything(instance, "2026-02-05", "2026-02-06")
        return told_of(instance)


def told_of(instance):
    """Every event and run that the instance knows of, serialised."""
    runs = instance.get_runs()
    events = [serialize_value(e) for run in runs for e in instance.all_logs(run.run_id)]
    assert len(events) > 100
    return "\n".join([*events, *(serialize_value(run) for run in runs)])


def shown(bench):
    """What the UI is told of these definitions, resources and their settings included."""
    snap = RepositorySnap.from_def(bench.defs().get_repository_def())
    return serialize_value(snap)


_TIMES = {"updated_at", "created_at", "promoted_at", "fit_seconds"}


def objects(bench):
    """Every object but state files; what says when it was made without that."""
    out = {}
    for info in bench.store.list("clipfarm/"):
        data = bench.store.get(info.key)
        if info.key.endswith(("schema.json", "snapshot.json", "registry.json")):
            out[info.key] = timeless(json.loads(data))
        elif "/manifests/" in info.key:
            out[info.key] = untimed(data)
        else:
            out[info.key] = None if info.key.endswith(".sqlite") else data
    return out


def timeless(value):
    """JSON without the fields that say when or how long."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in _TIMES}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def untimed(data):
    """An embedding manifest's rows without the times of processing."""
    from clipfarm_assets.storage.tables import parquet_to_table

    return parquet_to_table(data).drop_columns(["processed_at"]).to_pylist()


def hides(secret, text):
    return secret not in text
