"""Rows of the sample's CSV that are no clip, and what the index must count them as."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.contracts.horizon_csv import BAD_VIDEO_ID, NO_CAPTURE_DATE, NO_VIDEO_ID


@dataclass(frozen=True, slots=True)
class StrayRow:
    """A row that the index must skip.

    Attributes:
        video_id: As written.
        url: As written.
        captured_at: As written; None for an ordinary time.
        reason: Why it is skipped, in the index's words.
    """

    video_id: str
    url: str
    captured_at: str | None
    reason: str


_WATCH = "https://www.youtube.com/watch?v="
_TOO_LONG = "a" * 65

STRAY_ROWS: Final = (
    StrayRow("", "https://www.youtube.com/feed/trending", None, NO_VIDEO_ID),
    StrayRow("", "", None, NO_VIDEO_ID),
    StrayRow("../x", f"{_WATCH}../x", None, BAD_VIDEO_ID),
    StrayRow(_TOO_LONG, f"{_WATCH}{_TOO_LONG}", None, BAD_VIDEO_ID),
    StrayRow("noDateAtAll", f"{_WATCH}noDateAtAll", "", NO_CAPTURE_DATE),
    StrayRow("noDateInIt_", f"{_WATCH}noDateInIt_", "yesterday", NO_CAPTURE_DATE),
)

EXPECTED_CSV_SKIPS: Final[Mapping[str, int]] = {
    NO_VIDEO_ID: 2,
    BAD_VIDEO_ID: 2,
    NO_CAPTURE_DATE: 2,
}
"""What the index of the sample's CSV must count as skipped, by reason."""
