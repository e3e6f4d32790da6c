"""Structural faults as Dagster shows them: the sentence, not the trace that led to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from clipfarm_assets.contracts.fused_manifest import BadManifest
from clipfarm_assets.contracts.horizon_csv import HorizonCsvError
from clipfarm_assets.contracts.leakage import BadDeclaration, FeatureLeakage, UndeclaredColumn
from clipfarm_assets.contracts.schema_lock import BadLock, LockMismatch
from clipfarm_assets.contracts.split_rules import SplitLeakage
from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.ledger.sqlite_file import BadState
from clipfarm_assets.orchestration.settings import BadSettings
from clipfarm_assets.pipelines.assemble import (
    EmptyManifest,
    NoFusedManifest,
    NoRowsAtHorizon,
    NothingToJoin,
)
from clipfarm_assets.pipelines.failure_streak import EncoderBroken
from clipfarm_assets.pipelines.index import NoMetadata
from clipfarm_assets.pipelines.lock import NoLock, NothingEmbedded, NothingToMigrate
from clipfarm_assets.pipelines.manifest import DanglingPointer
from clipfarm_assets.serving.binding import BindingMismatch
from clipfarm_assets.serving.promotion import NotPromotable
from clipfarm_assets.serving.registry import BadRegistry, NoModel
from clipfarm_assets.storage.errors import StoreUnavailable
from clipfarm_assets.training.dataset_file import BadDataset, NoDataset
from clipfarm_assets.training.features import MissingColumns
from clipfarm_assets.training.metadata_encoder import FeatureMismatch, TooManyCategories
from clipfarm_assets.training.snapshot import BadSnapshot, SnapshotConflict, SnapshotExists
from clipfarm_assets.training.snapshot_reader import NoSnapshot, NoSuchModel
from clipfarm_assets.training.splits import BadSplitRatios, SplitUnavailable, TooFewRows
from clipfarm_assets.training.suite import NoMetrics, NoSuchSplit

# Faults that say themselves what was expected, what was found and what to do. Everything else is a
# mistake of ours or of the machine, and keeps its trace.
FAULTS: Final = (
    BadDataset,
    BadDeclaration,
    BadLock,
    BadManifest,
    BadRegistry,
    BadSettings,
    BadSnapshot,
    BadSplitRatios,
    BadState,
    BindingMismatch,
    DanglingPointer,
    EmptyManifest,
    EncoderBroken,
    FeatureLeakage,
    FeatureMismatch,
    HorizonCsvError,
    LockMismatch,
    MissingColumns,
    ModelMismatch,
    ModelUnavailable,
    NoDataset,
    NoFusedManifest,
    NoLock,
    NoMetadata,
    NoMetrics,
    NoModel,
    NoRowsAtHorizon,
    NoSnapshot,
    NoSuchModel,
    NoSuchSplit,
    NotPromotable,
    NothingEmbedded,
    NothingToJoin,
    NothingToMigrate,
    SnapshotConflict,
    SnapshotExists,
    SplitLeakage,
    SplitUnavailable,
    StoreUnavailable,
    TooFewRows,
    TooManyCategories,
    UndeclaredColumn,
)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a structural fault into a step failure that says its sentence, and is not retried."""
    try:
        yield
    except FAULTS as fault:
        raise dg.Failure(description=str(fault), allow_retries=False) from None
