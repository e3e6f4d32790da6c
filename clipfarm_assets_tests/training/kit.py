"""Generated clips whose views follow a known law, small enough to fit every family in seconds.

With ``v``, ``a``, ``t`` a planted trait that the clip's video, audio and text vectors show, ``m`` 1
where it has text, ``s`` its duration in standard units and ``c`` its channel's level, all of them
standard normal::

    log1p(views) = 8 + 1.0 v + 0.7 a + 0.6 m t + 1.0 s + 0.8 c + noise

A weight can be set to zero to take a signal away. Clips are published over a year, and their label
is captured a week later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from clipfarm_assets.contracts.features import FeatureContract
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.training.config import FitConfig, SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.metadata_encoder import MetadataEncoder

CONTRACT = FeatureContract(
    feature_set="v2",
    numeric=("duration_seconds", "title_length"),
    categorical=("channel_country", "default_language"),
    dropped={},
    declared={},
)
WEIGHTS: Mapping[str, float] = {
    "video": 1.0,
    "audio": 0.7,
    "text": 0.6,
    "duration": 1.0,
    "channel": 0.8,
}
FIT = FitConfig(learning_rate=5e-3, batch_size=64, max_epochs=30)
"""Enough for a small network on a few hundred clips."""
START = np.datetime64("2025-01-01T00:00:00", "us")
DAY = np.timedelta64(86_400_000_000, "us")


@dataclass(frozen=True)
class Planted:
    """Rows by part, drawn at random, and the encoder fitted on the train part."""

    train: Labelled
    val: Labelled
    test: Labelled
    encoder: MetadataEncoder = field(repr=False)


def planted_rows(
    n: int,
    *,
    dims: int = 8,
    seed: int = 0,
    noise: float = 0.3,
    weights: Mapping[str, float] = WEIGHTS,
    without_text: float = 0.2,
    channels: int | None = None,
) -> Labelled:
    """N labelled clips in the order of their ids.

    Args:
        n: How many.
        dims: Length of each modality's vector.
        seed: Decides everything.
        noise: Standard deviation of what nothing explains.
        weights: By signal, see `WEIGHTS`; a missing one is zero.
        without_text: Share of clips without text.
        channels: How many channels; by default one for six clips.
    """
    rng = np.random.default_rng(seed)
    weight = dict.fromkeys(WEIGHTS, 0.0) | dict(weights)
    traits = {name: rng.normal(size=n) for name in ("video", "audio", "text")}
    vectors = {name: unit_vectors(trait, dims, rng) for name, trait in traits.items()}
    text_present = rng.random(n) >= without_text
    vectors["text"][~text_present] = 0.0
    traits["text"] = traits["text"] * text_present

    duration = rng.normal(size=n)
    channel = rng.integers(0, channels or max(2, n // 6), n)
    levels = rng.normal(size=channel.max() + 1)
    target = 8.0 + rng.normal(size=n) * noise + weight["duration"] * duration
    target += weight["channel"] * levels[channel]
    for name, trait in traits.items():
        target += weight[name] * trait

    published_at = START + (rng.random(n) * 365 * 86_400_000_000).astype("timedelta64[us]")
    clips = ClipBatch(
        video_ids=np.array([f"clip{row:06d}" for row in range(n)]),
        fused=fuse("concat", vectors["video"], vectors["audio"], vectors["text"], text_present),
        video=vectors["video"],
        audio=vectors["audio"],
        text=vectors["text"],
        text_present=text_present,
        metadata=metadata(duration, rng),
        channel_id=np.array([f"channel{number}" for number in channel]),
        published_at=published_at,
    )
    captured_after = DAY * 7 + (rng.random(n) * 3_600_000_000).astype("timedelta64[us]")
    return Labelled(clips, np.maximum(target, 0.0), published_at + captured_after)


def unit_vectors(trait, dims: int, rng) -> np.ndarray:
    """float32 ``(N, dims)`` of unit norm that show a trait along one direction."""
    direction = rng.normal(size=dims)
    direction /= np.linalg.norm(direction)
    raw = 2.0 * trait[:, None] * direction + 0.3 * rng.normal(size=(len(trait), dims))
    raw += 4.0 * rng.normal(size=dims)  # what all vectors of a model have in common
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def metadata(duration, rng) -> pl.DataFrame:
    """The contract's columns; a tenth of the values is missing, but no duration is."""
    n = len(duration)

    def holes(values):
        return [None if rng.random() < 0.1 else value for value in values]

    return pl.DataFrame(
        {
            "duration_seconds": 30.0 + 10.0 * duration,
            "title_length": holes(rng.integers(5, 90, n).astype(float).tolist()),
            "channel_country": holes(rng.choice(["IN", "US", "DE"], n).tolist()),
            "default_language": holes(rng.choice(["en", "hi"], n).tolist()),
        },
        schema={
            "duration_seconds": pl.Float64,
            "title_length": pl.Float64,
            "channel_country": pl.String,
            "default_language": pl.String,
        },
    )


def planted(n: int = 300, *, ratios: tuple[float, float] = (0.7, 0.15), **law) -> Planted:
    """`planted_rows`, split at random into train, val and test."""
    rows = planted_rows(n, **law)
    order = np.random.default_rng(1).permutation(n)
    first, second = round(n * ratios[0]), round(n * sum(ratios))
    parts = [np.sort(part) for part in np.split(order, [first, second])]
    train, val, test = (rows.take(part) for part in parts)
    return Planted(train, val, test, MetadataEncoder.fit(train.clips.metadata, CONTRACT))


def shuffled(rows: Labelled, seed: int = 0) -> Labelled:
    """The same rows in another order."""
    return rows.take(np.random.default_rng(seed).permutation(len(rows)))


def with_absent_text(clips: ClipBatch, value: float) -> ClipBatch:
    """The same clips, with `value` all over the text vectors of clips that have no text."""
    text = clips.text.copy()
    text[~clips.text_present] = value
    return replace(clips, text=text)


def rmse(model, rows: Labelled) -> float:
    """Of a model's predictions in log space."""
    return float(np.sqrt(np.mean((model.predict(rows.clips) - rows.target_log) ** 2)))


def unheard(line: str) -> None:
    """A `say` that nobody listens to."""


def fitted(family, planted: Planted, seed: int = 0, say=unheard, *, config: SuiteConfig):
    """The model of a family's module."""
    return family.fit(planted.train, planted.val, planted.encoder, config, seed, say)


def reopened(family, model, encoder):
    """The model as `load` makes it of nothing but the artifacts."""
    stored = dict(model.artifacts())
    return family.load(stored.__getitem__, encoder)
