"""The stage on a Ray cluster of two nodes: bytes and rows of one machine, also if a node dies."""

import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

import clipfarm_assets
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.demo.edge_cases import DATES
from clipfarm_assets.demo.sample_store import make_sample_store
from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.models import MODEL_VARIABLES
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.cluster.engine import ClusterFailed, RayEngine
from clipfarm_assets.pipelines.cluster.plan import ClusterTooSmall
from clipfarm_assets.pipelines.cluster.session import RayUnavailable, Session
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.cluster.kit import (
    ENVIRONMENT,
    HELD,
    NO_DECODERS,
    NODE,
    Interrupted,
    MarkingDoor,
    NoModel,
    engine,
    two_nodes,
)
from clipfarm_assets_tests.pipelines.kit import (
    BUG,
    CORRUPT,
    DAY_1,
    EMPTY,
    NAN,
    REFUSED,
    Clip,
    World,
    clips,
    door,
    timeless,
)
from clipfarm_assets_tests.pipelines.real_run import CONFIGS

pytest.importorskip("ray", reason="needs the extra: pip install '.[ray]'")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning:ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own logs, at the end
]

STAGE = "video_embedding"
VECTORS = "clipfarm/embeddings/video/"
SOME = [
    *clips(5, prefix="a"),
    Clip("b-absent", video=None),
    Clip("b-corrupt", video=CORRUPT),
    Clip("b-bug", video=BUG),
    Clip("b-empty", video=EMPTY),
    Clip("b-refused", video=REFUSED),
    Clip("b-nan", video=NAN),
    *clips(5, prefix="c"),
]


@pytest.fixture(scope="module", autouse=True)
def _environment():
    """Workers look for modules where this process does."""
    repository = str(Path(clipfarm_assets.__file__).parents[1])
    path = filter(None, (repository, os.environ.get("PYTHONPATH")))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path)}.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def cluster(_environment):
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture
def session(cluster):
    with Session(cluster.address) as session:
        yield session


@pytest.fixture
def marks(tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def run(world, made_by, **options):
    stage = EmbeddingStage(
        world.deployment,
        "video",
        door("video"),
        EmbedOptions(**options),
        world.said.append,
        engine=made_by,
    )
    return stage.run(world.index())[DAY_1]


def locally(root, some):
    """Vectors, rows and report of one machine's run."""
    with World(root / "local") as world:
        world.fill(some)
        report = world.embed("video")[DAY_1]
        return world.objects(VECTORS), timeless(world.states(STAGE)), report


def test_bytes_rows_and_report_are_those_of_one_machine(world, session, marks, tmp_path):
    vectors, states, expected = locally(tmp_path, SOME)
    world.fill(SOME)

    # Two encoders of 0.6 cores lie on different nodes.
    report = run(world, engine(session, MarkingDoor(str(marks)), encode_cpus=0.6))

    assert world.objects(VECTORS) == vectors
    assert timeless(world.states(STAGE)) == states
    assert report.statuses == expected.statuses
    assert report.statuses == {"success": 10, "fail": 4, "missing_raw_object": 2}
    assert (report.samples, report.totals) == (expected.samples, expected.totals)
    assert report.version == expected.version
    assert report.engine.startswith("ray: 2 nodes, 2 cores, 0 accelerators; up to 2 encoders")
    assert {s.stage: s.items for s in report.roofline.steps} == {
        s.stage: s.items for s in expected.roofline.steps
    }
    encoding = {one.name.partition(".")[0] for one in marks.glob("*.encode.done.*")}
    assert len(encoding) == 2, "both nodes encode"


def test_what_is_no_items_fault_ends_the_run_as_on_one_machine(world, session, marks):
    opens = MarkingDoor(str(marks))
    world.fill([*clips(4, prefix="a"), Clip("b", video=NO_DECODERS), *clips(4, prefix="c")])
    with pytest.raises(DecodersUnavailable, match=r"^there is none$"):
        run(world, engine(session, opens), batch_size=2)
    assert world.statuses(STAGE) == {f"a-00{i}": "success" for i in range(4)}

    world.fill([*clips(4, prefix="a"), *clips(4, prefix="c")])
    with pytest.raises(ModelMismatch, match=r"^these are not the weights$"):
        run(world, engine(session, NoModel(), opens))
    other = MarkingDoor(str(marks), revision="r2")
    with pytest.raises(ModelMismatch, match="give all machines the same models"):
        run(world, engine(session, other))
    with pytest.raises(ClusterTooSmall, match="found nodes of 1 cores"):
        run(world, engine(session, opens, encode_gpus=1))
    assert len(world.objects(VECTORS)) == 4, "nothing more was stored"


ELSEWHERE = {"stalled_seconds": 60}
NOWHERE = {"decode_cpus": None, "encode_cpus": None, "encoders": None, "stalled_seconds": 20}


@pytest.mark.kills
@pytest.mark.parametrize("shares", [ELSEWHERE, NOWHERE], ids=["fits elsewhere", "fits nowhere"])
def test_a_node_dies_half_way_and_the_run_completes(
    world, cluster, session, marks, tmp_path, shares
):
    """By default one node encodes here and the other decodes; Ray decides which, so either may die.

    While an encoder lives no decoding fits beside it, and only a start anew helps; a lost encoder
    may find room between two tasks.
    """
    some = [*clips(8, prefix="a"), *clips(16, prefix="b", video=HELD)]
    vectors, states, expected = locally(tmp_path, some)
    world.fill(some)
    (victim,) = cluster.worker_nodes
    holds = [marks / f"hold.{step}" for step in ("prepare", "encode")]
    for hold in holds:
        hold.touch()
    stopped: dict[int, Path] = {}

    def in_work() -> bool:
        """Whether it has work, at which it is stopped here and now."""
        if shares is NOWHERE and any(marks.glob(f"{victim.node_id}.encode.*")):
            holds[0].unlink(missing_ok=True)  # it encodes, and waits for what the other decodes
        for mark in marks.glob(f"{victim.node_id}.*.began.*"):
            pid = int(mark.name.split(".")[3])
            os.kill(pid, signal.SIGSTOP)
            if mark.exists():
                stopped[pid] = mark
            else:
                os.kill(pid, signal.SIGCONT)
        return bool(stopped)

    def die() -> None:
        """As a machine that loses its power."""
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
        cluster.remove_node(victim, allow_graceful=False)
        for hold in holds:
            hold.unlink(missing_ok=True)

    try:
        made_by = engine(session, MarkingDoor(str(marks)), say=world.said.append, **shares)
        report = run(world, lambda work: Interrupted(made_by(work), in_work, die))
    finally:
        if victim not in cluster.worker_nodes:
            cluster.add_node(**NODE)

    assert all(mark.exists() for mark in stopped.values()), "what it had in work was lost"
    assert world.objects(VECTORS) == vectors
    assert timeless(world.states(STAGE)) == states
    assert report.statuses == expected.statuses == {"success": 24}
    anew = [line for line in world.said if "started anew on the cluster" in line]
    if shares is ELSEWHERE:
        assert not anew
    elif any(".prepare." in mark.name for mark in stopped.values()):
        assert anew


class Swapped(RayEngine):
    """The first two clips come back in each other's place."""

    def _execution(self, clips, first):
        one, other, *rest = super()._execution(clips, first)
        yield from (other, one, *rest)


def test_rows_in_another_order_are_stored_as_nobodys(world, session, marks, monkeypatch):
    monkeypatch.setattr("clipfarm_assets_tests.pipelines.cluster.kit.RayEngine", Swapped)
    world.fill(clips(4))
    with pytest.raises(ClusterFailed, match="expected clip 0 back from Ray, found 1"):
        run(world, engine(session, MarkingDoor(str(marks))))
    assert not world.objects(VECTORS)


def test_without_an_address_ray_is_started_here_for_the_run(world, marks, tmp_path):
    import ray

    vectors, states, _ = locally(tmp_path, clips(3))
    world.fill(clips(3))
    with Session() as session:
        report = run(world, engine(session, MarkingDoor(str(marks))))
        assert ray.is_initialized()
    assert not ray.is_initialized()
    assert (world.objects(VECTORS), timeless(world.states(STAGE))) == (vectors, states)
    assert report.engine.startswith("ray: 1 nodes")


def test_an_address_without_a_cluster_is_one_sentence():
    with Session("127.0.0.1:1") as nowhere, pytest.raises(RayUnavailable, match=r"127\.0\.0\.1:1"):
        nowhere.connect()


def test_a_run_with_nothing_to_do_asks_no_cluster(world):
    world.fill(clips(2))
    world.embed("video")
    with Session("127.0.0.1:1") as nowhere:
        assert run(world, engine(nowhere, NoModel())).worked_on == 0


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample")
    make_sample_store(ObjectStore.open(str(root / "store")), clips_per_date=12)
    return root


@pytest.mark.parametrize("modality", MODALITIES)
def test_real_encoders_make_the_bytes_and_rows_of_one_machine(
    session, sample, tmp_path, monkeypatch, modality
):
    """Twelve generated clips, hard ones among them, by the demo's seeded models."""
    for variable in MODEL_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    found = {}
    for name in ("local", "cluster"):
        root = tmp_path / name
        shutil.copytree(sample, root)
        store = ObjectStore.open(str(root / "store"))
        with Ledger.open(f"sqlite:///{root / 'ledger.sqlite'}", store.url) as ledger:
            deployment = Deployment(store, Layout(), ledger)
            opens = partial(
                open_encoder,
                modality,
                CONFIGS[modality],
                profile="demo",
                cache_dir=sample.parent / "models",
                models_lock=deployment.models_lock(),
            )
            chosen = {"engine": engine(session, opens, block_clips=4)} if name == "cluster" else {}
            stage = EmbeddingStage(deployment, modality, opens, **chosen)
            reports = stage.run(build_index(deployment, DATES[:1]).by_date)
            prefix = deployment.layout.embeddings_prefix(modality)
            found[name] = (
                {info.key: store.get(info.key) for info in store.list(prefix)},
                timeless(ledger.rows(f"{modality}_embedding")),
                [(r.statuses, r.totals, r.samples) for r in reports.values()],
            )
    assert len(found["local"][0]) >= 8
    assert found["cluster"] == found["local"]
