"""A proxy before an S3 server that throttles, breaks off, falls silent or loses answers, as told.

It speaks HTTP/1.1 to clients that send bodies with a Content-Length, and keeps a record of what was
asked for: as an HTTP method and a key, and as the actions that S3 would ask a policy about.
"""

import hashlib
import http.client
import http.server
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode

from clipfarm_assets.storage.s3_client import S3Settings

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}
_CONDITIONS = {"if-match", "if-none-match"}
_UPSTREAM_SECONDS = 30
# Longer than any client of a test waits.
_SILENCE_SECONDS = 60
_DRIP_SECONDS = 0.05
# Not well-formed, as pages are. One that was would pass for an empty listing: so the client reads.
_PAGE = (
    b"<!doctype html><html><head><meta charset=utf-8><title>Sign in</title></head>"
    b"<body><h1>Sign in</h1><br></body></html>"
)


class Fault(Enum):
    """What becomes of one request."""

    SLOW_DOWN = (503, "SlowDown")
    INTERNAL_ERROR = (500, "InternalError")
    TOO_MANY = (429, "TooManyRequests")
    REQUEST_TIMEOUT = (400, "RequestTimeout")
    CONFLICT = (409, "ConditionalRequestConflict")
    # Reset before the server ever saw the request; or carried out, and the answer lost.
    RESET = "reset"
    LOST_ANSWER = "lost answer"
    LOST_AND_RESET = "lost answer and reset"
    # The head of the answer promises more than comes.
    TRUNCATED = "truncated"
    TRUNCATED_AND_RESET = "truncated and reset"
    # It is not S3 that answers: bytes that are no HTTP, or a page of some other proxy.
    GARBAGE = "garbage"
    FOREIGN_PAGE = "foreign page"
    # Bytes one by one, or none after the head, or not even a head; none of it ends.
    DRIPPING = "dripping"
    STALLED = "stalled"
    SILENT = "silent"
    # A final no.
    DENIED = (403, "AccessDenied")
    BROKEN = (501, "NotImplemented")
    # Something isn't there, which is a fault or not by what was asked for.
    NO_KEY = (404, "NoSuchKey")
    NO_UPLOAD = (404, "NoSuchUpload")
    NO_BUCKET = (404, "NoSuchBucket")


ENDLESS = (Fault.DRIPPING, Fault.STALLED, Fault.SILENT)
FINAL = (Fault.DENIED, Fault.BROKEN)
ABSENT = (Fault.NO_KEY, Fault.NO_UPLOAD, Fault.NO_BUCKET)
PASSING = tuple(fault for fault in Fault if fault not in {*FINAL, *ABSENT})


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        method: Of HTTP.
        action: What S3 asks a policy about it, e.g. ``s3:GetObject``.
        key: Of the object; of a listing its prefix.
        number: How often this was asked for before.
    """

    method: str
    action: str
    key: str
    number: int = 0


Plan = Callable[[Call], Fault | None]


def always(fault: Fault) -> Plan:
    """Every request suffers it."""
    return lambda _call: fault


def first(fault: Fault, times: int = 1) -> Plan:
    """The first requests of each kind and key suffer it."""
    return lambda call: fault if call.number < times else None


def seeded(seed: int, share: float, faults: Collection[Fault] = PASSING, most: int = 3) -> Plan:
    """A share of the requests suffers something, no kind and key more than `most` times.

    It depends on the seed and the request alone, so threads change nothing; of keys on what comes
    after the first folder, which tests make up anew.
    """
    kinds = tuple(faults)

    def plan(call: Call) -> Fault | None:
        if call.number >= most:
            return None
        name = f"{seed}:{call.method}:{call.key.partition('/')[2]}:{call.number}"
        drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        return kinds[drawn % len(kinds)] if (drawn >> 16) % 10_000 < share * 10_000 else None

    return plan


@dataclass
class Proxy:
    """The running proxy, and what it saw. `plan` and the options may be changed at any time.

    Attributes:
        settings: To reach the server through it.
        plan: What happens to which request; None: nothing.
        before: Called before a request is carried out: what waits there makes it come late.
        after: Called when a request was carried out and before anything of the answer is sent.
        ignored: Headers that are taken away from requests, as servers do that don't know them.
        page_size: Keys at most in a page of a listing; None: as many as the server gives.
        calls: Every request that came, in order.
        suffered: Every request that suffered something, in order, and what.
        dead: Whether it hangs up on everyone.
    """

    settings: S3Settings
    plan: Plan | None = None
    before: Callable[[Call], None] = lambda _call: None
    after: Callable[[Call], None] = lambda _call: None
    ignored: Collection[str] = ()
    page_size: int | None = None
    calls: list[Call] = field(default_factory=list)
    suffered: list[tuple[Call, Fault]] = field(default_factory=list)
    dead: bool = False

    def ignore_conditions(self) -> None:
        """From now on it is a server that takes conditional writes and ignores the condition."""
        self.ignored = _CONDITIONS

    def count(self, method: str, key: str) -> int:
        """Requests of a method whose key ends so."""
        return sum(call.method == method and call.key.endswith(key) for call in self.calls)

    def actions(self) -> set[tuple[str, str]]:
        """What was asked for: actions and keys."""
        return {(call.action, call.key) for call in self.calls}

    def reset(self) -> None:
        """Forget what was seen."""
        self.calls.clear()
        self.suffered.clear()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = str(settings.endpoint_url).removeprefix("http://")
        self.proxy: Proxy
        self.lock = threading.Lock()
        self.numbers: Counter[tuple[str, str]] = Counter()
        self.stopping = threading.Event()

    def shutdown_request(self, request):
        """Close it without the goodbye that the base class says first: a reset is to be one."""
        self.close_request(request)

    def handle_error(self, request, client_address):
        """Clients hang up; what is wrong shows in what they get."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A head and its body are one segment, sent at once: else each waits for the client's word.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.server.proxy
        if proxy.dead:
            return self._hang_up()
        call, fault = self._recorded(body)
        if isinstance(fault, Fault) and isinstance(fault.value, tuple):
            return self._refuse(*fault.value)
        if fault is Fault.RESET:
            return self._hang_up(reset=True)
        if fault is Fault.GARBAGE:
            return self._hang_up(b"\x16\x03\x01 this is no HTTP\r\n\r\n" * 4)
        if fault is Fault.FOREIGN_PAGE:
            return self._answer(200, [("Content-Type", "text/html")], _PAGE)
        if fault is Fault.SILENT:
            return self._wait()
        proxy.before(call)
        answer, data = self._forward(body)
        proxy.after(call)
        if fault in {Fault.LOST_ANSWER, Fault.LOST_AND_RESET}:
            return self._hang_up(reset=fault is Fault.LOST_AND_RESET)
        headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP]
        if self.command == "HEAD":
            length = answer.getheader("Content-Length") or "0"
        else:
            length = str(len(data))
        if fault is None:
            return self._answer(answer.status, headers, data, length)
        return self._break_off(fault, answer.status, headers, data, length)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def _recorded(self, body):
        path, _, query = self.path.partition("?")
        _, _, key = unquote(path).lstrip("/").partition("/")
        fields = parse_qs(query, keep_blank_values=True)
        calls = [Call(self.command, *asked) for asked in _asked(self.command, key, fields, body)]
        server = self.server
        with server.lock:
            number = server.numbers[self.command, calls[0].key]
            server.numbers[self.command, calls[0].key] += 1
            calls = [Call(c.method, c.action, c.key, number) for c in calls]
            server.proxy.calls.extend(calls)
            plan = server.proxy.plan
            fault = None if plan is None else plan(calls[0])
            if fault is not None:
                server.proxy.suffered.append((calls[0], fault))
        return calls[0], fault

    def _forward(self, body):
        proxy, path = self.server.proxy, self.path
        if proxy.page_size and "list-type=2" in path:
            path, _, query = path.partition("?")
            fields = [*parse_qsl(query, keep_blank_values=True), ("max-keys", proxy.page_size)]
            path = f"{path}?{urlencode(fields)}"
        headers = {k: v for k, v in self.headers.items() if k.lower() not in proxy.ignored}
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=_UPSTREAM_SECONDS)
        try:
            upstream.request(self.command, path, body, headers)
            answer = upstream.getresponse()
            return answer, answer.read()
        finally:
            upstream.close()

    def _refuse(self, status, code):
        echoed = self.headers.get("x-amz-security-token", "")
        text = (
            f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Go away.</Message>'
            f"<CanonicalRequest>x-amz-security-token:{echoed}</CanonicalRequest></Error>"
        )
        data = b"" if self.command == "HEAD" else text.encode()
        self._answer(status, [("Content-Type", "application/xml")], data)

    def _answer(self, status, headers, data, length=None):
        self._head(status, headers, length or str(len(data)))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _head(self, status, headers, length):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()

    def _break_off(self, fault, status, headers, data, length):
        """Send a part of an answer; where there is no body, a part of its head."""
        if self.command == "HEAD" or not data:
            self.wfile.write(f"HTTP/1.1 {status} OK\r\nETag: ".encode())
            rest = b'"an-etag-that-never-ends' * 1000
        else:
            self._head(status, headers, length)
            half = len(data) // 2
            self.wfile.write(data[:half])
            rest = data[half:]
        self.wfile.flush()
        if fault is Fault.STALLED:
            self._wait()
        elif fault is Fault.DRIPPING:
            self._drip(rest)
        else:
            self._hang_up(reset=fault is Fault.TRUNCATED_AND_RESET)

    def _drip(self, data):
        for byte in data[:-1]:
            if self.server.stopping.wait(_DRIP_SECONDS):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self._wait()

    def _wait(self):
        self.server.stopping.wait(_SILENCE_SECONDS)
        self.close_connection = True

    def _hang_up(self, data=b"", *, reset=False):
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = True
        if reset:
            # With no time to linger for, closing is a reset.
            linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def log_message(self, *args):
        pass


def _asked(method, key, fields, body):
    """The actions, and on which keys, that S3 would look up in a policy for a request."""
    if method == "POST" and "delete" in fields:
        keys = re.findall(rb"<Key>(.*?)</Key>", body)
        return [("s3:DeleteObject", unquote(each.decode())) for each in keys]
    if not key and "list-type" in fields:
        return [("s3:ListBucket", "".join(fields.get("prefix", [])))]
    if method in {"GET", "HEAD"}:
        return [("s3:GetObject", key)]
    if method == "DELETE":
        return [("s3:AbortMultipartUpload" if "uploadId" in fields else "s3:DeleteObject", key)]
    return [("s3:PutObject", key)]


@contextmanager
def faulty_proxy(settings: S3Settings, **options) -> Iterator[Proxy]:
    """Run a proxy before the server of `settings`, as long as the block lasts."""
    with _Server(settings) as server:
        own = {"endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        server.proxy = Proxy(replace(settings, **own), **options)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.proxy
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()
