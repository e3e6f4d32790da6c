"""Everything that is known of one clip, from its metadata row to the models that saw it."""

import difflib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import polars as pl
import pyarrow.compute as pc

from clipfarm_assets.contracts.horizon_csv import parse_captured_at, video_id_of
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.index import ClipIndex, NoMetadata
from clipfarm_assets.pipelines.inspect.clip_objects import (
    ObjectFacts,
    PointerFacts,
    embedding_object,
    pointers,
    raw_object,
)
from clipfarm_assets.pipelines.inspect.clip_uses import ClipUses, uses_of
from clipfarm_assets.pipelines.inspect.plan import Planner
from clipfarm_assets.pipelines.inspect.run_settings import STAGES

_REMOVED: Final = "it was removed for good"
_NEAREST: Final = 3
_LIKENESS: Final = 0.7
_COMPARED: Final = 2000
_ENDING: Final = 4
_SHOWN_COLUMNS: Final = ("captured_at", "horizon_days", "horizon_view_count", "url", "title")


class UnknownClip(LookupError):  # noqa: N818 - a state of the deployment
    """Nothing is known of the clip; names ids that are like it."""


@dataclass(frozen=True)
class MetadataFacts:
    """A clip's rows in the metadata CSV.

    Attributes:
        rows: Of the clip, in file order: number of the row and some of its columns.
        date: The clip's partition; empty if no row has a capture time that can be read.
        partition: ``its date``, or why no partition has the clip.
        captured_at: Of the latest row.
        source_hash: What its state is compared by.
        hashed: The text that was hashed.
    """

    rows: Sequence[Mapping[str, Any]]
    date: str
    partition: str
    captured_at: str
    source_hash: str
    hashed: str


@dataclass(frozen=True)
class StageFacts:
    """A clip in one stage.

    Attributes:
        stage: The ledger's name of it.
        row: The clip's state; None if the stage doesn't know it.
        from_published: Whether the state is in the published object alone, from where the next run
            takes it.
        next_run: What that will do with it, and why.
    """

    stage: str
    row: Item | None
    from_published: bool
    next_run: str


@dataclass(frozen=True)
class ClipFacts:
    """What is known of one clip.

    Attributes:
        video_id: The clip.
        forgotten_at: When it was removed for good, ISO 8601; empty if it was not.
        metadata: Its rows in the CSV; None if it has none.
        no_metadata: Why not.
        stages: Its state in each stage.
        objects: Its objects.
        pointers: Where its fused vectors are said to be.
        uses: What was made with it.
    """

    video_id: str
    forgotten_at: str
    metadata: MetadataFacts | None
    no_metadata: str
    stages: Sequence[StageFacts]
    objects: Sequence[ObjectFacts]
    pointers: Sequence[PointerFacts]
    uses: ClipUses


def clip_facts(planner: Planner, video_id: str) -> ClipFacts:
    """Gather everything.

    Args:
        planner: Of the deployment.
        video_id: One that keys may be built from.

    Raises:
        UnknownClip: There is nothing.
        HorizonCsvError: The metadata CSV is none.
    """
    deployment = planner.deployment
    index: ClipIndex | None = None
    no_metadata = "no row of the metadata CSV is of this clip"
    try:
        index = planner.index()
    except NoMetadata as error:
        no_metadata = str(error)
    rows = {s: deployment.ledger.rows(s, [video_id]).get(video_id) for s in STAGES}
    tombstones = [row.processed_at for row in rows.values() if rules.is_forgotten(row) and row]
    forgotten_at = min(tombstones, default="")
    metadata = _metadata(planner, index, video_id, bool(forgotten_at)) if index else None
    objects = [raw_object(deployment, modality, video_id) for modality in MODALITIES]
    objects += [
        embedding_object(deployment, modality, video_id, rows[f"{modality}_embedding"])
        for modality in MODALITIES
    ]
    if metadata is None and not any(rows.values()) and not any(o.size for o in objects):
        raise UnknownClip(_unknown(video_id, index, no_metadata))
    next_run = (
        dict.fromkeys(STAGES, f"leaves it alone: {_REMOVED}")
        if forgotten_at
        else _next_run(planner, index, metadata, video_id)
    )
    return ClipFacts(
        video_id=video_id,
        forgotten_at=forgotten_at,
        metadata=metadata,
        no_metadata="" if metadata else no_metadata,
        stages=[
            StageFacts(
                stage, rows[stage], planner.ledger.is_ahead(stage, video_id), next_run[stage]
            )
            for stage in STAGES
        ],
        objects=objects,
        pointers=[
            pointer
            for strategy in STRATEGIES
            for pointer in pointers(deployment, strategy, video_id, rows[f"fusion_{strategy}"])
        ],
        uses=uses_of(deployment, video_id, metadata.date if metadata else ""),
    )


def _metadata(
    planner: Planner, index: ClipIndex, video_id: str, is_forgotten: bool
) -> MetadataFacts | None:
    rows = index.csv.rows.with_row_index("csv_row", offset=1)
    # Few rows are looked at by the rule itself: those that name the id in either column.
    likely = rows.filter(
        pl.col("video_id").str.strip_chars().eq(video_id)
        | pl.col("url").str.contains(video_id, literal=True)
    )
    shown = ["csv_row", *(name for name in _SHOWN_COLUMNS if name in likely.columns)]
    own = [
        {name: row[name] for name in shown}
        for row in likely.to_dicts()
        if video_id_of(row["video_id"] or "", row["url"] or "") == video_id
    ]
    if not own:
        return None
    if is_forgotten:
        return MetadataFacts(own, "", f"in no partition: {_REMOVED}", "", "", "")
    latest = index.latest.rows.filter(pl.col("video_id") == video_id).to_dicts()
    if not latest:
        skipped = {row.reason for row in index.latest.skipped if row.video_id == video_id}
        why = f"in no partition: {', '.join(sorted(skipped)) or 'its rows can not be read'}"
        return MetadataFacts(own, "", why, "", "", "")
    (row,) = latest
    settings = planner.settings
    partition = "its date"
    if row["date"] < settings.first_date:
        partition = f"in no partition: captured before the first one, {settings.first_date}"
    elif row["date"] > settings.last_date:
        partition = f"in no partition: captured after the last one, {settings.last_date}"
    hashed = row["url"].strip()
    if settings.include_captured_at_in_hash:
        hashed += f"|{row['captured_at']}"
    own.sort(key=_capture)  # the latest one last, and one that can not be read first
    return MetadataFacts(
        own, row["date"], partition, row["captured_at"], row["source_hash"], hashed
    )


def _capture(row: Mapping[str, Any]) -> tuple[str, int]:
    moment = parse_captured_at(row["captured_at"] or "")
    return "" if moment is None else moment.isoformat(), row["csv_row"]


def _next_run(
    planner: Planner, index: ClipIndex | None, metadata: MetadataFacts | None, video_id: str
) -> dict[str, str]:
    """What the next run over the clip's date does with it, by stage."""
    if index is None or metadata is None:
        return dict.fromkeys(STAGES, "leaves it alone: it isn't in the metadata CSV")
    if metadata.partition != "its date":
        return dict.fromkeys(STAGES, f"leaves it alone: it is {metadata.partition}")
    table = index.table(metadata.date)
    one = table.filter(pc.equal(table["video_id"], video_id))
    parts, stops = planner.parts_of(metadata.date, one)
    told = {}
    for part in parts:
        if part.forgotten:
            told[part.stage] = f"leaves it alone: {_REMOVED}"
        elif part.outdated:
            told[part.stage] = "leaves it alone: a later capture of it was processed"
        elif not part.reasons:
            told[part.stage] = "leaves it alone: it is done"
        else:
            expected = " or ".join(part.expected)
            told[part.stage] = f"takes it up: {next(iter(part.reasons))}; expected {expected}"
        if part.stage in stops and part.reasons:
            told[part.stage] = f"stops: {stops[part.stage]}"
    return told


def _unknown(video_id: str, index: ClipIndex | None, no_metadata: str) -> str:
    msg = f"nothing is known of {video_id}: {no_metadata}, no stage has a state of it and the "
    msg += "store no object"
    known = [] if index is None else index.latest.rows["video_id"].to_list()
    near = nearest(video_id, known)
    return f"{msg}; ids like it: {', '.join(near)}" if near else msg


def nearest(video_id: str, known: Sequence[str]) -> list[str]:
    """The known ids most like `video_id`: of many only some that begin or end like it.

    Args:
        video_id: Of nobody.
        known: Sorted.
    """
    same = [other for other in known if other.lower() == video_id.lower()]
    if len(known) > _COMPARED:
        at = bisect_left(known, video_id)
        ending = (other for other in known if other.endswith(video_id[-_ENDING:]))
        known = [*known[max(0, at - _COMPARED // 4) : at + _COMPARED // 4]]
        known += islice(ending, _COMPARED // 2)
    close = difflib.get_close_matches(video_id, known, _NEAREST, _LIKENESS)
    return list(dict.fromkeys([*same, *close]))[:_NEAREST]
