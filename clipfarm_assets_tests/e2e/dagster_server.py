"""``dagster dev`` as ``make ui`` starts it, and what the UI would ask it over GraphQL."""

import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from clipfarm_assets_tests.e2e import kit
from clipfarm_assets_tests.servers import free_port

REPOSITORY_SELECTOR = {
    "repositoryLocationName": "clipfarm",
    "repositoryName": "__repository__",
}
FAILED = {"FAILURE", "CANCELED"}


class Server:
    """A running webserver, daemon and code server."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url, self.process, self.log = url, process, log

    def ask(self, query: str, **variables):
        """One GraphQL request; its errors are the test's."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=180) as answer:
            told = json.load(answer)
        assert "errors" not in told, told["errors"]
        return told["data"]

    def until(self, what: str, condition, seconds: float):
        """Poll until the condition is true, and return what it returned."""
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            assert self.process.poll() is None, f"the server ended:\n{self.tail()}"
            assert time.monotonic() < deadline, f"no {what} after {seconds} s:\n{self.tail()}"
            time.sleep(1)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-5000:]

    # Things a person does in the UI.

    def backfill(self, assets, partitions) -> str:
        """Launch an asset backfill over these partitions; its id."""
        told = self.ask(
            """mutation ($it: LaunchBackfillParams!) {
                launchPartitionBackfill(backfillParams: $it) {
                    __typename
                    ... on LaunchBackfillSuccess { backfillId }
                    ... on PythonError { message }
                }
            }""",
            it={
                "assetSelection": [{"path": ["clips", name]} for name in assets],
                "partitionNames": list(partitions),
            },
        )["launchPartitionBackfill"]
        assert told["__typename"] == "LaunchBackfillSuccess", told
        return told["backfillId"]

    def launch(
        self,
        job: str,
        partition: str | None = None,
        *,
        span: tuple[str, str] | None = None,
        only=(),
        **configs,
    ) -> str:
        """Launch a run of a job, or of some of its assets, with configurations by asset; its id.

        It is of one partition, of a span of them, or of an asset without partitions.
        """
        ops = {f"clips__{asset}": {"config": config} for asset, config in configs.items()}
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        if span:
            first, last = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))
            tags = [{"key": first, "value": span[0]}, {"key": last, "value": span[1]}]
        told = self.ask(
            """mutation ($it: ExecutionParams!) { launchRun(executionParams: $it) {
                __typename
                ... on LaunchRunSuccess { run { id } }
                ... on PythonError { message }
                ... on RunConfigValidationInvalid { errors { message } }
            } }""",
            it={
                "selector": {
                    **REPOSITORY_SELECTOR,
                    "jobName": job,
                    "assetSelection": [{"path": ["clips", name]} for name in only] or None,
                    "assetCheckSelection": [] if only else None,
                },
                "runConfigData": {"ops": ops},
                "executionMetadata": {"tags": tags},
            },
        )["launchRun"]
        assert told["__typename"] == "LaunchRunSuccess", told
        return told["run"]["id"]

    def finish(self, run_id: str, seconds: float) -> None:
        """Wait until a run has ended well."""

        def ended():
            told = self.ask(
                "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id
            )["runOrError"]
            assert told["status"] not in FAILED, self.tail()
            return told["status"] == "SUCCESS"

        self.until("end of the run", ended, seconds)

    def look_at(self, backfill_id: str) -> dict:
        """The backfill's status and its runs as they are now."""
        return self.ask(
            """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
                ... on PartitionBackfill {
                    status
                    error { message }
                    runs(limit: 100) {
                        id
                        status
                        tags { key value }
                        stepStats { stepKey startTime endTime }
                    }
                }
            } }""",
            id=backfill_id,
        )["partitionBackfillOrError"]

    def spans(self, backfill_id: str, asset: str) -> list[tuple[float, float]]:
        """When steps of the asset began and ended, in all runs of a backfill, in order."""
        return sorted(
            (step["startTime"], step["endTime"])
            for run in self.look_at(backfill_id)["runs"]
            for step in run["stepStats"]
            if step["stepKey"] == asset.replace("/", "__")
        )

    def slots(self, pool: str) -> int:
        """How many steps of a pool may run at a time."""
        told = self.ask(
            """query ($key: String!) { instance { concurrencyLimit(concurrencyKey: $key) {
                slotCount
            } } }""",
            key=pool,
        )
        return told["instance"]["concurrencyLimit"]["slotCount"]

    def runs_of(self, backfill_id: str, at_least: int, seconds: float) -> list[dict]:
        """The backfill's runs once so many have ended well.

        The daemon looks only every 30 s whether a backfill is complete: `look_at` it later.
        """

        def ended():
            runs = self.look_at(backfill_id)["runs"]
            assert not [run for run in runs if run["status"] in FAILED], self.tail()
            return runs if [r["status"] for r in runs].count("SUCCESS") >= at_least else None

        return self.until("end of the runs", ended, seconds)

    def materialisations(self, name: str, group: str = "clips") -> list[dict]:
        """The asset's latest materialisations, newest first."""
        told = self.ask(
            """query ($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
                assetMaterializations(limit: 200) {
                    partition
                    runId
                    metadataEntries {
                        __typename label
                        ... on IntMetadataEntry { intValue }
                        ... on FloatMetadataEntry { floatValue }
                        ... on TextMetadataEntry { text }
                        ... on MarkdownMetadataEntry { mdStr }
                    }
                }
            } } }""",
            key={"path": [group, name]},
        )["assetOrError"]
        return told.get("assetMaterializations", [])

    def materialised(self, name: str, group: str = "clips") -> dict[str | None, dict[str, object]]:
        """Partition -> metadata by label, and the run, of its last materialisation."""
        out: dict[str | None, dict[str, object]] = {}
        for event in self.materialisations(name, group):
            values = {
                entry["label"]: next(
                    (v for k, v in entry.items() if k not in {"__typename", "label"}), None
                )
                for entry in event["metadataEntries"]
            }
            out.setdefault(event["partition"], {**values, "run": event["runId"]})
        return out

    def checks(self, name: str, check: str, group: str = "clips") -> dict[str | None, bool]:
        """Partition -> whether the last evaluation of the check passed."""
        told = self.ask(
            """query ($key: AssetKeyInput!, $check: String!) {
                assetCheckExecutions(assetKey: $key, checkName: $check, limit: 200) {
                    status
                    evaluation { success partition }
                }
            }""",
            key={"path": [group, name]},
            check=check,
        )["assetCheckExecutions"]
        out: dict[str | None, bool] = {}
        for execution in told:
            if execution["evaluation"]:
                found = execution["evaluation"]
                out.setdefault(found["partition"], found["success"])
        return out

    def automation(self) -> dict[str, str]:
        """Name -> RUNNING or STOPPED, of schedules and sensors."""
        told = self.ask(
            """query ($it: RepositorySelector!) { repositoryOrError(repositorySelector: $it) {
                ... on Repository {
                    schedules { name scheduleState { status } }
                    sensors { name sensorState { status } }
                }
            } }""",
            it=REPOSITORY_SELECTOR,
        )["repositoryOrError"]
        schedules = {s["name"]: s["scheduleState"]["status"] for s in told["schedules"]}
        return schedules | {s["name"]: s["sensorState"]["status"] for s in told["sensors"]}

    def ticks(self) -> dict[str, str]:
        """Name -> how the last tick ended, of sensors that had one."""
        told = self.ask(
            """query ($it: RepositorySelector!) { repositoryOrError(repositorySelector: $it) {
                ... on Repository {
                    sensors { name sensorState { ticks(limit: 1) { status } } }
                }
            } }""",
            it=REPOSITORY_SELECTOR,
        )["repositoryOrError"]
        found = {s["name"]: s["sensorState"]["ticks"] for s in told["sensors"]}
        return {name: ticks[0]["status"] for name, ticks in found.items() if ticks}

    def start_sensor(self, name: str) -> None:
        told = self.ask(
            """mutation ($it: SensorSelector!) { startSensor(sensorSelector: $it) {
                __typename
                ... on PythonError { message }
            } }""",
            it={**REPOSITORY_SELECTOR, "sensorName": name},
        )["startSensor"]
        assert told["__typename"] == "Sensor", told

    def is_ready(self) -> bool:
        try:
            told = self.ask(
                """{ workspaceOrError { ... on Workspace { locationEntries {
                        loadStatus
                        locationOrLoadError {
                            ... on RepositoryLocation { name }
                            ... on PythonError { message }
                        }
                    } } }
                    instance { daemonHealth { allDaemonStatuses { daemonType healthy required } } }
                }"""
            )
        except OSError:
            return False
        entries = told["workspaceOrError"].get("locationEntries", [])
        loaded = [e["locationOrLoadError"] for e in entries if e["loadStatus"] == "LOADED"]
        assert all("message" not in location for location in loaded), loaded
        daemons = told["instance"]["daemonHealth"]["allDaemonStatuses"]
        return bool(loaded) and all(d["healthy"] for d in daemons if d["required"])


@contextmanager
def hearing_interrupts():
    """What is started in here stops when it is told to, also below ``nohup … &``.

    There SIGINT is ignored, which children inherit; and to ``dagster dev`` a SIGTERM is whatever a
    SIGINT is.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children get the default action
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def serving(site: kit.Site):
    """Start ``dagster dev`` for the site, wait until it is ready, and stop all of it at the end."""
    port = free_port()
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", "workspace.yaml"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (
        tempfile.NamedTemporaryFile(dir=site.root, suffix=".log", delete=False) as log,
        hearing_interrupts(),
    ):
        process = subprocess.Popen(
            command,
            cwd=kit.REPOSITORY,
            env=site.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, Path(log.name))
    try:
        server.until("answer of the server", server.is_ready, 300)
        yield server
    finally:
        kit.stop(process)
