import json

import pytest

from clipfarm_assets.contracts.label_taxonomy import (
    DEFAULT_TAXONOMY,
    BadTaxonomy,
    LabelTaxonomy,
    check_label,
)

TWO = LabelTaxonomy(
    {"abuse_hate": ("no", "yes"), "target": ("none", "group", "person")},
    {"label": "abuse_hate", "hateful": "abuse_hate"},
)


def test_the_default_is_the_unified_label():
    assert DEFAULT_TAXONOMY.classes("abuse_hate") == ("not_abuse_hate", "abuse_hate")
    assert DEFAULT_TAXONOMY.resolve("label") == "abuse_hate"
    assert DEFAULT_TAXONOMY.resolve("labels") is None


def test_round_trip_and_equal_bytes_for_equal_taxonomies():
    assert LabelTaxonomy.from_json(TWO.to_json()) == TWO
    other_order = LabelTaxonomy(
        dict(reversed(TWO.labels.items())), dict(reversed(TWO.aliases.items()))
    )
    assert other_order.to_json() == TWO.to_json()


@pytest.mark.parametrize(
    ("value", "number"),
    [(0, 0), (1, 1), (2, 2), (True, 1), (False, 0), (1.0, 1), ("group", 1), ("none", 0)],
)
def test_a_class_is_its_number_or_its_name(value, number):
    found = TWO.class_of("target", value)
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize(
    "value", [3, -1, 0.5, float("nan"), float("inf"), 10**400, "1", "", "Group", None, [], [1], {}]
)
def test_anything_else_is_no_class(value):
    assert TWO.class_of("target", value) is None


def test_an_unknown_label_names_those_there_are():
    with pytest.raises(ValueError, match="unknown label 'joy': expected one of abuse_hate, target"):
        TWO.classes("joy")


@pytest.mark.parametrize("label", ["", "A", "a-b", "a.b", "1a", "a" * 65, "a/b", "ä", None])
def test_labels_that_no_key_may_have(label):
    with pytest.raises(ValueError, match="bad label"):
        check_label(label)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "must be JSON"),
        (b"\xff", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b"[]", "must be"),
        (b"{}", "must be"),
        (b'{"labels": {"a": ["x", "y"]}, "alias": {}}', "must be"),
        (b'{"labels": {"a": "xy"}}', "must be"),
        (b'{"labels": {"a": ["x", "y"]}, "aliases": {"b": 1}}', "must be"),
        (b'{"labels": {}}', "must have a label"),
        (b'{"labels": {"a.b": ["x", "y"]}}', "bad label 'a.b'"),
        (b'{"labels": {"a": ["x"]}}', "two or more classes"),
        (b'{"labels": {"a": ["x", "x"]}}', "two or more classes"),
        (b'{"labels": {"a": ["x", 1]}}', "two or more classes"),
        (b'{"labels": {"a": ["x", [1]]}}', "two or more classes"),
        (b'{"labels": {"a": ["x", " "]}}', "two or more classes"),
        (b'{"labels": {"a": ["x", "y"]}, "aliases": {"b": "c"}}', "must stand for a label"),
        (b'{"labels": {"a": ["x", "y"]}, "aliases": {"a": "a"}}', "is a label"),
    ],
)
def test_what_is_no_taxonomy_says_so_with_its_key(body, told):
    with pytest.raises(BadTaxonomy, match=told) as caught:
        LabelTaxonomy.from_json(body, "memes/raw/label_taxonomy.json")
    assert "memes/raw/label_taxonomy.json" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_object_is_plain_json():
    assert json.loads(DEFAULT_TAXONOMY.to_json()) == {
        "aliases": {"label": "abuse_hate"},
        "labels": {"abuse_hate": ["not_abuse_hate", "abuse_hate"]},
    }
