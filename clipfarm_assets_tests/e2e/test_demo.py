"""``make demo``: what a new user sees, the first time and the second."""

import re

import pytest

from clipfarm_assets.demo.edge_cases import DATES, EDGE_CASES
from clipfarm_assets.demo.run import STEPS
from clipfarm_assets_tests.e2e import kit

pytestmark = pytest.mark.timeout(300)

DEMO = "clipfarm_assets.demo"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return kit.Site(tmp_path_factory.mktemp("demo"))


def vectors(site):
    """Every stored vector: its bytes and when it was written."""
    folder = site.root / "store" / "clipfarm" / "embeddings"
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.glob("*/*.npy")
    }


@pytest.fixture(scope="module")
def first(site):
    return site.call(DEMO, timeout=280)


def table(said, heading):
    """The rows below a heading: their cells, split where two spaces are."""
    lines = said.split(f"{heading}\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]


def test_it_succeeds_and_shows_every_edge_case(first):
    assert first.returncode == 0, first.stdout[-5000:]
    found = table(first.stdout, f"Edge cases: {len(EDGE_CASES)} of {len(EDGE_CASES)} as expected")
    assert [row[0] for row in found] == [case.name for case in EDGE_CASES]
    for row, case in zip(found, EDGE_CASES, strict=True):
        expected = [case.expected.embedding[m] for m in ("video", "audio", "text")]
        assert row[1:] == [*expected, case.expected.fusion], case.name


def test_it_says_how_far_it_is(first):
    assert "sample store: 10/63" in first.stdout
    for job, _ in STEPS:
        assert f"== {job}" in first.stdout
    for modality in ("video", "audio", "text"):
        for date in DATES:
            line = rf"^\d\d:\d\d:\d\d \S+  {modality} {date}: 20/20, [\d.]+/s$"
            assert re.search(line, first.stdout, re.MULTILINE), line


def test_it_sums_up(first, site):
    items = table(first.stdout, "Items by stage and status")
    assert {row[0] for row in items} == {
        *(f"{modality}_embedding" for modality in ("video", "audio", "text")),
        *(f"fusion_{strategy}" for strategy in ("concat", "sum_pool", "max_pool")),
    }
    for stage in {row[0] for row in items}:
        assert sum(int(row[2]) for row in items if row[0] == stage) == 60, stage
    fused = {row[0]: row for row in table(first.stdout, "Fused")}
    assert [fused[s][4] for s in ("concat", "sum_pool", "max_pool")] == ["2305", "769", "769"]
    done = sum(int(row[2]) for row in items if row[0] == "fusion_concat" and "success" in row[1])
    assert int(fused["concat"][2]) == done
    *took, total = table(first.stdout, f"Seconds a stage, {DATES[0]} to {DATES[-1]}")
    assert total[0] == "all"
    assert {row[0] for row in took} == {job for job, _ in STEPS}
    steps = {row[1]: float(row[2]) for row in took}
    assert steps.keys() >= {"clip_index", "video_embeddings", "fused_shards", "fused_manifest"}
    assert steps["video_embeddings"] > 0
    assert str(site.root / "store") in first.stdout
    assert "make ui" in first.stdout
    assert "Traceback" not in first.stdout
    assert "Warning" not in first.stdout


def test_the_second_time_computes_no_vector_again(first, site):
    assert first.returncode == 0
    before = vectors(site)
    assert len(before) > 150
    second = site.call(DEMO, timeout=280)
    assert second.returncode == 0, second.stdout[-5000:]
    assert vectors(site) == before
    assert "working on the store as it is" in second.stdout
    assert "sample store:" not in second.stdout
    assert table(second.stdout, "Fused") == table(first.stdout, "Fused")


@pytest.mark.parametrize("missing", ["DAGSTER_HOME", "CLIPFARM_STORE"])
def test_without_a_place_it_says_what_to_do(tmp_path, missing):
    site = kit.Site(tmp_path, {missing: ""})
    done = site.call(DEMO)
    assert done.returncode == 1
    assert done.stdout == (
        f"{missing} is not set: run `make demo`, which sets it, or name a folder yourself\n"
    )
    assert list(tmp_path.iterdir()) == []
