"""What makes an ordinary clip a hard one: one small edit each.

Every function is a `clip.Edit`. Edits of raw objects use the functions of `hard_media`.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate, cycle, islice
from typing import Final

from clipfarm_assets.demo import hard_media
from clipfarm_assets.demo.clip import (
    AGE_AT,
    PUBLISHED_FORMAT,
    TEXT_DONE,
    Clip,
    Observation,
    TextState,
)
from clipfarm_assets.demo.pictures import Picture
from clipfarm_assets.demo.sounds import Sound
from clipfarm_assets.demo.words import speak

FIRST_CAPTURE: Final = "2026-02-05T03:10:00+00:00"
"""When clips that are captured again on a later date were captured first."""

UNEVEN_STEPS_MS: Final = (40, 40, 200, 40, 333, 90)
"""From frame to frame of the clip with a variable frame rate, over and over."""

LONG_SECONDS: Final = 95.0


def no_captions(clip: Clip) -> Clip:
    """The downloader found that there are no captions: the last word."""
    return replace(clip, text=None, text_state=TextState("no_captions", clip.url))


def no_captions_without_hash(clip: Clip) -> Clip:
    """The same, from a row that has no source hash: it counts for any url."""
    return replace(clip, text=None, text_state=TextState("no_captions", None))


def empty_transcript(clip: Clip) -> Clip:
    """There are captions without a word in them: the last word, with a JSON."""
    state = TextState("fail_empty_transcript_terminal", clip.url)
    return replace(clip, text=hard_media.empty_transcript, text_state=state)


def text_pending(clip: Clip) -> Clip:
    """The downloader failed and will try again."""
    return replace(clip, text=None, text_state=TextState("fail", clip.url))


def text_without_state(clip: Clip) -> Clip:
    """The downloader hasn't seen the clip."""
    return replace(clip, text=None, text_state=None)


def text_of_another_url(clip: Clip) -> Clip:
    """The downloader's last word is about another url: it says nothing about this one."""
    return replace(clip, text=None, text_state=TextState("no_captions", f"{clip.url}&old=1"))


def invalid_json(clip: Clip) -> Clip:
    """The transcript's file is no JSON."""
    return replace(clip, text=hard_media.invalid_json)


def long_transcript(clip: Clip) -> Clip:
    """More words than a text model of 256 tokens reads."""
    transcript = speak(clip.traits, clip.rng("long transcript"), sentences=45)
    return replace(clip, words=replace(clip.words, transcript=transcript))


def missing_wav(clip: Clip) -> Clip:
    """No sound yet."""
    return replace(clip, audio=None)


def zero_byte_wav(clip: Clip) -> Clip:
    """A sound file of no bytes."""
    return replace(clip, audio=hard_media.empty)


def silent_wav(clip: Clip) -> Clip:
    """Every sample is 0."""
    return replace(clip, sound=replace(clip.sound, silent=True))


def stereo_wav(clip: Clip) -> Clip:
    """Two channels that differ, at 44.1 kHz."""
    return replace(clip, sound=replace(clip.sound, sample_rate=44_100, channels=2))


def long_wav(clip: Clip) -> Clip:
    """Past the 90 s that are read; at 8 kHz."""
    return replace(clip, sound=Sound(sample_rate=8_000, seconds=LONG_SECONDS))


def missing_mp4(clip: Clip) -> Clip:
    """No picture yet."""
    return replace(clip, video=None)


def zero_byte_mp4(clip: Clip) -> Clip:
    """A video file of no bytes."""
    return replace(clip, video=hard_media.empty)


def truncated_mp4(clip: Clip) -> Clip:
    """Cut off, the header with it."""
    return replace(clip, video=hard_media.truncated_mp4)


def truncated_faststart_mp4(clip: Clip) -> Clip:
    """Cut off, with a header that promises more than there is."""
    return replace(clip, video=hard_media.truncated_faststart_mp4)


def audio_only_mp4(clip: Clip) -> Clip:
    """Sound under a video's name."""
    return replace(clip, video=hard_media.audio_only_mp4)


def playlist_mp4(clip: Clip) -> Clip:
    """A playlist under a video's name."""
    return replace(clip, video=hard_media.playlist_mp4)


def three_frames(clip: Clip) -> Clip:
    """Fewer frames than a video model takes."""
    return replace(clip, picture=replace(clip.picture, frames=3))


def unknown_frame_count(clip: Clip) -> Clip:
    """Fragmented mp4: its header says 0 frames."""
    return replace(clip, picture=replace(clip.picture, movflags="frag_keyframe+empty_moov"))


def odd_size(clip: Clip) -> Clip:
    """Odd width and height, full colour resolution."""
    return replace(
        clip, picture=replace(clip.picture, width=101, height=179, pixel_format="yuv444p")
    )


def rotated(clip: Clip) -> Clip:
    """Filmed on its side; the display matrix says how to turn it."""
    return replace(clip, picture=replace(clip.picture, width=256, height=144, rotation=90))


def variable_frame_rate(clip: Clip) -> Clip:
    """Frames at uneven moments."""
    steps = islice(cycle(UNEVEN_STEPS_MS), 35)
    return replace(clip, picture=Picture(frames=36, pts_ms=tuple(accumulate(steps, initial=0))))


def no_raw_objects(clip: Clip) -> Clip:
    """Known to the metadata, not yet downloaded at all."""
    return replace(clip, video=None, audio=None, text=None, text_state=None)


def recaptured(clip: Clip) -> Clip:
    """Captured again on a later date, the same url; the later row stands before the first one."""
    clip, (early, first, again) = _captured_twice(clip)
    return replace(clip, observations=(early, again, first))


def recaptured_elsewhere(clip: Clip) -> Clip:
    """Captured again on a later date under another url: another source hash."""
    clip, (early, first, again) = _captured_twice(clip)
    moved = f"https://www.youtube.com/shorts/{clip.video_id}"
    return _at_url(clip, moved, (early, first, replace(again, url=moved)))


def same_moment_twice(clip: Clip) -> Clip:
    """Two rows of one moment that differ in url: the later row of the file wins."""
    last = clip.observations[-1]
    moved = f"https://youtu.be/{clip.video_id}"
    return _at_url(clip, moved, (*clip.observations, replace(last, url=moved)))


def unreadable_recapture(clip: Clip) -> Clip:
    """A later row whose captured_at is no time: it loses to one that has a time."""
    last = clip.observations[-1]
    unreadable = replace(last, captured_at="07/02/26 late", url=f"{last.url}&late=1")
    return replace(clip, observations=(*clip.observations, unreadable))


def id_only_in_url(clip: Clip) -> Clip:
    """The id column is empty; the url has it."""
    url = f"https://youtu.be/{clip.video_id}"
    rows = tuple(replace(row, video_id="", url=url) for row in clip.observations)
    return _at_url(clip, url, rows)


def padded_url(clip: Clip) -> Clip:
    """Blanks around the url, which its hash leaves out."""
    rows = tuple(replace(row, url=f"  {row.url} ") for row in clip.observations)
    return replace(clip, observations=rows)


def hidden_likes(clip: Clip) -> Clip:
    """The like count is empty, not 0."""
    return replace(clip, hidden_likes=True)


def unchanged(clip: Clip) -> Clip:
    """Only the id is special."""
    return clip


def _captured_twice(clip: Clip) -> tuple[Clip, tuple[Observation, Observation, Observation]]:
    """The clip, published so that its 30-day label is due at `FIRST_CAPTURE`; its three rows."""
    early, again = clip.observations
    first_time = datetime.fromisoformat(FIRST_CAPTURE)
    published = first_time - timedelta(days=AGE_AT[30])
    age = (datetime.fromisoformat(again.captured_at) - published) / timedelta(days=1)
    early_time = published + timedelta(days=AGE_AT[7])
    clip = replace(clip, published_at=published.strftime(PUBLISHED_FORMAT))
    return clip, (
        replace(early, captured_at=early_time.isoformat()),
        replace(again, captured_at=FIRST_CAPTURE),
        replace(again, age_days=age),
    )


def _at_url(clip: Clip, url: str, observations: tuple[Observation, ...]) -> Clip:
    return replace(clip, url=url, observations=observations, text_state=TextState(TEXT_DONE, url))
