"""An asset whose run is a job of a Ray cluster, given by the address of its job server."""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

import clipfarm_assets
from clipfarm_assets.definitions import definitions
from clipfarm_assets.defs.resources import resources_from
from clipfarm_assets.demo.sample_store import make_sample_store
from clipfarm_assets.encoders.models import MODEL_VARIABLES
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.orchestration import ray_jobs
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.cluster.kit import ENVIRONMENT, NODE
from clipfarm_assets_tests.pipelines.kit import timeless

for _name in ("ray", "dagster_ray", "aiohttp"):
    pytest.importorskip(_name, reason="needs the extra: pip install '.[ray]'")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning:ray\..*"),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:dagster_ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own logs and sockets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DATE = "2026-02-05"


def settings(root):
    return {
        "CLIPFARM_STORE": str(root / "store"),
        "CLIPFARM_HOME": str(root / "home"),
        "CLIPFARM_ENCODERS": "demo",
        "CLIPFARM_START_DATE": DATE,
        "CLIPFARM_END_DATE": "2026-02-07",
        "HF_HUB_OFFLINE": "1",
        "DAGSTER_HOME": "",
        **ENVIRONMENT,
        "OMP_NUM_THREADS": "1",
    }


def run(environ, **config):
    """The index, then the text embeddings; the latter's metadata."""
    jobs = definitions(resources_from(environ))
    with dg.DagsterInstance.ephemeral() as instance:
        job = jobs.resolve_job_def("clips_daily")
        ops = {"clips__text_embeddings": {"config": config}}
        for selection in (["clips/clip_index"], ["clips/text_embeddings"]):
            job.execute_in_process(
                instance=instance,
                partition_key=DATE,
                asset_selection=[dg.AssetKey(one.split("/")) for one in selection],
                run_config={
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                    **({"ops": ops} if selection == ["clips/text_embeddings"] else {}),
                },
            )
        key = dg.AssetKey(["clips", "text_embeddings"])
        (record,) = instance.fetch_materializations(key, 1).records
        return record.asset_materialization.metadata


def came_of(root):
    store = ObjectStore.open(str(root / "store"))
    with Ledger.open(f"sqlite:///{root / 'home' / 'ledger.sqlite'}", store.url) as ledger:
        keys = [info.key for info in store.list("clipfarm/embeddings/text")]
        return {key: store.get(key) for key in keys}, timeless(ledger.rows("text_embedding"))


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A head with a job server, whose environment is the deployment's."""
    from ray.cluster_utils import Cluster

    repository = str(Path(clipfarm_assets.__file__).parents[1])
    path = os.pathsep.join(filter(None, (repository, os.environ.get("PYTHONPATH"))))
    told = {
        **settings(tmp_path / "cluster"),
        "PYTHONPATH": path,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    }
    for variable in MODEL_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    head = {**NODE, "num_cpus": 2, "include_dashboard": True, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_a_run_submitted_by_address_is_that_of_one_machine(tmp_path, cluster):
    local = tmp_path / "local"
    make_sample_store(ObjectStore.open(str(local / "store")), clips_per_date=12)
    shutil.copytree(local, tmp_path / "cluster")
    expected = run(settings(local))
    address = f"http://{cluster.webui_url}"

    with pytest.raises(dg.Failure, match="expected a node with 1 cores and 1 accelerators"):
        run(settings(tmp_path / "cluster"), engine="ray", ray_address=address, ray_encode_gpus=1)
    found = run(settings(tmp_path / "cluster"), engine="ray", ray_address=address)

    assert came_of(tmp_path / "cluster") == came_of(local)
    assert came_of(local)[0]
    assert found["engine"].value.startswith("ray: 1 nodes, 2 cores")
    same = [name for name in expected if name.startswith(("this_run/", "total/", "delta/", "all_"))]
    assert same
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert found["roofline"].schema == expected["roofline"].schema


def test_a_job_whose_report_was_not_heard_says_what_to_do(monkeypatch):
    """Its log comes by one connection, which may be cut while the job goes on."""
    silent = SimpleNamespace(get_custom_messages=lambda: ())
    monkeypatch.setattr("dagster_ray.PipesRayJobClient.run", lambda *_, **__: silent)
    context = SimpleNamespace(run=SimpleNamespace(run_id="f00"))
    with pytest.raises(ray_jobs.JobFailed, match=r"0 reports of it .*run the same dates again"):
        ray_jobs.submit(context, "http://127.0.0.1:8265", "text", {}, [DATE])
