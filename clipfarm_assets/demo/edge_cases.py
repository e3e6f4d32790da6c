"""The hard cases of the sample, and what must become of each.

`EDGE_CASES` drives the sample store, the tests and the table that the demo prints. Statuses are
those after one run over all dates, by the rules of `contracts.statuses`: an item that raises is
`fail` until its retries are used up; an absent raw object or an empty transcript is waited for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.demo import hard_clips
from clipfarm_assets.demo.clip import Edit

DATES: Final = ("2026-02-05", "2026-02-06", "2026-02-07")
"""The sample's days."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected statuses: of each modality's embedding, and of fusion under every strategy."""

    fusion: str
    video: str = statuses.SUCCESS
    audio: str = statuses.SUCCESS
    text: str = statuses.SUCCESS

    @property
    def embedding(self) -> Mapping[Modality, str]:
        """The embedding status by modality."""
        return {"video": self.video, "audio": self.audio, "text": self.text}


@dataclass(frozen=True, slots=True)
class EdgeCase:
    """One hard case: its name, the clip that is it, the clip's day, and what must come of it.

    `description` says what is hard, for people; `edit` makes the case of an ordinary clip.
    """

    name: str
    video_id: str
    date: str
    description: str
    expected: Expected
    edit: Edit


FULL: Final = Expected(statuses.SUCCESS_FULL)

_ABSENT, _RAISES = statuses.MISSING_RAW_OBJECT, statuses.FAIL
_PLACEHOLDER = Expected(statuses.SUCCESS_TEXT_PLACEHOLDER, text=_ABSENT)
_TEXT_ABSENT = Expected(statuses.MISSING_TEXT_PENDING, text=_ABSENT)
_TEXT_RAISES = Expected(statuses.MISSING_TEXT_PENDING, text=_RAISES)
_VIDEO_ABSENT = Expected(statuses.MISSING_REQUIRED_MODALITY, video=_ABSENT)
_VIDEO_RAISES = Expected(statuses.MISSING_REQUIRED_MODALITY, video=_RAISES)
_AUDIO_ABSENT = Expected(statuses.MISSING_REQUIRED_MODALITY, audio=_ABSENT)
_AUDIO_RAISES = Expected(statuses.MISSING_REQUIRED_MODALITY, audio=_RAISES)
_ALL_ABSENT = Expected(statuses.MISSING_REQUIRED_MODALITY, _ABSENT, _ABSENT, _ABSENT)

_5TH, _6TH, _7TH = DATES

EDGE_CASES: Final[tuple[EdgeCase, ...]] = (
    # Words
    EdgeCase(
        "no_captions",
        "noCaptions0",
        _5TH,
        "no captions, final; no json",
        _PLACEHOLDER,
        hard_clips.no_captions,
    ),
    EdgeCase(
        "no_captions_without_hash",
        "noCaptHash_",
        _6TH,
        "no captions, final, from a row without a hash",
        _PLACEHOLDER,
        hard_clips.no_captions_without_hash,
    ),
    EdgeCase(
        "empty_transcript",
        "emptyWords0",
        _7TH,
        "an empty transcript, final; json holds an empty string",
        _PLACEHOLDER,
        hard_clips.empty_transcript,
    ),
    EdgeCase(
        "text_pending",
        "textPending",
        _5TH,
        "the text downloader failed and will try again",
        _TEXT_ABSENT,
        hard_clips.text_pending,
    ),
    EdgeCase(
        "text_without_state",
        "textNoState",
        _6TH,
        "the text downloader has not seen the clip",
        _TEXT_ABSENT,
        hard_clips.text_without_state,
    ),
    EdgeCase(
        "text_of_another_url",
        "textOldHash",
        _7TH,
        "final text status, but of another source hash",
        _TEXT_ABSENT,
        hard_clips.text_of_another_url,
    ),
    EdgeCase(
        "invalid_json",
        "invalidJson",
        _5TH,
        "the transcript's json is cut off",
        _TEXT_RAISES,
        hard_clips.invalid_json,
    ),
    EdgeCase(
        "long_transcript",
        "longWords00",
        _6TH,
        "a transcript past the model's 256 tokens",
        FULL,
        hard_clips.long_transcript,
    ),
    # Sound
    EdgeCase("missing_wav", "missingWav0", _7TH, "no wav", _AUDIO_ABSENT, hard_clips.missing_wav),
    EdgeCase(
        "zero_byte_wav",
        "zeroByteWav",
        _5TH,
        "a wav of zero bytes",
        _AUDIO_RAISES,
        hard_clips.zero_byte_wav,
    ),
    EdgeCase(
        "silent_wav",
        "silentWav00",
        _6TH,
        "every sample of the wav is 0",
        FULL,
        hard_clips.silent_wav,
    ),
    EdgeCase("stereo_wav", "stereo44kHz", _7TH, "stereo at 44.1 kHz", FULL, hard_clips.stereo_wav),
    EdgeCase(
        "long_wav",
        "longWav95s0",
        _5TH,
        "95 s of sound, past the 90 s that are read; 8 kHz",
        FULL,
        hard_clips.long_wav,
    ),
    # Pictures
    EdgeCase("missing_mp4", "missingMp4_", _6TH, "no mp4", _VIDEO_ABSENT, hard_clips.missing_mp4),
    EdgeCase(
        "zero_byte_mp4",
        "zeroByteMp4",
        _7TH,
        "an mp4 of zero bytes",
        _VIDEO_RAISES,
        hard_clips.zero_byte_mp4,
    ),
    EdgeCase(
        "truncated_mp4",
        "truncated00",
        _5TH,
        "an mp4 cut off before its header: opens in nothing",
        _VIDEO_RAISES,
        hard_clips.truncated_mp4,
    ),
    EdgeCase(
        "truncated_faststart_mp4",
        "cutFaststrt",
        _6TH,
        "an mp4 cut off after its header: the decodable part counts",
        FULL,
        hard_clips.truncated_faststart_mp4,
    ),
    EdgeCase(
        "audio_only_mp4",
        "audioOnly00",
        _7TH,
        "an mp4 without a picture",
        _VIDEO_RAISES,
        hard_clips.audio_only_mp4,
    ),
    EdgeCase(
        "playlist_mp4",
        "playlistMp4",
        _5TH,
        "a playlist of other files, named mp4",
        _VIDEO_RAISES,
        hard_clips.playlist_mp4,
    ),
    EdgeCase("three_frames", "threeFrames", _6TH, "three frames", FULL, hard_clips.three_frames),
    EdgeCase(
        "unknown_frame_count",
        "fragmented0",
        _7TH,
        "fragmented mp4: its header says 0 frames",
        FULL,
        hard_clips.unknown_frame_count,
    ),
    EdgeCase(
        "odd_size", "oddSize101x", _5TH, "101 x 179 pixels, yuv444p", FULL, hard_clips.odd_size
    ),
    EdgeCase(
        "rotated",
        "rotated90de",
        _6TH,
        "a display matrix turns the picture by 90 degrees",
        FULL,
        hard_clips.rotated,
    ),
    EdgeCase(
        "variable_frame_rate",
        "variableFps",
        _7TH,
        "frames at uneven moments",
        FULL,
        hard_clips.variable_frame_rate,
    ),
    # Rows of the metadata
    EdgeCase(
        "no_raw_objects",
        "noRawAtAll0",
        _5TH,
        "in the metadata, but nothing downloaded",
        _ALL_ABSENT,
        hard_clips.no_raw_objects,
    ),
    EdgeCase(
        "recaptured",
        "recaptured0",
        _6TH,
        "captured again a day later, same url; the older row comes last",
        FULL,
        hard_clips.recaptured,
    ),
    EdgeCase(
        "recaptured_elsewhere",
        "recaptured1",
        _7TH,
        "captured again two days later under another url",
        FULL,
        hard_clips.recaptured_elsewhere,
    ),
    EdgeCase(
        "same_moment_twice",
        "sameMoment0",
        _5TH,
        "two rows of one moment: the later row of the file wins",
        FULL,
        hard_clips.same_moment_twice,
    ),
    EdgeCase(
        "unreadable_recapture",
        "unreadable0",
        _6TH,
        "a recapture without a readable time loses",
        FULL,
        hard_clips.unreadable_recapture,
    ),
    EdgeCase(
        "id_only_in_url",
        "idOnlyInUrl",
        _7TH,
        "empty video_id: taken from the url",
        FULL,
        hard_clips.id_only_in_url,
    ),
    EdgeCase(
        "padded_url",
        "paddedUrl00",
        _5TH,
        "blanks around the url: not part of its hash",
        FULL,
        hard_clips.padded_url,
    ),
    EdgeCase(
        "hidden_likes",
        "hiddenLikes",
        _6TH,
        "like_count is empty: likes are hidden",
        FULL,
        hard_clips.hidden_likes,
    ),
    EdgeCase(
        "leading_dash", "-leadDash00", _7TH, "an id that begins with -", FULL, hard_clips.unchanged
    ),
    EdgeCase(
        "leading_underscore",
        "_underscore",
        _5TH,
        "an id that begins with _",
        FULL,
        hard_clips.unchanged,
    ),
)

_BY_ID: Final = {case.video_id: case for case in EDGE_CASES}


def expected_of(video_id: str) -> Expected:
    """What must come of a clip of the sample; an ordinary one is embedded and fused in full."""
    case = _BY_ID.get(video_id)
    return FULL if case is None else case.expected
