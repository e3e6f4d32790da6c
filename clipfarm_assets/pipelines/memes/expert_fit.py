"""Fine-tuning an expert on the shards of a label."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.encoders.models import (
    ResolvedModel,
    encoder_profile,
    resolve_reference,
    resolved_directory,
)
from clipfarm_assets.pipelines.memes.expert_store import ModelSource
from clipfarm_assets.pipelines.memes.rows import iter_samples, read_index, refuse_bad_sample
from clipfarm_assets.pipelines.memes.shard_index import ShardIndex
from clipfarm_assets.pipelines.progress import Say
from clipfarm_assets.storage.meme_layout import ExpertModality, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.expert_config import ExpertConfig

if TYPE_CHECKING:
    import torch

    from clipfarm_assets.training.experts.expert import Expert
    from clipfarm_assets.training.experts.finetune import RawRow
    from clipfarm_assets.training.networks.fit import Curve, StoredCheckpoint

MODEL_VARIABLES: Final[Mapping[ExpertModality, str]] = {
    "text": "CLIPFARM_TEXT_EXPERT",
    "vision": "CLIPFARM_VISION_EXPERT",
}
"""Environment variables that name a finished expert: a directory or hub name ``[@revision]``."""

# With commits of the hub's repositories, so that a change there cannot change experts here.
BASES: Final[Mapping[ExpertModality, str]] = {
    "text": "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594",
    "vision": "google/vit-base-patch16-224-in21k@b4569560a39a0f1af58e3ddaf17facf20ab919b0",
}


class NoLabelledRows(ValueError):  # noqa: N818
    """A split has no rows with the label."""


@dataclass(frozen=True)
class LabelledShards:
    """The shards of one split, as those of a label.

    Attributes:
        store: Where they are.
        layout: Where there.
        index: The set.
        label: Which label.
        counts: Rows of each of its classes.
    """

    store: ObjectStore
    layout: MemeLayout
    index: ShardIndex
    label: str
    counts: tuple[int, ...]

    @classmethod
    def open(
        cls,
        store: ObjectStore,
        layout: MemeLayout,
        split: Split,
        label: str,
        classes: tuple[str, ...],
    ) -> "LabelledShards":
        """The split's set of now.

        Raises:
            NoShards: There is none yet.
            OtherClasses: Its numbers stand for others than `classes`.
            NoLabelledRows: It has no rows of the label.
        """
        index = read_index(store, layout, split).naming(label, classes)
        found = index.labels.get(label, {})
        counts = tuple(found.get(number, 0) for number in range(len(classes)))
        if not sum(counts):
            msg = (
                f"{split} has no rows labelled {label!r} among its {index.rows}: label some, and "
                "materialise memes/splits and memes/shards again"
            )
            raise NoLabelledRows(msg)
        return cls(store, layout, index, label, counts)

    @property
    def rows(self) -> int:
        """Rows with the label."""
        return sum(self.counts)

    @property
    def unlabelled(self) -> int:
        """Rows without it."""
        return self.index.rows - self.rows

    def raw_rows(self, raw: str, order: Iterable[int]) -> "Iterator[RawRow]":
        """One field of every labelled sample, and its class.

        Args:
            raw: The field.
            order: Positions of the shards.
        """
        samples = iter_samples(
            self.store,
            self.layout,
            self.index.split,
            on_bad=refuse_bad_sample,
            index=self.index,
            order=list(order),
        )
        for sample in samples:
            number = sample.json["labels"].get(self.label)
            if number is not None:
                yield getattr(sample, raw), int(number)


def named_model(
    modality: ExpertModality, config: ExpertConfig, before: ModelSource | None
) -> ResolvedModel | None:
    """The finished model that config or environment name, if they do.

    Args:
        modality: Of which expert.
        config: May name it.
        before: Where the expert that is there is from: a hub model without a revision stays at the
            commit that it was found at.

    Raises:
        ModelUnavailable: It cannot be found or downloaded.
    """
    if config.model is not None:
        return _resolved(modality, config.model, "the config's `model`", before)
    variable = MODEL_VARIABLES[modality]
    if value := os.environ.get(variable):
        return _resolved(modality, value, variable, before)
    return None


def base_model(
    modality: ExpertModality,
    config: ExpertConfig,
    before: ModelSource | None,
    train: LabelledShards,
    folder: Path,
) -> ResolvedModel:
    """The model to fine-tune: the config's, or the profile's.

    Args:
        modality: Of which expert.
        config: May name it.
        before: As of `named_model`.
        train: A stand-in's words are those of its texts.
        folder: Where a stand-in is built.

    Raises:
        ModelUnavailable: It cannot be found or downloaded.
    """
    if config.base is not None:
        return _resolved(modality, config.base, "the config's `base`", before)
    if encoder_profile() == "pretrained":
        return _resolved(modality, BASES[modality], "the profile's base", before)
    from clipfarm_assets.training.experts.stand_ins import stand_in_text, stand_in_vision

    if modality == "vision":
        path = stand_in_vision(folder)
    else:
        shards = range(len(train.index.shards))
        path = stand_in_text(folder, (text for text, _ in train.raw_rows("txt", shards)))
    return resolved_directory(path, path.name)


def _resolved(
    modality: ExpertModality, value: str, origin: str, before: ModelSource | None
) -> ResolvedModel:
    is_directory = Path(value).expanduser().is_dir()
    if before is not None and before.name == value and not is_directory:
        value = f"{value}@{before.revision}"
    return resolve_reference(value, origin, variable=MODEL_VARIABLES[modality])


def start_expert(
    modality: ExpertModality, config: ExpertConfig, base: ResolvedModel, classes: tuple[str, ...]
) -> "Expert[Any, Any]":
    """The base with a head for `classes`."""
    from clipfarm_assets.training.experts.text import TextExpert
    from clipfarm_assets.training.experts.vision import VisionExpert

    if modality == "text":
        return TextExpert.start(
            base.path, classes, config.seed, representation=config.text, name=base.name
        )
    return VisionExpert.start(
        base.path, classes, config.seed, representation=config.image, name=base.name
    )


def fit_expert(
    expert: "Expert[Any, Any]",
    train: LabelledShards,
    val: LabelledShards,
    config: ExpertConfig,
    checkpoint: "StoredCheckpoint",
    say: Say,
) -> "Curve":
    """Fine-tune `expert` in place; each epoch streams the shards in an order of its own."""
    import torch

    from clipfarm_assets.training.experts.finetune import fine_tune, train_batches, val_batches
    from clipfarm_assets.training.networks.fit import balanced_class_weights, cross_entropy

    def train_rows(order: "torch.Generator") -> "Iterator[RawRow]":
        shuffled = torch.randperm(len(train.index.shards), generator=order)
        return train.raw_rows(expert.raw, shuffled.tolist())

    def val_rows(_order: "torch.Generator") -> "Iterator[RawRow]":
        return val.raw_rows(expert.raw, range(len(val.index.shards)))

    weights = balanced_class_weights(train.counts) if config.class_weights == "balanced" else None
    return fine_tune(
        expert,
        train_batches(expert, train_rows, train.rows, config, source=train.index.version),
        val_batches(expert, val_rows, val.rows, source=val.index.version),
        config,
        config.seed,
        say=say,
        objective=cross_entropy(weights),
        checkpoint=checkpoint,
    )
