"""The clips of the generated vector-level set: traits, channels, times, views and metadata rows."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.demo.clip import (
    AGE_AT,
    PUBLISHED_FORMAT,
    Channel,
    Clip,
    Observation,
    make_text,
)
from clipfarm_assets.demo.horizon_csv import rows_of
from clipfarm_assets.demo.pictures import Picture
from clipfarm_assets.demo.planted import BOUND, TOPICS, Topic, draw_traits
from clipfarm_assets.demo.planted_law import ABSENT_TEXT, draw_views_by
from clipfarm_assets.demo.sounds import Sound
from clipfarm_assets.demo.words import Words, write_words

CLIPS_PER_CHANNEL: Final = 12
COPIES: Final[Mapping[bool, float]] = {False: 0.005, True: 0.03}
"""Share of clips that are re-uploads, by whether the law is the harder one."""
UNLABELLED_AT_30: Final = 9
"""Of every ninth clip the label at 30 days isn't known."""

_SINCE: Final = datetime(2025, 1, 6, tzinfo=UTC)
_ID_LETTERS: Final = np.array(list(string.ascii_letters + string.digits + "-_"))
_STOCK: Final = 64
_CHANNEL_SINCE: Final = datetime(2016, 3, 1, 10, 44, 30, tzinfo=UTC)
_CHANNEL_DAYS: Final = 3000


@dataclass(frozen=True, slots=True)
class PlantedClip:
    """One clip of the set.

    Attributes:
        clip: As the sample's generator plans one; its media are never made.
        copied: The clip that it is a re-upload of, if it is one.
        has_text: Whether it has a text vector.
    """

    clip: Clip
    copied: "PlantedClip | None"
    has_text: bool

    @property
    def original(self) -> "PlantedClip":
        """The clip that this is a re-upload of, or itself."""
        return self.copied or self


def draw_clips(count: int, *, seed: int, hard: bool, days: int) -> list[PlantedClip]:
    """The clips in the order of their publication.

    Channels have `CLIPS_PER_CHANNEL` clips on average, spread over all of `days`, so that most
    clips are published when the labels of others of their channel are known. The first rows of
    all horizons are captured `AGE_AT` days after publication.
    """
    rng = np.random.default_rng([seed, 0])
    channels = max(1, count // CLIPS_PER_CHANNEL)
    sizes = rng.uniform(-BOUND, BOUND, size=channels)
    slopes = rng.uniform(-BOUND, BOUND, size=channels)
    ids = _ids(rng, count)
    stock = _stock(rng)
    since = np.sort(rng.uniform(size=count))
    is_copy = rng.random(count) < COPIES[hard]
    planted: list[PlantedClip] = []
    for number in range(count):
        own = np.random.default_rng([seed, 1, number])
        channel = int(own.integers(channels))
        traits = draw_traits(own, float(sizes[channel]))
        copied = None
        if is_copy[number] and planted:
            copied = planted[int(own.integers(len(planted)))].original
            traits = replace(copied.clip.traits, channel=traits.channel)
        moment = float((2 * since[number] - 1) * BOUND)
        has_text = bool(own.random() >= ABSENT_TEXT[hard])
        url = f"https://www.youtube.com/watch?v={ids[number]}"
        if copied and own.random() < 0.5:
            url = copied.clip.url
        level = int(traits.unit("sentiment") * (_STOCK - 1))
        published = (_SINCE + timedelta(days=float(since[number]) * days)).replace(microsecond=0)
        horizons = HORIZONS[:1] if number % UNLABELLED_AT_30 == UNLABELLED_AT_30 - 1 else HORIZONS
        seen = [
            (horizon, published + timedelta(days=AGE_AT[horizon], microseconds=number % 1_000_000))
            for horizon in horizons
        ]
        clip = Clip(
            seed=seed,
            number=number,
            video_id=ids[number],
            date=seen[-1][1].date().isoformat(),
            url=url,
            channel=Channel(channel, float(sizes[channel])),
            traits=traits,
            views=draw_views_by(hard, traits, float(slopes[channel]), moment, own),
            words=stock[traits.topic][level],
            picture=Picture(144, 256, 12, 12 * int(own.integers(5, 60)), 30),
            sound=Sound(),
            published_at=published.strftime(PUBLISHED_FORMAT),
            hidden_likes=bool(own.random() < 0.1),
            observations=tuple(
                Observation(captured.isoformat(), url, horizon, AGE_AT[horizon], ids[number])
                for horizon, captured in seen
            ),
            text_state=None,
            video=None,
            audio=None,
            text=make_text if has_text else None,
        )
        planted.append(PlantedClip(clip, copied, has_text))
    return planted


def rows_of_planted(planted: PlantedClip) -> list[dict[str, Any]]:
    """The clip's metadata rows: those of the sample, for many more channels."""
    number = planted.clip.channel.number
    created = _CHANNEL_SINCE + timedelta(days=37 * number % _CHANNEL_DAYS, seconds=number)
    published = datetime.strptime(planted.clip.published_at, PUBLISHED_FORMAT).replace(tzinfo=UTC)
    channel = {
        "channel_created_at": created.isoformat().replace("+00:00", "Z"),
        "channel_age_days": round((published - created).total_seconds() / 86_400, 2),
        "channel_video_count": 120 + 11 * number % 1000,
    }
    return [{**row, **channel} for row in rows_of(planted.clip)]


def _ids(rng: np.random.Generator, count: int) -> list[str]:
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        letters = _ID_LETTERS[rng.integers(len(_ID_LETTERS), size=(count - len(drawn), 11))]
        drawn.update(dict.fromkeys("".join(row) for row in letters))
    return list(drawn)


def _stock(rng: np.random.Generator) -> dict[Topic, Sequence[Words]]:
    """Words of every topic, from sad to glad: written once, for tens of thousands of clips."""
    stock: dict[Topic, Sequence[Words]] = {}
    for topic in TOPICS:
        plain = draw_traits(rng, 0.0)
        levels = np.linspace(-BOUND, BOUND, _STOCK)
        stock[topic] = [
            write_words(replace(plain, sentiment=float(level), topic=topic), rng)
            for level in levels
        ]
    return stock
