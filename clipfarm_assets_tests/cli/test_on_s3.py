"""The commands on S3: those that look need no right to write, those that change need conditions."""

import uuid

import pytest

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.cli.kit import as_deployed
from clipfarm_assets_tests.faulty_proxy import Fault, faulty_proxy
from clipfarm_assets_tests.pipelines.kit import World
from clipfarm_assets_tests.pipelines.upkeep.kit import made
from clipfarm_assets_tests.s3_policies import refused
from clipfarm_assets_tests.servers import BUCKET, s3_settings

assert made  # a fixture

pytestmark = pytest.mark.s3

LOOKING = (
    ["status"],
    ["why", "a-001"],
    ["plan"],
    ["audit"],
    ["gc"],
    ["forget", "a-001"],
    ["retry", "--dry-run", "--status", "fail"],
)
READS = {"s3:GetObject", "s3:ListBucket"}


@pytest.fixture
def proxy():
    with faulty_proxy(s3_settings()) as running:
        yield running


@pytest.fixture
def on_s3(made, proxy, tmp_path, monkeypatch):
    """A complete store in a bucket, which this process's environment names; its prefix."""
    prefix = uuid.uuid4().hex
    url = f"s3://{BUCKET}/{prefix}"
    with World(made) as world:
        as_deployed(world, monkeypatch.setenv, monkeypatch.delenv)
        direct = ObjectStore.open(url, s3_settings())
        assert len(list(direct.put_many(world.objects().items()))) > 50
        database = f"sqlite:///{tmp_path}/ledger.sqlite"
        with Ledger.open(database, ObjectStore.open(url, proxy.settings).url) as ledger:
            for stage in world.ledger.stages():
                ledger.commit(stage, world.states(stage).values())
    environ = {
        "CLIPFARM_STORE": url,
        "CLIPFARM_LEDGER": database,
        "CLIPFARM_S3_ENDPOINT": proxy.settings.endpoint_url,
        "CLIPFARM_S3_RETRIES": "0",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "SECRET",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return prefix


def objects(prefix):
    return [*ObjectStore.open(f"s3://{BUCKET}/{prefix}", s3_settings()).list()]


def test_commands_that_look_need_only_to_read(on_s3, proxy, clipfarm):
    proxy.plan = lambda call: None if call.action in READS else Fault.DENIED
    before = objects(on_s3)
    for line in LOOKING:
        code, out, err = clipfarm(*line)
        if line[0] == "retry":
            assert (code, "no clip is fail" in err) == (1, True), "there is nothing to retry"
        else:
            assert (code, err) == (0, ""), line
            assert out
    assert {action for action, _ in proxy.actions()} == READS
    assert proxy.suffered == []
    # The very rights that deploy/ gives a worker for reading.
    asked = {
        (action, key.removeprefix(f"{on_s3}/").removeprefix(on_s3))
        for action, key in proxy.actions()
    }
    assert refused("s3-policy.json", asked) == set()
    assert objects(on_s3) == before


@pytest.mark.parametrize(
    "line",
    [
        ["gc", "--delete", "--older-than", "0"],
        ["forget", "a-001", "--yes"],
    ],
)
def test_commands_that_change_refuse_a_server_that_ignores_conditions(on_s3, proxy, clipfarm, line):
    proxy.ignore_conditions()
    before = objects(on_s3)
    code, out, err = clipfarm(*line)
    assert (code, out) == (1, "")
    assert "ignores the conditions of conditional writes" in err
    assert objects(on_s3) == before
