"""``make demo-memes``: what a new user sees, the first time and the second.

With fewer memes, and a vision expert of which the head alone is trained; all else is the demo's.
"""

import json
import re

import pytest

from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.demo.memes.edge_cases import EDGE_CASES
from clipfarm_assets.demo.memes.run import ROWS_VARIABLE, SETS, STEPS
from clipfarm_assets_tests.e2e import kit

pytestmark = pytest.mark.timeout(900)

DEMO = "clipfarm_assets.demo.memes"
HEAD_ALONE = json.dumps({"max_epochs": 2, "hyperparameters": {"top_layers": 0}})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    variables = {
        ROWS_VARIABLE: "280",
        "CLIPFARM_VISION_EXPERT_CONFIG": HEAD_ALONE,
    }
    return kit.Site(tmp_path_factory.mktemp("demo"), variables)


@pytest.fixture(scope="module")
def first(site):
    return site.call(DEMO)


def table(said, heading):
    """The rows below a heading: their cells, split where two spaces are."""
    lines = said.split(f"{heading}\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]


def made(site):
    """Everything that the pipeline wrote, but for what tells the time."""
    return {
        info.key: site.store.get(info.key)
        for info in site.store.list("")
        if "/raw/" not in info.key and info.key.startswith("memes")
    }


def test_all_is_as_declared(first):
    assert first.returncode == 0, first.stdout[-6000:]
    (right, declared) = re.search(
        r"^Declared: (\d+) of (\d+) hold$", first.stdout, re.MULTILINE
    ).groups()
    assert right == declared
    rows = table(first.stdout, f"Declared: {right} of {declared} hold")
    for each in SETS:
        about = {row[1] for row in rows if row[0] == each.kind}
        assert about >= {"training loss of fusion", "saved model"}
        assert ("fusion_beats_unimodal" in about) == (each.kind != "pilot")


def test_it_shows_every_edge_case(first):
    found = table(first.stdout, f"Edge cases: {len(EDGE_CASES)} of {len(EDGE_CASES)} as expected")
    by_case = {row[0]: row for row in found}
    for case in EDGE_CASES:
        _, reported, split = by_case[case.name]
        assert reported == (", ".join(sorted(case.expected.problems)) or "-")
        assert (split in SPLITS) == case.expected.in_shards
    assert " 0 unaccounted for; " in first.stdout


def test_it_says_how_far_it_is_and_where_to_look(first, site):
    for each in SETS:
        assert f"== {each.kind} memes" in first.stdout
        for job, _ in STEPS:
            assert f"-- {each.kind}: {job}" in first.stdout
    scores = table(first.stdout, "Scores, with intervals of 95%")
    assert len(scores) == len(SETS) * 2 * 3
    assert "stand-in" in first.stdout.split("Serving\n", 1)[1]
    *took, total = table(first.stdout, "Seconds a step")
    assert total[0] == "all"
    assert {row[0] for row in took} == {each.kind for each in SETS}
    assert str(site.root / "store") in first.stdout
    assert "make ui" in first.stdout
    assert "Traceback" not in first.stdout
    assert "Warning" not in first.stdout


def test_the_second_time_makes_nothing_again(first, site):
    before = made(site)
    second = site.call(DEMO)
    assert second.returncode == 0, second.stdout[-6000:]
    assert made(site) == before
    assert second.stdout.count("working on the memes as they are") == len(SETS)
    heading = "Scores, with intervals of 95%"
    assert table(second.stdout, heading) == table(first.stdout, heading)
