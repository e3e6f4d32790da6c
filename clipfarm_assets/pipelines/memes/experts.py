"""The experts of memes: supplied by name, found in the store, or fine-tuned from the shards."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipfarm_assets.contracts.label_taxonomy import LabelTaxonomy
from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.models import ModelUnavailable, ResolvedModel, resolved_directory
from clipfarm_assets.pipelines.memes.expert_fit import (
    LabelledShards,
    base_model,
    fit_expert,
    named_model,
    start_expert,
)
from clipfarm_assets.pipelines.memes.expert_store import (
    RECORD,
    ExpertRecord,
    ModelSource,
    Origin,
    damaged_files,
    damaged_version,
    expert_folder,
    expert_record,
    fetch_files,
    found_files,
    publish_expert,
    remedy,
    stored_record,
)
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.storage.meme_layout import ExpertModality, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.expert_config import (
    ExpertConfig,
    ImageRepresentation,
    TextRepresentation,
)

if TYPE_CHECKING:
    import torch

    from clipfarm_assets.training.experts.text import TextExpert
    from clipfarm_assets.training.experts.vision import VisionExpert

_RECIPE: Final = 1
"""Raise it where the same settings and shards come to give another expert."""


@dataclass(frozen=True)
class ExpertReport:
    """What became of an expert.

    Attributes:
        record: What is known of it.
        reused: Whether it was there already, made of the same.
    """

    record: ExpertRecord
    reused: bool


def train_expert(
    store: ObjectStore,
    layout: MemeLayout,
    modality: ExpertModality,
    label: str,
    config: ExpertConfig,
    say: Say = silent,
) -> ExpertReport:
    """Put the expert of a label into the store, unless it is there, made of the same.

    The first of these that there is: the finished model that ``config.model`` or the environment
    names; a model directory that somebody put where the expert belongs, without ``expert.json``;
    ``config.base``, or the profile's base, fine-tuned on train and stopped on val. The same
    shards, settings and base give the same bytes; a fit that was killed goes on where it was. A hub
    model that is named without a revision stays at the commit it was first found at.

    Args:
        store: Where shards are and the expert goes to.
        layout: Where there.
        modality: Which expert.
        label: What it is to tell the class of.
        config: Settings.
        say: Told how far it is.

    Raises:
        ModelUnavailable: The model cannot be found, downloaded or loaded.
        WrongClasses: A finished model tells other classes.
        NoShards: There are no shards to fine-tune on.
        NoLabelledRows: Train or val has no rows of the label.
        LoraUnavailable: Low-rank updates are wanted, and ``peft`` is not installed.
        Diverged: The fit's loss became infinite or NaN.
        ModelMismatch: A directory that was taken as it was has been changed since.
    """
    key = layout.label_taxonomy()
    classes = LabelTaxonomy.from_json(store.get(key), key).classes(label)
    before = stored_record(store, layout.expert(modality, label))
    return _Maker(store, layout, modality, label, config, classes, before, say).make()


def open_expert(
    store: ObjectStore,
    layout: MemeLayout,
    modality: ExpertModality,
    label: str,
    cache_dir: Path,
    device: "torch.device | str" = "cpu",
) -> "TextExpert | VisionExpert":
    """Load the expert of a label.

    Args:
        store: Where it is.
        layout: Where there.
        modality: Which expert.
        label: Of what.
        cache_dir: Folder for its files on this machine; made if absent.
        device: Where it runs.

    Raises:
        NoExpert: There is none yet.
        UnfinishedExpert: Its files are being written.
        ModelMismatch: Its files are not those on record.
        ModelUnavailable: They cannot be loaded.
    """
    return load_expert(
        store, layout, expert_record(store, layout, modality, label), cache_dir, device
    )


def load_expert(
    store: ObjectStore,
    layout: MemeLayout,
    record: ExpertRecord,
    cache_dir: Path,
    device: "torch.device | str" = "cpu",
) -> "TextExpert | VisionExpert":
    """Load the very expert of a record, whatever there is by now.

    Args:
        store: Where it is.
        layout: Where there.
        record: As it was read before.
        cache_dir: Folder for its files on this machine; made if absent.
        device: Where it runs.

    Raises:
        ModelMismatch: Its files are not those on record.
        ModelUnavailable: They cannot be loaded.
    """
    folder = expert_folder(store, layout, record, cache_dir)
    return _load(record.representation, folder, record.name, device)


@dataclass(frozen=True)
class _Maker:
    """One call of `train_expert`."""

    store: ObjectStore
    layout: MemeLayout
    modality: ExpertModality
    label: str
    config: ExpertConfig
    classes: tuple[str, ...]
    before: ExpertRecord | None
    say: Say

    @property
    def root(self) -> str:
        return self.layout.expert(self.modality, self.label)

    @property
    def representation(self) -> TextRepresentation | ImageRepresentation:
        return self.config.text if self.modality == "text" else self.config.image

    @property
    def source(self) -> ModelSource | None:
        return None if self.before is None else self.before.source

    def make(self) -> ExpertReport:
        if (named := named_model(self.modality, self.config, self.source)) is not None:
            return self._finished(named, "supplied")
        names = self._found()
        if not names:
            return self._fine_tuned()
        self._say(f"the model directory at {self.root} is taken as it is")
        with tempfile.TemporaryDirectory(prefix="clipfarm-expert-") as folder:
            fetch_files(self.store, self.root, names, Path(folder))
            found = resolved_directory(Path(folder), f"{self.modality}_expert")
            return self._finished(found, "found")

    def _found(self) -> list[str]:
        """Files of a model directory that somebody put there.

        Raises:
            ModelMismatch: They are not those that were taken before: damaged, or meant as another.
        """
        before = self.before
        if before is None:
            return found_files(self.store, self.root)
        if before.origin != "found":
            return []
        if damaged := damaged_files(self.store, self.root, before):
            told = "; ".join(f"{key} {problem}" for key, problem in damaged.items())
            msg = f"the model directory at {self.root}: {told}; {remedy(before)}"
            raise ModelMismatch(msg)
        return list(before.hashes or before.files)

    def _finished(self, resolved: ResolvedModel, origin: Origin) -> ExpertReport:
        """Take a finished model as it is."""
        from clipfarm_assets.training.experts.loading import check_classes
        from clipfarm_assets.training.experts.saving import read_model_files

        if (resolved.path / RECORD).exists():
            msg = (
                f"{resolved.path} is an expert of a store, fitted on memes of its own as its "
                f"{RECORD} says: to use it here as it is, name a copy without that file"
            )
            raise ModelUnavailable(msg)
        source = _source(resolved)
        names = self.config.class_names
        made_of = self._made_of(
            {"origin": origin, "source": source.model_dump(), "class_names": names}
        )
        if (there := self._there(made_of)) is not None:
            return there
        expert = _load(self.representation, resolved.path, resolved.name)
        check_classes(expert.classes, self.classes, resolved.name, names)
        record = self._record(resolved, source, origin, made_of, expert.dim)
        return self._publish(record, read_model_files(resolved.path))

    def _fine_tuned(self) -> ExpertReport:
        """Fine-tune the base."""
        from clipfarm_assets.training.experts.saving import saved
        from clipfarm_assets.training.networks.fit import StoredCheckpoint

        train, val = (
            LabelledShards.open(self.store, self.layout, split, self.label, self.classes)
            for split in ("train", "val")
        )
        with tempfile.TemporaryDirectory(prefix="clipfarm-expert-") as name:
            base = base_model(self.modality, self.config, self.source, train, Path(name))
            source = _source(base)
            decided_by = self.config.model_dump(mode="json", exclude=_ELSEWHERE)
            shards = {"train": train.index.version, "val": val.index.version}
            made_of = self._made_of(
                {"source": source.model_dump(), "shards": shards, "config": decided_by}
            )
            if (there := self._there(made_of)) is not None:
                return there
            key = f"{self.layout.prefix}/state/checkpoints/label={self.label}"
            checkpoint = StoredCheckpoint(self.store, f"{key}/{self.modality}_expert.safetensors")
            expert = start_expert(self.modality, self.config, base, self.classes)
            curve = fit_expert(expert, train, val, self.config, checkpoint, self.say)
            files = saved(expert)
            folder = Path(name) / "made"
            _write(folder, files)
            record = self._record(
                resolved_directory(folder, f"{base.name}-fine-tuned"),
                source,
                "fine_tuned",
                made_of,
                expert.dim,
            )
        rows = {
            "train": train.rows,
            "val": val.rows,
            "train_unlabelled": train.unlabelled,
            "val_unlabelled": val.unlabelled,
        }
        fitted = {"shards": shards, "rows": rows, "curve": curve.to_fields()}
        report = self._publish(record.model_copy(update=fitted), files)
        checkpoint.clear()
        return report

    def _made_of(self, parts: Mapping[str, Any]) -> str:
        fields = {
            "recipe": _RECIPE,
            "classes": list(self.classes),
            "representation": self.representation.model_dump(mode="json"),
            **parts,
        }
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _there(self, made_of: str) -> ExpertReport | None:
        """The expert that is there, if it is whole and made of the same."""
        before = self.before
        if before is None or before.state != "complete" or before.made_of != made_of:
            return None
        if before.hashes.keys() != {*before.files}:
            return None
        damaged = damaged_files(self.store, self.root, before)
        damaged |= damaged_version(self.store, self.root, before)
        if damaged:
            told = "; ".join(f"{key} {problem}" for key, problem in damaged.items())
            self._say(f"it is made again: {told}")
            return None
        self._say("it is there, made of the same")
        return ExpertReport(before, reused=True)

    def _record(
        self,
        resolved: ResolvedModel,
        source: ModelSource,
        origin: Origin,
        made_of: str,
        dim: int,
    ) -> ExpertRecord:
        from clipfarm_assets.training.experts.expert import expert_version

        return ExpertRecord(
            modality=self.modality,
            label=self.label,
            name=resolved.name,
            is_stand_in=resolved.is_stand_in,
            origin=origin,
            source=source,
            weights_sha256=resolved.weights_sha256,
            representation=self.representation,
            classes=self.classes,
            dim=dim,
            version=expert_version(resolved.weights_sha256, self.representation),
            made_of=made_of,
        )

    def _publish(self, record: ExpertRecord, files: Mapping[str, bytes]) -> ExpertReport:
        return ExpertReport(publish_expert(self.store, self.root, record, files), reused=False)

    def _say(self, line: str) -> None:
        self.say(f"{self.modality} expert of {self.label}: {line}")


# Settings that `made_of` has in another form, or that decide nothing of a fit.
_ELSEWHERE: Final = {"model", "class_names", "base", "text", "image"}


def _source(resolved: ResolvedModel) -> ModelSource:
    return ModelSource(
        name=resolved.name,
        revision=resolved.revision,
        weights_sha256=resolved.weights_sha256,
    )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _load(
    representation: TextRepresentation | ImageRepresentation,
    folder: Path,
    name: str,
    device: "torch.device | str" = "cpu",
) -> "TextExpert | VisionExpert":
    from clipfarm_assets.training.experts.text import TextExpert
    from clipfarm_assets.training.experts.vision import VisionExpert

    if isinstance(representation, TextRepresentation):
        return TextExpert.load(folder, device, representation=representation, name=name)
    return VisionExpert.load(folder, device, representation=representation, name=name)
