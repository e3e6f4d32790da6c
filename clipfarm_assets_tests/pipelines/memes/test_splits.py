"""The stored splits: near-duplicates together, the same bytes again, and what changed is said."""

import json

import pytest

from clipfarm_assets.contracts.meme_splits import BadSplits, no_group_in_two_splits
from clipfarm_assets.pipelines.memes.splits import (
    NoMemeSplits,
    make_splits,
    read_splits,
    read_taxonomy,
)
from clipfarm_assets.storage.images import ImageLimits
from clipfarm_assets_tests.pipelines.memes.raw_kit import (
    LAYOUT,
    counting_store,
    file_of,
    picture,
    put_images,
    put_memes,
    put_rows,
    row,
)


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


def test_both_files_are_written_and_read_back(store):
    put_rows(store, put_memes(store, 40))
    report = make_splits(store, LAYOUT)
    assert read_splits(store, LAYOUT) == report.splits
    assert read_taxonomy(store, LAYOUT).classes("abuse_hate") == ("not_abuse_hate", "abuse_hate")
    assert report.sizes == {"train": 28, "val": 6, "test": 6}
    assert report.classes["test"] == {"abuse_hate": {"not_abuse_hate": 4, "abuse_hate": 2}}
    assert (report.groups, report.near_duplicates, report.largest_groups) == (40, 0, {})
    assert (report.kept, report.new, report.moved, report.removed) == (0, 40, {}, 0)
    assert (report.images_read, report.images_known) == (40, 0)
    assert report.notes == ()


def test_a_second_run_writes_the_same_bytes_and_reads_no_image(store):
    put_rows(store, put_memes(store, 20))
    make_splits(store, LAYOUT)
    before = {key: store.get(key) for key in (LAYOUT.splits(), LAYOUT.label_taxonomy())}
    store.reset()
    report = make_splits(store, LAYOUT)
    assert {key: store.get(key) for key in before} == before
    assert store.count("get", LAYOUT.images()) == store.count("put") == 0
    assert (report.kept, report.new, report.images_read) == (20, 0, 0)


def test_the_same_memes_elsewhere_give_the_same_bytes(store, tmp_path):
    rows = put_memes(store, 20)
    put_rows(store, rows)
    first = make_splits(store, LAYOUT)
    store.delete(LAYOUT.splits())
    store.delete(LAYOUT.image_hashes())
    put_rows(store, rows[::-1])
    assert make_splits(store, LAYOUT, workers=1).version == first.version


def test_copies_and_confounders_stay_together(store):
    rows = put_memes(store, 30)
    copy = picture(0, (200, 160))
    put_images(store, {"copy.jpg": file_of(copy, "JPEG", quality=70), "other.png": 99})
    put_rows(
        store,
        [
            *rows,
            row("copy", image="copy.jpg", label=0),
            row("other", caption="Caption, of M001!", label=1),
        ],
    )
    report = make_splits(store, LAYOUT)
    groups, splits = report.splits.group_of, report.splits.split_of
    assert (groups["copy"], groups["m000"]) == ("copy", "copy")
    assert (groups["other"], groups["m001"]) == ("m001", "m001")
    assert splits["copy"] == splits["m000"]
    assert splits["other"] == splits["m001"]
    assert report.near_duplicates == 4
    assert report.largest_groups == {"copy": 2, "m001": 2}


def test_memes_that_come_later_leave_the_others_where_they_are(store):
    rows = put_memes(store, 20)
    put_rows(store, rows)
    before = make_splits(store, LAYOUT).splits
    put_rows(store, [*put_memes(store, 20, start=20), *rows])
    report = make_splits(store, LAYOUT)
    assert report.splits.split_of.items() >= before.split_of.items()
    assert (report.kept, report.new, report.images_read) == (20, 20, 20)
    assert report.sizes == {"train": 28, "val": 6, "test": 6}
    assert report.notes == ()


def test_memes_that_a_new_one_links_are_moved_and_it_is_said(store):
    rows = put_memes(store, 20)
    put_rows(store, rows)
    before = make_splits(store, LAYOUT).splits
    a, b = before.ids("train")[0], before.ids("test")[0]
    bridge = row("z", image=f"{a}.png", caption=f"caption of {b}")
    put_rows(store, [*rows, bridge])
    report = make_splits(store, LAYOUT)
    assert report.moved == {b: ("test", "train")}
    assert report.splits.split_of["z"] == "train"
    assert no_group_in_two_splits(report.splits).holds
    assert any(
        note.startswith("1 memes changed their split") and f"{b} test -> train" in note
        for note in report.notes
    )


def test_removed_memes_and_other_settings_are_said(store):
    rows = put_memes(store, 20)
    put_rows(store, rows)
    make_splits(store, LAYOUT)
    put_rows(store, rows[:-2])
    said = []
    report = make_splits(store, LAYOUT, say=said.append)
    assert report.removed == 2
    assert any(note.startswith("2 memes had a split and are no rows") for note in report.notes)
    assert set(report.notes) <= set(said)
    report = make_splits(store, LAYOUT, seed=7)
    assert report.splits.seed == 7
    assert any("dealt out anew" in note for note in report.notes)


def test_memes_that_return_have_the_split_they_had(store):
    rows = put_memes(store, 40)
    put_rows(store, rows)
    before = make_splits(store, LAYOUT, max_distance=3).splits
    for left in (rows[:30], rows[:20]):
        put_rows(store, left)
        report = make_splits(store, LAYOUT, max_distance=3)
        assert (report.removed, report.returned) == (10, 0)
    assert report.splits.ever == before.split_of
    assert report.splits.max_distance == 3
    put_rows(store, rows)
    report = make_splits(store, LAYOUT, max_distance=3)
    assert report.splits == before
    assert (report.kept, report.new, report.removed, report.returned) == (40, 0, 0, 20)


def test_copies_of_images_above_the_default_limits_stay_together(store):
    big = picture(0, (6000, 6000))  # more pixels than are decoded by default
    put_images(store, {f"big{k}.jpg": file_of(big, "JPEG", quality=50 + k) for k in range(2)})
    copies = [row(f"big{k}", image=f"big{k}.jpg", label=k) for k in range(2)]
    put_rows(store, [*put_memes(store, 10, start=10), *copies])
    limits = ImageLimits(pixels=6000 * 6000)
    assert make_splits(store, LAYOUT).image_problems.counts == {"image_corrupt": 2}
    splits = make_splits(store, LAYOUT, limits=limits).splits
    assert splits.group_of["big0"] == splits.group_of["big1"] == "big0"
    assert read_splits(store, LAYOUT).images == limits


def test_a_split_that_is_not_what_was_asked_for_is_said(store):
    rows = [*put_memes(store, 18), *put_memes(store, 5, start=18)]
    for found in rows[:18]:
        found["caption"] = "one text"
    for found in rows:
        found["label"] = 0
    rows[0]["label"] = 1
    put_rows(store, rows)
    report = make_splits(store, LAYOUT)
    assert any("the largest group, m000, has 18 memes" in note for note in report.notes)
    assert "test has no meme of abuse_hate abuse_hate" in report.notes


def test_bad_images_have_a_split_and_a_reason(store):
    rows = put_memes(store, 12)
    put_images(store, {"m000.png": b"no image"})
    store.delete(LAYOUT.image("m001.png"))
    put_rows(store, rows)
    report = make_splits(store, LAYOUT)
    assert len(report.splits.split_of) == 12
    assert report.image_problems.counts == {"image_corrupt": 1, "image_not_found": 1}


def test_a_persons_taxonomy_is_stored_with_the_splits(store):
    taxonomy = {"labels": {"joy": ["none", "some"]}, "aliases": {"label": "joy"}}
    store.put(LAYOUT.taxonomy_source(), json.dumps(taxonomy).encode())
    put_rows(store, put_memes(store, 12))
    make_splits(store, LAYOUT)
    assert read_taxonomy(store, LAYOUT).classes("joy") == ("none", "some")


def test_two_runs_at_once_lose_no_assignment(store, monkeypatch):
    rows = put_memes(store, 24)
    put_rows(store, rows)
    plain, rival = store.get_versioned, []

    def overtaken(key):
        found = plain(key) if store.exists(key) else None
        if key == LAYOUT.splits() and not rival:
            rival.append(None)
            put_rows(store, rows[:12])
            rival[0] = make_splits(store, LAYOUT).splits  # between this run's read and its write
        if found is None:
            raise FileNotFoundError(key)
        return found

    monkeypatch.setattr(store, "get_versioned", overtaken)
    report = make_splits(store, LAYOUT)
    assert report.kept == 12
    assert report.splits.split_of.items() >= rival[0].split_of.items()
    assert read_splits(store, LAYOUT) == report.splits


def test_stored_splits_that_are_none_are_never_made_anew_unasked(store):
    put_rows(store, put_memes(store, 12))
    store.put(LAYOUT.splits(), b"{}")
    with pytest.raises(BadSplits, match=r"^memes/splits\.json"):
        make_splits(store, LAYOUT)
    assert store.get(LAYOUT.splits()) == b"{}"


@pytest.mark.parametrize("read", [read_splits, read_taxonomy])
def test_reading_what_was_never_made_says_what_makes_it(store, read):
    with pytest.raises(NoMemeSplits, match="materialise memes/splits"):
        read(store, LAYOUT)
