"""A store of planted features of two experts: no model is loaded and no image is there."""

import hashlib

import numpy as np

from clipfarm_assets.contracts.label_taxonomy import LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.pipelines.memes.expert_store import (
    ExpertRecord,
    ModelSource,
    expert_record,
    publish_expert,
)
from clipfarm_assets.pipelines.memes.shard_index import ShardEntry, ShardIndex, load_index
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.npz import arrays_to_npz
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.expert_config import ImageRepresentation, TextRepresentation
from clipfarm_assets.training.meme_config import MemeFusionConfig

LABEL = "abuse_hate"
CLASSES = ("not_abuse_hate", "abuse_hate")
LAYOUT = MemeLayout()
DIM = 12
SIZES = {"train": 480, "val": 160, "test": 200}
PILOT = {"train": 34, "val": 8, "test": 8}
REPRESENTATIONS = {"text": TextRepresentation(), "vision": ImageRepresentation()}
VERSIONS = {"text": "text-0123456789abcdef", "vision": "vision-0123456789abcdef"}


def quick(**changes) -> MemeFusionConfig:
    fit = {"learning_rate": 5e-3, "batch_size": 32, "max_epochs": 12, "patience": 12}
    fit |= changes.pop("fit", {})
    return MemeFusionConfig(
        **{"hidden": 32, "fit": FitConfig(**fit), "shuffle_buffer": 64} | changes
    )


def plant(
    store: ObjectStore, kind: str = "xor", sizes=SIZES, shard_rows: int = 70, unlabelled: int = 7
) -> None:
    """Taxonomy, experts, shard indices, and features.

    ``xor``: text and image hold a bit each, the label is their XOR, and an expert alone guesses.
    ``noise``: the image holds nothing, text tells the label to its expert too.
    """
    store.put(LAYOUT.label_taxonomy(), LabelTaxonomy({LABEL: CLASSES}).to_json())
    random = np.random.default_rng(3)
    axes = random.normal(size=(2, DIM))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for split in SPLITS:
        plant_split(store, kind, split, sizes[split], shard_rows, unlabelled, random, axes)
    plant_experts(store)


def plant_experts(store: ObjectStore) -> None:
    """Both, as if they were fitted on the shards that there are."""
    for modality in VERSIONS:
        publish_expert(store, LAYOUT.expert(modality, LABEL), record(store, modality), FILES)


FILES = {"config.json": b"{}\n", "model.safetensors": b"weights"}


def record(store: ObjectStore, modality: str) -> ExpertRecord:
    source = ModelSource(name="base", revision="r1", weights_sha256="0" * 64)
    return ExpertRecord(
        modality=modality,
        label=LABEL,
        name=f"planted-{modality}",
        is_stand_in=True,
        origin="fine_tuned",
        source=source,
        weights_sha256=hashlib.sha256(modality.encode()).hexdigest(),
        representation=REPRESENTATIONS[modality],
        classes=CLASSES,
        dim=DIM,
        version=VERSIONS[modality],
        made_of="planted",
        shards={split: load_index(store, LAYOUT, split)[0].version for split in ("train", "val")},
    )


def record_of(store: ObjectStore, modality: str) -> ExpertRecord:
    """As it is stored."""
    return expert_record(store, LAYOUT, modality, LABEL)


def plant_split(store, kind, split, rows, shard_rows, unlabelled, random, axes):
    shards, counts = [], {0: 0, 1: 0}
    for part, start in enumerate(range(0, rows, shard_rows)):
        count = min(shard_rows, rows - start)
        bits = random.integers(0, 2, size=(2, count))
        classes = bits[0] ^ bits[1] if kind == "xor" else bits[0]
        values = {
            name: random.normal(scale=0.3, size=(count, DIM))
            + (2 * bits[side][:, None] - 1) * axes[side] * (2.0 if told(kind, name) else 0.0)
            for side, name in enumerate(VERSIONS)
        }
        logits = {name: random.normal(scale=0.5, size=(count, 2)) for name in VERSIONS}
        if kind == "noise":
            logits["text"][np.arange(count), classes] += 2.5
        labels = classes.astype(np.int64)
        labels[np.arange(start, start + count) % unlabelled == unlabelled - 1] = -1
        ids = np.array([f"{split}.{start + row}" for row in range(count)])
        sha256 = hashlib.sha256(f"{kind} {split} {part}".encode()).hexdigest()
        shards.append(ShardEntry(part, sha256, 1, count))
        for number in counts:
            counts[number] += int((labels == number).sum())
        for name, version in VERSIONS.items():
            arrays = {
                "ids": ids,
                "keys": np.array([each.replace(".", "-") for each in ids]),
                # Pairs of near-duplicates.
                "groups": np.array([f"{split}-{(start + row) // 2}" for row in range(count)]),
                "labels": labels,
                "present": np.full(count, True)
                if name == "vision"
                else random.random(count) > 0.02,
                "hidden": values[name].astype(np.float32),
                "logits": logits[name].astype(np.float32),
                "shard_sha256": np.array(sha256),
            }
            store.put(LAYOUT.features(LABEL, version, split, sha256), arrays_to_npz(arrays))
    index = ShardIndex(
        split, tuple(shards), len(shards), {LABEL: counts}, {}, (), {}, {LABEL: CLASSES}
    )
    store.put(LAYOUT.shard_index(split), index.to_json())


def told(kind: str, modality: str) -> bool:
    return kind == "xor" or modality == "text"


def contents(store: ObjectStore, prefix: str = "memes/models/mm_fusion") -> dict[str, bytes]:
    """Everything below a folder."""
    return {info.key: store.get(info.key) for info in store.list(prefix)}
