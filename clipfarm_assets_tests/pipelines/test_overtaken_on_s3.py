"""A vector that arrives after its run was overtaken replaces nothing."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipfarm_assets.ledger.leases import Lease, LeaseLost
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.inspect.audit.run import audit
from clipfarm_assets.pipelines.turns import LeaseOptions
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests import faulty_proxy as fp
from clipfarm_assets_tests.pipelines.kit import DAY_1, Clip, World, hash_vector, version_of
from clipfarm_assets_tests.servers import BUCKET, s3_settings

pytestmark = pytest.mark.s3

LONG = 60
VECTOR = "embeddings/video/one.npy"
SHORT = LeaseOptions(ttl_seconds=0.05)


class RemoteWorld(World):
    """A world whose store is on S3."""

    def __init__(self, root, store):
        super().__init__(root)
        ledger = Ledger.open(f"sqlite:///{root}/remote.sqlite", store.url)
        self.store, self.deployment = store, Deployment(store, Layout(), ledger)


@pytest.fixture
def proxy():
    with fp.faulty_proxy(s3_settings()) as running:
        yield running


@pytest.fixture
def pair(proxy, tmp_path):
    store = ObjectStore.open(f"s3://{BUCKET}/{uuid.uuid4().hex}", proxy.settings)
    with RemoteWorld(tmp_path, store) as one, RemoteWorld(tmp_path, store) as two:
        yield one, two


@pytest.mark.parametrize("was_there", [False, True])
def test_a_late_vector_of_a_run_that_was_overtaken_replaces_nothing(
    pair, proxy, monkeypatch, was_there
):
    """It is on its way, its run unheard of; the source changes, and another run embeds that."""
    slow, other = pair
    if was_there:
        slow.fill([Clip("one", DAY_1, "https://youtu.be/zero")])
        slow.embed("video")
    monkeypatch.setattr(Lease, "keep", lambda _lease: None)
    arrived, may = threading.Event(), threading.Event()

    def late(call):
        if call.method == "PUT" and call.key.endswith(VECTOR) and not arrived.is_set():
            arrived.set()
            assert may.wait(LONG)

    slow.fill([Clip("one", DAY_1, "https://youtu.be/first")])
    proxy.before = late
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.embed, "video", leases=SHORT)
        assert arrived.wait(LONG)
        second = Clip("one", DAY_1, "https://youtu.be/second")
        other.fill([second])
        other.embed("video")
        may.set()
        with pytest.raises(LeaseLost, match="was taken by"):
            first.result(LONG)
    expected = hash_vector(version_of("video"), second.raw("video"), "title of one")
    assert other.store.get(f"clipfarm/{VECTOR}").endswith(expected.tobytes())
    assert audit(other.deployment).findings == ()
    other.embed("video")
    assert other.states("video_embedding")["one"].source_hash == second.source_hash


def test_what_a_run_that_was_killed_has_left_is_replaced(pair):
    one, _ = pair
    clip = Clip("one")
    one.fill([clip])
    one.store.put(f"clipfarm/{VECTOR}", b"of a source that it had before")
    one.embed("video")
    assert audit(one.deployment).findings == ()
    assert one.statuses("video_embedding") == {"one": "success"}
