"""`deploy/`: webserver, daemon, code server and two run workers, as processes on one machine.

Commands are those of compose.yaml and settings those of dagster-postgres.yaml, read from the
files. PostgreSQL holds Dagster's storage and the ledger; clips and logs are on S3.
"""

import re
import shlex
import uuid
from contextlib import ExitStack
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.defs.test_definitions import SENSORS
from clipfarm_assets_tests.e2e import documented, kit, layout
from clipfarm_assets_tests.servers import BUCKET, postgres_url, s3_settings

pytest.importorskip("dagster_postgres", reason="pip install '.[postgres]'")
pytestmark = [
    pytest.mark.server,
    pytest.mark.postgres,
    pytest.mark.s3,
    pytest.mark.kills,
    pytest.mark.timeout(1800),
]

DAY_1, DAY_2 = kit.DAYS
WANTED = ("clip_index", "text_embeddings")
SAMPLE = "clipfarm.env.sample"
_PATIENCE = 600


def database(prefix):
    """A new database of the tests' server."""
    name = f"{prefix}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgres_url().rpartition('/')[0]}/{name}"


@pytest.fixture(scope="module")
def variables():
    s3, dagster = s3_settings(), urlsplit(database("dagster"))
    return {
        "DAGSTER_POSTGRES_HOST": dagster.hostname,
        "DAGSTER_POSTGRES_PORT": str(dagster.port),
        "DAGSTER_POSTGRES_USER": dagster.username,
        "DAGSTER_POSTGRES_PASSWORD": "any",  # the server trusts everyone
        "DAGSTER_POSTGRES_DB": dagster.path.removeprefix("/"),
        "CLIPFARM_LEDGER": database("clipfarm"),
        "CLIPFARM_STORE": f"s3://{BUCKET}/{uuid.uuid4().hex}",
        "CLIPFARM_LOGS_BUCKET": BUCKET,
        "CLIPFARM_START_DATE": DAY_1,
        "CLIPFARM_END_DATE": DAY_2,
        "CLIPFARM_ENCODERS": "demo",
        "AWS_ENDPOINT_URL": s3.endpoint_url,
        "AWS_REGION": s3.region_name,
        "AWS_ACCESS_KEY_ID": s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.secret_access_key,
    }


@pytest.fixture(scope="module")
def store(variables):
    opened = ObjectStore.open(variables["CLIPFARM_STORE"], s3_settings())
    kit.fill(opened, [clip for clip in kit.small_sample() if clip.date in kit.DAYS])
    return opened


@pytest.fixture(scope="module")
def deployed(tmp_path_factory, variables, store):
    with layout.deployed(tmp_path_factory.mktemp("layout"), variables) as running:
        yield running


@pytest.fixture(scope="module")
def server(deployed):
    return deployed.server("webserver", "3000")


@pytest.fixture(scope="module")
def watcher(deployed):
    return deployed.server("webserver-read-only", "3001")


# The tests below are one story, in this order.


def test_everything_listens_on_the_loopback_address_alone(deployed):
    for port in deployed.ports.values():
        found = layout.addresses_of(port)
        assert found, port
        assert found <= layout.LOOPBACK


def runs(server):
    """Run -> status and the run that it is a retry of."""
    told = server.ask(
        "{ runsOrError { ... on Runs { results { id status parentRunId tags { key value } } } } }"
    )
    return {run["id"]: run for run in told["runsOrError"]["results"]}


def test_two_runs_work_at_once_and_one_that_is_killed_is_started_again(
    deployed, server, store, variables
):
    with Ledger.open(variables["CLIPFARM_LEDGER"], store.url) as ledger, ExitStack() as leases:
        # Both runs come to wait for their dates, so that they are at work together for sure.
        for day in kit.DAYS:
            leases.enter_context(ledger.lease(f"text_embedding/{day}"))
        first, second = (server.launch("clips_daily", day, only=WANTED) for day in kit.DAYS)
        workers = [
            server.until("worker", lambda run=run: layout.worker_of(server, run), _PATIENCE)
            for run in (first, second)
        ]

        def both_wait():
            indexed = server.materialised("clip_index")
            return set(indexed) == set(kit.DAYS)

        server.until("both at work", both_wait, _PATIENCE)
        assert len({*workers, deployed.running["code-server"].pid}) == 3
        assert [layout.is_alive(pid) for pid in workers] == [True, True]
        layout.kill(workers[0])

        def retried():
            return next((r for r in runs(server).values() if r["parentRunId"] == first), None)

        again = server.until("retry", retried, _PATIENCE)
    server.finish(second, _PATIENCE)
    server.finish(again["id"], _PATIENCE)
    assert runs(server)[first]["status"] == "FAILURE"
    assert len(runs(server)) == 3
    assert layout.worker_of(server, again["id"]) not in workers
    shown = server.materialised("text_embeddings")
    assert {day: shown[day]["all_clips/success"] for day in kit.DAYS} == dict.fromkeys(
        kit.DAYS, kit.CLIPS_A_DAY
    )
    assert shown[DAY_2]["run"] == second


def test_the_logs_of_steps_are_on_s3(server, variables):
    logs = ObjectStore.open(f"s3://{variables['CLIPFARM_LOGS_BUCKET']}", s3_settings())
    ended = [run for run, told in runs(server).items() if told["status"] == "SUCCESS"]

    def said():  # stored once a run has ended; of one that has nothing to say there is none
        found = [i.key for run in ended for i in logs.list(f"dagster-logs/storage/{run}")]
        text = b"".join(logs.get(key) for key in found if key.endswith(".err"))
        return f"text {DAY_2}: 3/3".encode() in text and text

    text = server.until("logs of the runs", said, _PATIENCE)
    assert variables["AWS_SECRET_ACCESS_KEY"].encode() not in text


def test_a_read_only_webserver_shows_and_changes_nothing(server, watcher):
    assert set(watcher.materialised("clip_index")) == set(kit.DAYS)
    before = set(runs(server))
    with pytest.raises(AssertionError, match="UnauthorizedError"):
        watcher.launch("clips_daily", DAY_1, only=("clip_index",))
    with pytest.raises(AssertionError, match="UnauthorizedError"):
        watcher.start_sensor("clips_csv_changed")
    assert set(runs(server)) == before
    assert set(server.automation().values()) == {"STOPPED"}


def test_schedule_and_sensors_are_switched_on_as_the_page_says(deployed, server):
    lines = documented.lines_of("Every night")
    assert {shlex.split(line)[0] for line in lines} == {"dagster"}
    for line in lines:
        told = deployed.call(shlex.split(line))
        assert told.returncode == 0, told.stdout
    started = {name for name, state in server.automation().items() if state == "RUNNING"}
    assert started == {"clips_nightly", *SENSORS}

    def all_looked():
        looked = server.ticks()
        assert "FAILURE" not in looked.values(), looked
        return all(looked.get(name) == "SKIPPED" for name in SENSORS)

    server.until("tick of each sensor", all_looked, _PATIENCE)
    assert len(runs(server)) == 3, "everything is done"


def test_every_command_of_the_file_was_run(deployed):
    assert deployed.ran == layout.commands()


def test_the_chart_says_what_the_settings_say():
    settings = yaml.safe_load((layout.DEPLOY / "dagster-postgres.yaml").read_text())
    chart = yaml.safe_load((layout.DEPLOY / "helm-values.yaml").read_text())
    daemon = chart["dagsterDaemon"]

    def snake(values):
        names = {n: "".join(f"_{c.lower()}" if c.isupper() else c for c in n) for n in values}
        return {names[name]: value for name, value in values.items()}

    assert snake(daemon["runMonitoring"]) == settings["run_monitoring"]
    assert snake(daemon["runRetries"]) == settings["run_retries"]
    queue = snake(daemon["runCoordinator"]["config"]["queuedRunCoordinator"])
    assert queue == {**settings["concurrency"]["runs"], **settings["run_coordinator"]["config"]}
    logs = snake(chart["computeLogManager"]["config"]["s3ComputeLogManager"])
    mine = settings["compute_logs"]["config"]
    assert {**logs, "bucket": 0} == {**mine, "bucket": 0}
    (served,) = chart["dagster-user-deployments"]["deployments"]
    command = layout.commands()["code-server"]
    module = served["dagsterApiGrpcArgs"]
    assert module == command[command.index("--module-name") :][:2]


def test_the_sample_of_variables_has_what_the_settings_name(variables):
    """And each process has what it needs by these alone."""
    sample = set(re.findall(r"^#?([A-Z_]+)=", (layout.DEPLOY / SAMPLE).read_text(), re.MULTILINE))
    named = set(re.findall(r"env: (\w+)", (layout.DEPLOY / "dagster-postgres.yaml").read_text()))
    assert named <= sample
    assert set(variables) - {"CLIPFARM_ENCODERS", "CLIPFARM_END_DATE"} <= sample


@pytest.mark.parametrize(
    ("name", "indent"),
    [
        ("dagster-postgres.yaml", ""),
        ("helm-values.yaml", ""),
        ("workspace.yaml", ""),
        ("compose.yaml", "  "),
    ],
)
def test_every_part_is_explained(name, indent):
    """Each setting, and each of compose.yaml's services, has a comment above it."""
    text = (layout.DEPLOY / name).read_text().partition("\nservices:")
    lines = (text[2].partition("\nvolumes:")[0] or text[0]).splitlines()
    parts = [i for i, line in enumerate(lines) if re.match(rf"{indent}[\w-]+:", line)]
    assert parts
    assert [lines[i] for i in parts if not lines[i - 1].strip().startswith("#")] == []
