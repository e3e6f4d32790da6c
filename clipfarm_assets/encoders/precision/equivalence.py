"""The equivalence gate: a faster precision is used only where it gives the same embedding.

The canary set is embedded both ways. Every vector must keep its direction, and every item its
nearest neighbour; else the exact precision stays, and the run says so. The verdict holds for one
exact version on one build, and is recorded.
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import (
    Deadline,
    EmbeddingVersion,
    Encoder,
    Equivalence,
    MediaError,
    ModelMismatch,
)
from clipfarm_assets.encoders.config import Precision
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.precision.canary import CANARY_VERSION, canaries
from clipfarm_assets.encoders.precision.verdicts import Verdict, passes

LEAST_COSINE: Final = 0.9999
TIE: Final = 1e-7
"""Cosines this near are equal: float32, whose unit roundoff is 6e-8, tells no less."""

_LEAST_ITEMS: Final = 3
"""Of two items each is the other's nearest, whatever was computed."""
_ITEM_SECONDS: Final = 600.0
_THREADS: Final = 4
"""Items at once, of one torch thread each: the gate's seconds are a run's."""


class PreciseEncoder(Encoder, Protocol):
    """An encoder that has several precisions of the same weights."""

    equivalence: Equivalence | None

    def at(self, precision: Precision) -> Self:
        """The encoder at that precision; shares the weights."""


_E = TypeVar("_E", bound=PreciseEncoder)


def compare(
    exact: NDArray[np.floating[Any]],
    fast: NDArray[np.floating[Any]],
    precision: str,
    build: str,
) -> Equivalence:
    """Whether fast vectors may stand for the exact ones of the same items.

    A vector that is not finite or zero, as a mode that overflows gives, has no direction: its
    cosine counts as 0.

    An item's nearest neighbour is the other item with the largest cosine. Of a tie, see `TIE`, any
    may be the nearest: a neighbour changed if none is nearest both ways.

    Args:
        exact: One vector an item, shape ``(n, dim)``.
        fast: The same items in the same order, same shape.
        precision: Name of the faster one.
        build: Where they were made.

    Raises:
        ValueError: The shapes differ, there are fewer than three items, or an exact vector has no
            direction.
    """
    if exact.ndim != 2 or exact.shape != fast.shape or len(exact) < _LEAST_ITEMS:
        msg = (
            f"expected exact and fast vectors of one shape (items, dim), {_LEAST_ITEMS} items or "
            f"more, found {exact.shape} and {fast.shape}"
        )
        raise ValueError(msg)
    true, other = _directions(exact), _directions(fast)
    if not true.any(axis=1).all():
        lost = np.flatnonzero(~true.any(axis=1)).tolist()
        msg = f"expected exact vectors of finite, nonzero length, found others at {lost}"
        raise ValueError(msg)
    cosines = np.clip((true * other).sum(axis=1), -1.0, 1.0)
    changed = ~(_nearest(true) & _nearest(other)).any(axis=1) | ~other.any(axis=1)
    found = float(cosines.min()), LEAST_COSINE, int(changed.sum())
    return Equivalence(precision, passes(*found), len(exact), *found, build)


def _directions(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Unit vectors in float64, shape as given; zeros where there is no direction."""
    values = vectors.astype(np.float64)
    values[~np.isfinite(values).all(axis=1)] = 0.0
    # Scaled first, so that squares neither overflow nor vanish.
    largest = np.abs(values).max(axis=1, keepdims=True)
    values /= np.where(largest == 0, 1.0, largest)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    directions: NDArray[np.float64] = values / np.where(norms == 0, 1.0, norms)
    return directions


def _nearest(directions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Row i is true where an item is nearest to i, or as near but for `TIE`; shape ``(n, n)``."""
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: NDArray[np.bool_] = cosines >= cosines.max(axis=1, keepdims=True) - TIE
    return nearest


def gate(encoder: _E, precision: Precision, build: str, models_lock: ModelsLock | None) -> _E:
    """The encoder at `precision` if that is equivalent here, else at the exact one.

    Either has ``equivalence`` set, which says why. A verdict on record is used as it is; else the
    canaries are embedded both ways, at the cost of as many short clips each, and it is recorded.

    Args:
        encoder: At any precision.
        precision: The faster one asked for.
        build: See `build_fingerprint`.
        models_lock: Knows the record and the versions that vectors were made of; None to know and
            record nothing.

    Raises:
        ModelMismatch: Other machines of this deployment make vectors of the other version, see
            `refuse_two_versions`.
        MediaError: The exact encoder cannot embed a canary.
        ValueError: The record is malformed.
    """
    exact, fast = encoder.at("exact"), encoder.at(precision)
    verdict = recorded_verdict(exact.version, precision, build, models_lock)
    if verdict is None:
        verdict = _record(exact.version, _embed_both(exact, fast, precision, build), models_lock)
    if models_lock is not None:
        refuse_two_versions(exact.version, fast.version, verdict, models_lock)
    chosen = fast if verdict.holds else exact
    chosen.equivalence = verdict
    return chosen


def recorded_verdict(
    exact: EmbeddingVersion, precision: Precision, build: str, models_lock: ModelsLock | None
) -> Equivalence | None:
    """What is on record for this version and build, by the present canaries and demand."""
    if models_lock is None or models_lock.verdicts is None:
        return None
    question = (exact.id, precision, CANARY_VERSION, LEAST_COSINE, build)
    found = (v.found for v in models_lock.verdicts.all() if v.question == question)
    return next(found, None)


def refuse_two_versions(
    exact: EmbeddingVersion,
    fast: EmbeddingVersion,
    verdict: Equivalence,
    models_lock: ModelsLock,
) -> None:
    """Refuse to go another way than the machine that made the vectors at hand.

    The same settings would embed everything anew here, and again there, for ever.

    Raises:
        ModelMismatch: The faster precision fails here, but the deployment has vectors of it; or it
            holds here, but failed on another build, and the deployment's vectors are exact.
    """
    versions = models_lock.versions()
    verdicts = models_lock.verdicts
    modality, key = exact.modality, verdicts.key if verdicts else ""
    remedy = f'set CLIPFARM_{modality.upper()}_CONFIG={{"precision": "exact"}} on every machine'
    others = [
        other.found
        for other in (verdicts.all() if verdicts else ())
        if other.exact_version == exact.id
        and other.found.precision == verdict.precision
        and other.found.build != verdict.build
        and other.found.holds != verdict.holds
    ]
    builds = "; ".join(other.build for other in others)
    if not verdict.holds and fast.id in versions:
        msg = (
            f"the deployment has {modality} vectors of precision {verdict.precision} ({fast.id}), "
            f"but on this machine the gate decides otherwise: {verdict.sentence()}; run on a "
            f"machine like those where it passed ({builds or 'none on record'}), or {remedy} to "
            f"embed everything anew as exact; this machine is {verdict.build}"
        )
        raise ModelMismatch(msg)
    if verdict.holds and others and fast.id not in versions and exact.id in versions:
        msg = (
            f"the deployment's {modality} vectors are exact ({exact.id}) because the gate of "
            f"{verdict.precision} failed on {builds}, but on this machine the gate decides "
            f"otherwise: {verdict.sentence()}; {remedy} to keep them, or, if nothing embeds there "
            f"any more, delete {key} to go over to {verdict.precision}; this machine is "
            f"{verdict.build}"
        )
        raise ModelMismatch(msg)


def _record(
    exact: EmbeddingVersion, found: Equivalence, models_lock: ModelsLock | None
) -> Equivalence:
    if models_lock is None or models_lock.verdicts is None:
        return found
    moment = datetime.now(UTC).isoformat()
    return models_lock.verdicts.record(Verdict(exact.id, CANARY_VERSION, found, moment)).found


def _embed_both(
    exact: PreciseEncoder, fast: PreciseEncoder, precision: Precision, build: str
) -> Equivalence:
    """The canaries' verdict. One item a call, since neighbours must not matter."""

    def both(item: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        true = exact.encode([item])[0].vector
        try:
            return true, fast.encode([item])[0].vector
        except MediaError:  # how encoders refuse an output without direction
            return true, np.zeros_like(true)

    sources = canaries(exact.version.modality)
    prepared = [exact.prepare(source, Deadline.after(_ITEM_SECONDS)) for source in sources]
    with ThreadPoolExecutor(_THREADS, "canary") as pool:
        true, other = zip(*pool.map(both, prepared), strict=True)
    return compare(np.stack(true), np.stack(other), precision, build)
