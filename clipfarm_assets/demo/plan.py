"""Which clips the sample has, before anything is encoded: ordinary ones and the edge cases."""

import string
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.demo.clip import (
    AGE_AT,
    PUBLISHED_FORMAT,
    TEXT_DONE,
    Channel,
    Clip,
    Observation,
    TextState,
    make_audio,
    make_text,
    make_video,
)
from clipfarm_assets.demo.edge_cases import DATES, EDGE_CASES
from clipfarm_assets.demo.horizon_csv import rows_of
from clipfarm_assets.demo.pictures import Picture
from clipfarm_assets.demo.planted import draw_channel, draw_traits, draw_views
from clipfarm_assets.demo.sounds import Sound
from clipfarm_assets.demo.stray_rows import STRAY_ROWS, StrayRow
from clipfarm_assets.demo.words import write_words

SEED: Final = 20260205
CLIPS_PER_DATE: Final = 20
FEWEST_PER_DATE: Final = max(Counter(case.date for case in EDGE_CASES).values())
"""Enough for the edge cases of every date."""

_CHANNELS: Final = 24
_ID_LETTERS: Final = string.ascii_letters + string.digits + "-_"
_URL_FORMS: Final = (
    "https://www.youtube.com/watch?v={}",
    "https://www.youtube.com/watch?v={}",
    "https://www.youtube.com/shorts/{}",
    "https://youtu.be/{}",
    "https://www.youtube.com/embed/{}",
    "https://www.youtube.com/v/{}",
)
_SIZES: Final = ((144, 256), (108, 192), (120, 214))
_RATES: Final = (10, 12, 15)
_KEYFRAMES: Final = (12, 30, 250)


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """The sample's clips in the order of the CSV, and its rows that are no clip."""

    clips: tuple[Clip, ...]
    strays: tuple[StrayRow, ...]

    def rows(self) -> list[dict[str, object]]:
        """All rows of the CSV; the strays stand between the clips' rows."""
        rows = [row for clip in self.clips for row in rows_of(clip)]
        every = len(rows) // (len(self.strays) + 1)
        for index, stray in enumerate(self.strays):
            rows.insert(every * (index + 1), _stray_row(rows[0], stray))
        return rows


def plan_sample(*, seed: int = SEED, clips_per_date: int = CLIPS_PER_DATE) -> SamplePlan:
    """The plan of the sample: the same seed gives the same plan.

    Args:
        seed: Of every random choice.
        clips_per_date: Clips on each of `edge_cases.DATES`, its edge cases among them.

    Raises:
        ValueError: A date has more edge cases than `clips_per_date`.
    """
    if clips_per_date < FEWEST_PER_DATE:
        msg = (
            f"clips_per_date must be {FEWEST_PER_DATE} or more, the edge cases of the fullest "
            f"date; found {clips_per_date}"
        )
        raise ValueError(msg)
    sizes = np.random.default_rng([seed, 0])
    channels = [Channel(number, draw_channel(sizes)) for number in range(_CHANNELS)]
    clips: list[Clip] = []
    for date in DATES:
        cases = [case for case in EDGE_CASES if case.date == date]
        for case in cases:
            clip = _clip(seed, len(clips), date, channels, video_id=case.video_id)
            clips.append(case.edit(clip))
        for _ in range(clips_per_date - len(cases)):
            clips.append(_clip(seed, len(clips), date, channels))
    return SamplePlan(tuple(clips), STRAY_ROWS)


def _clip(
    seed: int, number: int, date: str, channels: list[Channel], video_id: str | None = None
) -> Clip:
    # One generator a clip, and every draw in one order: what a clip is like depends on its number
    # alone, not on which clips are hard cases.
    rng = np.random.default_rng([seed, 1, number])
    is_ordinary = video_id is None
    drawn_id = "".join(rng.choice(list(_ID_LETTERS), size=11))
    form = _URL_FORMS[number % len(_URL_FORMS)] if is_ordinary else _URL_FORMS[0]
    video_id = video_id or drawn_id
    channel = channels[int(rng.integers(len(channels)))]
    traits = draw_traits(rng, channel.size)
    seconds = int(rng.integers(2, 6))
    fps = int(rng.choice(_RATES))
    width, height = _SIZES[int(rng.integers(len(_SIZES)))]
    captured = datetime.fromisoformat(date).replace(tzinfo=UTC)
    fraction = 0 if number % 5 == 0 else int(rng.integers(1_000_000))
    captured += timedelta(seconds=int(rng.integers(4 * 3600, 24 * 3600)), microseconds=fraction)
    # Of one ordinary clip in ten the later label isn't known yet.
    horizons = HORIZONS[:1] if is_ordinary and number % 10 == 9 else HORIZONS
    published = captured - timedelta(days=AGE_AT[horizons[-1]])
    url = form.format(video_id)
    return Clip(
        seed=seed,
        number=number,
        video_id=video_id,
        date=date,
        url=url,
        channel=channel,
        traits=traits,
        views=draw_views(traits, rng),
        words=write_words(traits, rng),
        picture=Picture(width, height, fps, fps * seconds, int(rng.choice(_KEYFRAMES))),
        sound=Sound(seconds=float(seconds)),
        published_at=published.strftime(PUBLISHED_FORMAT),
        hidden_likes=bool(rng.random() < 0.1),
        observations=tuple(
            Observation(
                captured_at=(published + timedelta(days=AGE_AT[horizon])).isoformat(),
                url=url,
                horizon=horizon,
                age_days=AGE_AT[horizon],
                video_id=video_id,
            )
            for horizon in horizons
        ),
        text_state=TextState(TEXT_DONE, url),
        video=make_video,
        audio=make_audio,
        text=make_text,
    )


def _stray_row(like: dict[str, object], stray: StrayRow) -> dict[str, object]:
    captured_at = like["captured_at"] if stray.captured_at is None else stray.captured_at
    return {**like, "video_id": stray.video_id, "url": stray.url, "captured_at": captured_at}
