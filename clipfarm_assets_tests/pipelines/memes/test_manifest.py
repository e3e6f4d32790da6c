"""What a person put there is looked at whole, and told as it is."""

import json

import pytest

from clipfarm_assets.contracts.label_taxonomy import BadTaxonomy
from clipfarm_assets.pipelines.memes.manifest import (
    NoMemeRows,
    NoMemes,
    list_images,
    observe,
    read_memes,
)
from clipfarm_assets.pipelines.problems import ProblemCounts
from clipfarm_assets_tests.pipelines.memes.raw_kit import (
    LAYOUT,
    counting_store,
    put_images,
    put_memes,
    put_rows,
    row,
)


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


def test_counts_of_everything(store):
    rows = put_memes(store, 4, source="mine")
    put_images(store, {"unused.png": 9})
    put_rows(
        store,
        [
            *rows,
            row("gone"),
            row("m.dotted", image="m000.png", label=None, labels={"joy": 1}),
            row("m001"),
            {"id": "x"},
        ],
        ocr=[{"id": "m000", "ocr": "words"}, {"id": "stray", "ocr": "words"}],
    )
    report = observe(store, LAYOUT)
    assert report.rows == 6
    assert report.left_out == 2
    assert report.images == 5
    assert report.image_bytes == sum(list_images(store, LAYOUT).values())
    assert report.unused_images == 1
    assert report.with_ocr == 1
    assert report.labels == {"abuse_hate": {"not_abuse_hate": 3, "abuse_hate": 2}}
    assert report.shares("abuse_hate") == {"not_abuse_hate": 0.6, "abuse_hate": 0.4}
    assert report.unlabelled == {"abuse_hate": 1}
    assert report.sources == {"(none)": 2, "mine": 4}
    assert report.problems.counts == {
        "dotted_id": 1,
        "duplicate_id": 1,
        "image_not_found": 1,
        "missing_image": 1,
        "ocr_without_row": 1,
        "unknown_label": 1,
        "unlabelled": 1,
    }
    assert report.problems.samples["image_not_found"] == [
        "id gone: no object memes/raw/images/gone.png"
    ]


def test_no_image_is_read(store):
    put_rows(store, put_memes(store, 3))
    store.reset()
    observe(store, LAYOUT)
    assert store.count("get", LAYOUT.images()) == 0
    assert store.count("list") == 1
    assert store.count("put") == 0


def test_the_data_version_is_that_of_what_is_there(store):
    rows = put_memes(store, 3)
    put_rows(store, rows)
    versions = [observe(store, LAYOUT).data_version]
    assert observe(store, LAYOUT).data_version == versions[0]

    def changed(change):
        change()
        versions.append(observe(store, LAYOUT).data_version)

    changed(lambda: put_rows(store, rows[:2]))
    changed(lambda: put_rows(store, rows[:2], ocr=[]))
    changed(lambda: put_images(store, {"m000.png": b"other"}))
    changed(lambda: store.delete(LAYOUT.image("m000.png")))
    taxonomy = {"labels": {"abuse_hate": ["no", "yes"]}, "aliases": {"label": "abuse_hate"}}
    changed(lambda: store.put(LAYOUT.taxonomy_source(), json.dumps(taxonomy).encode()))
    assert len(set(versions)) == len(versions)


def test_a_persons_taxonomy_counts(store):
    rows = put_memes(store, 3, labels={"joy": 1})
    put_rows(store, rows)
    assert observe(store, LAYOUT).problems.counts == {"unknown_label": 3}
    taxonomy = {"labels": {"joy": ["none", "some"]}}
    store.put(LAYOUT.taxonomy_source(), json.dumps(taxonomy).encode())
    report = observe(store, LAYOUT)
    assert report.labels == {"joy": {"none": 0, "some": 3}}
    assert report.problems.counts == {"unknown_label": 3}, "now it is the default one"
    store.put(LAYOUT.taxonomy_source(), b"{}")
    with pytest.raises(BadTaxonomy, match=r"^memes/raw/label_taxonomy\.json"):
        observe(store, LAYOUT)


def test_a_store_without_a_manifest_says_where_it_was_looked_for(store):
    with pytest.raises(NoMemes, match=r"at memes/raw/data_manifest\.jsonl.*holds nothing"):
        read_memes(store, LAYOUT)
    put_images(store, {"a.png": 1})
    with pytest.raises(NoMemes, match=r"such as memes/raw/images/a\.png"):
        read_memes(store, LAYOUT)


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "it is empty"), (b"[\n]\n", "bad_json"), (b'{"img": "a"}', "missing_id")],
)
def test_a_manifest_without_rows_says_why(store, data, why):
    store.put(LAYOUT.manifest(), data)
    with pytest.raises(NoMemeRows, match=why):
        read_memes(store, LAYOUT)


def test_problems_are_shown_a_few_of_each_kind(store):
    put_rows(store, [*put_memes(store, 1), *({"id": f"x{k}"} for k in range(40))])
    found = ProblemCounts.of(read_memes(store, LAYOUT).problems)
    assert found.counts == {"missing_image": 40}
    assert len(found.samples["missing_image"]) == 5
    assert found.samples["missing_image"][0].startswith("manifest line 2, id x0: ")
