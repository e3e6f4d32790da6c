"""Rows of memes out of JSON lines: what is understood, and what is said of what is not."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_TAXONOMY, LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import LEFT_OUT, MemeRow, read_rows, sample_key

TAXONOMY = LabelTaxonomy(
    {"abuse_hate": ("not_abuse_hate", "abuse_hate"), "tone": ("flat", "wry", "loud")},
    {"label": "abuse_hate"},
)
GOOD = {"id": "a", "image": "a.png", "caption": "words", "labels": {"abuse_hate": 1}}


def lines(*bodies):
    return "\n".join(b if isinstance(b, str) else json.dumps(b) for b in bodies).encode()


def read(*bodies, ocr=None, taxonomy=TAXONOMY):
    return read_rows(lines(*bodies), None if ocr is None else lines(*ocr), taxonomy)


def only(*bodies, ocr=None):
    """The one row, and the kinds of problems."""
    rows, problems = read(*bodies, ocr=ocr)
    (row,) = rows
    return row, [problem.kind for problem in problems]


def test_a_row_in_our_own_words():
    row, kinds = only(
        {**GOOD, "caption": " a cat ", "labels": {"tone": 2, "abuse_hate": 0}, "source": "mine"},
        ocr=[{"id": "a", "ocr": "LOOK\n"}],
    )
    assert row == MemeRow("a", "a", "a.png", "a cat", "LOOK", {"abuse_hate": 0, "tone": 2}, "mine")
    assert row.text == "LOOK\na cat"
    assert list(row.labels) == ["abuse_hate", "tone"]
    assert kinds == []


def test_a_row_as_hateful_memes_writes_it():
    row, kinds = only(
        {"id": 42953, "img": "img/42953.png", "label": 1, "text": "its their character"},
        ocr=[{"id": 42953, "text": "ITS THEIR"}],
    )
    assert row == MemeRow(
        "42953", "42953", "img/42953.png", "its their character", "ITS THEIR",
        {"abuse_hate": 1}, "",
    )  # fmt: skip
    assert kinds == []


@pytest.mark.parametrize(
    ("caption", "ocr", "text"), [("c", "", "c"), ("", "o", "o"), ("", "", ""), ("c", "o", "o\nc")]
)
def test_empty_parts_of_a_text_are_left_out(caption, ocr, text):
    row, kinds = only({**GOOD, "caption": caption}, ocr=[{"id": "a", "ocr": ocr}])
    assert row.text == text
    assert kinds == ([] if text else ["no_text"])


def test_rows_keep_the_order_of_the_manifest_and_blank_lines_are_none():
    rows, problems = read({**GOOD, "id": "b"}, "", "  ", {**GOOD, "id": "a"}, "")
    assert [row.id for row in rows] == ["b", "a"]
    assert problems == []


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks_make_no_difference(start, end):
    data = start + lines(GOOD, {**GOOD, "id": "b"}, "{").replace(b"\n", end) + end
    rows, problems = read_rows(data, data, TAXONOMY)
    assert [row.id for row in rows] == ["a", "b"]
    assert [(p.kind, p.where) for p in problems] == [
        ("bad_json", "manifest line 3"),
        ("ocr_bad_json", "ocr line 3"),
    ]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("{", "bad_json"),
        ("[1]", "bad_json"),
        ("null", "bad_json"),
        ('"a"', "bad_json"),
        ('{"id": "a"} {"id": "b"}', "bad_json"),
        ('{"id": "a", "image": "a.png", "label": 0, "label": 1}', "bad_json"),
        ('{"id": ' + "9" * 5000 + "}", "bad_json"),
        ("[" * 100_000, "bad_json"),
        ({"image": "a.png"}, "missing_id"),
        ({**GOOD, "id": None}, "missing_id"),
        ({**GOOD, "id": ""}, "missing_id"),
        ({**GOOD, "id": True}, "bad_id"),
        ({**GOOD, "id": 1.5}, "bad_id"),
        ({**GOOD, "id": ["a"]}, "bad_id"),
        ({**GOOD, "id": " "}, "bad_id"),
        ({**GOOD, "id": "a\n"}, "bad_id"),
        ({**GOOD, "id": "a\x00b"}, "bad_id"),
        ({**GOOD, "id": "\ud800"}, "bad_id"),
        ({**GOOD, "id": "a" * 257}, "bad_id"),
        ({**GOOD, "id": 10**300}, "bad_id"),
        ({"id": "a"}, "missing_image"),
        ({**GOOD, "image": None}, "missing_image"),
        ({**GOOD, "image": ""}, "missing_image"),
        ({**GOOD, "image": 7}, "bad_image_path"),
        ({**GOOD, "image": "../a.png"}, "bad_image_path"),
        ({**GOOD, "image": "/etc/passwd"}, "bad_image_path"),
        ({**GOOD, "image": "x/../../a.png"}, "bad_image_path"),
        ({**GOOD, "image": "a\\b.png"}, "bad_image_path"),
        ({**GOOD, "image": "a\x00.png"}, "bad_image_path"),
        ({**GOOD, "image": "\udfff.png"}, "bad_image_path"),
        ({**GOOD, "image": "a" * 300}, "bad_image_path"),
        ({**GOOD, "caption": 7}, "bad_field"),
        ({**GOOD, "caption": ["words"]}, "bad_field"),
        ({**GOOD, "caption": "\ud83d"}, "bad_field"),
        ({**GOOD, "source": {}}, "bad_field"),
    ],
    ids=lambda value: str(value)[:40].encode("ascii", "replace").decode(),
)
def test_what_is_no_row_is_left_out_and_said(body, kind):
    rows, problems = read(body, {**GOOD, "id": "good"})
    assert [row.id for row in rows] == ["good"]
    (problem,) = problems
    assert problem.kind == kind
    assert problem.leaves_out
    assert problem.where.startswith("manifest line 1")
    assert len(problem.detail) < 500
    assert (problem.where + problem.detail).encode()


def test_a_line_that_is_not_utf_8_is_one_bad_line():
    data = b'{"id": "a", "image": "a.png", "caption": "\xff"}\n' + lines(GOOD)
    rows, problems = read_rows(data, None, TAXONOMY)
    assert [row.id for row in rows] == ["a"]
    assert [problem.kind for problem in problems] == ["bad_json"]


def test_nesting_at_any_depth_is_at_worst_one_bad_line():
    for depth in range(1, 1100, 7):
        nested = '{"a":' * depth + "1" + "}" * depth
        rows, problems = read(
            f'{{"id": "x", "image": "a.png", "label": {nested}}}', {**GOOD, "id": "good"}
        )
        assert rows[-1].id == "good"
        assert problems


def test_of_equal_ids_the_first_that_is_a_row_stays():
    rows, problems = read(
        {"id": "5"},  # has no image, and is no row
        {**GOOD, "id": 5, "caption": "first"},
        {**GOOD, "id": "5", "caption": "second"},
    )
    assert [(row.id, row.caption) for row in rows] == [("5", "first")]
    assert [problem.kind for problem in problems] == ["missing_image", "duplicate_id"]


def test_ids_whose_keys_are_equal_are_not_both_rows():
    clash = sample_key("a.b")
    rows, problems = read({**GOOD, "id": "a.b"}, {**GOOD, "id": clash})
    assert [row.id for row in rows] == ["a.b"]
    assert [problem.kind for problem in problems] == ["dotted_id", "duplicate_id"]


@given(st.lists(st.text(min_size=1, max_size=80).filter(lambda s: s.isprintable()), unique=True))
def test_keys_are_those_that_webdataset_reads_and_differ_as_ids_do(ids):
    keys = [sample_key(i) for i in ids]
    assert len(set(keys)) == len(ids)
    for key in keys:
        assert 1 <= len(key) <= 64
        assert set(key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def test_a_plain_id_is_its_own_key_and_another_one_is_noted():
    assert sample_key("42953-x_Y") == "42953-x_Y"
    row, kinds = only({**GOOD, "id": "img.42953"})
    assert row.id == "img.42953"
    assert row.key.startswith("img_42953-")
    assert kinds == ["dotted_id"]


@pytest.mark.parametrize(
    ("given_labels", "labels", "kinds"),
    [
        ({"label": 1}, {"abuse_hate": 1}, []),
        ({"label": "abuse_hate"}, {"abuse_hate": 1}, []),
        ({"labels": {"label": 1}}, {"abuse_hate": 1}, []),
        ({"labels": {"abuse_hate": 1}, "label": 1}, {"abuse_hate": 1}, []),
        ({"labels": {"abuse_hate": 1}, "label": 0}, {}, ["bad_label", "unlabelled"]),
        ({"labels": {"abuse_hate": 1}, "label": None}, {"abuse_hate": 1}, []),
        ({"labels": {"abuse_hate": 2, "tone": 1}}, {"tone": 1}, ["bad_label"]),
        ({"labels": {"abuse_hate": -1}}, {}, ["bad_label", "unlabelled"]),
        ({"labels": {"abuse_hate": None}}, {}, ["unlabelled"]),
        ({"labels": None}, {}, ["unlabelled"]),
        ({"labels": [1]}, {}, ["bad_label", "unlabelled"]),
        ({"label": {"abuse_hate": 1}}, {}, ["bad_label", "unlabelled"]),
        ({"label": float("nan")}, {}, ["bad_label", "unlabelled"]),
        ({"labels": {"joy": 1, "tone": "loud"}}, {"tone": 2}, ["unknown_label"]),
        ({"labels": {"": 1}}, {}, ["unknown_label", "unlabelled"]),
        ({}, {}, ["unlabelled"]),
    ],
)
def test_a_label_is_used_or_said_not_to_be(given_labels, labels, kinds):
    row, found = only({"id": "a", "image": "a.png", "caption": "c", **given_labels})
    assert row.labels == labels
    assert found == kinds


def test_the_ocr_file_has_its_own_problems():
    rows, problems = read(
        GOOD,
        {"id": "left-out"},
        ocr=[
            {"id": "a", "ocr": "first"},
            {"id": "a", "ocr": "second"},
            {"id": "stray", "ocr": "x"},
            {"id": "left-out", "ocr": "of a line that is no row"},
            {"ocr": "x"},
            {"id": "b", "ocr": 7},
            "{",
        ],
    )
    assert [(row.id, row.ocr) for row in rows] == [("a", "first")]
    kinds = Counter(problem.kind for problem in problems)
    assert kinds == {
        "missing_image": 1, "ocr_duplicate_id": 1, "ocr_missing_id": 1, "ocr_bad_field": 1,
        "ocr_bad_json": 1, "ocr_without_row": 1,
    }  # fmt: skip
    assert [p.where for p in problems if p.kind == "ocr_without_row"] == ["ocr line 3, id stray"]
    assert not any(p.leaves_out for p in problems if p.kind.startswith("ocr_"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["id", "image", "img", "caption", "text", "labels", "label", "source", "ocr", "abuse_hate"]
)
BODIES = st.dictionaries(NAMES, JSON | st.dictionaries(NAMES, JSON, max_size=3) | st.just("a"))


@given(st.lists(st.one_of(BODIES.map(lambda b: json.dumps(b).encode()), st.binary(max_size=40))))
def test_every_line_is_a_row_or_a_problem_that_leaves_it_out(bodies):
    data = b"\n".join(bodies)
    rows, problems = read_rows(data, data, DEFAULT_TAXONOMY)
    there = sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").splitlines())
    assert len(rows) + sum(problem.leaves_out for problem in problems) == there
    assert len({row.id for row in rows}) == len({row.key for row in rows}) == len(rows)
    assert all(row.text.encode() is not None for row in rows)
    assert {p.kind for p in problems if p.leaves_out} <= LEFT_OUT
