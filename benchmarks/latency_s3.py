"""An S3 server in memory whose every answer takes a given time: latency without a network.

    python -m benchmarks.latency_s3 --latency-ms 20

It speaks what obstore, boto3 and the AWS SDKs need of the protocol: path-style buckets, GET (with
ranges), HEAD, PUT and its conditions (If-None-Match, If-Match), multipart uploads, DELETE,
DeleteObjects and ListObjectsV2. It checks no signature and keeps nothing on disk. What it does not
speak it answers with 501, never with something near it.

Latency is added to each request once its last byte has come; requests wait side by side, so it is
distance and no limit of rate. ``100 Continue`` is answered at once; bandwidth is not limited.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from benchmarks.memory_s3 import BUCKET, Request, Server, response

__all__ = ["BUCKET", "counts", "serving"]

COUNTS = "/-/counts"


@contextmanager
def serving(latency_ms: float) -> Iterator[str]:
    """Run a server with the bucket `BUCKET` in a child process; its url, without a final slash."""
    command = [sys.executable, "-m", "benchmarks.latency_s3", "--attached"]
    server = subprocess.Popen(
        [*command, "--latency-ms", str(latency_ms)],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            if not url:
                raise SystemExit("benchmarks.latency_s3 did not start: see its message above")
            yield url
        finally:
            server.terminate()


def counts(url: str) -> dict[str, int]:
    """Requests that the server at `url` has got so far, by kind, and the ``most at once``."""
    with urllib.request.urlopen(url + COUNTS, timeout=30) as answer:
        found: dict[str, int] = json.load(answer)
    return found


class Connection(asyncio.Protocol):
    """HTTP/1.1 with kept connections; bodies have a Content-Length."""

    def __init__(self, server: Server, latency_seconds: float, drop_every: int) -> None:
        self._server, self._latency, self._drop_every = server, latency_seconds, drop_every
        self._received = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._next():
            pass

    def _next(self) -> bool:
        """Take one request out of what was received, if it is all there."""
        if self._head is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return False
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            del self._received[: end + 4]
            method, target, _ = first.split(" ", 2)
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            self._head = method, target, headers
            if headers.get("expect", "").lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, target, headers = self._head
        length = int(headers.get("content-length", 0))
        if len(self._received) < length:
            return False
        body = bytes(self._received[:length])
        del self._received[:length]
        self._head = None
        self._answer(method, target, headers, body)
        return True

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        if target == COUNTS:
            self._transport.write(response(200, self._server.told()))
            return
        if "transfer-encoding" in headers or "aws-chunked" in headers.get("content-encoding", ""):
            self._transport.write(response(501))
            self._transport.close()
            return
        path, _, query = target.partition("?")
        bucket, _, key = path.lstrip("/").partition("/")
        options = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        answer = self._server.answer(
            Request(method, unquote(bucket), unquote(key), options, headers, body)
        )
        if self._drop_every and self._server.counts.total() % self._drop_every == 0:
            self._transport.abort()
            return
        self._server.in_flight += 1
        self._server.most_at_once = max(self._server.most_at_once, self._server.in_flight)
        asyncio.get_running_loop().call_later(self._latency, self._write, answer)

    def _write(self, answer: bytes) -> None:
        self._server.in_flight -= 1
        self._transport.write(answer)


async def _serve(latency_seconds: float, port: int, drop_every: int, attached: bool) -> None:
    loop = asyncio.get_running_loop()
    state, ended = Server(), asyncio.Event()
    listening = await loop.create_server(
        lambda: Connection(state, latency_seconds, drop_every), "127.0.0.1", port, backlog=1024
    )
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, ended.set)
    if attached:
        loop.add_reader(sys.stdin.fileno(), ended.set)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    listening.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument(
        "--drop-every", type=int, default=0, help="lose each n-th answer with its connection"
    )
    parser.add_argument("--attached", action="store_true", help="end when stdin closes")
    asked = parser.parse_args()
    asyncio.run(_serve(asked.latency_ms / 1e3, asked.port, asked.drop_every, asked.attached))


if __name__ == "__main__":
    main()
