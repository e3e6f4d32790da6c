"""Models of songs: fitted on the segments of train, calibrated on val, published as snapshots.

A model is a fusion strategy, or one modality alone, which fusion is compared with. It is named by
its inputs, see `song_snapshot`: the same inputs are not fitted twice. A fit that was killed, after
whichever epoch or artifact, goes on and ends in the same bytes.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.encoders.models import Profile
from clipfarm_assets.fusion.options import StrategyName
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.songs.fusion_rows import FITTED, SongRows, open_rows
from clipfarm_assets.pipelines.songs.inputs import CHANGES_VERSION
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training import snapshot
from clipfarm_assets.training.artifacts import json_bytes
from clipfarm_assets.training.classification.calibrated import Calibration
from clipfarm_assets.training.classification.metrics import classification_metrics
from clipfarm_assets.training.environment import git_sha, package_versions
from clipfarm_assets.training.song_config import NOT_OF_A_MODEL, SongConfig
from clipfarm_assets.training.song_snapshot import (
    NoSongModel,
    SongModelId,
    SongSnapshot,
    mirror,
    open_song_model,
)

if TYPE_CHECKING:
    from clipfarm_assets.training.songs.fit import Fitted
    from clipfarm_assets.training.songs.model import SongModel

METRICS: Final = "metrics.json"
CURVES: Final = "curves.json"
CALIBRATION: Final = "calibration.json"
GRADIENTS: Final = "gradients.json"
GRADIENTS_CSV: Final = "gradients.csv"

_CHECKPOINT: Final = "checkpoint.safetensors"
# What tokens, pretrained encoders, stretched and resampled waveforms are made by.
_MORE_PACKAGES: Final = ("librosa", "soxr", "tokenizers", "transformers")


@dataclass(frozen=True)
class FusionReport:
    """What became of a model of songs.

    Attributes:
        id: Which one.
        manifest: Of its snapshot.
        reused: Whether it was there already, made of the same.
        rows: Split -> name of the class -> segments that were used.
        present: Split -> modality -> those of them that have it.
        left_out: Why -> segments that no model sees.
        problems: Kind -> what was wrong with media of train and val, how often; a segment once.
        metrics: ``metrics.json``.
        curve: ``curves.json``, of this model.
        gradients: ``gradients.json``: norms by modality and epoch, and advice where one modality's
            were much larger than another's.
        calibration: ``calibration.json``.
        encoders: Modality -> what it is encoded by.
        resumed_after: Epochs of the fusion that a killed run had done before.
        discarded: Checkpoints that were of no use.
        seconds: Wall time.
    """

    id: SongModelId
    manifest: snapshot.Manifest
    reused: bool
    rows: Mapping[Split, Mapping[str, int]]
    present: Mapping[Split, Mapping[str, int]]
    left_out: Mapping[str, int]
    problems: Mapping[str, int]
    metrics: Mapping[str, Any]
    curve: Mapping[str, Any]
    gradients: Mapping[str, Any]
    calibration: Mapping[str, Any]
    encoders: Mapping[str, str]
    resumed_after: int = 0
    discarded: int = 0
    seconds: float = 0.0

    @property
    def loss_falls(self) -> bool | None:
        """Whether the last epoch's mean train loss is below the first one's; None of one epoch."""
        losses = self.curve["train_loss"]
        return bool(losses[-1] < losses[0]) if len(losses) > 1 else None

    @property
    def advice(self) -> tuple[str, ...]:
        """What gradients out of balance suggest, an epoch each."""
        return tuple(f"epoch {n}: {told}" for n, told in self.gradients["advice"].items())


def train_fusion(
    store: ObjectStore,
    layout: SongLayout,
    strategy: StrategyName,
    config: SongConfig | None = None,
    say: Say = silent,
    *,
    warn: Say | None = None,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    shared: dict[str, bytes] | None = None,
) -> FusionReport:
    """Fit and publish the fusion model of a strategy, unless it is there, made of the same.

    Args:
        store: Where segments and features are, and the model goes to.
        layout: Where there.
        strategy: In place of the configuration's.
        config: Settings.
        say: Told how far it is.
        warn: Told, after every epoch, of gradients out of balance, with advice; `say` by default.
        cache_dir: Folder for pretrained encoders' files on this machine.
        profile: Whose encoders are taken where none is named; by default the environment's.
        clock: Gives the snapshot's ``created_at``.
        shared: `Trainer.warm_starts`, for strategies that are fitted one after the other.

    Raises:
        NoSegments, NoSongSplits: There is nothing to fit.
        NoLabelledSegments: Train, val or a class of train has no labelled segments.
        ModelUnavailable: A pretrained encoder is missing.
        Diverged: The fit's loss became infinite or NaN.
    """
    started = time.perf_counter()
    config = config or SongConfig()
    with ExitStack() as stack:
        if cache_dir is None:
            cache_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = open_rows(store, layout, config, say, cache_dir=cache_dir, profile=profile)
        trainer = Trainer(rows, config, say, warn or say, clock, {} if shared is None else shared)
        return trainer.report(strategy, started)


@dataclass(frozen=True)
class Trainer:
    """Makes models.

    Attributes:
        rows: What they are fitted on.
        config: How.
        say: Told how far it is.
        warn: Told of gradients out of balance.
        clock: Gives the snapshots' ``created_at``.
        warm_starts: What single modalities reached by themselves, which strategies share; it grows.
    """

    rows: SongRows
    config: SongConfig
    say: Say
    warn: Say
    clock: Callable[[], datetime]
    warm_starts: dict[str, bytes] = field(default_factory=dict)

    def without_modality_dropout(self) -> Self:
        """One that fits without it, on the same rows."""
        training = self.config.training.model_copy(update={"modality_dropout": 0.0})
        return replace(self, config=self.config.model_copy(update={"training": training}))

    def report(self, name: str, started: float) -> FusionReport:
        """Find the model of this name, or make it; its files go to the keys that people know.

        Args:
            name: A strategy, or one modality alone.
            started: When, by `time.perf_counter`.
        """
        found, fitted = self.find_or_make(name)
        mirror(found)
        metrics = found.json(METRICS)
        return FusionReport(
            id=found.id,
            manifest=found.manifest,
            reused=fitted is None,
            rows=metrics["rows"],
            present=metrics["present"],
            left_out=metrics["left_out"],
            problems=metrics["problems"],
            metrics=metrics,
            curve=found.json(CURVES)[name],
            gradients=found.json(GRADIENTS),
            calibration=found.json(CALIBRATION),
            encoders=found.json(snapshot.CONFIG)["encoders"],
            resumed_after=fitted.resumed_after if fitted else 0,
            discarded=fitted.discarded if fitted else 0,
            seconds=time.perf_counter() - started,
        )

    def find_or_make(self, name: str) -> "tuple[SongSnapshot, Fitted | None]":
        """The model of this name, and how it was fitted, if that is now.

        Args:
            name: A strategy, or one modality alone.
        """
        self.rows.check_labelled()
        model = self.rows.build(name, self.config)
        used = self._config_used(model)
        model_id = SongModelId(name, snapshot.data_version(used))
        store, layout = self.rows.store, self.rows.layout
        with suppress(snapshot.SnapshotExists):  # then what a killed run left staged is removed
            snapshot.check_free(store, layout, model_id)
        try:
            found = open_song_model(store, layout, name, model_id.version)
        except NoSongModel:
            return self._make(model, model_id, json_bytes(used))
        self.say(f"song model {model_id}: made of the same already, so it stays")
        return found, None

    def _config_used(self, model: "SongModel") -> dict[str, Any]:
        """What ``config_used.json`` says: all that the model depends on."""
        from clipfarm_assets.training.networks.fit_state import network_identity

        return {
            "model": model.name,
            "classes": list(model.classes),
            "settings": model.config.model_dump(mode="json", exclude=NOT_OF_A_MODEL),
            "segments": {split: self.rows.identity(split) for split in FITTED},
            "row_groups": {"train": self.rows.grouping("train")},
            "changes": CHANGES_VERSION,
            "encoders": dict(self.rows.encoder_titles),
            # Drawn by the seed, or pretrained: whatever weights it begins with.
            "network": network_identity(model.network),
            "git_sha": git_sha(),
            "versions": package_versions(*_MORE_PACKAGES),
        }

    def _make(
        self, model: "SongModel", model_id: SongModelId, used: bytes
    ) -> "tuple[SongSnapshot, Fitted]":
        """Fit, calibrate, publish."""
        from clipfarm_assets.training.networks.checkpoint import SharedCheckpoint, StoredCheckpoint
        from clipfarm_assets.training.songs.evaluation import said_of
        from clipfarm_assets.training.songs.fit import fit_network

        started = time.perf_counter()
        rows, store, layout = self.rows, self.rows.store, self.rows.layout
        snapshot.check_free(store, layout, model_id, used)
        rates = {str(name): rate for name, rate in model.config.encoder_rates().items()}
        staging = model_id.staging(layout)
        fitted = fit_network(
            model.network,
            rows.batches("train", model.name),
            rows.batches("val", model.name),
            rows.counts("train"),
            model.config.training,
            rates,
            name=model.name,
            checkpoint=StoredCheckpoint(store, staging + _CHECKPOINT),
            say=self.say,
            warn=self.warn,
            warm_checkpoints={
                modality: SharedCheckpoint(
                    StoredCheckpoint(store, f"{staging}{modality}_{_CHECKPOINT}"),
                    self.warm_starts,
                    modality,
                )
                for modality in model.network.modalities
            },
        )
        everything = model.network.modalities
        said = said_of(model.network, rows.batches("val", model.name), [everything])
        logits = said.logits[everything]
        calibration = Calibration.fit(logits, said.labels)
        values = calibration.probabilities(logits)
        surveys = rows.surveys
        problems = sum((Counter(each.problems) for each in surveys.values()), Counter[str]())
        metrics = {
            "val": classification_metrics(said.labels, values, calibration.cut),
            "warm_start": fitted.warm_scores(),
            "rows": {split: rows.counts_by_name(split) for split in FITTED},
            "present": {split: dict(survey.present) for split, survey in surveys.items()},
            "left_out": rows.left_out(),
            "problems": dict(sorted(problems.items())),
        }
        artifacts = {
            **model.artifacts(),
            snapshot.CONFIG: used,
            METRICS: json_bytes(metrics),
            CURVES: json_bytes({model.name: fitted.to_fields()}),
            CALIBRATION: json_bytes(calibration.to_fields()),
            GRADIENTS: json_bytes(fitted.gradients.to_fields()),
            GRADIENTS_CSV: fitted.gradients.to_csv().encode(),
        }
        facts = {
            "seconds": round(time.perf_counter() - started, 3),
            "resumed_after": fitted.resumed_after,
        }
        try:
            snapshot.publish(store, layout, model_id, artifacts, facts, self.clock)
        except snapshot.SnapshotExists:
            self.say(f"song model {model_id}: another run was faster, with the same inputs")
        return open_song_model(store, layout, model.name, model_id.version), fitted
