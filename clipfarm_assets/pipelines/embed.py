"""The embedding stage: delta -> fetch -> decode -> encode -> put npy -> ledger.

Order of writes: the object first, then the ledger. A run killed anywhere leaves objects whose rows
are not written yet, at most one batch; the next run makes the same bytes again for these. See
`embed_flow` for how items move.
"""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.schema_lock import UNVERSIONED, resolve
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import EmbeddingVersion, Encoder
from clipfarm_assets.encoders.config import TEMPLATE_FIELDS
from clipfarm_assets.encoders.decoding import MediaDecoding
from clipfarm_assets.ledger import rules
from clipfarm_assets.ledger.leases import Lease
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.adoption import Adoption
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed_flow import EmbeddingFlow
from clipfarm_assets.pipelines.embed_local import Engine, LocalEngine, Work
from clipfarm_assets.pipelines.embed_options import EmbedOptions, open_decoding
from clipfarm_assets.pipelines.embed_steps import Clip
from clipfarm_assets.pipelines.encoder_on_demand import EncoderOnDemand
from clipfarm_assets.pipelines.failure_streak import EncoderBroken, FailureStreak, Outcome
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.meters import Meters
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.roofline import roofline
from clipfarm_assets.pipelines.turns import LeaseOptions, Turn, Turns
from clipfarm_assets.pipelines.unrecorded import Unrecorded
from clipfarm_assets.pipelines.workers import CPU, Machine

__all__ = ["EmbedOptions", "EmbeddingStage", "EncoderBroken"]

_ROWS_AT_ONCE = 250
"""Clips looked at together: as many ledger rows are in memory at a time."""


@dataclass
class EmbeddingStage:
    """One modality's stage over one or more dates of a deployment.

    Attributes:
        deployment: What it works on.
        modality: What it embeds.
        open_encoder: Loads the encoder; called at most once a run.
        options: How it works.
        say: Told how far it is.
        known_version: The encoder's version if that is on record; loads nothing.
        device: The kind of device the model runs on; asked once the encoder is open.
        machine: What it may use.
        leases: How it keeps other runs from its dates, and waits for theirs.
        open_decoding: What decodes its media, of the options; closed at the end.
        engine: Where a date's clips are fetched, decoded and encoded: here, or on a cluster.
    """

    deployment: Deployment
    modality: Modality
    open_encoder: Callable[[], Encoder]
    options: EmbedOptions = field(default_factory=EmbedOptions)
    say: Say = silent
    known_version: Callable[[], EmbeddingVersion | None] = lambda: None
    device: Callable[[], str] = lambda: CPU
    machine: Machine = field(default_factory=Machine.here)
    leases: LeaseOptions = field(default_factory=LeaseOptions)
    open_decoding: Callable[[EmbedOptions], MediaDecoding] = open_decoding
    engine: Callable[[Work], Engine] = LocalEngine

    @property
    def stage(self) -> str:
        """The ledger's name of this stage."""
        return statuses.embedding_stage(self.modality)

    def run(self, by_date: Mapping[str, pa.Table]) -> dict[str, StageReport]:
        """Embed what changed on each date, no other run of it being at work on that date.

        The state is restored before, and published after every date that changed something. Any
        error that is not an item's ends the run; what was stored before it is on record then.

        Args:
            by_date: Date -> table of `clip_tables.CLIP_INDEX`.

        Raises:
            ModelMismatch: The weights are not those recorded, or may not be mixed with those here.
            EncoderBroken: The encoder fails on everything.
            DecodersUnavailable: There is no process that media could be decoded in.
            LeaseHeld: Another run works on a date, for longer than this one was to wait.
            LeaseLost: This run was not heard of for so long that another one took its date.
        """
        self.deployment.restore(self.stage)
        decoding = self.open_decoding(self.options)
        encoder = EncoderOnDemand(
            self.deployment, self.open_encoder, self.known_version, self._before_use, decoding
        )
        reports: dict[str, StageReport] = {}
        turns = Turns(self.deployment.ledger, self.stage, self.leases, self.say)
        with closing(decoding), turns:
            for turn in turns.all(by_date):
                if turn.is_late:
                    self.deployment.restore(self.stage)
                report = self._run_date(turn, by_date[turn.date], encoder)
                reports[turn.date] = report
                if report.statuses:
                    self.deployment.publish(self.stage)
                turn.end()
        if not any(report.statuses for report in reports.values()):
            self.deployment.publish(self.stage)  # what a run that was killed could not
        return {date: reports[date] for date in by_date}

    def _before_use(self, encoder: Encoder) -> None:
        if encoder.equivalence is not None:
            self.say(encoder.equivalence.sentence())
        deadline = self.options.item_deadline_seconds
        Adoption(self.deployment, self.modality, deadline, self.say)(encoder)

    def _run_date(self, turn: Turn, index: pa.Table, encoder: EncoderOnDemand) -> StageReport:
        report = StageReport(self.stage, turn.date, considered=index.num_rows)
        rows = self.delta(index, encoder, report)
        if not rows:
            return report
        unrecorded = Unrecorded("a run of the date with verify_objects: true compares them")
        work = Work(
            self.deployment,
            self.modality,
            encoder,
            self.options,
            self.machine,
            self.device,
            len(rows),
            Meters(decoding=lambda: encoder.decoding.cpu_seconds),
        )
        engine = self.engine(work)
        flow = EmbeddingFlow(work, engine, may_store=turn.lease.check, unrecorded=unrecorded)
        progress = Progress(
            f"{self.modality} {turn.date}", len(rows), self.say, stages=work.meters.counts
        )
        opening = encoder.opening_seconds
        with unrecorded.named():
            self._work(
                flow, self._clips(index, rows), report, progress, turn.lease, unrecorded.settle
            )
        report.seconds = progress.seconds
        opening = encoder.opening_seconds - opening
        report.roofline = roofline(
            work.meters.uses(), engine.plan, progress.done, report.seconds - opening
        )
        report.engine = engine.note
        if version := encoder.version_if_known:
            report.version = version.id
        if opened := encoder.if_opened:
            report.computed = opened.note
            report.equivalence = opened.equivalence.sentence() if opened.equivalence else ""
        return report

    def _clips(self, index: pa.Table, rows: Iterable[int]) -> Iterator[Clip]:
        """Rows of the index, with how the clips stand, read a bounded number at a time."""
        for numbers in batched(rows, _ROWS_AT_ONCE):
            found = index.take(pa.array(numbers)).to_pylist()
            ids = [row["video_id"] for row in found]
            previous = self.deployment.ledger.rows(self.stage, ids)
            for row in found:
                yield Clip(
                    row["video_id"],
                    row["source_hash"],
                    row["captured_at"],
                    {name: row[name] or "" for name in TEMPLATE_FIELDS},
                    previous.get(row["video_id"]),
                )

    def delta(self, index: pa.Table, encoder: EncoderOnDemand, report: StageReport) -> "array[int]":
        """The rows with work left, counted by reason in `report`.

        Their numbers alone are kept: a date may have very many.
        """
        terminal = statuses.EMBEDDING_TERMINAL
        if self.options.retry_terminal:
            terminal = terminal - {statuses.FAIL_TERMINAL}
        adopted = self.deployment.models_lock().adopted()
        rows = array("q")
        numbered = enumerate(self._clips(index, range(index.num_rows)))
        for some in batched(numbered, _ROWS_AT_ONCE):
            reasons: dict[str, str] = {}
            settled: dict[str, Item] = {}
            for _, clip in some:
                if rules.is_forgotten(clip.before):
                    report.totals["forgotten"] += 1
                    continue
                if rules.is_outdated(clip.before, clip.captured_at):
                    report.totals["outdated_index_rows"] += 1
                    continue
                reason = rules.delta_reason(clip.before, clip.source_hash, terminal)
                if reason is not None:
                    reasons[clip.video_id] = reason
                elif clip.before is not None:
                    settled[clip.video_id] = clip.before
            if self.options.verify_objects:
                reasons |= self._lost_objects(settled)
            reasons |= self._other_versions(settled, adopted, encoder)
            for video_id, reason in reasons.items():
                report.take_up(video_id, reason)
            rows.extend(number for number, clip in some if clip.video_id in reasons)
        return rows

    def _other_versions(
        self,
        settled: Mapping[str, Item],
        adopted: Mapping[Modality, str],
        encoder: EncoderOnDemand,
    ) -> dict[str, str]:
        """Which of the settled clips another encoder made.

        Vectors of an older deployment have no version. Until they are adopted they are no reason
        to do anything: the encoder that adopts them is then theirs, see `Adoption`.
        """
        versions = {
            video_id: resolve(item.version, self.modality, adopted)
            for video_id, item in settled.items()
        }
        if set(versions.values()) <= {UNVERSIONED}:
            return {}
        same = {UNVERSIONED, encoder.version.id}
        return {i: "version_changed" for i, version in versions.items() if version not in same}

    def _lost_objects(self, settled: Mapping[str, Item]) -> dict[str, str]:
        """Which of the settled clips' vectors are gone, or are not what was recorded."""
        keys = {
            self.deployment.layout.embedding(self.modality, video_id): item
            for video_id, item in settled.items()
            if item.status == statuses.SUCCESS
        }
        lost = {}
        for key, data in self.deployment.store.get_many(keys):
            item = keys[key]
            if isinstance(data, FileNotFoundError):
                lost[item.video_id] = "object_missing"
            elif item.content_sha256 not in {None, hashlib.sha256(data).hexdigest()}:
                lost[item.video_id] = "object_differs"
        return lost

    def _work(
        self,
        flow: EmbeddingFlow,
        clips: Iterable[Clip],
        report: StageReport,
        progress: Progress,
        lease: Lease,
        settle: Callable[[Iterable[str | None]], None],
    ) -> None:
        """Embed the clips and commit what becomes of them, a batch at a time.

        `settle` is told the keys of what is on record.
        """
        streak = FailureStreak(self.modality)
        pending: list[Outcome] = []

        def commit() -> None:
            outcomes = pending.copy()
            pending.clear()  # first: they are not tried again if the ledger is what fails
            items = [outcome.item for outcome in outcomes]
            self.deployment.ledger.commit(self.stage, items, lease=lease)
            settle(item.artifact_key for item in items)
            for outcome in outcomes:
                _count(outcome, report)
                if outcome.stored:
                    flow.unsettled.settle(1)
            if outcomes:
                progress.step(len(outcomes))

        try:
            # Closed here and now: what is raised below keeps this frame, and its threads, alive.
            with closing(flow.outcomes(clips)) as outcomes:
                for outcome in outcomes:
                    if not outcome.stored:
                        flow.unsettled.settle(1)
                    pending += streak.admit(outcome)
                    if len(pending) >= self.options.batch_size:
                        commit()
                    progress.tick()
            pending += streak.release()
        except Exception:
            commit()  # what was embedded until then stays embedded
            raise
        commit()


def _count(outcome: Outcome, report: StageReport) -> None:
    item = outcome.item
    report.count(item.video_id, item.status, item.error)
    for name, value in outcome.notes.items():
        if isinstance(value, (bool, int)):
            report.totals[name] += int(value)
