"""What a person is told, once, without secrets; and what becomes of an address that fails."""

import json
import logging
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from clipfarm_assets.definitions import defs
from clipfarm_assets.orchestration import alert_sensors
from clipfarm_assets.orchestration.alerts import Alert, AlertNotSent, report
from clipfarm_assets.orchestration.freshness import made_every_night
from clipfarm_assets.orchestration.redaction import redacted

LOG = logging.getLogger("alerts")
ALERT = Alert("run_failed", "clips_daily", "it stopped", "2026-02-05", "f00", will_retry=True)
MANIFEST = dg.AssetKey(["clips", "fused_manifest"])
UNIQUE = dg.AssetCheckKey(MANIFEST, "manifest_unique")


class Webhook:
    """What was posted to an address on loopback, which answers as it is told to.

    `patience` is how many it takes before it answers 429.
    """

    def __init__(self) -> None:
        self.posted, self.paths, self.answer, self.silence = [], [], 200, threading.Event()
        self.patience = 1000
        self.silence.set()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                hook.paths.append(self.path)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.patience -= 1
                if hook.patience >= 0:
                    hook.posted.append(json.loads(body))
                hook.silence.wait(20)
                self.send_response(hook.answer if hook.patience >= 0 else 429)
                if hook.answer == 302:
                    self.send_header("Location", f"{hook.url}elsewhere")
                self.end_headers()

            def do_GET(self):
                hook.paths.append(self.path)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/s3cret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.silence.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def webhook(monkeypatch):
    hook = Webhook()
    monkeypatch.setenv("CLIPFARM_ALERT_WEBHOOK", hook.url)
    yield hook
    hook.close()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def test_an_alert_is_one_document(webhook):
    environ = {"CLIPFARM_ALERT_WEBHOOK": webhook.url, "CLIPFARM_UI_URL": "https://dagster.here/"}
    report(ALERT, LOG, environ)
    assert webhook.posted == [
        {
            "text": "run failed: clips_daily 2026-02-05 (it is started again)\nit stopped",
            "what": "run_failed",
            "subject": "clips_daily",
            "message": "it stopped",
            "partition": "2026-02-05",
            "run_id": "f00",
            "run_url": "https://dagster.here/runs/f00",
            "will_retry": True,
        }
    ]


def test_without_an_address_it_is_logged(caplog):
    report(ALERT, LOG, {})
    assert "run failed: clips_daily 2026-02-05" in caplog.text


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_address_that_refuses_is_told_once_and_not_named(webhook, status):
    webhook.answer = status
    with pytest.raises(AlertNotSent) as told:
        report(ALERT, LOG)
    assert f"127.0.0.1 answered {status}" in str(told.value)
    assert "s3cret" not in str(told.value)
    assert len(webhook.paths) == 1, "neither repeated nor sent on"


def test_an_address_that_is_silent_is_given_up(webhook):
    webhook.silence.clear()
    with pytest.raises(AlertNotSent, match="TimeoutError"):
        report(ALERT, LOG, seconds=0.2)
    assert len(webhook.paths) == 1


@pytest.mark.parametrize("address", ["file:///etc/passwd", "hooks.example.com/x", "http://[::1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises((AlertNotSent, ValueError)) as told:
        report(ALERT, LOG, {"CLIPFARM_ALERT_WEBHOOK": address})
    assert address not in str(told.value)


def test_no_secret_is_in_a_message(webhook, monkeypatch):
    environ = {
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "AWS_SESSION_TOKEN": "FwoGZXIvYXdz",
        "CLIPFARM_LEDGER": "postgresql://clipfarm:correct-horse@db/clipfarm",
        "CLIPFARM_ALERT_WEBHOOK": webhook.url,
        "SHORT_TOKEN": "no",
        "LANG": "C.UTF-8",
    }
    said = (
        "signed with wJalrXUtnFEMI and FwoGZXIvYXdz; password correct-horse refused; "
        f"postgresql://other:hunter22222@db/x; {webhook.url}; no C.UTF-8"
    )
    report(Alert("run_failed", "job", said), LOG, environ)
    (document,) = webhook.posted
    assert document["message"] == (
        "signed with … and …; password … refused; postgresql://…@db/x; …; no C.UTF-8"
    )
    assert redacted("plain words", environ) == "plain words"
    signed = "https://b.example/k?X-Amz-Signature={0}&X-Amz-Security-Token={0}&part=2 refused"
    assert redacted(signed.format("0a1b"), {}) == signed.format("…")
    url = "postgresql://h/d?user=u&password={} at"
    assert redacted(url.format("p%20w"), {}) == url.format("…")


def test_a_long_message_is_cut_and_says_so(webhook):
    report(Alert("run_failed", "job", "x" * 9000), LOG)
    assert webhook.posted[0]["message"].endswith("xx… (9000 characters)")


def test_a_failed_run_is_told_with_the_sentence_of_its_step(webhook, instance):
    @dg.op
    def stops():
        raise dg.Failure("clipfarm/state is locked to r1 but r2 was found")

    @dg.op
    def breaks():
        raise KeyError("video_id")

    @dg.job
    def daily():
        stops()
        breaks()

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    done = daily.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
    context = dg.build_run_status_sensor_context(
        sensor_name="report_failed_runs",
        dagster_event=done.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=done.dagster_run,
    )
    alert_sensors.report_failed_runs(context.for_run_failure())
    (document,) = webhook.posted
    assert document["subject"] == "daily"
    assert document["partition"] == "a to b"
    assert document["run_id"] == done.run_id
    assert sorted(document["message"].splitlines()) == [
        "breaks: KeyError: 'video_id'",
        "stops: clipfarm/state is locked to r1 but r2 was found",
    ]


def look(instance, cursor):
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        sensor_name="report_data_health",
        repository_def=defs.get_repository_def(),
    )
    return defs.resolve_sensor_def("report_data_health").evaluate_tick(context)


def check_result(instance, passed, partition="concat"):
    evaluation = dg.AssetCheckEvaluation(
        asset_key=UNIQUE.asset_key,
        check_name=UNIQUE.name,
        passed=passed,
        metadata={},
        description="two rows of dQw4w9WgXcQ",
        partition=partition,
    )
    instance.report_runless_asset_event(evaluation)


def freshness(instance, was, now):
    event = FreshnessStateChange(
        key=MANIFEST, previous_state=was, new_state=now, state_change_timestamp=1770000000.0
    )
    instance._report_runless_asset_event(event)


def test_a_failed_check_is_told_once(webhook, instance):
    check_result(instance, passed=False)
    cursor = look(instance, None).cursor
    assert webhook.posted == [], "what was before is not told"
    check_result(instance, passed=True, partition="sum_pool")
    check_result(instance, passed=False, partition="max_pool")
    webhook.answer = 503
    with pytest.raises(AlertNotSent):
        look(instance, cursor)
    webhook.answer = 200
    webhook.posted.clear()
    told = look(instance, cursor)
    (document,) = webhook.posted
    assert document["what"] == "check_failed"
    assert document["subject"] == "clips/fused_manifest:manifest_unique"
    assert document["partition"] == "max_pool"
    assert document["message"] == "two rows of dQw4w9WgXcQ"
    assert look(instance, told.cursor).skip_message.startswith("0 checks failed")
    assert len(webhook.posted) == 1


def test_what_was_sent_before_an_address_refused_is_not_sent_again(webhook, instance):
    freshness(instance, FreshnessState.UNKNOWN, FreshnessState.PASS)
    cursor = look(instance, None).cursor
    names = [f"p{number}" for number in range(4)]
    for name in names:
        check_result(instance, passed=False, partition=name)
    freshness(instance, FreshnessState.PASS, FreshnessState.FAIL)
    told = []
    for patience, unsent in ((3, 2), (1, 1), (1, 0)):
        webhook.patience = patience
        found = look(instance, cursor)
        cursor = found.cursor
        told.append(len(webhook.posted))
        assert (f"; {unsent} alerts were not sent" in found.skip_message) == bool(unsent)
    assert told == [3, 4, 5]
    assert [d["partition"] or d["what"] for d in webhook.posted] == [*names, "overdue"]
    assert look(instance, cursor).skip_message.startswith("0 checks failed, 0 assets changed")


def test_a_tick_that_sends_for_long_leaves_the_rest_to_the_next(webhook, instance, monkeypatch):
    cursor = look(instance, None).cursor
    for number in range(3):
        check_result(instance, passed=False, partition=f"p{number}")
    with monkeypatch.context() as patched:
        patched.setattr(alert_sensors, "_SENDING_SECONDS", 0.0)
        found = look(instance, cursor)
    assert "3 alerts were not sent, which the next tick sends: sending took" in found.skip_message
    assert webhook.posted == []
    look(instance, found.cursor)
    assert [d["partition"] for d in webhook.posted] == ["p0", "p1", "p2"]


def test_of_very_many_alerts_the_rest_is_counted(webhook, instance):
    """None is passed over because a check has only so many results on a page of the storage."""
    cursor = look(instance, None).cursor
    for number in range(60):
        check_result(instance, passed=False, partition=f"p{number:02d}")
    told = look(instance, cursor)
    assert [d["partition"] for d in webhook.posted[:20]] == [f"p{n:02d}" for n in range(20)]
    assert webhook.posted[20]["message"].startswith("40 alerts more came with these")
    assert look(instance, told.cursor).skip_message.startswith("0 checks failed")
    assert len(webhook.posted) == 21


def test_an_overdue_asset_is_told_when_it_becomes_so_and_when_it_is_over(webhook, instance):
    freshness(instance, FreshnessState.UNKNOWN, FreshnessState.PASS)
    cursor = look(instance, None).cursor
    for was, now in (("PASS", "WARN"), ("WARN", "FAIL"), ("FAIL", "FAIL"), ("FAIL", "PASS")):
        freshness(instance, FreshnessState(was), FreshnessState(now))
        cursor = look(instance, cursor).cursor
    assert [(d["what"], d["subject"]) for d in webhook.posted] == [
        ("overdue", "clips/fused_manifest"),
        ("fresh_again", "clips/fused_manifest"),
    ]


def test_what_is_made_every_night_is_overdue_after_a_day_and_a_half():
    graph = defs.resolve_asset_graph()
    found = {
        k.to_user_string() for k in graph.get_all_asset_keys() if graph.get(k).freshness_policy
    }
    assert found == {"clips/embedding_manifest", "clips/fused_manifest"}
    policy = made_every_night({})
    assert policy.fail_window.to_timedelta() == timedelta(hours=36)
    assert policy.warn_window.to_timedelta() == timedelta(hours=26)
    assert made_every_night({"CLIPFARM_OVERDUE_HOURS": "12"}).warn_window is None
    assert made_every_night({"CLIPFARM_OVERDUE_HOURS": "0"}) is None
    assert made_every_night({"CLIPFARM_END_DATE": "2026-02-07"}) is None
    with pytest.raises(ValueError, match="CLIPFARM_OVERDUE_HOURS must be a whole number"):
        made_every_night({"CLIPFARM_OVERDUE_HOURS": "soon"})
