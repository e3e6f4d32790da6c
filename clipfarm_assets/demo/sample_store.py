"""Writes the sample: raw media, metadata and the text downloader's state, into any store."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from clipfarm_assets.contracts.horizon_csv import source_hash
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.demo.clip import TEXT_DONE, Clip
from clipfarm_assets.demo.edge_cases import EDGE_CASES, EdgeCase
from clipfarm_assets.demo.horizon_csv import older_csv, to_csv
from clipfarm_assets.demo.plan import CLIPS_PER_DATE, SEED, plan_sample
from clipfarm_assets.demo.text_state import TextStateRow, text_state_sqlite
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what was just written)."""

_TEXT_PROCESSED_AT = "2026-02-04T00:00:00+00:00"
_OLDER_FILE_CLIPS = 12


@dataclass(frozen=True, slots=True)
class SampleReport:
    """What was written.

    Attributes:
        clips_by_date: Clips by the day of their latest capture.
        objects: Objects written, by kind: a modality, ``metadata`` or ``state``.
        bytes: Their size in all.
        csv_rows: Rows of the metadata CSV, those to be skipped among them.
        edge_cases: The hard cases among the clips.
    """

    clips_by_date: Mapping[str, int]
    objects: Mapping[str, int]
    bytes: int
    csv_rows: int
    edge_cases: tuple[EdgeCase, ...]


def make_sample_store(
    store: ObjectStore,
    layout: Layout | None = None,
    *,
    seed: int = SEED,
    clips_per_date: int = CLIPS_PER_DATE,
    progress: Progress | None = None,
) -> SampleReport:
    """Encode and write the sample. The same seed gives the same bytes, on one build of PyAV.

    Args:
        store: Where to; objects of the same keys are replaced.
        layout: Names the keys.
        seed: Of every random choice.
        clips_per_date: Clips on each of the sample's days.
        progress: Called after each clip and each file of metadata or state.
    """
    layout = Layout() if layout is None else layout
    plan = plan_sample(seed=seed, clips_per_date=clips_per_date)
    rows = plan.rows()
    states = text_states(plan.clips, layout)
    # Metadata last: whoever sees a clip in it finds the clip's objects.
    tail = {
        layout.text_downloader_state(): ("state", text_state_sqlite(states)),
        older_metadata_key(layout): ("metadata", older_csv(plan.clips[:_OLDER_FILE_CLIPS])),
        layout.metadata(): ("metadata", to_csv(rows)),
    }
    total = len(plan.clips) + len(tail)
    objects: Counter[str] = Counter()
    size = 0

    def put(kind: str, key: str, data: bytes) -> None:
        nonlocal size
        store.put(key, data)
        objects[kind] += 1
        size += len(data)

    def tell(done: int, what: str) -> None:
        if progress is not None:
            progress(done, total, what)

    for done, clip in enumerate(plan.clips, start=1):
        for kind, key, data in raw_objects(clip, layout):
            put(kind, key, data)
        tell(done, clip.video_id)
    for done, (key, (kind, data)) in enumerate(tail.items(), start=len(plan.clips) + 1):
        put(kind, key, data)
        tell(done, key)
    return SampleReport(
        clips_by_date=dict(Counter(clip.date for clip in plan.clips)),
        objects=dict(objects),
        bytes=size,
        csv_rows=len(rows),
        edge_cases=EDGE_CASES,
    )


def older_metadata_key(layout: Layout) -> str:
    """Where the file of the year before lies: beside the current one, ``…_2025.csv``."""
    return f"{layout.metadata().removesuffix('.csv')}_2025.csv"


def raw_objects(clip: Clip, layout: Layout) -> Iterator[tuple[str, str, bytes]]:
    """A clip's raw objects as (modality, key, bytes), made one at a time."""
    for modality in MODALITIES:
        make = {"video": clip.video, "audio": clip.audio, "text": clip.text}[modality]
        if make is not None:
            yield modality, layout.raw(modality, clip.video_id), make(clip)


def text_states(clips: Iterable[Clip], layout: Layout) -> Iterator[TextStateRow]:
    """The text downloader's rows on these clips."""
    for clip in clips:
        state = clip.text_state
        if state is None:
            continue
        done = state.status == TEXT_DONE
        yield TextStateRow(
            video_id=clip.video_id,
            source_hash="" if state.url is None else source_hash(state.url),
            processed_at=_TEXT_PROCESSED_AT,
            status=state.status,
            error=None if done else f"sample: {state.status}",
            artifact_key=layout.raw("text", clip.video_id) if done else None,
        )
