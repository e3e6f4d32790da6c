"""One kind of an album's features in the making."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clipfarm_assets.contracts.song_segments import SegmentProblem
from clipfarm_assets.pipelines.progress import Progress, Say
from clipfarm_assets.pipelines.songs.feature_files import (
    EMPTY,
    Row,
    SongFeatures,
    finished,
    forget_finished,
)
from clipfarm_assets.pipelines.songs.feature_makers import Maker, TextMaker
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import FeatureKind, SongLayout

SAVED_EVERY: Final = 128
"""Segments computed between two writes: what a killed run has to compute again at most."""


@dataclass(frozen=True)
class KindReport:
    """What became of one kind of an album's features.

    Attributes:
        kind: Which.
        version: Of how they are computed.
        key: Of the object.
        sha256: Of its bytes.
        rows: Segments in it.
        computed: Those of them that were computed now; the others were there.
        shape: Of one segment's; empty if there are none.
        model: Name of the model that computes them; None where there is none.
        is_stand_in: Whether that stands in for a trained one.
        tokens_cut: Tokens beyond the maximum, of the texts computed now.
        texts_cut: How many texts had such.
    """

    kind: FeatureKind
    version: str
    key: str
    sha256: str
    rows: int
    computed: int
    shape: tuple[int, ...]
    model: str | None
    is_stand_in: bool
    tokens_cut: int = 0
    texts_cut: int = 0

    @property
    def reused(self) -> int:
        """Segments whose features were there."""
        return self.rows - self.computed


@dataclass(frozen=True, slots=True)
class Looked:
    """What a segment's features follow from.

    Attributes:
        segment_id: Whose.
        made_of: Hash of it; None if there is nothing.
        prepared: It, as makers take it; None if all that follows from it is known.
        problem: Why there is nothing, where it can't be read; or what of it is left out.
    """

    segment_id: str
    made_of: str | None
    prepared: Any
    problem: SegmentProblem | None = None


@dataclass
class FeatureRows:
    """One kind of an album's features.

    Attributes:
        store: Where they go to.
        maker: Computes them.
        key: Theirs.
        known: Those of an earlier run.
        known_sha256: Of their object; None if there is none that can be read.
        rows: Id -> hash of what it was computed from, and the row.
        computed: How many were computed now.
    """

    store: ObjectStore
    maker: Maker
    key: str
    known: SongFeatures
    known_sha256: str | None
    rows: dict[str, Row] = field(default_factory=dict)
    computed: int = 0

    @classmethod
    def open(
        cls, store: ObjectStore, layout: SongLayout, maker: Maker, album: str, say: Say
    ) -> "FeatureRows":
        """With what an earlier run left; tells if that is damaged."""
        key = layout.features(maker.kind, maker.version, album)
        known = EMPTY
        sha256: str | None = None
        try:
            data = store.get(key)
            known, sha256 = SongFeatures.from_npz(data, key), hashlib.sha256(data).hexdigest()
        except FileNotFoundError:
            pass
        except BadShard as error:
            say(f"all of it is computed again: {error}")
        return cls(store, maker, key, known, sha256)

    def settle(self, segment_id: str) -> None:
        """Take what is known of a segment, whatever it was computed from."""
        self.rows[segment_id] = self.known.row(segment_id)

    def look(self, segment_id: str, made_of: str, prepared: Any) -> None:
        """Take what is known if it was computed from the same, else compute it."""
        row = self.known.get(segment_id, made_of)
        if row is None:
            row = self.maker.make(prepared)
            self.computed += 1
        self.rows[segment_id] = made_of, row

    def is_finished(self, media: str) -> bool:
        """Whether what is known is what a run left that went to its end, of this media file."""
        told = finished(self.store, self.key)
        return told is not None and (told.sha256, told.media) == (self.known_sha256, media)

    def save_some(self, order: Sequence[str], unseen: Collection[str]) -> None:
        """Write what there is so far, with what the object has by now of what was not looked at.

        Args:
            order: Ids of the segments, in which rows are written.
            unseen: Ids of those not yet looked at.
        """
        forget_finished(self.store, self.key)

        def merged(current: bytes | None) -> bytes:
            there = EMPTY if current is None else self._parsed(current)
            others = {each: there.row(each) for each in unseen if each in there.places}
            return _in_order(order, {**others, **self.rows}).to_npz()

        self.store.update(self.key, merged)

    def save(self, order: Sequence[str]) -> KindReport:
        """Write all there is, unless the object is just that.

        Args:
            order: Ids of the segments, in which rows are written.
        """
        features = _in_order(order, self.rows)
        data = features.to_npz()
        self.store.update(self.key, lambda _: data)
        return self._report(features, hashlib.sha256(data).hexdigest())

    def _parsed(self, data: bytes) -> SongFeatures:
        """Features of an object; none of one that is damaged, which all is computed of again."""
        try:
            return SongFeatures.from_npz(data, self.key)
        except BadShard:
            return EMPTY

    def _report(self, features: SongFeatures, sha256: str) -> KindReport:
        maker, model = self.maker, self.maker.model
        return KindReport(
            kind=maker.kind,
            version=maker.version,
            key=self.key,
            sha256=sha256,
            rows=len(features),
            computed=self.computed,
            shape=features.values.shape[1:] if len(features) else (),
            model=None if model is None else model.name,
            is_stand_in=model is not None and model.is_stand_in,
            tokens_cut=maker.tokens_cut if isinstance(maker, TextMaker) else 0,
            texts_cut=maker.texts_cut if isinstance(maker, TextMaker) else 0,
        )


def _in_order(order: Sequence[str], rows: Mapping[str, Row]) -> SongFeatures:
    """Those of the rows whose ids are told, in that order."""
    ids = [each for each in order if each in rows]
    return SongFeatures.of(ids, [rows[each][0] for each in ids], [rows[each][1] for each in ids])


def collect(
    kinds: Sequence[FeatureRows],
    order: Sequence[str],
    settled: Collection[str],
    looked: Iterable[Looked],
    progress: Progress,
) -> tuple[list[KindReport], list[SegmentProblem]]:
    """Take or compute the rows of every segment, and store them, now and then and in the end.

    Args:
        kinds: All computed from the same.
        order: Ids of the segments.
        settled: Those that need not be looked at: all of them are known.
        looked: All others.
        progress: Steps by one of these.

    Returns:
        A report a kind; and what was wrong.
    """
    for segment_id in settled:
        for each in kinds:
            each.settle(segment_id)
    problems: list[SegmentProblem] = []
    unseen = dict.fromkeys(each for each in order if each not in settled)
    saved = 0
    for item in looked:
        unseen.pop(item.segment_id)
        if item.problem is not None:
            problems.append(item.problem)
        if item.made_of is not None:
            for each in kinds:
                each.look(item.segment_id, item.made_of, item.prepared)
        progress.step()
        computed = max(each.computed for each in kinds)
        if computed >= saved + SAVED_EVERY:
            saved = computed
            for each in kinds:
                each.save_some(order, unseen)
    return [each.save(order) for each in kinds], problems
