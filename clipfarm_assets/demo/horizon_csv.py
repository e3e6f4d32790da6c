"""The metadata CSV of the sample: all columns, in the order and the manner of real rows.

UTF-8, RFC 4180 quoting, lines ended by a bare line feed as real files have it. Two columns hold a
part of the label, as in real rows: ``channel_view_count`` and ``channel_median_shorts_view_count``
are captured at the horizon, after the outcome. A model must not see them.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from clipfarm_assets.contracts.horizon_csv import COLUMNS
from clipfarm_assets.demo.clip import AGE_AT, PUBLISHED_FORMAT, Clip, Observation

OLDER_COLUMNS: Final = (
    *COLUMNS[: COLUMNS.index("likes_hidden")],
    "horizon_days",
    "horizon_view_count",
)
"""What a file of 2025 has of the columns: the set grew over time."""

_COUNTRIES: Final = ("US", "IN", "ID", "BR", "")
_TOPIC_PAGES: Final = {
    "cooking": "Food",
    "sport": "Sport",
    "music": "Music",
    "school": "Knowledge",
}
_CLICKBAIT: Final = ("amazing", "worst", "best")
_CHANNEL_SINCE: Final = datetime(2019, 3, 1, 10, 44, 30, 45566, tzinfo=UTC)


def to_csv(rows: Iterable[Mapping[str, object]], columns: Sequence[str] = COLUMNS) -> bytes:
    """The rows as CSV with a header; keys of a row beyond `columns` are left out."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def rows_of(clip: Clip) -> list[dict[str, object]]:
    """The clip's rows, one an observation, in the order of the file."""
    return [_row(clip, observation) for observation in clip.observations]


def older_csv(clips: Iterable[Clip]) -> bytes:
    """A file of the year before, which lacks the newest columns: rows of the clips' first label."""
    rows = [row for clip in clips for row in rows_of(clip) if row["horizon_days"] == 7]
    return to_csv(
        [{**row, "captured_at": f"2025{str(row['captured_at'])[4:]}"} for row in rows],
        OLDER_COLUMNS,
    )


def iso_duration(seconds: int) -> str:
    """ISO 8601 as the video platform writes it: ``PT18S``, ``PT1M1S``."""
    minutes, rest = divmod(seconds, 60)
    return f"PT{minutes}M{rest}S" if minutes else f"PT{rest}S"


def _row(clip: Clip, seen: Observation) -> dict[str, object]:
    return {
        "video_id": seen.video_id,
        "url": seen.url,
        "query": clip.words.query,
        "category_type": "seed",
        "collector_version": "v0.4.0-horizon",
        "captured_at": seen.captured_at,
        **_channel_fields(clip, seen),
        **_word_fields(clip),
        **_media_fields(clip),
        **_count_fields(clip, seen),
        "topic_categories": f"https://en.wikipedia.org/wiki/{_TOPIC_PAGES[clip.traits.topic]}"
        "|https://en.wikipedia.org/wiki/Entertainment",
        "privacy_status": "public",
        "upload_status": "processed",
        "embeddable": True,
        "license": "youtube",
        "madeForKids": False,
        "publicStatsViewable": True,
        "horizon_days": seen.horizon,
        "horizon_view_count": clip.views.at(seen.horizon),
        "horizon_label_type": "views_at_age",
    }


def _channel_fields(clip: Clip, seen: Observation) -> dict[str, object]:
    number = clip.channel.number
    subscribers = round(10 ** (4.5 + 0.8 * clip.channel.size))
    views = clip.views.at(seen.horizon)
    created = _CHANNEL_SINCE + timedelta(days=37 * number)
    published = datetime.strptime(clip.published_at, PUBLISHED_FORMAT).replace(tzinfo=UTC)
    return {
        "channel_id": f"UCsample{number:016d}",
        "channel_title": f"Channel {number}",
        "channel_custom_url": f"@channel{number}",
        "channel_country": _COUNTRIES[number % len(_COUNTRIES)],
        "channel_created_at": created.isoformat().replace("+00:00", "Z"),
        "channel_description_length": 40 * (number % 7),
        "channel_subscriber_count": subscribers,
        "channel_video_count": 120 + 11 * number,
        "channel_view_count": 150 * subscribers + views,
        "channel_hidden_subscriber_count": False,
        "channel_age_days": round((published - created).total_seconds() / 86_400, 2),
        # Known of one channel in three only.
        "channel_median_shorts_view_count": subscribers + views // 2 if number % 3 == 0 else "",
    }


def _word_fields(clip: Clip) -> dict[str, object]:
    title, description = clip.words.title, clip.words.description
    both = f"{title}\n{description}"
    hashtags = both.count("#")
    return {
        "title": title,
        "description": description,
        "title_length": len(title),
        "description_length": len(description),
        "emoji_count": sum(ord(letter) >= 0x1F300 for letter in both),
        "has_hashtags": hashtags > 0,
        "has_shorts_hashtag": "#shorts" in both,
        "has_clickbait_words": any(word in both for word in _CLICKBAIT),
        "hashtag_count": hashtags,
        "default_language": clip.words.language,
        "default_audio_language": clip.words.language or "zxx",
        "shorts_by_hashtag": "#shorts" in both,
    }


def _media_fields(clip: Clip) -> dict[str, object]:
    seconds = max(1, round(max(clip.picture.seconds, clip.sound.seconds)))
    return {
        "published_at": clip.published_at,
        "duration": iso_duration(seconds),
        "duration_seconds": seconds,
        "dimension": "2d",
        "definition": "hd",
        "projection": "rectangular",
        "caption_available": clip.text is not None,
        "licensed_content": clip.channel.number % 2 == 0,
        "thumbnail_url": f"https://i.ytimg.com/vi/{clip.video_id}/maxresdefault.jpg",
        "thumb_width": 1280,
        "thumb_height": 720,
        "thumb_aspect_ratio": 1280 / 720,
        "is_vertical_thumb": False,
        "shorts_by_duration": True,
        "is_short": True,
    }


def _count_fields(clip: Clip, seen: Observation) -> dict[str, object]:
    # A row captured late counts views past the horizon; the counts never fall.
    views = round(clip.views.at(seen.horizon) * (seen.age_days / AGE_AT[seen.horizon]) ** 0.1)
    like_rate, comment_rate = clip.rng("rates").uniform((0.005, 0.00005), (0.04, 0.001))
    likes, comments = round(views * like_rate), round(views * comment_rate)
    hidden = clip.hidden_likes
    return {
        "view_count": views,
        "like_count": "" if hidden else likes,
        "comment_count": comments,
        "age_days": seen.age_days,
        "views_per_day": views / seen.age_days,
        "likes_per_day": "" if hidden else likes / seen.age_days,
        "comments_per_day": comments / seen.age_days,
        "likes_per_view": "" if hidden else likes / max(views, 1),
        "comments_per_view": comments / max(views, 1),
        "views_per_hour": views / seen.age_days / 24,
        "likes_hidden": hidden,
        "comments_disabled": False,
        "stats_hidden": False,
        "too_new_for_rates": False,
        "virality_score": round(float(np.log10(views + 1)) - 5.0, 2),
    }
