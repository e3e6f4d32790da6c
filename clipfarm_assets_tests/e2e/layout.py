"""The processes of `deploy/compose.yaml`, run as they stand there, on other ports."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from clipfarm_assets_tests.e2e import kit
from clipfarm_assets_tests.e2e.dagster_server import Server
from clipfarm_assets_tests.servers import free_port

DEPLOY = kit.REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
# What is another one on a machine that may be using these.
PORTS = ("4266", "3000", "3001")
WORKSPACE = "deploy/workspace.yaml"
# As the kernel writes 127.0.0.1, the same by way of IPv6, and ::1.
LOOPBACK = {
    "0100007F",
    "0000000000000000FFFF00000100007F",
    "00000000000000000000000001000000",
}


def commands() -> dict[str, list[str]]:
    """Each of our own commands in the file, by service; health checks as ``<service>?``."""
    found = {}
    for name, service in COMPOSE["services"].items():
        if name == "postgres":
            continue
        found[name] = service["command"]
        if "healthcheck" in service:
            kind, *command = service["healthcheck"]["test"]
            assert kind == "CMD"
            found[f"{name}?"] = command
    return found


@dataclass
class Layout:
    """The processes of one deployment.

    Attributes:
        root: A folder of its own, with Dagster's home and the logs.
        variables: Of the deployment: what `clipfarm.env` would hold.
        ran: The commands that were started, by the name of `commands`.
    """

    root: Path
    variables: dict[str, str]
    ports: dict[str, str] = field(default_factory=lambda: {p: str(free_port()) for p in PORTS})
    ran: dict[str, list[str]] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Dagster's home with the sample's settings, and a workspace that names our port."""
        (self.root / "dagster").mkdir()
        settings = (DEPLOY / "dagster-postgres.yaml").read_text()
        (self.root / "dagster" / "dagster.yaml").write_text(settings)
        workspace = (kit.REPOSITORY / WORKSPACE).read_text()
        assert "4266" in workspace
        (self.root / "workspace.yaml").write_text(workspace.replace("4266", self.ports["4266"]))

    @property
    def environ(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLIPFARM_", "DAGSTER_", "AWS_"))
        }
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DAGSTER_HOME": str(self.root / "dagster"),
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",  # a busy machine is no failure
            "HF_HUB_OFFLINE": "1",
            **self.variables,
        }

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a service's command. Only ports and the workspace's place are others."""
        command = self.ran[name] = commands()[name]
        with self.log(name).open("ab") as log:
            process = self.running[name] = subprocess.Popen(
                self.placed(command),
                cwd=kit.REPOSITORY,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return process

    def placed(self, command: list[str]) -> list[str]:
        """The command for this deployment."""
        places = {**self.ports, WORKSPACE: str(self.root / "workspace.yaml")}
        return [places.get(word, word) for word in command]

    def call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run what a person types, to its end; output and errors together."""
        return subprocess.run(
            self.placed(command),
            cwd=kit.REPOSITORY,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, name: str) -> int:
        """Start it, and wait for its end."""
        return self.start(name).wait(300)

    def until_it_listens(self, name: str, port: str) -> None:
        """Wait for the process to be there."""
        deadline = time.monotonic() + 300
        while not addresses_of(self.ports[port]):
            assert self.running[name].poll() is None, self.log(name).read_text()
            assert time.monotonic() < deadline, self.log(name).read_text()
            time.sleep(0.5)

    def log(self, name: str) -> Path:
        return self.root / f"{name.removesuffix('?')}.log"

    def server(self, name: str, port: str) -> Server:
        """A webserver that was started, to be asked over GraphQL."""
        url = f"http://127.0.0.1:{self.ports[port]}"
        return Server(url, self.running[name], self.log(name))

    def stop(self) -> None:
        for process in reversed(self.running.values()):
            kit.stop(process)


@contextmanager
def deployed(root: Path, variables: dict[str, str]) -> Iterator[Layout]:
    """All of them, in the order in which they depend on each other; stopped at the end."""
    layout = Layout(root, variables)
    layout.prepare()
    try:
        assert layout.run("migrate") == 0, layout.log("migrate").read_text()
        layout.start("code-server")
        layout.until_it_listens("code-server", "4266")
        assert layout.run("code-server?") == 0, layout.log("code-server").read_text()
        for name in ("daemon", "webserver", "webserver-read-only"):
            layout.start(name)
        for name, port in (("webserver", "3000"), ("webserver-read-only", "3001")):
            server = layout.server(name, port)
            server.until("answer of the server", server.is_ready, 300)
        yield layout
    finally:
        layout.stop()


def worker_of(server: Server, run_id: str) -> int | None:
    """The process of a run, once it says that it has one."""
    told = server.ask(
        """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {
            events { ... on MessageEvent { message } }
        } } }""",
        id=run_id,
    )
    for event in told["logsForRun"]["events"]:
        if found := re.search(
            r"Started process for run \(pid: (\d+)\)", event.get("message") or ""
        ):
            return int(found[1])
    return None


def addresses_of(port: str) -> set[str]:
    """The addresses on which somebody listens to a port, as the kernel writes them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == int(port):
                found.add(address)
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
