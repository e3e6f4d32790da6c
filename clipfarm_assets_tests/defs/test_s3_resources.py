"""A deployment on S3: settings from the environment, and the proof before the first write."""

import uuid

import dagster as dg
import pytest

from clipfarm_assets.defs.resources import resources_from
from clipfarm_assets.orchestration.resources import s3_settings as settings_of
from clipfarm_assets.storage.objects import ObjectStore, S3Settings
from clipfarm_assets_tests.faulty_proxy import Fault, always, faulty_proxy
from clipfarm_assets_tests.servers import BUCKET, s3_settings


def settings(**environ):
    resource = resources_from({"CLIPFARM_STORE": "s3://b", **environ})["deployment"]
    return settings_of(resource.s3, resource.s3_timeout_seconds, resource.s3_retry_seconds)


def test_patience_comes_from_the_environment():
    given = settings(
        CLIPFARM_S3_RETRIES="2", CLIPFARM_S3_RETRY_SECONDS="1.5", CLIPFARM_S3_TIMEOUT_SECONDS="3"
    )
    assert (given.retries, given.retry_seconds, given.timeout_seconds) == (2, 1.5, 3.0)
    assert settings() == S3Settings()


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "soon", "1_0", "²"])
@pytest.mark.parametrize("name", ["RETRIES", "RETRY_SECONDS", "TIMEOUT_SECONDS"])
def test_what_is_no_patience_is_refused(name, value):
    if name != "RETRIES" and value == "1_0":
        value = "0"
    with pytest.raises(ValueError, match=f"^CLIPFARM_S3_{name} must be .*: found '{value}'$"):
        settings(**{f"CLIPFARM_S3_{name}": value})


@pytest.fixture
def proxy(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    with faulty_proxy(s3_settings()) as running:
        yield running


@pytest.fixture
def deployment(proxy, tmp_path):
    environ = {
        "CLIPFARM_STORE": f"s3://{BUCKET}/{uuid.uuid4().hex}",
        "CLIPFARM_HOME": str(tmp_path),
        "CLIPFARM_S3_ENDPOINT": proxy.settings.endpoint_url,
        "CLIPFARM_S3_RETRIES": "0",
        "AWS_REGION": "us-east-1",
    }
    return resources_from(environ)["deployment"]


def open_it(deployment):
    with deployment.open():
        pass


@pytest.mark.s3
def test_a_server_that_ignores_conditions_is_refused_before_anything_is_written(
    proxy, deployment, tmp_path
):
    proxy.ignore_conditions()
    for _ in range(2):  # a failed proof is no proof
        with pytest.raises(dg.Failure) as caught:
            open_it(deployment)
        assert "ignores the conditions of conditional writes" in caught.value.description
    assert list(ObjectStore.open(deployment.store, s3_settings()).list()) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.s3
def test_conditions_are_proved_once_a_process(proxy, deployment):
    open_it(deployment)
    assert 0 < len(proxy.calls) < 12
    proxy.reset()
    open_it(deployment)
    assert proxy.calls == []


@pytest.mark.s3
def test_a_missing_right_is_one_sentence(proxy, deployment):
    proxy.plan = always(Fault.DENIED)
    with pytest.raises(dg.Failure) as caught:
        open_it(deployment)
    assert "refuses conditional PUT of clipfarm/state/.probe-" in caught.value.description
    assert "403 AccessDenied" in caught.value.description
