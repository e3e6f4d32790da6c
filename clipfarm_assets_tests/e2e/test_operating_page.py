"""docs/operating.md, typed by somebody whose bucket is empty: every command does what it says."""

import http.client
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from clipfarm_assets.definitions import defs
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.e2e import documented, kit, layout
from clipfarm_assets_tests.servers import s3_settings

pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]

BUCKET = "my-bucket"
VIDEO_ID = "dQw4w9WgXcQ"
FIRST = "From an empty bucket"
# Typed by other tests: with processes that run, or with clips of their own.
ELSEWHERE = {
    "Every night": "e2e/test_process_layout",
    "The clipfarm command": "cli/test_documented",
}
SERVERS = ("dagster dev", "dagster-webserver")
ENDS_WITH_1 = {"python -m clipfarm_assets.orchestration.release 2cbaaf30   # this one is dead"}


def typed_here():
    return [
        block
        for block in documented.blocks()
        if block.kind in {"console", "python"} and block.section not in ELSEWHERE
    ]


def put_my_clips(root):
    """The folder that the page uploads: two clips of two days each, the last one damaged."""
    some = [kit.small_sample()[i] for i in (0, 1, 3, 4)]
    kit.fill(ObjectStore.open(str(root / "made")), some)
    clips = (root / "made" / "clipfarm").rename(root / "my-clips")
    video = clips / "raw" / "video" / f"{some[-1].video_id}.mp4"
    video.write_bytes(video.read_bytes()[:500])
    for path in [path for path in clips.rglob("*") if path.is_file()]:
        if "raw" not in path.parts:
            path.write_bytes(
                path.read_bytes().replace(some[0].video_id.encode(), VIDEO_ID.encode())
            )
        elif path.stem == some[0].video_id:
            path.rename(path.with_stem(VIDEO_ID))


def make_bucket():
    address = urlsplit(s3_settings().endpoint_url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200
    connection.close()
    return ObjectStore.open(f"s3://{BUCKET}", s3_settings())


def environment(root):
    """Of a person: credentials, a home, and nothing of the tests' own."""
    settings = s3_settings()
    foreign = ("CLIPFARM_", "DAGSTER_", "AWS_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    return {
        **kept,
        "HOME": str(root / "home"),
        "PYTHONPATH": os.pathsep.join([str(kit.REPOSITORY), kept.get("PYTHONPATH", "")]),
        "AWS_ENDPOINT_URL": settings.endpoint_url,
        "AWS_REGION": settings.region_name,
        "AWS_DEFAULT_REGION": settings.region_name,
        "AWS_ACCESS_KEY_ID": settings.access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.secret_access_key,
        "CLIPFARM_ENCODERS": "demo",
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Line -> exit status and output, of each that isn't a server's, in the order of the page."""
    root = tmp_path_factory.mktemp("page")
    (root / "home").mkdir()
    for name in ("deploy", "Makefile", "workspace.yaml", "setup.cfg", "constraints.txt"):
        (root / name).symlink_to(kit.REPOSITORY / name)
    (root / "pyproject.toml").symlink_to(kit.REPOSITORY / "pyproject.toml")
    put_my_clips(root)
    store = make_bucket()
    assert not list(store.list())
    asked = [
        {
            "kind": block.kind,
            "texts": [block.text] if block.kind == "python" else lines,
            "keeps": block.section == FIRST,
        }
        for block in typed_here()
        if (lines := [line for line in block.lines if not line.startswith(SERVERS)])
        or block.kind == "python"
    ]
    done = subprocess.run(
        [sys.executable, "-m", "clipfarm_assets_tests.e2e.typed", str(root / "answers")],
        input=json.dumps(asked),
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    yield json.loads((root / "answers").read_text())
    for info in list(store.list()):
        store.delete(info.key)


def output_of(answers, beginning):
    return [said for text, _, said in answers if text.startswith(beginning)]


def test_each_command_ends_as_it_should(answers):
    for text, status, said in answers:
        assert status == int(text in ENDS_WITH_1), f"{text}\n{said}"
    assert len(answers) > 20


def test_the_first_night_ends_with_a_manifest(answers):
    (planned,) = output_of(answers, "clipfarm plan")
    assert re.search(r"2026-02-05\s+2\s+missing", planned)
    (status,) = output_of(answers, "clipfarm status")
    assert re.search(r"^video_embedding\s+4\s+fail 1, success 3", status, re.MULTILINE)
    assert re.search(r"^concat\s+1\s+3\s+1", status, re.MULTILINE), "three rows, the first lock"
    (why,) = output_of(answers, "clipfarm why")
    assert "leaves it alone: it is done" in why
    (retry,) = output_of(answers, "clipfarm retry")
    assert "1 clip would be tried again" in retry
    assert output_of(answers, "clipfarm migrate") == ["before  no ledger\nafter   0003\n"]


def test_what_is_removed_is_gone(answers):
    first, second, third = output_of(answers, "clipfarm forget")
    assert "--yes" in first
    assert VIDEO_ID in second
    assert "raw" in third


def test_servers_are_started_as_other_tests_start_them():
    lines = [line for b in typed_here() for line in b.lines if line.startswith(SERVERS)]
    dev, read_only = (shlex.split(line) for line in lines)
    recipe = (kit.REPOSITORY / "Makefile").read_text()
    assert shlex.join(["$(BIN)/dagster", *dev[1:-1]]).replace("'", "") in recipe
    assert read_only == layout.commands()["webserver-read-only"]


def test_every_block_is_of_a_kind_that_is_run_or_read():
    kinds = {block.kind for block in documented.blocks()}
    assert kinds == {"console", "python", "yaml", "text"}
    for block in documented.blocks():
        assert block.kind != "console" or block.lines, block.text
    for section, where in ELSEWHERE.items():
        assert documented.lines_of(section)
        assert (Path(documented.__file__).parents[1] / f"{where}.py").is_file()


def test_run_configs_name_what_there_is():
    names = {key.to_python_identifier() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    found = [yaml.safe_load(b.text)["ops"] for b in documented.blocks() if b.kind == "yaml"]
    assert found
    assert {name for ops in found for name in ops} <= names


def test_links_lead_somewhere():
    """To a heading of this page, or of another one in the folder."""
    text = documented.PAGE.read_text()
    for page, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", text):
        there = (documented.PAGE.parent / page).read_text() if page else text
        titles = re.findall(r"^#+ (.*)$", there, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}, (
            anchor
        )
