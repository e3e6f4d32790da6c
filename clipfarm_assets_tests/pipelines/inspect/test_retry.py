"""Failed clips are taken up again, here and on every machine, and nobody's result is undone."""

import pytest

from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.pipelines.inspect.retry import Failures, NothingToRetry, failures, mark
from clipfarm_assets.pipelines.inspect.run_settings import STAGES
from clipfarm_assets_tests.pipelines.inspect.kit import Template
from clipfarm_assets_tests.pipelines.kit import CORRUPT, DAY_1, Clip, World, clips

STAGE = "video_embedding"
GIVEN_UP = "fail_terminal"


def make_failing(world):
    world.fill([*clips(2), *clips(2, prefix="bad", video=CORRUPT)])
    for _ in range(2):
        world.embed("video", DAY_1, max_fail_retries=1)
    world.fill([*clips(2), *clips(2, prefix="bad", video=CORRUPT), Clip("worse", video=CORRUPT)])
    world.embed("video", DAY_1, max_fail_retries=1)
    assert world.statuses(STAGE) == {
        "bad-000": GIVEN_UP,
        "bad-001": GIVEN_UP,
        "clip-000": "success",
        "clip-001": "success",
        "worse": "fail",
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return Template(tmp_path_factory.mktemp("failing"), make_failing)


@pytest.fixture
def failing(template):
    """Two clips that were given up, one that failed once, two that are fine."""
    with template.opened() as opened:
        yield opened


@pytest.fixture
def other(failing):
    """A second machine."""
    with World(failing.root, "second") as opened:
        yield opened


def found(world, status=GIVEN_UP, video_ids=(), stages=STAGES, machine="machine"):
    url = f"sqlite:///{world.root / machine}.sqlite"
    with ReadOnlyLedger.open(url, world.store.url) as looking:
        return failures(world.deployment, looking, stages, status, video_ids)


def retry(world, status=GIVEN_UP, **asked):
    return mark(world.deployment, found(world, status, **asked), status)


def test_what_was_given_up_is_tried_again_as_if_for_the_first_time(failing):
    before = failing.states(STAGE)
    assert retry(failing) == {STAGE: 2}
    after = failing.states(STAGE)
    assert {i for i in after if after[i] != before[i]} == {"bad-000", "bad-001"}
    assert (after["bad-000"].status, after["bad-000"].retry_count) == ("fail", 0)
    assert after["bad-000"].error == before["bad-000"].error, "what went wrong stays readable"
    assert "retry_asked_at" in after["bad-000"].details
    report = failing.embed("video", DAY_1, max_fail_retries=1)[DAY_1]
    assert report.reasons == {"unfinished": 3}
    assert failing.states(STAGE)["bad-000"].retry_count == 1
    assert failing.statuses(STAGE)["bad-000"] == "fail", "it has all its tries again"


def test_once_repaired_it_succeeds(failing):
    failing.store.put(failing.layout.raw("video", "bad-000"), b"repaired")
    retry(failing, video_ids=["bad-000"])
    failing.embed("video", DAY_1)
    assert failing.statuses(STAGE)["bad-000"] == "success"
    assert failing.statuses(STAGE)["bad-001"] == GIVEN_UP, "nobody asked for it"


def test_other_machines_see_it(failing, other):
    other.embed("video", DAY_1, max_fail_retries=9)
    assert other.statuses(STAGE)["bad-000"] == GIVEN_UP
    retry(failing)
    key = failing.layout.state(STAGE)
    published = sqlite_to_items(failing.store.get(key), key)
    assert {i: item.status for i, item in published.items()}["bad-000"] == "fail"
    # Publishing its own, older rows doesn't undo it, and its next run tries again.
    other.deployment.publish(STAGE)
    assert sqlite_to_items(failing.store.get(key), key) == published
    assert other.embed("video", DAY_1, max_fail_retries=1)[DAY_1].reasons == {"unfinished": 3}


def test_a_result_that_came_meanwhile_stays(failing, other):
    """Another machine repaired and embedded the clip; this one doesn't know it yet."""
    asked = found(failing)
    failing.store.put(failing.layout.raw("video", "bad-000"), b"repaired")
    other.embed("video", DAY_1, retry_terminal=True, max_fail_retries=1)
    assert mark(failing.deployment, asked, GIVEN_UP) == {STAGE: 1}, "bad-001 alone"
    assert failing.statuses(STAGE)["bad-000"] == "success"


def test_a_result_between_reading_and_writing_stays(failing, monkeypatch):
    asked = found(failing, video_ids=["bad-000"])
    real = type(failing.ledger).commit_newer
    failing.store.put(failing.layout.raw("video", "bad-000"), b"repaired")

    def late(ledger, stage, items):
        chosen = list(items)
        monkeypatch.setattr(type(failing.ledger), "commit_newer", real)
        failing.embed("video", DAY_1, retry_terminal=True)
        return real(ledger, stage, chosen)

    monkeypatch.setattr(type(failing.ledger), "commit_newer", late)
    assert mark(failing.deployment, asked, GIVEN_UP) == {STAGE: 0}
    assert failing.statuses(STAGE)["bad-000"] == "success"


def test_failures_that_are_tried_anyway_have_their_count_reset(failing):
    assert retry(failing, "fail") == {STAGE: 1}
    assert failing.states(STAGE)["worse"].retry_count == 0
    assert failing.statuses(STAGE)["bad-000"] == GIVEN_UP


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"status": GIVEN_UP, "stages": ["audio_embedding"]}, "there are no clips at all"),
        ({"video_ids": ["clip-000"]}, "it is success in video_embedding"),
        ({"video_ids": ["bad-000", "worse", "nobody"]}, "nobody is fail_terminal .* in none of"),
        ({"video_ids": [f"x{i}" for i in range(9)]}, "and 4 more"),
    ],
)
def test_nothing_that_matches_is_refused(failing, asked, says):
    before = failing.states(STAGE), failing.objects()
    with pytest.raises(NothingToRetry, match=says):
        found(failing, **asked)
    assert (failing.states(STAGE), failing.objects()) == before


def test_asking_twice_finds_nothing_the_second_time(failing):
    retry(failing)
    with pytest.raises(NothingToRetry, match=r"there are 3 fail, 2 success"):
        found(failing)


def test_a_fusion_that_was_given_up_is_tried_again(world):
    world.fill([Clip("one"), Clip("two")])
    world.embed_all(DAY_1)
    world.lock()
    key = world.layout.embedding("audio", "one")
    good = world.store.get(key)
    world.store.put(key, good[:-1] + b"?")
    world.fuse(DAY_1, max_fail_retries=0)
    assert world.statuses("fusion_concat")["one"] == GIVEN_UP
    world.store.put(key, good)
    assert found(world).by_stage == {"fusion_concat": ["one"]}
    assert found(world) == Failures({"fusion_concat": ["one"]})
    retry(world)
    world.fuse(DAY_1)
    assert world.statuses("fusion_concat")["one"] == "success_full"


def test_a_state_without_a_time_is_marked_too(failing):
    from dataclasses import replace

    old = failing.states(STAGE)["bad-000"]
    failing.ledger.commit(STAGE, [replace(old, processed_at="last week")])
    assert retry(failing, video_ids=["bad-000"]) == {STAGE: 1}
    assert failing.statuses(STAGE)["bad-000"] == "fail"
