import http.server
import threading
import uuid

import pytest

from clipfarm_assets.storage.objects import ObjectChanged, ObjectStore, S3Settings, StoreUnavailable
from clipfarm_assets_tests.servers import BUCKET, s3_settings

SECRET = "wJalrXUtnFEMI"


def test_repr_shows_no_secret():
    settings = S3Settings(
        access_key_id="AKID", secret_access_key=SECRET, session_token=f"token-{SECRET}"
    )
    store = ObjectStore.open("s3://b", settings)
    for text in (repr(settings), str(settings), repr(store), store.url):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"access_key_id": "a"}, "together"),
        ({"secret_access_key": SECRET}, "together"),
        ({"session_token": SECRET}, "belongs to"),
        ({"access_key_id": "a", "secret_access_key": SECRET, "profile_name": "p"}, "excludes"),
        ({"endpoint_url": f"http://u:{SECRET}@h"}, "password"),
        ({"endpoint_url": "ftp://h"}, "https://host"),
        ({"endpoint_url": "localhost:9000"}, "https://host"),
        ({"retries": -1}, "0 or more"),
    ],
)
def test_contradicting_settings_are_refused_without_showing_secrets(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        S3Settings(**fields)
    assert SECRET not in str(caught.value)


def test_allow_http_follows_the_endpoints_scheme():
    assert S3Settings(endpoint_url="http://h:9000").allow_http
    assert not S3Settings(endpoint_url="https://h").allow_http
    assert not S3Settings().allow_http


class _Recorder(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does to a HEAD of an object, and keeps the requests' headers."""

    def do_HEAD(self):
        self.server.seen.append(dict(self.headers))
        self.send_response(200)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", "0")
        self.send_header("Last-Modified", "Thu, 05 Feb 2026 17:34:41 GMT")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def recorder():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Recorder) as server:
        server.seen = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def aws_files(tmp_path, monkeypatch):
    """No AWS settings but the files and variables that a test makes."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE",
                 "DEFAULT_REGION", "REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3"):  # fmt: skip
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[profile lab]\nregion = eu-central-1\n")
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = LABKEY\naws_secret_access_key = x\n"
    )


def _authorization(recorder, settings):
    assert ObjectStore.open("s3://b", settings).exists("k")
    return recorder.seen[-1]


def test_explicit_keys_are_not_completed_from_the_environment(recorder, aws_files, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of other keys")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    settings = S3Settings(recorder.url, "us-west-2", "MYKEY", SECRET, retries=0)
    headers = {k.lower(): v for k, v in _authorization(recorder, settings).items()}
    assert "Credential=MYKEY/" in headers["authorization"]
    assert "/us-west-2/s3/" in headers["authorization"]
    assert "x-amz-security-token" not in headers


def test_a_profile_gives_credentials_and_region(recorder, aws_files):
    settings = S3Settings(recorder.url, profile_name="lab", retries=0)
    headers = {k.lower(): v for k, v in _authorization(recorder, settings).items()}
    assert "Credential=LABKEY/" in headers["authorization"]
    assert "/eu-central-1/s3/" in headers["authorization"]


def test_the_environment_gives_credentials(recorder, aws_files, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    headers = {
        k.lower(): v
        for k, v in _authorization(recorder, S3Settings(recorder.url, retries=0)).items()
    }
    assert "Credential=ENVKEY/" in headers["authorization"]


def test_unsigned_sends_no_credentials(recorder, aws_files):
    settings = S3Settings(recorder.url, unsigned=True, retries=0)
    assert "authorization" not in {k.lower() for k in _authorization(recorder, settings)}


@pytest.mark.parametrize("profile", [None, "nobody"])
def test_no_credentials_is_one_clear_sentence(aws_files, profile):
    store = ObjectStore.open("s3://b", S3Settings(profile_name=profile))
    with pytest.raises(StoreUnavailable, match="no S3 credentials"):
        store.get("k")


class _LosingProxy(http.server.BaseHTTPRequestHandler):
    """Passes requests on; loses the answer to the first successful PUT, or drops conditions."""

    def do_GET(self):
        self.server.requests.append((self.command, self.path.partition("?")[0]))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in self.server.dropped}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if self.command == "PUT" and answer.status == 200 and not self.server.lost:
            self.server.lost = True
            self.server.on_loss()
            answer.status, data = 503, b""
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self):
        self.do_GET()

    def do_PUT(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def losing_store():
    settings = s3_settings()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _LosingProxy) as server:
        server.upstream = settings.endpoint_url.removeprefix("http://")
        server.lost, server.on_loss, server.dropped = False, lambda: None, set()
        server.requests = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        proxied = S3Settings(f"http://127.0.0.1:{server.server_port}", "us-east-1", "a", "b")
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        yield server, ObjectStore.open(url, proxied), ObjectStore.open(url, settings)
        server.shutdown()
        thread.join()


@pytest.mark.s3
@pytest.mark.parametrize("existing", [None, b"0"])
def test_a_swap_whose_answer_got_lost_is_known_to_have_succeeded(losing_store, existing):
    server, store, direct = losing_store
    expected = None if existing is None else direct.swap("k", existing, None)
    version = store.swap("k", b"1", expected)
    assert server.lost
    assert direct.get_versioned("k") == (b"1", version)


@pytest.mark.s3
def test_a_rivals_same_bytes_after_a_lost_answer_are_not_ours(losing_store):
    server, store, direct = losing_store
    version = direct.swap("k", b"0", None)
    server.on_loss = lambda: direct.swap("k", b"1", direct.version("k"))
    with pytest.raises(ObjectChanged):
        store.swap("k", b"1", version)
    assert server.lost


@pytest.mark.s3
def test_a_put_if_absent_whose_answer_got_lost_succeeds(losing_store):
    server, store, direct = losing_store
    store.put_if_absent("k", b"1")
    assert server.lost
    assert direct.get("k") == b"1"


@pytest.mark.s3
@pytest.mark.parametrize("dropped", ["if-match", "if-none-match"])
def test_a_server_that_ignores_conditions_is_found_out(losing_store, dropped):
    server, store, direct = losing_store
    server.lost = True  # lose nothing here
    store.check_conditional_writes("clipfarm/state")
    server.dropped = {dropped}
    with pytest.raises(StoreUnavailable, match="ignores the conditions"):
        store.check_conditional_writes("clipfarm/state")
    assert list(direct.list("")) == []


@pytest.mark.s3
def test_the_probe_of_conditions_stays_below_the_prefix_it_is_given(losing_store):
    server, store, _ = losing_store
    server.lost = True  # lose nothing here
    store.check_conditional_writes("clipfarm/state")
    below = f"{store.url.removeprefix('s3:/').partition('?')[0]}/clipfarm/state/.probe-"
    # Deletes name their objects in the body of a POST to the bucket.
    paths = [path for command, path in server.requests if command != "POST"]
    assert len(paths) >= 4
    assert [path for path in paths if not path.startswith(below)] == []
