"""The fusion model of a label: fitted on two experts, calibrated on val, published as a snapshot.

A model is named by its inputs, see `meme_snapshot`: the same inputs are not fitted twice. A fit
that was killed, after whichever epoch or artifact, goes on and ends in the same bytes.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.pipelines.memes.expert_store import ExpertRecord
from clipfarm_assets.pipelines.memes.fusion_rows import FITTED, FusionRows, open_rows
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.storage.meme_layout import EXPERT_MODALITIES, ExpertModality, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training import snapshot
from clipfarm_assets.training.artifacts import json_bytes
from clipfarm_assets.training.classification.calibrated import Calibration
from clipfarm_assets.training.classification.metrics import classification_metrics
from clipfarm_assets.training.environment import git_sha, package_versions
from clipfarm_assets.training.meme_config import MemeFusionConfig
from clipfarm_assets.training.meme_snapshot import (
    FusionId,
    FusionSnapshot,
    NoMemeModel,
    mirror,
    open_fusion,
)

if TYPE_CHECKING:
    from clipfarm_assets.training.experts.fusion_head import FusionModel
    from clipfarm_assets.training.networks.fit import Batches, Checkpoint, Curve

METRICS: Final = "metrics.json"
CURVES: Final = "curves.json"
CALIBRATION: Final = "calibration.json"

_CHECKPOINT: Final = "checkpoint.safetensors"


class OtherExperts(ValueError):  # noqa: N818
    """A fusion model was fitted on other experts than there are now."""


@dataclass(frozen=True)
class FusionReport:
    """What became of a fusion model.

    Attributes:
        id: Which one.
        manifest: Of its snapshot.
        reused: Whether it was there already, made of the same.
        experts: Modality -> what it is called, stand-ins named as such.
        rows: Split -> name of the class -> rows that were used.
        unlabelled: Split -> rows without the label.
        metrics: ``metrics.json``.
        curve: ``curves.json``, of the network ``fusion``.
        calibration: ``calibration.json``.
        notes: What of it is to be taken with care.
        resumed_after: Epochs that a killed run had done before.
        discarded: Checkpoints that were of no use.
        seconds: Wall time.
    """

    id: FusionId
    manifest: snapshot.Manifest
    reused: bool
    experts: Mapping[str, str]
    rows: Mapping[Split, Mapping[str, int]]
    unlabelled: Mapping[Split, int]
    metrics: Mapping[str, Any]
    curve: Mapping[str, Any]
    calibration: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    resumed_after: int = 0
    discarded: int = 0
    seconds: float = 0.0

    @property
    def loss_falls(self) -> bool | None:
        """Whether the last epoch's mean train loss is below the first one's; None of one epoch."""
        losses = self.curve["train_loss"]
        return bool(losses[-1] < losses[0]) if len(losses) > 1 else None


def train_fusion(
    store: ObjectStore,
    layout: MemeLayout,
    label: str,
    config: MemeFusionConfig | None = None,
    say: Say = silent,
    *,
    cache_dir: Path | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FusionReport:
    """Fit and publish the fusion model of a label, unless it is there, made of the same.

    Frozen experts are seen through their stored features; experts that are trained along see the
    shards. Either is streamed.

    Args:
        store: Where shards, experts and features are, and the model goes to.
        layout: Where there.
        label: What it is to tell the class of.
        config: Settings.
        say: Told how far it is.
        cache_dir: Folder for experts' files on this machine; by default one of the moment.
        clock: Gives the snapshot's ``created_at``.

    Raises:
        NoExpert, UnfinishedExpert: An expert is missing.
        OtherShards: An expert was fitted on other shards of these splits.
        NoShards, NoLabelledRows: There is nothing to fit or to stop on.
        ValueError: Binary cross entropy is asked for, of more than two classes.
        LoraUnavailable, NoLayers: See `learning_encoders`.
        Diverged: The fit's loss became infinite or NaN.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        if cache_dir is None:
            cache_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = _Run(store, layout, label, config or MemeFusionConfig(), say, cache_dir, clock)
        return run.report(started)


def load_fusion(
    store: ObjectStore,
    layout: MemeLayout,
    found: FusionSnapshot,
    cache_dir: Path,
    records: Mapping[ExpertModality, ExpertRecord],
) -> "FusionModel":
    """A published fusion model, ready for use.

    Args:
        store: Where its experts are.
        layout: Where there.
        found: Its snapshot.
        cache_dir: Folder for experts' files on this machine.
        records: Of the experts that it is to be used with; those very ones are loaded.

    Raises:
        OtherExperts: It was fitted on others.
        BadSnapshot, BadWeights: Its files are not what was published.
    """
    from clipfarm_assets.training.experts.fusion_encoders import learning_encoders
    from clipfarm_assets.training.experts.fusion_head import (
        ARCHITECTURE,
        FusionArchitecture,
        FusionModel,
    )

    architecture = FusionArchitecture.read(found.read(ARCHITECTURE))
    for name, each in architecture.inputs.items():
        if records[name].version != each.expert:
            msg = (
                f"fusion model {found.id} was fitted on the {name} expert {each.expert}, and there "
                f"is {records[name].version} now: materialise memes/fusion_model for partition "
                f"{architecture.label!r} again"
            )
            raise OtherExperts(msg)
        if records[name].classes != architecture.classes:
            msg = (
                f"fusion model {found.id} tells {', '.join(architecture.classes)}, and the {name} "
                f"expert {', '.join(records[name].classes)}: materialise memes/fusion_model for "
                f"partition {architecture.label!r} again"
            )
            raise OtherExperts(msg)

    def encoders(architecture: FusionArchitecture) -> Mapping[str, Any]:
        experts = _load_experts(store, layout, records, cache_dir)
        return learning_encoders(architecture, experts, 0)

    return FusionModel.load(found.read, encoders)


@dataclass(frozen=True)
class _Run:
    """One call of `train_fusion`."""

    store: ObjectStore
    layout: MemeLayout
    label: str
    config: MemeFusionConfig
    say: Say
    cache_dir: Path
    clock: Callable[[], datetime]

    def report(self, started: float) -> FusionReport:
        """Find the model, or make it."""
        rows = open_rows(self.store, self.layout, self.label, FITTED, self.cache_dir, self.say)
        used = self._config_used(rows)
        model_id = FusionId(self.label, snapshot.data_version(used))
        curve = None
        with suppress(snapshot.SnapshotExists):  # then what a killed run left staged is removed
            snapshot.check_free(self.store, self.layout, model_id)
        try:
            found = open_fusion(self.store, self.layout, self.label, model_id.version)
            self.say(f"fusion model {model_id}: made of the same already, so it stays")
        except NoMemeModel:
            found, curve = self._make(model_id, json_bytes(used), rows, started)
        mirror(found)
        notes = self._notes()
        for note in notes:
            self.say(note)
        return FusionReport(
            id=model_id,
            manifest=found.manifest,
            reused=curve is None,
            experts=rows.titles,
            rows={split: rows.counts_by_name(split) for split in FITTED},
            unlabelled={split: rows.unlabelled(split) for split in FITTED},
            metrics=found.json(METRICS),
            curve=found.json(CURVES)["fusion"],
            calibration=found.json(CALIBRATION),
            notes=notes,
            resumed_after=curve.resumed_after if curve else 0,
            discarded=curve.discarded if curve else 0,
            seconds=time.perf_counter() - started,
        )

    def _notes(self) -> tuple[str, ...]:
        return tuple(
            f"the {name} expert's logits are not cross-fit: of rows of train that the expert was "
            "fitted on it is too sure, and fusion trusts it too much; prefer its hidden states"
            for name, kind in self.config.representations.items()
            if kind == "logits"
        )

    def _config_used(self, rows: FusionRows) -> dict[str, Any]:
        """What ``config_used.json`` says: all that the model depends on."""
        return {
            "model": "mm_fusion",
            "label": self.label,
            "classes": list(rows.classes),
            "settings": self.config.model_dump(mode="json"),
            "experts": {
                name: {
                    "version": record.version,
                    "name": record.name,
                    "is_stand_in": record.is_stand_in,
                }
                for name, record in rows.records.items()
            },
            "shards": {split: rows.indices[split].version for split in FITTED},
            "git_sha": git_sha(),
            "versions": package_versions(),
        }

    def _make(
        self, model_id: FusionId, used: bytes, rows: FusionRows, started: float
    ) -> "tuple[FusionSnapshot, Curve]":
        """Fit, calibrate, publish."""
        from clipfarm_assets.training.networks.fit import StoredCheckpoint

        rows.check_labelled()
        snapshot.check_free(self.store, self.layout, model_id, used)
        key = f"{model_id.staging(self.layout)}{_CHECKPOINT}"
        model, curve = self._fit(rows, StoredCheckpoint(self.store, key))
        logits = rows.fused("val", model)
        labels = rows.without_hidden("val").labels
        calibration = Calibration.fit(logits, labels)
        values = calibration.probabilities(logits)
        metrics = {
            "val": classification_metrics(labels, values, calibration.cut),
            "rows": {split: rows.counts_by_name(split) for split in FITTED},
            "unlabelled": {split: rows.unlabelled(split) for split in FITTED},
            "notes": list(self._notes()),
        }
        artifacts = {
            **model.artifacts(),
            snapshot.CONFIG: used,
            METRICS: json_bytes(metrics),
            CURVES: json_bytes({"fusion": curve.to_fields()}),
            CALIBRATION: json_bytes(calibration.to_fields()),
        }
        facts = {
            "seconds": round(time.perf_counter() - started, 3),
            "resumed_after": curve.resumed_after,
        }
        try:
            snapshot.publish(self.store, self.layout, model_id, artifacts, facts, self.clock)
        except snapshot.SnapshotExists:
            self.say(f"fusion model {model_id}: another run was faster, with the same inputs")
        return open_fusion(self.store, self.layout, self.label, model_id.version), curve

    def _fit(self, rows: FusionRows, checkpoint: "Checkpoint") -> "tuple[FusionModel, Curve]":
        from clipfarm_assets.training.experts import fusion_encoders, fusion_head

        config = self.config
        representations = config.representations
        widths = {
            name: record.dim if representations[name] == "hidden" else len(record.classes)
            for name, record in rows.records.items()
        }
        versions = {name: record.version for name, record in rows.records.items()}
        architecture = fusion_head.architecture_of(
            config, self.label, rows.classes, versions, widths
        )
        train: Batches
        val: Batches
        extra: dict[str, Any] = {}
        if config.are_experts_frozen:
            network = fusion_head.build_network(architecture, config.seed)
            train, val = (rows.stored_batches(s, config, representations) for s in FITTED)
        else:
            experts = _load_experts(self.store, self.layout, rows.records, self.cache_dir)
            encoders = fusion_encoders.learning_encoders(architecture, experts, config.seed)
            network = fusion_head.build_network(architecture, config.seed, encoders)
            train, val = (rows.sample_batches(s, config, experts) for s in FITTED)
            groups = fusion_encoders.expert_groups(experts, config.expert_learning_rate)
            extra = {"groups": groups, "clip_norm": _CLIP_NORM}
        curve = fusion_head.fit_fusion(
            network,
            train,
            val,
            rows.counts("train"),
            config,
            checkpoint=checkpoint,
            say=self.say,
            **extra,
        )
        return fusion_head.FusionModel(architecture, network), curve


_CLIP_NORM: Final = 1.0
"""Longest gradient where experts are trained along: a fresh head's would otherwise spoil them."""


def _load_experts(
    store: ObjectStore,
    layout: MemeLayout,
    records: Mapping[ExpertModality, ExpertRecord],
    cache_dir: Path,
) -> dict[Any, Any]:
    from clipfarm_assets.pipelines.memes.experts import load_expert

    return {
        modality: load_expert(store, layout, records[modality], cache_dir)
        for modality in EXPERT_MODALITIES
    }
