"""Structural faults as Dagster shows them: the sentence, not the trace that led to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from clipfarm_assets.contracts.fused_manifest import BadManifest
from clipfarm_assets.contracts.horizon_csv import HorizonCsvError
from clipfarm_assets.contracts.label_taxonomy import BadTaxonomy
from clipfarm_assets.contracts.leakage import BadDeclaration, FeatureLeakage, UndeclaredColumn
from clipfarm_assets.contracts.meme_splits import BadSplitRatios as BadMemeRatios
from clipfarm_assets.contracts.meme_splits import BadSplits, TooFewGroups
from clipfarm_assets.contracts.schema_lock import BadLock, LockMismatch
from clipfarm_assets.contracts.song_segments import BadSegments
from clipfarm_assets.contracts.split_rules import SplitLeakage
from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.ledger.head import NewerSchema, OutdatedSchema
from clipfarm_assets.ledger.leases import LeaseHeld, LeaseLost
from clipfarm_assets.ledger.refusals import LedgerDenied
from clipfarm_assets.ledger.sqlite_file import BadState
from clipfarm_assets.orchestration.ray_jobs import JobFailed
from clipfarm_assets.orchestration.settings import BadSettings
from clipfarm_assets.pipelines.assemble import (
    EmptyManifest,
    NoFusedManifest,
    NoRowsAtHorizon,
    NothingToJoin,
)
from clipfarm_assets.pipelines.cluster.engine import ClusterFailed
from clipfarm_assets.pipelines.cluster.plan import ClusterTooSmall
from clipfarm_assets.pipelines.cluster.session import RayUnavailable
from clipfarm_assets.pipelines.failure_streak import EncoderBroken
from clipfarm_assets.pipelines.index import NoMetadata
from clipfarm_assets.pipelines.lock import NoLock, NothingEmbedded, NothingToMigrate
from clipfarm_assets.pipelines.manifest import DanglingPointer
from clipfarm_assets.pipelines.memes.expert_fit import NoLabelledRows
from clipfarm_assets.pipelines.memes.expert_store import BadRecord, NoExpert, UnfinishedExpert
from clipfarm_assets.pipelines.memes.features import NoFeatures
from clipfarm_assets.pipelines.memes.fusion import OtherExperts
from clipfarm_assets.pipelines.memes.fusion_rows import OtherShards
from clipfarm_assets.pipelines.memes.manifest import NoMemeRows, NoMemes
from clipfarm_assets.pipelines.memes.rows import ShardsChanged, ShardsDamaged
from clipfarm_assets.pipelines.memes.shard_index import BadIndex, NoShards
from clipfarm_assets.pipelines.memes.splits import NoMemeSplits
from clipfarm_assets.pipelines.songs.alignment_rows import BadAlignment, NoAlignment
from clipfarm_assets.pipelines.songs.comparison import OtherSegments
from clipfarm_assets.pipelines.songs.feature_files import NoFeatures as NoSongFeatures
from clipfarm_assets.pipelines.songs.feature_files import TooManyFeatures
from clipfarm_assets.pipelines.songs.feature_makers import WrongWidth
from clipfarm_assets.pipelines.songs.fusion_rows import NoLabelledSegments
from clipfarm_assets.pipelines.songs.inputs import WrongStored
from clipfarm_assets.pipelines.songs.row_cursor import RowsOutOfStep
from clipfarm_assets.pipelines.songs.segments import NoSegments
from clipfarm_assets.pipelines.songs.splits import NoSongSplits, StaleSplits
from clipfarm_assets.serving.binding import BindingMismatch
from clipfarm_assets.serving.meme_registry import NotServable
from clipfarm_assets.serving.promotion import NotPromotable
from clipfarm_assets.serving.registry import BadRegistry, NoModel
from clipfarm_assets.storage.errors import ObjectChanged, StoreUnavailable
from clipfarm_assets.storage.tables import BadTable
from clipfarm_assets.training.dataset_file import BadDataset, NoDataset
from clipfarm_assets.training.features import MissingColumns
from clipfarm_assets.training.meme_snapshot import NoMemeModel
from clipfarm_assets.training.metadata_encoder import FeatureMismatch
from clipfarm_assets.training.snapshot import BadSnapshot, SnapshotConflict, SnapshotExists
from clipfarm_assets.training.snapshot_reader import NoSnapshot, NoSuchModel
from clipfarm_assets.training.song_config_errors import BadSongConfig
from clipfarm_assets.training.song_snapshot import NoSongModel
from clipfarm_assets.training.splits import BadSplitRatios, SplitUnavailable, TooFewRows
from clipfarm_assets.training.suite import NoMetrics, NoSuchSplit

# Faults that say themselves what was expected, what was found and what to do. Everything else is a
# mistake of ours or of the machine, and keeps its trace.
FAULTS: Final = (
    BadAlignment,
    BadDataset,
    BadDeclaration,
    BadIndex,
    BadLock,
    BadManifest,
    BadMemeRatios,
    BadRecord,
    BadRegistry,
    BadSegments,
    BadSettings,
    BadSnapshot,
    BadSongConfig,
    BadSplitRatios,
    BadSplits,
    BadState,
    BadTable,
    BadTaxonomy,
    BindingMismatch,
    ClusterFailed,
    ClusterTooSmall,
    DanglingPointer,
    DecodersUnavailable,
    EmptyManifest,
    EncoderBroken,
    FeatureLeakage,
    FeatureMismatch,
    HorizonCsvError,
    JobFailed,
    LeaseHeld,
    LeaseLost,
    LedgerDenied,
    LockMismatch,
    MissingColumns,
    ModelMismatch,
    ModelUnavailable,
    NewerSchema,
    NoAlignment,
    NoDataset,
    NoExpert,
    NoFeatures,
    NoFusedManifest,
    NoLabelledRows,
    NoLabelledSegments,
    NoLock,
    NoMemeModel,
    NoMemeRows,
    NoMemes,
    NoMemeSplits,
    NoMetadata,
    NoMetrics,
    NoModel,
    NoRowsAtHorizon,
    NoSegments,
    NoShards,
    NoSnapshot,
    NoSongFeatures,
    NoSongModel,
    NoSongSplits,
    NoSuchModel,
    NoSuchSplit,
    NotPromotable,
    NotServable,
    NothingEmbedded,
    NothingToJoin,
    NothingToMigrate,
    ObjectChanged,
    OtherExperts,
    OtherSegments,
    OtherShards,
    OutdatedSchema,
    RayUnavailable,
    RowsOutOfStep,
    ShardsChanged,
    ShardsDamaged,
    SnapshotConflict,
    SnapshotExists,
    SplitLeakage,
    SplitUnavailable,
    StaleSplits,
    StoreUnavailable,
    TooFewGroups,
    TooFewRows,
    TooManyFeatures,
    UndeclaredColumn,
    UnfinishedExpert,
    WrongStored,
    WrongWidth,
)


# The same, of rooms that are imported late: known by name, so that looking loads no model library.
LAZY_FAULTS: Final = frozenset(
    {
        ("clipfarm_assets.training.experts.layers", "NoLayers"),
        ("clipfarm_assets.training.experts.loading", "WrongClasses"),
        ("clipfarm_assets.training.experts.lora", "LoraUnavailable"),
        ("clipfarm_assets.training.experts.representations", "NoRepresentation"),
        ("clipfarm_assets.training.networks.checkpoint", "BadCheckpoint"),
        ("clipfarm_assets.training.networks.fit", "Diverged"),
        ("clipfarm_assets.training.networks.weights", "BadWeights"),
    }
)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a structural fault into a step failure that says its sentence, and is not retried."""
    try:
        yield
    except Exception as error:
        kind = type(error)
        if isinstance(error, FAULTS) or (kind.__module__, kind.__qualname__) in LAZY_FAULTS:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        raise
