"""A store as the pipeline would leave it, generated at the level of vectors: no media, no encoder.

Clips, metadata rows and views follow `planted_law`. A clip's vector of one modality is the unit
vector along::

    mean + TRAIT_SCALE * sum_k axis_k shown_k + sum_j axis_j nuisance_j + noise,
    shown = trait + e,   e ~ N(0, 1 / RELIABILITY - 1)

with orthonormal directions: one large mean that all share, one axis a trait (three for the topic,
whose four values are the corners of a tetrahedron), some axes of decaying variance that have
nothing to do with views, and noise in every dimension. So two vectors have a cosine of 0.6 to 0.9
as those of real encoders do. A linear probe fitted on 70% of 2,700 clips explains 0.82 to 0.92 of
a trait (0.75 to 0.92 if `hard`), the best single dimension of 768 about half of it. Video shows
motion and warmth; audio tempo and pitch; text sentiment and topic.

A few clips are re-uploads: another id, often another channel, the same vectors; one in two of
them has the very url of the first, and so its ``source_hash``.

With `hard`, beside the harder law of views: each number is shown on a curve (its sine and cosine
on two axes), 3 in 10 dimensions hold noise alone, a fifth of the clips have no text, and
re-uploads are more and near copies instead of exact ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import Declaration, FusedShard, strings
from clipfarm_assets.contracts.horizon_csv import source_hash
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES, Modality, Strategy
from clipfarm_assets.demo.clip import TEXT_DONE
from clipfarm_assets.demo.horizon_csv import to_csv
from clipfarm_assets.demo.planted import TOPICS, Traits
from clipfarm_assets.demo.planted_clips import PlantedClip, draw_clips, rows_of_planted
from clipfarm_assets.demo.planted_law import RELIABILITY, attainable_r2
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import table_to_parquet

__all__ = ["DIMS", "PlantedReport", "attainable_r2", "make_planted_store"]

Vectors = NDArray[np.float32]

DIMS: Final[Mapping[Modality, int]] = {"video": 768, "audio": 768, "text": 768}
SHARD_ROWS: Final = 2048

TRAIT_SCALE: Final = 0.15
NUISANCES: Final = 40
NUISANCE_VARIANCE: Final = 0.10
NOISE_VARIANCE: Final = 0.12
"""Squared lengths, where that of the mean is 1; traits add 0.05 to 0.1 more."""

NEAR_COPY: Final = 0.005
"""Length of what tells a near copy from its original: their cosine is 0.99999."""
DULL_SHARE: Final = 0.3

_NO_WORDS: Final = "no_captions"
_CURVATURE: Final = 1.2
_CORNERS: Final = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=np.float64)
_NUMBERS: Final[Mapping[Modality, tuple[str, ...]]] = {
    "video": ("motion", "warmth"),
    "audio": ("tempo", "pitch"),
    "text": ("sentiment",),
}


@dataclass(frozen=True)
class PlantedReport:
    """What was generated.

    Attributes:
        clips: Number of clips, all of them fused.
        labelled: Horizon -> clips with a label.
        without_text: Clips whose text is a placeholder.
        copies: Clips that are re-uploads.
        channels: Channels with a clip.
        shards: Shards of each strategy.
        embedding_versions: What the locks name.
        truth: A row a clip, sorted by video_id: its traits, ``channel_number``, ``copy_of`` (the
            original's video_id, or null) and ``has_text``.
    """

    clips: int
    labelled: Mapping[int, int]
    without_text: int
    copies: int
    channels: int
    shards: int
    embedding_versions: Mapping[Modality, str]
    truth: pl.DataFrame


def make_planted_store(
    store: ObjectStore,
    layout: Layout,
    *,
    clips: int = 2700,
    seed: int = 20260205,
    hard: bool = False,
    strategies: Sequence[Strategy] = STRATEGIES,
    dims: Mapping[Modality, int] = DIMS,
    write_embeddings: bool = False,
    days: int = 365,
    shard_rows: int = SHARD_ROWS,
) -> PlantedReport:
    """Write metadata CSV, schema locks, fused shards and manifests.

    Memory is set by `shard_rows` and by the metadata, not by the vectors; a clip's vectors depend
    on the seed and its number alone. There is no ledger: nothing here was processed.

    Args:
        store: Written to; should be empty.
        layout: Its keys.
        clips: How many.
        seed: Of every random choice.
        hard: Generate by the harder law.
        strategies: Which of them to fuse.
        dims: Vector lengths; 6 are enough (12 if `hard`).
        write_embeddings: Also put every vector as an npy object.
        days: Over how long clips are published.
        shard_rows: Rows of a shard; it lies under the date on which its last clip was captured.
    """
    views = {modality: _View.draw(modality, dims[modality], seed, hard) for modality in MODALITIES}
    planted = draw_clips(clips, seed=seed, hard=hard, days=days)
    store.put(layout.metadata(), to_csv(row for clip in planted for row in rows_of_planted(clip)))
    versions: dict[Modality, str] = {
        modality: f"{modality}-planted-{'hard' if hard else 'plain'}-{seed}"
        for modality in MODALITIES
    }
    manifests = {}
    for strategy in strategies:
        lock = SchemaLock.of(strategy, dims, versions)
        store.put(layout.schema_lock(strategy), lock.to_json())
        manifests[strategy] = (lock, FusedManifest.empty(lock.lock_version))
    parts: dict[str, int] = {}
    blocks = [planted[at : at + shard_rows] for at in range(0, len(planted), shard_rows)]
    for block in blocks:
        date = block[-1].clip.date
        part = parts[date] = parts.get(date, -1) + 1
        vectors = {modality: view.of(block) for modality, view in views.items()}
        for strategy, (lock, manifest) in manifests.items():
            key = layout.shard(strategy, date, part)
            shard = _shard_of(block, vectors, lock, layout)
            store.put(key, shard.to_npz())
            manifests[strategy] = (lock, manifest.merged([shard.manifest_rows(key)], [key]))
        if write_embeddings:
            _put_embeddings(store, layout, block, vectors)
    for strategy, (_, manifest) in manifests.items():
        data = table_to_parquet(manifest.rows, manifest.file_metadata())
        store.put(layout.fused_manifest(strategy), data)
    return _report(planted, len(blocks), versions)


@dataclass(frozen=True)
class _View:
    """How one modality shows clips.

    `axes` has shape ``(1 + K + J, D)``: the mean, the traits' axes, the nuisances'.
    """

    modality: Modality
    axes: NDArray[np.float64]
    traits: int
    seed: int
    hard: bool

    @classmethod
    def draw(cls, modality: Modality, dim: int, seed: int, hard: bool) -> "_View":
        traits = len(_NUMBERS[modality]) * (2 if hard else 1) + (3 if modality == "text" else 0)
        telling = dim - round(DULL_SHARE * dim) if hard else dim
        nuisances = min(NUISANCES, telling - 1 - traits)
        if nuisances < 0:
            msg = f"{modality} vectors must be of length 6 or more (12 if hard): found {dim}"
            raise ValueError(msg)
        rng = np.random.default_rng([seed, 10, MODALITIES.index(modality)])
        square = rng.normal(size=(telling, 1 + traits + nuisances))
        axes = np.zeros((1 + traits + nuisances, dim))
        axes[:, rng.permutation(dim)[:telling]] = np.linalg.qr(square)[0].T
        spread = 1.0 / np.arange(1, nuisances + 1)
        axes[1 : 1 + traits] *= TRAIT_SCALE
        if nuisances:
            axes[1 + traits :] *= np.sqrt(NUISANCE_VARIANCE * spread / spread.sum())[:, None]
        return cls(modality, axes, traits, seed, hard)

    def of(self, block: Sequence[PlantedClip]) -> Vectors:
        """Unit vectors of these clips, float32 ``(N, D)``; zero where a clip has no text."""
        draws = [self._draws(clip) for clip in block]
        latent = np.ones((len(block), len(self.axes)))
        latent[:, 1:] = [first for first, _, _ in draws]
        vectors = latent @ self.axes + np.array([noise for _, noise, _ in draws])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for row, (_, _, change) in enumerate(draws):
            if change is not None:
                vectors[row] += change
                vectors[row] /= np.linalg.norm(vectors[row])
        if self.modality == "text":
            vectors[[not clip.has_text for clip in block]] = 0.0
        shown: Vectors = vectors.astype(np.float32)
        return shown

    def _draws(
        self, clip: PlantedClip
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float64] | None]:
        """The clip's place on the axes, its noise, and what tells a near copy from its original."""
        number, modality = clip.original.clip.number, MODALITIES.index(self.modality)
        rng = np.random.default_rng([self.seed, 11, modality, number])
        dim = self.axes.shape[1]
        shown = self._shown(clip.original.clip.traits, rng)
        nuisances = rng.normal(size=len(self.axes) - 1 - self.traits)
        scale = np.float32((NOISE_VARIANCE / dim) ** 0.5)
        noise: Vectors = np.multiply(scale, rng.standard_normal(dim, dtype=np.float32))
        change = None
        if self.hard and clip.original is not clip:
            own = np.random.default_rng([self.seed, 12, modality, clip.clip.number])
            change = own.normal(size=dim) * NEAR_COPY / dim**0.5
        return np.concatenate([shown, nuisances]), noise, change

    def _shown(self, traits: Traits, rng: np.random.Generator) -> NDArray[np.float64]:
        numbers = np.array([getattr(traits, name) for name in _NUMBERS[self.modality]])
        if self.modality == "text":
            numbers = np.concatenate([numbers, _CORNERS[TOPICS.index(traits.topic)]])
        seen = numbers + rng.normal(0.0, (1 / RELIABILITY - 1) ** 0.5, size=len(numbers))
        if not self.hard:
            return seen
        split = len(_NUMBERS[self.modality])
        curved, plain = _CURVATURE * seen[:split], seen[split:]
        return np.concatenate([2**0.5 * np.sin(curved), 2**0.5 * np.cos(curved), plain])


def _shard_of(
    block: Sequence[PlantedClip],
    vectors: Mapping[Modality, Vectors],
    lock: SchemaLock,
    layout: Layout,
) -> FusedShard:
    ids = [clip.clip.video_id for clip in block]
    has_text = np.array([clip.has_text for clip in block])
    keys = {m: strings([layout.embedding(m, i) for i in ids]) for m in MODALITIES}
    declared = Declaration(
        source_hash=strings([source_hash(clip.clip.url) for clip in block]),
        video_emb_key=keys["video"],
        audio_emb_key=keys["audio"],
        text_emb_key=np.where(has_text, keys["text"], ""),
        text_present=has_text.astype(np.int64),
        text_state_status=np.where(has_text, TEXT_DONE, _NO_WORDS),
        text_missing_reason=np.where(has_text, "", _NO_WORDS),
        fusion_status=np.where(has_text, statuses.SUCCESS_FULL, statuses.SUCCESS_TEXT_PLACEHOLDER),
        retry_count_at_write=np.zeros(len(block), dtype=np.int64),
        fusion_strategy=lock.fusion_strategy,
        lock_version=lock.lock_version,
        embedding_versions=strings([lock.embedding_versions[m] for m in MODALITIES]),
    )
    fused = fuse(
        lock.fusion_strategy, vectors["video"], vectors["audio"], vectors["text"], has_text
    )
    captured = strings([clip.clip.observations[-1].captured_at for clip in block])
    return FusedShard(strings(ids), fused, captured, declared)


def _put_embeddings(
    store: ObjectStore,
    layout: Layout,
    block: Sequence[PlantedClip],
    vectors: Mapping[Modality, Vectors],
) -> None:
    for modality in MODALITIES:
        for clip, vector in zip(block, vectors[modality], strict=True):
            if modality != "text" or clip.has_text:
                key = layout.embedding(modality, clip.clip.video_id)
                store.put(key, vector_to_npy(vector))


def _report(
    planted: Sequence[PlantedClip], shards: int, versions: Mapping[Modality, str]
) -> PlantedReport:
    def truth() -> Iterator[dict[str, object]]:
        for clip in planted:
            traits = clip.clip.traits
            yield {
                "video_id": clip.clip.video_id,
                **{name: getattr(traits, name) for name in Traits.__slots__},
                "channel_number": clip.clip.channel.number,
                "copy_of": None if clip.original is clip else clip.original.clip.video_id,
                "has_text": clip.has_text,
            }

    labels = [seen.horizon for clip in planted for seen in clip.clip.observations]
    return PlantedReport(
        clips=len(planted),
        labelled={horizon: labels.count(horizon) for horizon in sorted(set(labels))},
        without_text=sum(not clip.has_text for clip in planted),
        copies=sum(clip.original is not clip for clip in planted),
        channels=len({clip.clip.channel.number for clip in planted}),
        shards=shards,
        embedding_versions=dict(versions),
        truth=pl.DataFrame(list(truth()), infer_schema_length=None).sort("video_id"),
    )
