"""What the promises find, on stores that break them one at a time."""

import json
import shutil
from dataclasses import replace

import pytest

from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.contracts.meme_splits import MemeSplits
from clipfarm_assets.demo.memes.sample import make_memes
from clipfarm_assets.pipelines.memes.evaluation import METRICS
from clipfarm_assets.pipelines.memes.manifest import read_memes
from clipfarm_assets.pipelines.memes.promises import (
    expert_intact,
    fusion_beats_unimodal,
    fusion_intact,
    shards_match_splits,
    splits_are_grouped,
)
from clipfarm_assets.pipelines.memes.shards import write_shards
from clipfarm_assets.pipelines.memes.splits import make_splits, read_divided, read_splits
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.memes import raw_kit

LAYOUT = MemeLayout()
ROWS = 40


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    store = ObjectStore.open(str(folder))
    make_memes(store, LAYOUT, "xor", ROWS, edge_cases=True)
    make_splits(store, LAYOUT)
    for split in SPLITS:
        pack(store, split)
    return folder


@pytest.fixture
def store(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "store")
    return ObjectStore.open(str(tmp_path / "store"))


def pack(store, split, rows=None):
    memes, splits = read_divided(store, LAYOUT)
    return write_shards(store, LAYOUT, split, rows or memes.rows, splits, memes.taxonomy)


def grouped(store):
    return splits_are_grouped(store, LAYOUT)


def one_of(store, split):
    return next(i for i in read_splits(store, LAYOUT).ids(split) if i.startswith("meme-"))


def test_all_hold_as_they_are_made(store):
    assert grouped(store).holds
    assert grouped(store).examined == len(read_memes(store, LAYOUT).rows)
    verdicts = [shards_match_splits(store, LAYOUT, split) for split in SPLITS]
    assert all(verdict.holds for verdict in verdicts)
    in_all = sum(verdict.examined + verdict.facts["reported"] for verdict in verdicts)
    assert in_all == grouped(store).examined


def test_pictures_are_as_near_as_in_the_run_that_divided_them(tmp_path):
    store = raw_kit.counting_store(tmp_path)
    raw_kit.put_rows(store, raw_kit.put_memes(store, 12))
    make_splits(store, LAYOUT, max_distance=20)  # of the nearest two of these
    verdict = splits_are_grouped(store, LAYOUT)
    assert verdict.holds
    assert verdict.facts["max_distance"] == 20
    assert verdict.facts["near_duplicates"] == 2
    loose = replace(read_splits(store, LAYOUT), max_distance=0)
    store.put(LAYOUT.splits(), loose.to_json())
    assert splits_are_grouped(store, LAYOUT).facts["near_duplicates"] == 0


def test_a_new_row_has_no_split(store):
    line = json.dumps({"id": "later", "image": "edge/flat.png", "caption": "a later line"})
    store.put(LAYOUT.manifest(), store.get(LAYOUT.manifest()) + line.encode())
    (finding, *rest) = grouped(store).findings
    assert str(finding) == "id later: has no split: materialise memes/splits"
    assert rest == []


def test_near_duplicates_apart_are_found_whatever_the_splits_say_of_groups(store):
    splits = read_splits(store, LAYOUT)
    moved = one_of(store, "train")
    broken = MemeSplits(
        {**splits.split_of, moved: "test"},
        {i: i for i in splits.split_of},
        splits.seed,
        splits.ratios,
    )
    store.put(LAYOUT.splits(), broken.to_json())
    (finding,) = grouped(store).findings
    assert f"{moved} in test" in finding.problem
    problems = [f.problem for f in shards_match_splits(store, LAYOUT, "train").findings]
    assert "is in the shards of train, and of test" in problems
    (gone,) = [
        f
        for f in shards_match_splits(store, LAYOUT, "test").findings
        if "neither in its shards nor reported" in f.problem
    ]
    assert gone.subject == f"id {moved}"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"labels": {"abuse_hate": 9}}, "the row says"),
        ({"caption": "other words"}, "another key or text"),
    ],
)
def test_samples_that_are_not_as_their_rows_are_found(store, changed, says):
    meme_id = one_of(store, "val")
    rows = [
        replace(row, **changed) if row.id == meme_id else row
        for row in read_memes(store, LAYOUT).rows
    ]
    pack(store, "val", rows)
    (finding,) = shards_match_splits(store, LAYOUT, "val").findings
    assert finding.subject == f"id {meme_id}"
    assert says in finding.problem


def test_a_row_that_left_the_manifest_is_found_in_the_shards(store):
    meme_id = one_of(store, "test")
    lines = store.get(LAYOUT.manifest()).splitlines()
    store.put(LAYOUT.manifest(), b"\n".join(x for x in lines if meme_id.encode() not in x))
    (finding,) = shards_match_splits(store, LAYOUT, "test").findings
    assert finding.subject == f"id {meme_id}"
    assert "no such row" in finding.problem


def test_a_lost_shard_is_a_finding_and_not_an_error(store):
    store.delete(LAYOUT.shard("val", 0))
    (finding,) = shards_match_splits(store, LAYOUT, "val").findings
    assert "no object" in finding.problem


def test_models_that_are_not_there_are_findings(store):
    for verdict in (
        expert_intact(store, LAYOUT, "text", "abuse_hate"),
        fusion_intact(store, LAYOUT, "abuse_hate"),
        fusion_beats_unimodal(store, LAYOUT, "abuse_hate"),
    ):
        (finding,) = verdict.findings
        assert "materialise" in finding.problem
        assert verdict.examined == 0


def put_verdict(store, *, low, wins, dev=0.7):
    difference = {
        "value": 0.04, "mean": 0.04, "low": low, "high": 0.09,
        "resamples": 2000, "groups": 31, "level": 0.95,
        "better": 9, "worse": 1, "sign_p": 0.011,
    }  # fmt: skip
    verdict = {
        "best_unimodal": "text",
        "fusion": 0.84,
        "unimodal": 0.8,
        "hardest": "vision",
        "difference": difference,
        "judged_on": "test",
        "fusion_wins": wins,
        "title": "",
        "told": "fusion and text, told",
    }
    splits = {
        "test": {"rows": 120, "verdict": verdict},
        "val": {"rows": 60, "verdict": {**verdict, "fusion": dev, "unimodal": 0.7}},
    }
    body = {"decided_on": "test", "splits": splits}
    store.put(LAYOUT.evaluation("abuse_hate") + METRICS, json.dumps(body).encode())


def test_the_lower_bound_is_shown_whoever_wins(store):
    put_verdict(store, low=0.01, wins=True)
    won = fusion_beats_unimodal(store, LAYOUT, "abuse_hate")
    assert won.holds
    assert won.facts["lower_bound"] == 0.01
    assert won.facts["serves"] == "fusion"
    assert (won.facts["compared_with"], won.facts["sign_test_p"]) == ("vision", 0.011)
    assert (won.facts["groups_better"], won.facts["groups_worse"]) == (9, 1)
    put_verdict(store, low=-0.01, wins=False)
    lost = fusion_beats_unimodal(store, LAYOUT, "abuse_hate")
    assert [str(finding) for finding in lost.findings] == ["abuse_hate: fusion and text, told"]
    assert lost.facts["lower_bound"] == -0.01
    assert lost.facts["serves"] == "text alone"
    assert won.examined == lost.examined == 120


@pytest.mark.parametrize(("dev", "told"), [(0.71, "yes"), (0.7, "yes"), (0.69, "no")])
def test_whether_fusion_matches_the_best_expert_on_dev_is_told(store, dev, told):
    put_verdict(store, low=-0.01, wins=False, dev=dev)
    found = fusion_beats_unimodal(store, LAYOUT, "abuse_hate")
    assert found.facts["dev_matches_or_exceeds"] == told
    assert (found.facts["dev_fusion_macro_f1"], found.facts["dev_unimodal_macro_f1"]) == (dev, 0.7)
