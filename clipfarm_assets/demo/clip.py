"""One clip of the sample before anything is encoded: a plan that edge cases edit.

Media are functions of the plan, called when the store is written, so that an edge case replaces
what a clip is made of without anything being encoded twice.
"""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.demo.pictures import Picture, encode_mp4, paint
from clipfarm_assets.demo.planted import Traits, Views
from clipfarm_assets.demo.sounds import Sound, play, to_wav
from clipfarm_assets.demo.words import Words

TEXT_DONE: Final = "success"
"""What the text downloader writes of a clip whose transcript it stored."""


PUBLISHED_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
"""How ``published_at`` is written."""

AGE_AT: Final = {7: 6.5, 30: 30.2}
"""A clip's age in days when the row with this label is captured."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel: number in the sample, and size trait (see `planted`)."""

    number: int
    size: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One row of the metadata CSV: what was written there of a clip.

    Attributes:
        captured_at: As written; not always a time.
        url: As written.
        horizon: Which label the row carries, in days.
        age_days: The clip's age when the row was written.
        video_id: As written; may be empty.
    """

    captured_at: str
    url: str
    horizon: Horizon
    age_days: float
    video_id: str


@dataclass(frozen=True, slots=True)
class TextState:
    """The text downloader's last word on a clip.

    Attributes:
        status: Its status, e.g. ``success`` or ``no_captions``.
        url: The url it worked on, whose hash the row carries; None for a row without a hash.
    """

    status: str
    url: str | None


@dataclass(frozen=True, slots=True)
class Clip:
    """The plan of one clip.

    Attributes:
        video_id: Its id.
        date: The day it belongs to: that of its latest parseable capture, in UTC.
        url: The url of the row that wins.
        published_at: As written.
        observations: Its CSV rows, in the order of the file.
        text_state: The text downloader's row; None for none.
        video, audio, text: What makes the raw object.
    """

    seed: int
    number: int
    video_id: str
    date: str
    url: str
    channel: Channel
    traits: Traits
    views: Views
    words: Words
    picture: Picture
    sound: Sound
    published_at: str
    hidden_likes: bool
    observations: tuple[Observation, ...]
    text_state: TextState | None
    video: "Make"
    audio: "Make"
    text: "Make"

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers of one purpose, whatever else was drawn before."""
        return np.random.default_rng([self.seed, self.number, zlib.crc32(purpose.encode())])


Make = Callable[[Clip], bytes] | None
"""Makes one raw object; None where there is none."""

Edit = Callable[[Clip], Clip]
"""Turns an ordinary clip into a hard one."""


def make_video(clip: Clip) -> bytes:
    """The clip's mp4."""
    return encode_mp4(paint(clip.traits, clip.picture, clip.rng("picture")), clip.picture)


def make_audio(clip: Clip) -> bytes:
    """The clip's wav."""
    return to_wav(play(clip.traits, clip.sound, clip.rng("sound")), clip.sound.sample_rate)


def make_text(clip: Clip) -> bytes:
    """The clip's transcript as the downloader stores it: JSON with the field ``transcript``."""
    fields = {
        "video_id": clip.video_id,
        "language": clip.words.language or "en",
        "transcript": clip.words.transcript,
    }
    return json.dumps(fields, ensure_ascii=False, indent=1).encode()
