"""What became of the edge cases, looked up in what the pipeline reads and what it stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.contracts.song_segments import Segment, SegmentProblem, segments_of
from clipfarm_assets.demo.songs.edge_cases import ALBUM, EDGE_CASES, EdgeCase
from clipfarm_assets.demo.songs.plan import Plan
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.songs.alignment_rows import read_alignment
from clipfarm_assets.pipelines.songs.alignment_rule import AlignmentVerdict
from clipfarm_assets.pipelines.songs.inputs import AudioInputs, MidiInputs, TextInputs
from clipfarm_assets.pipelines.songs.media import open_media
from clipfarm_assets.pipelines.songs.splits import read_splits
from clipfarm_assets.storage.tables import parquet_to_table


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case, as `edge_cases.Expected` says what must.

    Attributes:
        problems: Words for what is reported about it.
        present: Modalities that it has in the end; None if it is no segment.
        verdict: On its audio and MIDI; None if it is no segment.
        split: Where it is; empty if it is no segment.
    """

    problems: frozenset[str]
    present: tuple[Modality, ...] | None
    verdict: AlignmentVerdict | None
    split: str


@dataclass(frozen=True)
class Outcomes:
    """What became of all.

    Attributes:
        by_case: Name of the case -> what became of it.
        split_of: Id -> split, of all segments.
        rows: Of the metadata.
        segments: Rows that are segments.
        unaccounted: Rows that are neither segments nor reported as left out, and segments without
            a split or a verdict.
    """

    by_case: Mapping[str, Outcome]
    split_of: Mapping[str, str]
    rows: int
    segments: int
    unaccounted: int

    def differs(self, case: EdgeCase) -> str:
        """How what became of a case isn't what must; empty if it is."""
        found, expected = self.by_case[case.name], case.expected
        pairs: dict[str, tuple[object, object]] = {
            "reported": (sorted(found.problems), sorted(expected.problems)),
            "has": (found.present, expected.present),
            "audio and MIDI": (found.verdict, expected.verdict),
        }
        if expected.with_song:
            pairs["in the split of its song"] = (found.split, self.split_of[expected.with_song])
        return "; ".join(
            f"{what}: expected {wanted}, found {is_}"
            for what, (is_, wanted) in pairs.items()
            if is_ != wanted
        )

    @property
    def as_expected(self) -> bool:
        """Whether every case became what it must, and nothing was dropped in silence."""
        return not any(self.differs(case) for case in EDGE_CASES) and self.unaccounted == 0


def look_up(deployment: Deployment, plan: Plan) -> Outcomes:
    """What became of the edge cases of a corpus that was split and aligned.

    Args:
        deployment: Where it is.
        plan: Of its other segments.

    Raises:
        NoSongSplits, NoAlignment: A step has not run.
    """
    store, layout, config = deployment.store, deployment.songs, deployment.song_config
    table = parquet_to_table(store.get(layout.metadata()))
    segments, problems = segments_of(table, config.data.columns)
    splits = read_splits(store, layout)
    albums = sorted({segment.album for segment in segments})
    alignment = read_alignment(store, layout, albums, config.preprocessing)
    by_id = {segment.id: segment for segment in segments}
    by_case = {}
    for case in EDGE_CASES:
        told = {p.kind for p in problems if _is_about(p, case)}
        segment = by_id.get(case.segment_id)
        if segment is None:
            by_case[case.name] = Outcome(frozenset(told), None, None, "")
            continue
        present, kinds = _inputs(deployment, segment)
        by_case[case.name] = Outcome(
            frozenset(told | kinds),
            present,
            alignment[segment.id].verdict,
            splits.split_of.get(segment.id, ""),
        )
    left_out = sum(problem.leaves_out for problem in problems)
    lost = [i for i in by_id if i not in splits.split_of or i not in alignment]
    unplanned = {s.id for s in segments if s.album != ALBUM} ^ {s.id for s in plan.segments}
    return Outcomes(
        by_case,
        dict(splits.split_of),
        len(table),
        len(segments),
        len(table) - len(segments) - left_out + len(lost) + len(unplanned),
    )


def _is_about(problem: SegmentProblem, case: EdgeCase) -> bool:
    return problem.where.endswith(f"id {case.segment_id}")


def _inputs(
    deployment: Deployment, segment: Segment
) -> tuple[tuple[Modality, ...], frozenset[str]]:
    """What encoders would see of a segment, freshly read, and the problems met with it."""
    store, layout, config = deployment.store, deployment.songs, deployment.song_config
    media = open_media(store, layout, config.data.columns)
    counts = media.counts
    found: Mapping[Modality, object] = {
        "text": TextInputs(store, layout, config, None, None, counts).arrays(segment),
        "audio": AudioInputs(config, media, None, {}, counts).arrays(segment, None),
        "midi": MidiInputs(config, media, {}, counts).arrays(segment, None),
    }
    present: Sequence[Modality] = [m for m in MODALITIES if found[m] is not None]
    return tuple(present), frozenset(counts.kinds)
