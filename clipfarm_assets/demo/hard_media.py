"""Raw objects that go wrong, or look as if they would: one function each.

Every function is a `clip.Make`: it takes a clip's plan and returns the bytes of its raw object.
"""

import json
from dataclasses import replace
from typing import Final

from clipfarm_assets.demo.clip import Clip, make_text, make_video
from clipfarm_assets.demo.pictures import encode_audio_only_mp4
from clipfarm_assets.demo.sounds import Sound, play

KEPT_OF_TRUNCATED: Final = 0.6
"""The share of its bytes that a truncated file keeps."""

PLAYLIST_TARGET: Final = "threeFrames.mp4"
"""A neighbour of the playlist in the store, so that following it would go unnoticed."""


def empty(_: Clip) -> bytes:
    """Zero bytes."""
    return b""


def truncated_mp4(clip: Clip) -> bytes:
    """The header is at the end, and the end is gone: nothing opens it."""
    return _cut(make_video(replace(clip, picture=replace(clip.picture, movflags=""))))


def truncated_faststart_mp4(clip: Clip) -> bytes:
    """The header is at the start and promises every frame; the last ones are gone."""
    return _cut(make_video(replace(clip, picture=replace(clip.picture, movflags="faststart"))))


def audio_only_mp4(clip: Clip) -> bytes:
    """A sound mp4 without a picture."""
    sound = Sound(seconds=clip.sound.seconds)
    return encode_audio_only_mp4(play(clip.traits, sound, clip.rng("sound")), sound.sample_rate)


def playlist_mp4(_: Clip) -> bytes:
    """A list of other files under a video's name; whoever follows it reads what it should not."""
    return f"ffconcat version 1.0\nfile '{PLAYLIST_TARGET}'\nduration 2\n".encode()


def invalid_json(clip: Clip) -> bytes:
    """A transcript's JSON, cut inside a string."""
    whole = make_text(clip)
    return whole[: whole.index(b"transcript") + 20]


def empty_transcript(clip: Clip) -> bytes:
    """Valid JSON whose transcript is the empty string."""
    fields = {"video_id": clip.video_id, "language": "en", "transcript": ""}
    return json.dumps(fields, indent=1).encode()


def _cut(whole: bytes) -> bytes:
    return whole[: int(len(whole) * KEPT_OF_TRUNCATED)]
