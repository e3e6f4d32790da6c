"""The file: what is read, what is refused. Its rules for rows are in test_latest_rows.py."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts.horizon_csv import (
    COLUMNS,
    REQUIRED,
    HorizonCsvError,
    read_horizon_csv,
)

HEADER = b"video_id,url,captured_at,title,description,query\n"
ROW = b"aaa,u,2026-02-05,t,d,q\n"


def test_columns_and_their_order():
    listed = (
        "video_id,url,query,category_type,collector_version,captured_at,channel_id,channel_title,"
        "channel_custom_url,channel_country,channel_created_at,channel_description_length,"
        "channel_subscriber_count,channel_video_count,channel_view_count,"
        "channel_hidden_subscriber_count,channel_age_days,title,description,title_length,"
        "description_length,emoji_count,has_hashtags,has_shorts_hashtag,has_clickbait_words,"
        "hashtag_count,published_at,duration,duration_seconds,default_language,"
        "default_audio_language,dimension,definition,projection,caption_available,"
        "licensed_content,thumbnail_url,thumb_width,thumb_height,thumb_aspect_ratio,"
        "is_vertical_thumb,view_count,like_count,comment_count,age_days,views_per_day,"
        "likes_per_day,comments_per_day,likes_per_view,comments_per_view,views_per_hour,"
        "shorts_by_duration,shorts_by_hashtag,is_short,topic_categories,privacy_status,"
        "upload_status,embeddable,license,madeForKids,publicStatsViewable,likes_hidden,"
        "comments_disabled,stats_hidden,too_new_for_rates,virality_score,horizon_days,"
        "horizon_view_count,horizon_label_type,channel_median_shorts_view_count"
    )
    assert ",".join(COLUMNS) == listed
    assert set(REQUIRED) <= set(COLUMNS)


def write(rows, columns=REQUIRED, line_end="\n", quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator=line_end, quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def full_row(**changes):
    return {**dict.fromkeys(COLUMNS, ""), "video_id": "aaa", "url": "u", **changes}


QUIRKS = {
    "description": 'Wait 😂😂 #shorts \n.\n""fair use"" for "criticism",\r\n\n#memes  \n',
    "title": "होली स्पेशल🥰🙏 #shorts",
    "query": " leading, and trailing ",
    "channel_country": "",
    "like_count": "",
    "is_short": "True",
    "madeForKids": "False",
    "captured_at": "2026-02-05T17:34:41.595562+00:00",
    "published_at": "2026-01-30T05:30:32Z",
    "duration": "PT1M1S",
    "comments_per_view": "1.4812701748400527e-05",
    "virality_score": "-0.57",
    "channel_median_shorts_view_count": "",
}


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_values_arrive_as_they_were_written(line_end, start, quoting):
    rows = [full_row(video_id="-JSxxmtYm0A", **QUIRKS), full_row(video_id="_3bLxxeoaoZ")]
    read = read_horizon_csv(start + write(rows, COLUMNS, line_end, quoting))
    assert read.rows.columns == list(COLUMNS)
    assert read.rows.to_dicts() == rows
    assert (read.missing_columns, read.undeclared_columns) == ((), ())


def test_doubled_quotes_as_in_real_rows():
    data = HEADER + b'aaa,u,2026-02-05,"a ""b"" c","""""fair use""""",""\n'
    row = read_horizon_csv(data).rows.to_dicts()[0]
    assert row["title"] == 'a "b" c'
    assert row["description"] == '""fair use""'
    assert row["query"] == ""


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                name: st.text(
                    st.one_of(
                        st.sampled_from('",\n\r\t |;#\\\u2028🥰ह\ufeff\x00'),
                        st.characters(codec="utf-8"),
                    ),
                    max_size=12,
                )
                for name in REQUIRED
            }
        ),
        max_size=6,
    ),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_reads_back_whatever_a_csv_writer_wrote(rows, line_end, quoting):
    if quoting == csv.QUOTE_MINIMAL:
        # Python 3.11's writer leaves a lone carriage return without the quotes it needs.
        rows = [{name: value.replace("\r", "\n") for name, value in row.items()} for row in rows]
    assert read_horizon_csv(write(rows, REQUIRED, line_end, quoting)).rows.to_dicts() == rows


def test_large_file_with_line_breaks_in_fields():
    rows = [full_row(video_id=f"id{k}", description='a\n"b",\r\nc' * (k % 5)) for k in range(3000)]
    assert read_horizon_csv(write(rows, COLUMNS)).rows.to_dicts() == rows


def test_older_file_names_the_columns_it_lacks():
    older = COLUMNS[:-5]
    read = read_horizon_csv(write([], older))
    assert read.missing_columns == COLUMNS[-5:]
    assert read.undeclared_columns == ()
    assert read.rows.height == 0


def test_columns_in_another_order_and_undeclared_ones_are_kept_and_named():
    columns = ("note", *reversed(REQUIRED), "rank")
    values = [f"v{k}" for k in range(len(columns))]
    read = read_horizon_csv(f"{','.join(columns)}\n{','.join(values)}\n".encode())
    assert read.undeclared_columns == ("note", "rank")
    assert read.rows.columns == list(columns)
    assert read.rows.row(0) == tuple(values)


@pytest.mark.parametrize("gap", [b"\n", b"\r\n", b"\n\n\n"])
def test_blank_lines_are_no_rows(gap):
    read = read_horizon_csv(gap + HEADER + gap + ROW + gap + ROW + gap)
    assert read.rows["video_id"].to_list() == ["aaa", "aaa"]


def test_no_line_end_after_the_last_row():
    assert read_horizon_csv((HEADER + ROW).rstrip()).rows.row(0)[-1] == "q"


def test_header_alone_is_a_file_without_rows():
    assert read_horizon_csv(HEADER).rows.shape == (0, 6)


def test_lacking_fields_are_null_and_empty_ones_are_empty():
    read = read_horizon_csv(HEADER + b"aaa,u,2026-02-05\n" + b'bbb,,"",,,\n')
    assert read.rows.rows() == [
        ("aaa", "u", "2026-02-05", None, None, None),
        ("bbb", "", "", "", "", ""),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^clips.csv is empty: expected a header with the columns video_id, url,"),
        (b"\xef\xbb\xbf", "^clips.csv is empty"),
        (b"\n\r\n\n", "^clips.csv is empty"),
        (HEADER + b"\xe9", "^clips.csv must be UTF-8: byte 49 is not; re-export it as UTF-8$"),
        (b"\xef\xbb\xbf\xff", "must be UTF-8: byte 3 is not"),
        (HEADER.decode().encode("utf-16"), "must be UTF-8: byte 0 is not"),
        (
            HEADER.replace(b",query", b"").replace(b"url,", b""),
            r"^clips.csv must have the columns .*: url, query not found among its 4 columns; is it",
        ),
        (HEADER.replace(b",", b";"), "not found among its 1 columns"),
        (b"\x00\x01PNG", "not found among its 1 columns"),
        (
            b"url," + HEADER,
            "^clips.csv must have every column once: found 'url' again$",
        ),
        (HEADER.rstrip() + b",x,x\n", "every column once: found 'x' again"),
        (
            HEADER + ROW + b"bbb,u,2026-02-05,a, comma,d,q\n",
            "^clips.csv: row 2 has 7 fields, the header has 6: a comma in one of them needs quotes",
        ),
        (HEADER + ROW.rstrip() + b",\n", "row 1 has 7 fields"),
        (
            HEADER + ROW + b'bbb,u,2026-02-05,"t,d,q\n' + ROW,
            r"^clips.csv can't be .* RFC 4180 .*: the row that begins in line 3: unexpected end of",
        ),
        (
            HEADER + b'aaa,u,2026-02-05,"t\nt",d,q\nbbb,u,2026-02-05,"t"t,d,q\n',
            "the row that begins in line 4: ',' expected after '\"'",
        ),
        # An opening quote that swallows the rest of a large file.
        (HEADER + b'aaa,"u,' + b"x" * 200_000, "the row that begins in line 2: field larger than"),
    ],
)
def test_refuses_what_is_no_metadata_csv(data, message):
    with pytest.raises(HorizonCsvError, match=message):
        read_horizon_csv(data, "clips.csv")


def test_a_field_of_ten_megabytes_stops_the_run_with_a_sentence():
    """Quoted and not: no such value is metadata, and it would travel with every row's clip."""
    header = ",".join(COLUMNS)
    for field in ("x" * 10_000_000, '"' + "x\n" * 5_000_000 + '"'):
        data = f"{header}\n{field}{',' * (len(COLUMNS) - 1)}\n".encode()
        with pytest.raises(HorizonCsvError, match="line 2: field larger than field limit"):
            read_horizon_csv(data)
