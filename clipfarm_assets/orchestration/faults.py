"""Structural faults as Dagster shows them: the sentence, not the trace that led to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from clipfarm_assets.contracts.fused_manifest import BadManifest
from clipfarm_assets.contracts.horizon_csv import HorizonCsvError
from clipfarm_assets.contracts.schema_lock import BadLock, LockMismatch
from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.ledger.sqlite_file import BadState
from clipfarm_assets.pipelines.failure_streak import EncoderBroken
from clipfarm_assets.pipelines.index import NoMetadata
from clipfarm_assets.pipelines.lock import NoLock, NothingEmbedded, NothingToMigrate
from clipfarm_assets.pipelines.manifest import DanglingPointer
from clipfarm_assets.storage.errors import StoreUnavailable

# Faults that say themselves what was expected, what was found and what to do. Everything else is a
# mistake of ours or of the machine, and keeps its trace.
FAULTS: Final = (
    BadLock,
    BadManifest,
    BadState,
    DanglingPointer,
    EncoderBroken,
    HorizonCsvError,
    LockMismatch,
    ModelMismatch,
    ModelUnavailable,
    NoLock,
    NoMetadata,
    NothingEmbedded,
    NothingToMigrate,
    StoreUnavailable,
)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a structural fault into a step failure that says its sentence, and is not retried."""
    try:
        yield
    except FAULTS as fault:
        raise dg.Failure(description=str(fault), allow_retries=False) from None
