"""A whole run on an S3 that throttles, breaks off and loses answers."""

import uuid
from dataclasses import replace

import pytest

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage import s3_retries
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore, StoreUnavailable
from clipfarm_assets_tests import faulty_proxy as fp
from clipfarm_assets_tests.pipelines.kit import DAY_1, World, clips
from clipfarm_assets_tests.servers import BUCKET, s3_settings

pytestmark = pytest.mark.s3

CLIPS = [*clips(9), *clips(1, prefix="bad", video=b"corrupt"), *clips(1, prefix="mute", audio=None)]
STAGE = "video_embedding"
# Those that end by a timeout cost it each time: see storage/test_s3_faults.py.
KINDS = [fault for fault in fp.PASSING if fault not in fp.ENDLESS]


class RemoteWorld(World):
    """A world whose store is on S3."""

    def __init__(self, root, store):
        super().__init__(root)
        ledger = Ledger.open(f"sqlite:///{root}/remote.sqlite", store.url)
        self.store, self.deployment = store, Deployment(store, Layout(), ledger)


@pytest.fixture
def proxy(monkeypatch):
    monkeypatch.setattr(s3_retries, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(s3_retries, "_LONGEST_PAUSE_SECONDS", 0.01)
    with fp.faulty_proxy(s3_settings()) as running:
        yield running


@pytest.fixture
def remote(proxy, tmp_path):
    """A world behind the proxy."""
    settings = replace(proxy.settings, retries=6)
    store = ObjectStore.open(f"s3://{BUCKET}/{uuid.uuid4().hex}", settings)
    with RemoteWorld(tmp_path, store) as opened:
        yield opened


@pytest.fixture
def expected(tmp_path):
    """What a folder holds after the same."""
    with World(tmp_path / "folder") as world:
        world.fill(CLIPS)
        world.all_of_it(DAY_1)
        return world.comparable()


def test_a_run_under_faults_of_many_kinds_makes_the_same_bytes(proxy, remote, expected):
    proxy.plan = fp.seeded(11, 0.1, KINDS)
    remote.fill(CLIPS)
    remote.all_of_it(DAY_1)
    proxy.plan = None
    assert remote.comparable() == expected
    assert len({fault for _, fault in proxy.suffered}) > len(KINDS) / 2
    assert len(proxy.suffered) > 0.05 * len(proxy.calls)


def test_a_server_that_dies_stops_the_run_and_the_next_one_completes(proxy, remote, expected):
    def die_after_the_sixth(call):
        if proxy.count("PUT", ".npy") == 6:
            proxy.dead = True

    remote.fill(CLIPS)
    proxy.after = die_after_the_sixth
    with pytest.raises(StoreUnavailable, match=r"failed 7 times in .* s, at last with") as caught:
        remote.embed("video", batch_size=4, workers=1, put_workers=1)
    assert remote.store.url in str(caught.value)
    done = {i for i, item in remote.states(STAGE).items() if item.status == "success"}
    assert len(done) == 6

    proxy.dead, proxy.after = False, lambda _call: None
    proxy.reset()
    remote.all_of_it(DAY_1)
    again = {call.key.rpartition("/")[2] for call in proxy.calls if _is_vector_written(call)}
    assert again
    assert not {f"{video_id}.npy" for video_id in done} & again
    assert remote.comparable() == expected


def _is_vector_written(call):
    return call.method == "PUT" and "/embeddings/video/" in call.key
