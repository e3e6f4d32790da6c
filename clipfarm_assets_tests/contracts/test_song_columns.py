"""What the two files of segments must have, and that they have the same rows."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from clipfarm_assets.contracts.song_columns import (
    DEFAULT_COLUMNS,
    MEDIA_COLUMNS,
    MODALITIES,
    SegmentColumns,
    check_media,
    check_metadata,
    check_name,
    rows_agree,
)
from clipfarm_assets_tests.contracts.song_kit import MEDIA_FIELDS, SCHEMA, row, table


def media_schema(schema=SCHEMA):
    return pa.schema([*schema, *MEDIA_FIELDS])


def without(schema, name):
    return schema.remove(schema.get_field_index(name))


def retyped(schema, name, kind):
    return schema.set(schema.get_field_index(name), pa.field(name, kind))


def told(verdict):
    return [str(finding) for finding in verdict.findings]


def test_modalities_have_an_order():
    assert MODALITIES == ("text", "audio", "midi")


# Names


@pytest.mark.parametrize("name", ["a", "Kind of Blue", "Синий", "a/b", "x" * 256, "…and so on"])
def test_names(name):
    assert check_name(name, "album") == name


@pytest.mark.parametrize(
    "name", ["", " ", " Blue", "Blue ", "a\nb", "a\x00", "x" * 257, "\ud800", None, 7]
)
def test_what_names_nothing(name):
    with pytest.raises(ValueError, match=r"^bad album .*: expected text of 1 to 256"):
        check_name(name, "album")


@pytest.mark.parametrize(
    "names",
    [{"song": "album"}, {"song": ""}, {"label": "midi_binary"}, {"lyrics": "x"}, {"song": None}],
)
def test_columns_have_names_of_their_own(names):
    with pytest.raises(ValidationError):
        SegmentColumns(**names)


def test_columns_to_read_are_those_there_are_but_for_the_embeddings():
    schema = pa.schema([*SCHEMA, ("text_embedding", pa.list_(pa.float32()))])
    assert set(DEFAULT_COLUMNS.readable(schema)) == set(SCHEMA.names) - {"tempo"}
    renamed = SegmentColumns(song="track")
    assert "song_id" not in renamed.readable(schema)


# Metadata


def test_metadata_has_what_segments_need():
    assert check_metadata(SCHEMA).holds
    assert check_metadata(SCHEMA).examined == len(SCHEMA)


@pytest.mark.parametrize(
    "name",
    [
        "segment_id", "song_id", "album", "label", "lyric_text", "vocals", "has_audio", "has_midi",
    ],
)  # fmt: skip
def test_columns_that_metadata_must_have(name):
    (finding,) = told(check_metadata(without(SCHEMA, name)))
    assert finding.startswith(f"{name}: expected a column of ")


@pytest.mark.parametrize("name", [n for n in SCHEMA.names if n not in row()])
def test_columns_that_metadata_may_have(name):
    assert check_metadata(without(SCHEMA, name)).holds


@pytest.mark.parametrize(
    ("name", "kind", "holds"),
    [
        ("segment_id", pa.int64(), True),
        ("segment_id", pa.float64(), False),
        ("segment_id", pa.large_string(), True),
        ("album", pa.dictionary(pa.int32(), pa.string()), True),
        ("album", pa.dictionary(pa.int32(), pa.float32()), False),
        ("label", pa.int8(), True),
        ("label", pa.list_(pa.string()), False),
        ("label", pa.null(), True),
        ("lyric_text", pa.int64(), False),
        ("vocals", pa.int8(), False),
        ("vocals", pa.string(), False),
        ("start_seconds", pa.int32(), True),
        ("start_seconds", pa.float32(), True),
        ("start_seconds", pa.string(), False),
        ("start_smpte", pa.float64(), False),
        ("start_smpte", pa.null(), True),
        ("midi_offset_seconds", pa.bool_(), False),
    ],
)
def test_types_of_metadata(name, kind, holds):
    verdict = check_metadata(retyped(SCHEMA, name, kind))
    assert verdict.holds == holds
    assert all(f"{name}: expected " in finding for finding in told(verdict))


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        (pa.list_(pa.float32()), True),
        (pa.list_(pa.float64(), 768), True),
        (pa.large_list(pa.float16()), True),
        (pa.list_(pa.int64()), False),
        (pa.float32(), False),
        (pa.binary(), False),
    ],
)
def test_types_of_embeddings(kind, holds):
    verdict = check_metadata(pa.schema([*SCHEMA, ("text_embedding", kind)]))
    assert verdict.holds == holds


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(16)])
def test_metadata_has_no_binary_column(kind):
    (finding,) = told(check_metadata(pa.schema([*SCHEMA, ("cover", kind)])))
    assert finding == "cover: is binary: such columns belong in the media alone"


def test_a_column_that_is_there_twice():
    (finding,) = told(check_metadata(pa.schema([*SCHEMA, ("album", pa.string())])))
    assert finding == "album: is there 2 times"


def test_columns_under_other_names():
    columns = SegmentColumns(song="track", has_midi="midi_there")
    assert len(told(check_metadata(SCHEMA, columns))) == 2
    names = {"song_id": "track", "has_midi": "midi_there"}
    renamed = table(row()).rename_columns([names.get(n, n) for n in SCHEMA.names]).schema
    assert check_metadata(renamed, columns).holds


# Media


def test_media_has_the_columns_of_the_metadata_in_any_order():
    assert check_media(media_schema(), SCHEMA).holds
    assert check_media(pa.schema(list(media_schema())[::-1]), SCHEMA).holds
    assert tuple(field.name for field in MEDIA_FIELDS) == MEDIA_COLUMNS


@pytest.mark.parametrize("name", [*SCHEMA.names, *MEDIA_COLUMNS])
def test_columns_that_media_lacks(name):
    (finding,) = told(check_media(without(media_schema(), name), SCHEMA))
    assert finding.startswith(f"{name}: ")
    assert "found none" in finding


@pytest.mark.parametrize(
    ("name", "kind", "holds"),
    [
        ("tempo", pa.float64(), False),
        ("album", pa.large_string(), True),
        ("album", pa.dictionary(pa.int32(), pa.string()), True),
        ("album", pa.int64(), False),
        ("audio_waveform", pa.large_binary(), True),
        ("audio_waveform", pa.string(), False),
        ("midi_binary", pa.null(), True),
        ("midi_binary", pa.list_(pa.uint8()), False),
        ("audio_sample_rate", pa.int64(), False),
        ("audio_sample_rate", pa.float32(), False),
    ],
)
def test_types_of_media(name, kind, holds):
    verdict = check_media(retyped(media_schema(), name, kind), SCHEMA)
    assert verdict.holds == holds
    assert all(finding.startswith(f"{name}: ") for finding in told(verdict))


def test_a_column_that_media_has_alone():
    verdict = check_media(pa.schema([*media_schema(), ("key", pa.string())]), SCHEMA)
    assert told(verdict) == ["key: is no column of the metadata"]


# Rows


def rows(n=5):
    return [row(f"s{k}", tempo=float(k), start_seconds=math.nan if k == 1 else k) for k in range(n)]


def test_rows_agree(tmp_path):
    made = table(*rows())
    media = made.append_column(MEDIA_FIELDS[0], pa.array([b"x"] * 5, pa.binary()))
    path = tmp_path / "media.parquet"
    pq.write_table(media, path, row_group_size=2)
    read = pq.read_table(path, columns=made.column_names[::-1])
    verdict = rows_agree(made, read)
    assert verdict.holds
    assert verdict.facts == {"rows": 5, "columns": len(SCHEMA)}


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_a_value_is_the_same_whatever_its_type_is_kept_as(kind):
    made = table(*rows())
    assert rows_agree(made, made.cast(retyped(SCHEMA, "album", kind))).holds


@pytest.mark.parametrize(
    ("column", "value"),
    [("label", "wild"), ("label", None), ("tempo", None), ("tempo", math.nan), ("vocals", False)],
)
def test_a_value_that_differs_is_found_with_its_row(column, value):
    other = rows()
    other[3][column] = value
    (finding,) = told(rows_agree(table(*rows()), table(*other)))
    assert finding == f"{column}: differs in 1 rows, first row 3 (s3)"
    assert rows_agree(table(*other), table(*other)).holds


def test_rows_of_another_number_or_order_are_told_as_that():
    made = table(*rows())
    (finding,) = told(rows_agree(made, made.slice(1)))
    assert finding == "rows: the metadata has 5 rows, the media 4"
    swapped = made.take([1, 0, 2, 3, 4])
    (finding,) = told(rows_agree(made, swapped))
    assert finding == "segment_id: differs in 2 rows, first row 0 (s0), row 1 (s1)"
    (finding,) = told(rows_agree(made, made.drop_columns("tempo")))
    assert finding == "tempo: is a column of the metadata, found none in the media"


def test_embeddings_are_compared_value_by_value():
    kind = pa.list_(pa.float32())
    values = [[1.0, math.nan], [], None, [2.0]]
    made = table(*rows(4)).append_column("text_embedding", pa.array(values, kind))
    assert rows_agree(made, made).holds
    for other in ([1.0, 2.0], [1.0], None):
        changed = pa.array([other, *values[1:]], kind)
        media = table(*rows(4)).append_column("text_embedding", changed)
        (finding,) = told(rows_agree(made, media))
        assert finding == "text_embedding: differs in 1 rows, first row 0 (s0)"


def test_rows_far_down_are_compared_too():
    made = table(*(row(f"s{k:04}", tempo=float(k)) for k in range(2500)))
    other = made.set_column(
        made.schema.get_field_index("tempo"),
        "tempo",
        pa.array([float(k) + (k in (1023, 1024, 2499)) for k in range(2500)], pa.float32()),
    )
    (finding,) = told(rows_agree(made, other))
    told_rows = "first row 1023 (s1023), row 1024 (s1024), row 2499 (s2499)"
    assert finding == f"tempo: differs in 3 rows, {told_rows}"
