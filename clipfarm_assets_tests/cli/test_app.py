"""The frame: errors in one sentence, exit statuses, no model library, nothing created."""

import json
import subprocess
import sys

import pytest

from clipfarm_assets.cli import app
from clipfarm_assets_tests.pipelines.inspect.kit import files
from clipfarm_assets_tests.pipelines.kit import DAY_1

READING = (["status"], ["why", "clip-001"], ["plan"], ["audit"], ["retry", "--dry-run"])
HEAVY = {"torch", "dagster", "transformers", "sentence_transformers", "librosa", "sklearn", "rich"}

# Every reading command in one process: what it printed, and what it imported.
CHILD = """
import json, sys
from clipfarm_assets.cli.app import run
codes = [run(line) for line in json.loads(sys.argv[1])]
print(json.dumps([codes, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_reading_commands_import_nothing_heavy(ran, tmp_path):
    ran.close()
    before = files(ran.root)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(READING)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0, 0, 0, 0, 1], "there is nothing to retry"
    assert not HEAVY & set(modules)
    assert files(ran.root) == before


@pytest.mark.parametrize("line", READING)
def test_a_store_that_is_not_there_is_said_and_not_made(line, tmp_path, monkeypatch, clipfarm):
    monkeypatch.setenv("CLIPFARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CLIPFARM_STORE", str(tmp_path / "nowhere"))
    monkeypatch.delenv("CLIPFARM_LEDGER", raising=False)
    code, out, error = clipfarm(*line)
    assert (code, out) == (1, "")
    assert f"the store {tmp_path / 'nowhere'} does not exist" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_not_there_is_said_and_not_made(deployed, clipfarm, monkeypatch):
    monkeypatch.setenv("CLIPFARM_LEDGER", f"sqlite:///{deployed.root}/other/ledger.sqlite")
    before = files(deployed.root)
    code, out, _ = clipfarm("status")
    assert code == 0
    assert "other/ledger.sqlite does not exist yet" in out
    assert files(deployed.root) == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["status", "--stage", "video"], "--stage must be one of video_embedding"),
        (["status", "--date", "5 Feb"], "--date must be a date as YYYY-MM-DD: found '5 Feb'"),
        (["plan", "--date", DAY_1, "--to", DAY_1], "leave out --from and --to"),
        (["plan", "--from", "2026-02-06", "--to", DAY_1], "is after --to"),
        (["why"], "Missing argument 'VIDEO_ID'"),
        (["why", "../etc"], "bad video id '../etc'"),
        (["why", "a", "b"], "unexpected extra argument"),
        (["retry", "--status", "success"], "--status must be one of fail_terminal, fail"),
        (["retry", "a/b"], "bad video id"),
        (["retry", "--dry-rnu"], "No such option: --dry-rnu"),
        (["stats"], "No such command 'stats'"),
        (["status", "--colour"], "No such option"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(line, says, deployed, clipfarm):
    code, out, error = clipfarm(*line)
    assert (code, out) == (2, "")
    assert says in error
    assert error.startswith("clipfarm: ")
    assert error.count("\n") == 1


def test_an_error_is_one_sentence_and_a_trace_on_request(deployed, clipfarm):
    deployed.store.put("clipfarm/fused/concat/schema.json", b"{")
    code, out, error = clipfarm("status")
    assert (code, out) == (1, "")
    assert error.startswith("clipfarm: clipfarm/fused/concat/schema.json is not JSON")
    assert error.count("\n") == 1
    for line in (["status", "--traceback"], ["--traceback", "status"]):
        code, _, error = clipfarm(*line)
        assert code == 1
        assert "Traceback" in error
        assert "BadLock" in error


def test_what_no_sentence_was_written_for_names_its_kind(deployed, clipfarm, monkeypatch):
    def broken(*_):
        raise KeyError("x")

    monkeypatch.setattr(app.status, "_print_dates", broken)
    code, _, error = clipfarm("status")
    assert (code, error) == (1, "clipfarm: KeyError: 'x' (run it with --traceback to see where)\n")


def test_an_unreachable_database_tells_no_password(deployed, clipfarm, monkeypatch):
    monkeypatch.setenv("CLIPFARM_LEDGER", "postgresql://clipfarm:s3cret@127.0.0.1:1/db")
    code, _, error = clipfarm("status")
    assert code == 1
    assert error.startswith("clipfarm: the ledger's database: ")
    assert "s3cret" not in error
    assert error.count("\n") == 1


def test_wrong_settings_are_one_sentence(deployed, clipfarm, monkeypatch):
    monkeypatch.setenv("CLIPFARM_VIDEO_CONFIG", '{"pooling": "max"}')
    code, _, error = clipfarm("plan")
    assert code == 1
    assert error.startswith("clipfarm: CLIPFARM_VIDEO_CONFIG: field 'pooling' must be")


def test_help_is_plain_and_names_every_command(clipfarm):
    code, out, _ = clipfarm("--help")
    assert code == 0
    for command in app.COMMANDS:
        assert f"  {command.__name__.rpartition('.')[2]} " in out
    assert out.isprintable() or all(c.isprintable() or c == "\n" for c in out)
    code, out, error = clipfarm()
    assert (code, out) == (2, "")
    assert "Usage: clipfarm" in error
