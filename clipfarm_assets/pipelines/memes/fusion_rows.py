"""The labelled rows of splits as a fusion model sees them: streamed, one shard at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.label_taxonomy import LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.pipelines.memes.expert_fit import NoLabelledRows
from clipfarm_assets.pipelines.memes.expert_store import ExpertRecord, expert_record
from clipfarm_assets.pipelines.memes.features import UNLABELLED, iter_features, write_features
from clipfarm_assets.pipelines.memes.rows import iter_samples, read_index, refuse_bad_sample
from clipfarm_assets.pipelines.memes.shard_index import OtherClasses, ShardIndex
from clipfarm_assets.pipelines.progress import Say
from clipfarm_assets.storage.meme_layout import EXPERT_MODALITIES, ExpertModality, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.meme_config import MemeFusionConfig, Representation

if TYPE_CHECKING:
    import torch

    from clipfarm_assets.training.experts.fusion_encoders import Experts, MemeSample
    from clipfarm_assets.training.experts.fusion_head import FusionModel, StoredRow
    from clipfarm_assets.training.networks.fit import StreamedBatches

Vectors = NDArray[np.float32]

FITTED: Final[tuple[Split, Split]] = ("train", "val")
"""Splits that models are fitted on; stopping and calibrating are fitting too."""


class OtherShards(ValueError):  # noqa: N818
    """A model was fitted on other shards than there are now: perhaps on what is to judge it."""


@dataclass(frozen=True)
class FusionPart:
    """N labelled rows of one shard, in its order.

    Attributes:
        ids, groups: ``(N,)``.
        labels: int64 ``(N,)``.
        present: bool ``(N, 2)``: whether text and image have anything to see.
        hidden: float32 ``(N, dim)`` by modality.
        logits: float32 ``(N, C)`` by modality: what each expert says alone.
    """

    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: NDArray[np.int64]
    present: NDArray[np.bool_]
    hidden: Mapping[ExpertModality, Vectors]
    logits: Mapping[ExpertModality, Vectors]

    def values(
        self, representations: Mapping[ExpertModality, Representation]
    ) -> dict[ExpertModality, Vectors]:
        """What fusion sees of each modality."""
        return {
            name: self.hidden[name] if kind == "hidden" else self.logits[name]
            for name, kind in representations.items()
        }


@dataclass(frozen=True)
class FusionRows:
    """Labelled rows of some splits, of one set of shards and two experts.

    Attributes:
        store, layout: Where they are.
        label: Of what.
        classes: Names of its classes.
        records: Of the experts.
        indices: Of the shards, by split.
        fitted: Versions of the shards that models are to be fitted on, by split.
        cache_dir: Folder for experts' files on this machine.
        say: Told how far missing features are.
    """

    store: ObjectStore
    layout: MemeLayout
    label: str
    classes: tuple[str, ...]
    records: Mapping[ExpertModality, ExpertRecord]
    indices: Mapping[Split, ShardIndex]
    fitted: Mapping[Split, str]
    cache_dir: Path
    say: Say

    @property
    def titles(self) -> dict[str, str]:
        """Modality -> the expert's name, stand-ins named as such."""
        return {
            name: f"{record.name}{' (stand-in)' if record.is_stand_in else ''}"
            for name, record in self.records.items()
        }

    def counts(self, split: Split) -> list[int]:
        """Labelled rows of each class."""
        found = self.indices[split].labels.get(self.label, {})
        return [found.get(number, 0) for number in range(len(self.classes))]

    def counts_by_name(self, split: Split) -> dict[str, int]:
        """Labelled rows by name of the class."""
        return dict(zip(self.classes, self.counts(split), strict=True))

    def unlabelled(self, split: Split) -> int:
        """Rows without the label."""
        return self.indices[split].rows - sum(self.counts(split))

    def check_fitted(self, model: str, shards: Mapping[str, str], asset: str) -> None:
        """Refuse a model that was fitted on other shards than there are.

        Memes may have changed places since: what it was fitted on may be what it is judged on.

        Args:
            model: What it is called.
            shards: Versions of those that it was fitted on, by split.
            asset: What makes it again.

        Raises:
            OtherShards: It was; names the splits.
        """
        others = [split for split in FITTED if shards.get(split) != self.fitted[split]]
        if others:
            msg = (
                f"{model} was fitted on other shards of {' and '.join(others)} than there are now, "
                "so that memes it was fitted on may be among those that judge it: materialise "
                f"{asset} for partition {self.label!r} again"
            )
            raise OtherShards(msg)

    def check_labelled(self) -> None:
        """Refuse splits without any row of the label.

        Raises:
            NoLabelledRows: There is one; names it.
        """
        for split, index in self.indices.items():
            if not sum(self.counts(split)):
                msg = (
                    f"{split} has no rows labelled {self.label!r} among its {index.rows}: label "
                    "some, and materialise memes/splits and memes/shards again"
                )
                raise NoLabelledRows(msg)

    def parts(self, split: Split, order: Sequence[int] | None = None) -> Iterator[FusionPart]:
        """The rows, shard by shard; features that are missing are computed first.

        Args:
            split: Which.
            order: Positions of the shards; by default the set's own.
        """
        self._write_missing(split)
        return self._stored_parts(split, order)

    def _stored_parts(
        self, split: Split, order: Sequence[int] | None = None
    ) -> Iterator[FusionPart]:
        index = self.indices[split]
        if order is not None:
            index = replace(index, shards=tuple(index.shards[position] for position in order))
        streams = [
            iter_features(
                self.store, self.layout, self.label, self.records[name].version, split, index=index
            )
            for name in EXPERT_MODALITIES
        ]
        for both in zip(*streams, strict=True):
            found = dict(zip(EXPERT_MODALITIES, both, strict=True))
            first = both[0]
            rows = first.labels != UNLABELLED
            if rows.any():
                yield FusionPart(
                    ids=first.ids[rows],
                    groups=first.groups[rows],
                    labels=first.labels[rows],
                    present=np.stack([each.present[rows] for each in both], axis=1),
                    hidden={name: each.hidden[rows] for name, each in found.items()},
                    logits={name: each.logits[rows] for name, each in found.items()},
                )

    def without_hidden(self, split: Split) -> FusionPart:
        """All rows of a split as one part, in the order of `parts`, without hidden states."""
        parts = [replace(part, hidden={}) for part in self.parts(split)]
        return FusionPart(
            ids=np.concatenate([part.ids for part in parts]),
            groups=np.concatenate([part.groups for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            present=np.concatenate([part.present for part in parts]),
            hidden={},
            logits={
                name: np.concatenate([part.logits[name] for part in parts])
                for name in EXPERT_MODALITIES
            },
        )

    def samples(self, split: Split, order: Sequence[int] | None = None) -> "Iterator[MemeSample]":
        """The rows as the shards have them, in the order of `parts`."""
        from clipfarm_assets.training.experts.fusion_encoders import MemeSample

        found = iter_samples(
            self.store,
            self.layout,
            split,
            on_bad=refuse_bad_sample,
            index=self.indices[split],
            order=order,
        )
        for sample in found:
            number = sample.json["labels"].get(self.label)
            if number is not None:
                yield MemeSample(sample.key, sample.txt, sample.png, int(number))

    def stored_batches(
        self,
        split: Split,
        config: MemeFusionConfig,
        representations: Mapping[ExpertModality, Representation],
    ) -> "StreamedBatches[StoredRow]":
        """The rows as frozen experts represent them, as batches; train ones are shuffled."""
        from clipfarm_assets.training.experts.fusion_head import collate_stored, stored_rows
        from clipfarm_assets.training.networks.fit import BLOCK_ROWS, StreamedBatches

        self._write_missing(split)

        def rows(order: "torch.Generator") -> "Iterator[StoredRow]":
            for part in self._stored_parts(split, self._shard_order(split, order)):
                yield from stored_rows(part.values(representations), part.present, part.labels)

        is_train = split == "train"
        return StreamedBatches(
            rows,
            sum(self.counts(split)),
            config.fit.batch_size if is_train else BLOCK_ROWS,
            config.shuffle_buffer if is_train else 0,
            collate=collate_stored,
            source=f"{self.label} of {self.indices[split].version} by {self._versions}",
            part=split,
        )

    def sample_batches(
        self, split: Split, config: MemeFusionConfig, experts: "Experts"
    ) -> "StreamedBatches[MemeSample]":
        """The rows as experts that are trained along take them; train ones are shuffled."""
        from clipfarm_assets.training.experts.fusion_encoders import EVALUATED_ROWS, CollateMemes
        from clipfarm_assets.training.networks.fit import StreamedBatches

        def rows(order: "torch.Generator") -> "Iterator[MemeSample]":
            return self.samples(split, self._shard_order(split, order))

        is_train = split == "train"
        return StreamedBatches(
            rows,
            sum(self.counts(split)),
            config.fit.batch_size if is_train else EVALUATED_ROWS,
            config.shuffle_buffer if is_train else 0,
            shuffle_bytes=config.shuffle_bytes if is_train else None,
            size_of=lambda row: len(row.image) + len(row.text.encode()),
            collate=CollateMemes(experts, is_padded_in_full=not is_train),
            source=f"{self.label} of {self.indices[split].version} by {self._versions}",
            part=split,
        )

    @property
    def _versions(self) -> str:
        """Of the experts, which also name tokenizers and image processors."""
        return " and ".join(record.version for record in self.records.values())

    def fused(
        self, split: Split, model: "FusionModel", seen: Sequence[bool] = (True, True)
    ) -> NDArray[np.float64]:
        """Logits of a fusion model for all rows, float64 ``(N, C)``, in the order of `parts`.

        Args:
            split: Which rows.
            model: Fitted on these experts.
            seen: Which modalities it is shown, in the order of `EXPERT_MODALITIES`.
        """
        from clipfarm_assets.training.experts.fusion_encoders import EVALUATED_ROWS, encoded_inputs
        from clipfarm_assets.training.experts.fusion_head import stored_inputs

        shown = np.array(seen, dtype=np.bool_)
        architecture = model.architecture
        if architecture.are_experts_frozen:
            kinds = {name: each.representation for name, each in architecture.inputs.items()}
            blocks = [
                model.logits(stored_inputs(part.values(kinds), part.present & shown))
                for part in self.parts(split)
            ]
        else:
            blocks = [
                model.logits(inputs, EVALUATED_ROWS)
                for inputs in encoded_inputs(model, self.samples(split), shown)
            ]
        return np.concatenate([np.empty((0, len(self.classes))), *blocks])

    def _shard_order(self, split: Split, order: "torch.Generator") -> Sequence[int]:
        """Train shards in an order of their own each epoch."""
        import torch

        count = len(self.indices[split].shards)
        if split != "train":
            return range(count)
        shuffled: list[int] = torch.randperm(count, generator=order).tolist()
        return shuffled

    def _write_missing(self, split: Split) -> None:
        """Compute features of the experts where a shard has none."""
        from clipfarm_assets.pipelines.memes.experts import load_expert

        for record in self.records.values():
            prefix = self.layout.features_prefix(self.label, record.version)
            there = {info.key for info in self.store.list(prefix)}
            wanted = {
                self.layout.features(self.label, record.version, split, shard.sha256)
                for shard in self.indices[split].shards
            }
            if not wanted <= there:
                expert: Any = load_expert(self.store, self.layout, record, self.cache_dir)
                write_features(
                    self.store,
                    self.layout,
                    expert,
                    self.label,
                    split,
                    index=self.indices[split],
                    say=self.say,
                )


def open_rows(
    store: ObjectStore,
    layout: MemeLayout,
    label: str,
    splits: Sequence[Split],
    cache_dir: Path,
    say: Say,
) -> FusionRows:
    """The rows of a label as they are now.

    Raises:
        NoExpert, UnfinishedExpert: An expert is missing.
        NoShards: A split has no shards.
        OtherClasses: Shards or an expert have other classes of the label than the taxonomy.
        OtherShards: An expert was fitted on others of train or val.
        ValueError: There is no such label.
    """
    key = layout.label_taxonomy()
    classes = LabelTaxonomy.from_json(store.get(key), key).classes(label)
    records = {name: expert_record(store, layout, name, label) for name in EXPERT_MODALITIES}
    for name, record in records.items():
        if record.classes != classes:
            msg = (
                f"the {name} expert of {label!r} must tell {', '.join(classes)}, in this order: it "
                f"tells {', '.join(record.classes)}; materialise memes/{name}_expert again"
            )
            raise OtherClasses(msg)
    indices = {split: read_index(store, layout, split) for split in {*FITTED, *splits}}
    rows = FusionRows(
        store,
        layout,
        label,
        classes,
        records,
        {split: indices[split].naming(label, classes) for split in splits},
        {split: indices[split].version for split in FITTED},
        cache_dir,
        say,
    )
    for name, record in rows.records.items():
        if record.origin == "fine_tuned":
            told = f"the {name} expert {record.version}"
            rows.check_fitted(told, record.shards, f"memes/{name}_expert")
    return rows
