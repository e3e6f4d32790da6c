"""From manifest, shards and metadata CSV to what the suite trains on.

Source: the training contract, sections 2, 4 and 10, and the deployed pipeline's record. Rows are
sorted by ``video_id``; that is the order in which the splits are drawn, so the same clips and seed
give the same parts, whatever the order of the file or of the shards.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from clipfarm_assets.contracts.features import DEFAULT_FEATURE_SET, Column, FeatureSet
from clipfarm_assets.contracts.fused_shard import strings
from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.contracts.leakage import assert_no_feature_leakage, feature_contract
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.pipelines.clip_batch import clip_batch
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.labels import LabelledRows, NoRowsAtHorizon, labelled_rows
from clipfarm_assets.pipelines.manifest import (
    NoFusedManifest,
    StoredManifest,
    load_stored_manifest,
)
from clipfarm_assets.pipelines.modality_vectors import (
    latest_fused,
    read_fused,
    read_modalities,
)
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.training.data import Provenance, TrainingData
from clipfarm_assets.training.duplicates import SAME_CLIP_COSINE, duplicate_groups
from clipfarm_assets.training.features import captured_at, outcome_columns
from clipfarm_assets.training.splits import RATIOS, SEED, make_splits

__all__ = [
    "COUNTS",
    "AssembleOptions",
    "EmptyManifest",
    "NoFusedManifest",
    "NoRowsAtHorizon",
    "NothingToJoin",
    "assemble",
]

# fmt: off
COUNTS: Final[Mapping[str, str]] = {
    "csv_rows": "rows of the metadata CSV",
    "other_horizon": "rows of another horizon",
    "horizon_missing": "rows without horizon_days",
    "horizon_unparsable": "rows whose horizon_days is no number",
    "short_row": "rows cut off before their last column",
    "no_video_id": "rows without a video id, also in the url",
    "bad_video_id": "rows whose video id no key may be built from",
    "no_capture_date": "clips without a capture time that can be read",
    "naive_timestamps": "capture times without a zone, read as UTC",
    "superseded_rows": "rows that a later one of the same clip and horizon replaced",
    "views_missing": "clips without views, which count as 0",
    "views_unparsable": "clips left out: their views are no number",
    "views_negative": "clips left out: their views are negative",
    "manifest_rows": "rows of the fused manifest",
    "manifest_rows_of_other_strategies": "manifest rows of another strategy",
    "superseded_fused_rows": "manifest rows that a later one of the same clip replaced",
    "metadata_without_fused": "labelled clips left out: they have no fused vector",
    "fused_without_metadata": "fused clips left out: they have no label at this horizon",
    "other_source_hash": "clips fused from another url than the row's; kept",
    "vectors_from_concat": "clips whose modality vectors are slices of a concat row",
    "vectors_from_objects": "clips whose modality vectors were looked for in npy objects",
    "video_missing": "clips left out: no object of their video vector",
    "video_broken": "clips left out: the object is no vector, or not what the ledger recorded",
    "video_foreign": "clips left out: the ledger says the video vector is not the one fused",
    "audio_missing": "clips left out: no object of their audio vector",
    "audio_broken": "clips left out: the object is no vector, or not what the ledger recorded",
    "audio_foreign": "clips left out: the ledger says the audio vector is not the one fused",
    "text_missing": "clips taken as without text: no object of their text vector",
    "text_broken": "clips taken as without text: the object is no vector, or not as recorded",
    "text_foreign": "clips taken as without text: the ledger says the vector is not the one fused",
    "text_resized": "text vectors padded or cut to the locked length",
    "declared_columns_absent": "columns that are declared and that the CSV lacks",
    "in_duplicate_groups": "clips that have a duplicate among the others",
    "rows": "clips to train on",
}
# fmt: on
"""What every dataset counts, in the order of the steps; ``unparsable:<column>`` comes on top where
a feature's value was there and could not be read, and counts as missing."""


class EmptyManifest(ValueError):  # noqa: N818 - a state of the deployment
    """The manifest has no row of the strategy."""


class NothingToJoin(ValueError):  # noqa: N818
    """No labelled clip has a usable fused vector."""


@dataclass(frozen=True)
class AssembleOptions:
    """What decides a dataset beside the store.

    Attributes:
        feature_set: Which metadata a model may see.
        declared_columns: Columns of the CSV beyond the contract's.
        ratios: Of train, val and test.
        seed: Of the splits.
        duplicate_cosine: Clips whose fused vectors, or on average those of video and audio, are as
            close as this are taken to be one.
        include_captured_at_in_hash: As the clip index was made with.
    """

    feature_set: FeatureSet = DEFAULT_FEATURE_SET
    declared_columns: Mapping[str, Column] = field(default_factory=dict)
    ratios: tuple[float, float, float] = RATIOS
    seed: int = SEED
    duplicate_cosine: float = SAME_CLIP_COSINE
    include_captured_at_in_hash: bool = False


def assemble(
    deployment: Deployment,
    strategy: Strategy,
    horizon: Horizon,
    options: AssembleOptions | None = None,
    say: Say = silent,
) -> TrainingData:
    """Assemble one of the suite's datasets.

    The CSV, the manifest and every shard with a row in the result are read once. A clip whose
    text vector can't be had keeps its fused vector as stored, mask included; only its
    ``text_present`` and its text vector say that there is none.

    Args:
        deployment: Whose store and ledger.
        strategy: Which fused vectors.
        horizon: Which label.
        options: How.
        say: Told how far it is.

    Raises:
        NoFusedManifest, NoLock: The strategy has no manifest or lock yet.
        EmptyManifest: It has no rows.
        NoMetadata, HorizonCsvError: There is no CSV, or none with labels.
        NoRowsAtHorizon: No clip has a label at this horizon.
        NothingToJoin: No labelled clip has a usable vector.
        UndeclaredColumn, FeatureLeakage: Of the features; see `contracts.leakage`.
        LockMismatch, DanglingPointer, BadManifest, BadShard: What is stored contradicts itself.
        TooFewRows, BadSplitRatios: Of the splits; see `training.splits`.
    """
    options = options or AssembleOptions()
    counts: Counter[str] = Counter()
    stored = load_stored_manifest(deployment, strategy)
    fused_rows = latest_fused(stored, counts)
    if not len(fused_rows):
        msg = (
            f"{deployment.layout.fused_manifest(strategy)} must have rows of {strategy!r}: found "
            f"{counts['manifest_rows']} rows, none of them its own; materialise "
            f"clips/fused_shards and clips/fused_manifest for {strategy!r} first"
        )
        raise EmptyManifest(msg)
    labelled = labelled_rows(
        deployment,
        horizon,
        include_captured_at_in_hash=options.include_captured_at_in_hash,
    )
    counts.update(labelled.counts)
    contract = feature_contract(
        labelled.rows.columns, options.feature_set, options.declared_columns
    )
    assert_no_feature_leakage(contract)
    absent = sorted(set(options.declared_columns) - set(labelled.rows.columns))
    counts["declared_columns_absent"] = len(absent)
    if absent:
        say(f"declared but not in the CSV, so no feature: {', '.join(absent)}; misspelt?")
    labelled, rows = _joined(deployment, stored, labelled, fused_rows, counts)
    progress = Progress(f"read {strategy} shards", rows["fused_key"].n_unique(), say)
    fused = read_fused(deployment, stored.lock, rows, progress)
    vectors = read_modalities(deployment, stored, rows, fused, counts, say)
    if not vectors.usable.all():
        kept = np.flatnonzero(vectors.usable)
        if not len(kept):
            msg = (
                f"none of the {len(rows)} labelled clips fused by {strategy!r} has its video and "
                f"audio vector ({_told(counts)}): restore the embeddings, or materialise "
                "clips/video_embeddings and clips/audio_embeddings with verify_objects: true"
            )
            raise NothingToJoin(msg)
        labelled, fused, vectors = labelled.take(kept), fused.take(kept), vectors.take(kept)
    clips, unparsable = clip_batch(labelled.rows, labelled.video_ids, fused, vectors, contract)
    counts.update({f"unparsable:{name}": n for name, n in unparsable.items()})
    source_hash = strings(labelled.source_hash)
    known_at = captured_at(labelled.rows)
    say(f"looking for duplicates among {len(labelled.video_ids)} clips")
    media = (vectors.by_modality["video"], vectors.by_modality["audio"])
    groups = duplicate_groups(source_hash, fused.vectors, options.duplicate_cosine, media)
    counts["in_duplicate_groups"] = int((np.bincount(groups)[groups] > 1).sum())
    splits, unavailable = make_splits(
        clips.video_ids, known_at, clips.channel_id, groups, options.ratios, options.seed
    )
    counts["rows"] = len(clips)
    return TrainingData(
        clips=clips,
        target_raw=labelled.target_raw,
        captured_at=known_at,
        source_hash=source_hash,
        splits=splits,
        unavailable_splits=unavailable,
        duplicate_groups=groups,
        contract=contract,
        outcomes=outcome_columns(labelled.rows, options.declared_columns),
        counts={name: counts[name] for name in (*COUNTS, *sorted(set(counts) - set(COUNTS)))},
        provenance=Provenance(
            strategy=strategy,
            horizon=horizon,
            lock_version=stored.lock.lock_version,
            lock_sha256=stored.lock.sha256,
            embedding_versions=dict(stored.lock.embedding_versions),
            manifest_sha256=stored.sha256,
            metadata_sha256=labelled.sha256,
        ),
    )


def _joined(
    deployment: Deployment,
    stored: StoredManifest,
    labelled: LabelledRows,
    fused_rows: pl.DataFrame,
    counts: Counter[str],
) -> tuple[LabelledRows, pl.DataFrame]:
    """Both sides' rows of the clips that are on both, sorted by video_id."""
    both, of_labelled, of_fused = np.intersect1d(
        strings(labelled.video_ids), strings(fused_rows["video_id"].to_list()), return_indices=True
    )
    counts["metadata_without_fused"] = len(labelled.video_ids) - len(both)
    counts["fused_without_metadata"] = len(fused_rows) - len(both)
    strategy = stored.lock.fusion_strategy
    if not len(both):
        msg = (
            f"the {len(labelled.video_ids)} labelled clips of {deployment.layout.metadata()} must "
            f"be among the {len(fused_rows)} fused by {strategy!r}: none is; do metadata and "
            f"manifest belong together? If so, materialise clips/fused_shards for {strategy!r}"
        )
        raise NothingToJoin(msg)
    labelled, rows = labelled.take(of_labelled), fused_rows[of_fused]
    counts["other_source_hash"] = sum(
        ours != theirs
        for ours, theirs in zip(labelled.source_hash, rows["source_hash"], strict=True)
    )
    return labelled, rows


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items() if n)
