import math
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.features import Column
from clipfarm_assets.contracts.horizon_csv import COLUMNS, read_horizon_csv
from clipfarm_assets.contracts.leakage import feature_contract
from clipfarm_assets.training.features import (
    MissingColumns,
    captured_at,
    metadata_features,
    moments,
    outcome_columns,
    published_at,
)


def rows(**columns):
    """Rows of text with all columns of the CSV, empty where not given."""
    n = len(next(iter(columns.values())))
    full = {**dict.fromkeys(COLUMNS, [""] * n), **columns}
    return pl.DataFrame(full, schema=dict.fromkeys(full, pl.String))


def parse(column, texts, feature=None):
    """One feature of these texts, and how many of them were none."""
    contract = feature_contract([column])
    parsed = metadata_features(rows(**{column: texts}), contract)
    return parsed.metadata[feature or column].to_list(), dict(parsed.unparsable)


NUMBERS = {
    "18": 18.0,
    " 18 ": 18.0,
    "-0.0": -0.0,
    "+5": 5.0,
    "1.": 1.0,
    ".5": 0.5,
    "1e3": 1000.0,
    "1E-3": 0.001,
    "1.7777777777777777": 1.7777777777777777,
    "0.1": 0.1,
    "5e-324": 5e-324,
    "1e-400": 0.0,
    "007": 7.0,
    "1e15": 1e15,
    "-1e15": -1e15,
}
NO_NUMBERS = (
    "1e400", "-1e400", "1.0000000001e15", "inf", "-Infinity", "nan", "NaN", "1_000", "1,000",
    "1.234,5", "0x10", "1e", "e5", ".", "+", "--5", "1 2", "5 s", "True", "null", "None", "١٨",
    "1\n2", "½", "1e5.5", "PT18S",
)  # fmt: skip


def test_numbers_are_those_that_float_reads():
    values, unparsable = parse("duration_seconds", list(NUMBERS))
    assert [math.copysign(1, v) for v in values] == [math.copysign(1, v) for v in NUMBERS.values()]
    assert values == list(NUMBERS.values()) == [float(text) for text in NUMBERS]
    assert unparsable == {}


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number_is_missing_and_counted(text):
    assert parse("duration_seconds", [text, "1", text]) == (
        [None, 1.0, None],
        {"duration_seconds": 2},
    )


@given(st.floats(-1e15, 1e15))
def test_a_number_survives_being_written(value):
    assert parse("duration_seconds", [repr(value)]) == ([value], {})


@given(st.text("0123456789+-.eE_xinfa ٣", max_size=6))
def test_the_grammar_of_numbers(text):
    grammar = r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
    is_number = re.fullmatch(grammar, text.strip()) and abs(float(text)) <= 1e15
    assert parse("duration_seconds", [text])[0] == [float(text) if is_number else None]


def test_empty_is_missing_and_not_counted():
    for column in ("duration_seconds", "is_short", "query", "published_at"):
        feature = "published_hour" if column == "published_at" else column
        assert parse(column, ["", "  ", "\t", None], feature) == ([None] * 4, {})


def test_booleans_are_0_and_1():
    texts = ["True", "False", "true", "FALSE", "1", "0", " tRuE "]
    assert parse("is_short", texts) == ([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0], {})
    no_booleans = ["yes", "2", "1.0", "T", "None", "-1"]
    assert parse("is_short", no_booleans) == ([None] * 6, {"is_short": 6})


def test_categories_are_text_without_surrounding_blanks():
    texts = ["en", " en", "EN", "हिन्दी", "1", "zxx\n"]
    assert parse("default_language", texts) == (["en", "en", "EN", "हिन्दी", "1", "zxx"], {})


@pytest.mark.parametrize(
    ("text", "hour", "weekday"),
    [
        ("2026-01-30T05:30:32Z", 5, 4),  # a Friday
        ("2026-01-30T05:30:32.595562+00:00", 5, 4),
        ("2026-02-02T00:00:00Z", 0, 0),
        ("2026-02-01T23:59:59.999999Z", 23, 6),
        ("2026-02-02T04:30:00+05:30", 23, 6),  # is Sunday in UTC
        ("2026-02-02 07:00:00", 7, 0),
        ("1970-01-01T00:00:00Z", 0, 3),
        ("1969-12-31T23:00:00Z", 23, 2),
        ("2024-02-29T12:00:00Z", 12, 3),
    ],
)
def test_hour_and_weekday_are_those_in_utc(text, hour, weekday):
    assert parse("published_at", [text], "published_hour") == ([hour], {})
    assert parse("published_at", [text], "published_dayofweek") == ([weekday], {})


@given(st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001 - made UTC below
def test_hour_and_weekday_are_pythons(moment):
    moment = moment.replace(tzinfo=UTC)
    text = [moment.isoformat()]
    assert parse("published_at", text, "published_hour")[0] == [moment.hour]
    assert parse("published_at", text, "published_dayofweek")[0] == [moment.weekday()]


def test_a_time_that_is_none_is_counted_once():
    contract = feature_contract(["published_at", "channel_created_at"])
    parsed = metadata_features(
        rows(
            published_at=["yesterday", "2026-13-01T00:00:00Z", "2026-01-30T05:30:32Z", ""],
            channel_created_at=["2022-09-23T10:44:30.045566Z", "", "1763596800", "soon"],
        ),
        contract,
    )
    assert dict(parsed.unparsable) == {"published_at": 2, "channel_created_at": 2}
    assert parsed.metadata["published_hour"].to_list() == [None, None, 5.0, None]
    assert parsed.metadata["channel_age_at_publish_days"].to_list() == [None] * 4


def test_channel_age_is_that_at_publication():
    created = datetime(2022, 9, 23, 10, 44, 30, 45566, UTC)
    published = [created + timedelta(days=1200, hours=6), created - timedelta(days=1), created]
    parsed = metadata_features(
        rows(
            published_at=[moment.isoformat() for moment in published],
            channel_created_at=["2022-09-23T10:44:30.045566Z"] * 3,
        ),
        feature_contract(["published_at", "channel_created_at"]),
    )
    assert parsed.metadata["channel_age_at_publish_days"].to_list() == [1200.25, -1.0, 0.0]


def test_features_are_the_contracts_in_its_order_whatever_the_rows_order():
    for feature_set in ("v1", "v2"):
        contract = feature_contract(COLUMNS, feature_set)
        table = rows(is_short=["True", "x"], query=["shorts", ""], duration_seconds=["18", "61"])
        parsed = metadata_features(table, contract)
        assert parsed.metadata.schema == {
            **dict.fromkeys(contract.numeric, pl.Float64),
            **dict.fromkeys(contract.categorical, pl.String),
        }
        assert parsed.metadata.columns == list(contract.features)
        turned = metadata_features(table.select(table.columns[::-1]), contract)
        assert turned.metadata.equals(parsed.metadata)
        assert dict(turned.unparsable) == dict(parsed.unparsable) == {"is_short": 1}


def test_a_row_alone_has_the_features_that_it_has_among_others():
    """A predictor sees one clip, training saw all."""
    contract = feature_contract(COLUMNS)
    table = rows(
        is_short=["True", "", "no"],
        query=["shorts", "", "education"],
        duration_seconds=["18", "x", "1e3"],
        published_at=["2026-01-30T05:30:32Z", "", "2025-11-20"],
        channel_created_at=["2022-09-23T10:44:30Z"] * 3,
    )
    together = metadata_features(table, contract).metadata
    for index in range(3):
        assert metadata_features(table[index], contract).metadata.equals(together[index])


def test_no_rows_have_the_same_columns():
    contract = feature_contract(COLUMNS)
    none = metadata_features(rows(query=["a"]).clear(), contract)
    assert none.metadata.schema == metadata_features(rows(query=["a"]), contract).metadata.schema
    assert none.metadata.height == 0
    assert dict(none.unparsable) == {}


def test_declared_columns_are_parsed_by_their_kind():
    declared = {
        "score": Column("at_publish", "numeric"),
        "flag": Column("at_publish", "boolean"),
        "genre": Column("at_publish", "categorical"),
    }
    contract = feature_contract(list(declared), "v2", declared)
    table = pl.DataFrame({"score": ["1.5", "?"], "flag": ["True", "0"], "genre": ["a", ""]})
    parsed = metadata_features(table, contract)
    assert parsed.metadata.to_dict(as_series=False) == {
        "flag": [1.0, 0.0],
        "score": [1.5, None],
        "genre": ["a", None],
    }
    assert dict(parsed.unparsable) == {"score": 1}


def test_columns_that_features_need_are_named():
    contract = feature_contract(COLUMNS)
    table = rows(query=["a"]).drop("title_length", "published_at")
    with pytest.raises(MissingColumns, match="found 68 columns without title_length, published_at"):
        metadata_features(table, contract)
    with pytest.raises(MissingColumns, match="without published_at: give them"):
        published_at(table)


def test_columns_that_no_feature_needs_may_lack():
    contract = feature_contract(COLUMNS)
    table = rows(query=["a"])
    whole = metadata_features(table, contract).metadata
    assert metadata_features(table.drop(list(contract.dropped)[5:8]), contract).metadata.equals(
        whole
    )


def test_outcomes_are_all_numeric_columns_known_after_it():
    table = rows(
        view_count=["1485715", "inf"],
        like_count=["", "12"],
        too_new_for_rates=["False", "False"],
        horizon_view_count=["7", "x"],
    )
    outcomes = outcome_columns(table)
    assert outcomes.columns == [
        "view_count", "like_count", "comment_count", "age_days", "views_per_day", "likes_per_day",
        "comments_per_day", "likes_per_view", "comments_per_view", "views_per_hour",
        "virality_score", "horizon_days", "horizon_view_count",
    ]  # fmt: skip
    assert set(outcomes.dtypes) == {pl.Float64}
    assert outcomes["view_count"].to_list() == [1485715.0, None]
    assert outcomes["like_count"].to_list() == [None, 12.0]
    assert outcomes["horizon_view_count"].to_list() == [7.0, None]


def test_outcomes_of_an_older_file_and_of_a_deployment():
    declared = {
        "shares": Column("after_outcome", "numeric"),
        "score": Column("at_publish", "numeric"),
    }
    table = pl.DataFrame({"shares": ["3"], "score": ["1"], "view_count": ["2"], "title": ["t"]})
    outcomes = outcome_columns(table, declared)
    assert outcomes.to_dict(as_series=False) == {"view_count": [2.0], "shares": [3.0]}
    assert outcome_columns(table).columns == ["view_count"]


def test_moments_are_utc_microseconds():
    table = rows(
        published_at=["2026-01-30T05:30:32Z", "", "never"],
        captured_at=["2026-02-05T17:34:41.595562+00:00", "2026-02-05T23:00:00+05:30", ""],
    )
    assert published_at(table).dtype == captured_at(table).dtype == np.dtype("datetime64[us]")
    expected = np.array(["2026-01-30T05:30:32", "NaT", "NaT"], "datetime64[us]")
    np.testing.assert_array_equal(published_at(table), expected)
    expected = np.array(["2026-02-05T17:34:41.595562", "2026-02-05T17:30", "NaT"], "datetime64[us]")
    np.testing.assert_array_equal(captured_at(table), expected)
    assert moments(table.clear(), "captured_at").shape == (0,)


def test_rows_as_the_csv_reader_gives_them():
    """The manner of real rows: quoting, line breaks, booleans, empty likes, a short last row."""
    header = ",".join(COLUMNS)
    values = dict.fromkeys(COLUMNS, "")
    values |= {
        "video_id": "-JSxxmtYm0A",
        "url": "https://www.youtube.com/watch?v=-JSxxmtYm0A",
        "title": '"Wait for ""end"" 😂\nhere"',
        "is_short": "True",
        "duration_seconds": "18",
        "thumb_aspect_ratio": "1.7777777777777777",
        "default_language": "hi",
        "published_at": "2026-01-30T05:30:32Z",
    }
    csv = read_horizon_csv(f"{header}\n{','.join(values.values())}\n".encode())
    parsed = metadata_features(csv.rows, feature_contract(csv.rows.columns))
    (row,) = parsed.metadata.iter_rows(named=True)
    known = {name: value for name, value in row.items() if value is not None}
    assert known == {
        "duration_seconds": 18.0,
        "thumb_aspect_ratio": 1.7777777777777777,
        "is_short": 1.0,
        "published_hour": 5.0,
        "published_dayofweek": 4.0,
        "default_language": "hi",
    }
    assert dict(parsed.unparsable) == {}
