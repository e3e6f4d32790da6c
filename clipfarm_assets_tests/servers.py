"""Real servers on loopback for tests: an S3 server and a PostgreSQL server.

Each is started at most once a test process, on first use, and stopped when the process ends.
"""

import atexit
import functools
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from clipfarm_assets.storage.s3_client import S3Settings

BUCKET = "clipfarm-tests"
_START_SECONDS = 60


def free_port() -> int:
    """A port no one listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@functools.cache
def s3_settings() -> S3Settings:
    """Settings of a moto server that has the bucket `BUCKET`."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, __file__, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    atexit.register(_stop, server)
    _wait_for(port, server)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200
    connection.close()
    return S3Settings(
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        access_key_id="tests",
        secret_access_key="tests-secret",
    )


@dataclass(frozen=True)
class PostgresServer:
    """A running server.

    Attributes:
        url: Of its database.
        control: ``pg_ctl`` with the options of every command.
        home: Its folder.
        user: Who it runs as; None for us.
    """

    url: str
    control: tuple[str, ...]
    home: Path
    user: str | None

    def restart(self) -> None:
        """Break off all connections and transactions, as a crash does, and start it again."""
        _run([*self.control, "-m", "immediate", "stop"], self.home, self.user)
        self.start()

    def start(self) -> None:
        """Start it; returns when it answers."""
        _run([*self.control, "start"], self.home, self.user)

    def stop(self) -> None:
        """Stop it for good."""
        _run([*self.control, "-m", "immediate", "stop"], self.home, self.user)


def postgres_url() -> str:
    """URL of a PostgreSQL database. Skips where PostgreSQL is not installed, but fails on CI."""
    return postgres_server().url


@functools.cache
def postgres_server() -> PostgresServer:
    """A PostgreSQL server of this process; skips as `postgres_url`."""
    binaries = _postgres_binaries()
    if binaries is None:
        reason = "PostgreSQL is not installed: no initdb on PATH or in /usr/lib/postgresql/*/bin"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    home = Path(tempfile.mkdtemp(prefix="clipfarm-postgres-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user:
        shutil.chown(home, user, user)
    data = home / "data"
    initdb = ["-D", str(data), "-U", "clipfarm", "-A", "trust", "-E", "UTF8", "--no-sync"]
    _run([str(binaries / "initdb"), *initdb, "--locale=C.UTF-8"], home, user)
    port = free_port()
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} "
        "-c fsync=off -c shared_buffers=16MB"
    )
    control = (str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(home / "log"))
    server = PostgresServer(
        f"postgresql://clipfarm@127.0.0.1:{port}/postgres",
        (*control, "-o", options),
        home,
        user,
    )
    server.start()
    atexit.register(server.stop)
    return server


def _postgres_binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


def _run(command: list[str], folder: Path, user: str | None) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "start" not in command else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        timeout=_START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {(done.stdout or b'').decode()}"


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert server.poll() is None, "the server ended while starting"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)
        else:
            return


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait(_START_SECONDS)


def _serve_s3(port: int) -> None:
    """Run moto, one request at a time: its conditional writes check and write in two steps."""
    from moto.server import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import run_simple

    moto = DomainDispatcherApplication(create_backend_app)
    turn = threading.Lock()

    def application(environ, start_response):
        with turn:
            return list(moto(environ, start_response))

    handler = MotoRequestHandler
    run_simple("127.0.0.1", port, application, threaded=True, request_handler=handler)


if __name__ == "__main__":
    _serve_s3(int(sys.argv[1]))
