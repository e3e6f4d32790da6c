"""Every key of the meme pipeline, in one place.

Keys are relative to the store's root and begin with the prefix, ``memes/`` by default. What a
person puts there lies in ``memes/raw/``; everything else is made.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_LABEL, check_label
from clipfarm_assets.contracts.meme_rows import SPLITS, Split
from clipfarm_assets.storage.keys import check_key, check_prefix

ExpertModality = Literal["text", "vision"]
EXPERT_MODALITIES: Final[tuple[ExpertModality, ...]] = ("text", "vision")

_SHA256: Final = re.compile(r"[0-9a-f]{64}", flags=re.ASCII)
_VERSION: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_PART: Final = 10**6


@dataclass(frozen=True, slots=True)
class MemeLayout:
    """Builds keys from validated parts.

    Attributes:
        prefix: First segments of every key.
        manifest_key: The rows, as JSON lines; relative to the prefix, or whole if it begins with
            it. So are those that follow.
        ocr_key: Words read off the images, as JSON lines; need not exist.
        images_prefix: The folder that images' paths in the manifest are relative to.
        taxonomy_key: The labels there are; need not exist.
    """

    prefix: str = "memes"
    manifest_key: str = "raw/data_manifest.jsonl"
    ocr_key: str = "raw/ocr.jsonl"
    images_prefix: str = "raw/images/"
    taxonomy_key: str = "raw/label_taxonomy.json"

    def __post_init__(self) -> None:
        """Check all fields; raises `OutsideStore`, a `ValueError`."""
        for key in (self.prefix, self.manifest_key, self.ocr_key, self.taxonomy_key):
            check_key(key)
        check_prefix(self.images_prefix)

    def manifest(self) -> str:
        """``memes/raw/data_manifest.jsonl``."""
        return self._whole(self.manifest_key)

    def ocr(self) -> str:
        """``memes/raw/ocr.jsonl``."""
        return self._whole(self.ocr_key)

    def taxonomy_source(self) -> str:
        """``memes/raw/label_taxonomy.json``: the labels a person defined."""
        return self._whole(self.taxonomy_key)

    def images(self) -> str:
        """``memes/raw/images/``, with the trailing slash."""
        folder = check_prefix(self.images_prefix)
        return f"{self._whole(folder)}/" if folder else f"{self.prefix}/"

    def image(self, path: str) -> str:
        """``memes/raw/images/<path>``; `path` as `MemeRow.image` has it."""
        return check_key(f"{self.images()}{path}")

    def image_hashes(self) -> str:
        """``memes/state/image_hashes.parquet``."""
        return f"{self.prefix}/state/image_hashes.parquet"

    def splits(self) -> str:
        """``memes/splits.json``."""
        return f"{self.prefix}/splits.json"

    def label_taxonomy(self) -> str:
        """``memes/label_taxonomy.json``: the labels that the splits were made with."""
        return f"{self.prefix}/label_taxonomy.json"

    def shards_prefix(self, split: Split) -> str:
        """``memes/shards/<split>/``, with the trailing slash."""
        return f"{self.prefix}/shards/{_split(split)}/"

    def shard(self, split: Split, part: int) -> str:
        """``memes/shards/<split>/shard-000000.tar``."""
        return f"{self.shards_prefix(split)}shard-{_part(part):06d}.tar"

    def shard_index(self, split: Split) -> str:
        """``memes/shards/<split>/index.json``: which shards there are; readers go by it."""
        return f"{self.shards_prefix(split)}index.json"

    def expert(self, modality: ExpertModality, label: str) -> str:
        """``memes/models/[label=<label>/]text_expert/``, with the trailing slash.

        The default label's models lie where the specification has them, without its name.
        """
        if modality not in EXPERT_MODALITIES:
            expected = ", ".join(EXPERT_MODALITIES)
            msg = f"unknown modality {modality!r:.100} of an expert: expected one of {expected}"
            raise ValueError(msg)
        return f"{self._models(label)}{modality}_expert/"

    def fusion_model(self, label: str) -> str:
        """``memes/models/[label=<label>/]mm_fusion/``, with the trailing slash."""
        return f"{self._models(label)}mm_fusion/"

    def features_prefix(self, label: str, version: str) -> str:
        """``memes/features/label=<label>/<version>/``, with the trailing slash."""
        if not _VERSION.fullmatch(version):
            msg = f"bad version {version!r:.100}: expected 1 to 64 characters of A-Z a-z 0-9 _ -"
            raise ValueError(msg)
        return f"{self.prefix}/features/label={check_label(label)}/{version}/"

    def features(self, label: str, version: str, split: Split, shard_sha256: str) -> str:
        """``memes/features/label=<label>/<version>/<split>/<sha256 of the shard>.npz``."""
        if not _SHA256.fullmatch(shard_sha256):
            msg = f"bad sha256 {shard_sha256!r:.100}: expected 64 characters of 0-9 a-f"
            raise ValueError(msg)
        return f"{self.features_prefix(label, version)}{_split(split)}/{shard_sha256}.npz"

    def evaluation(self, label: str) -> str:
        """``memes/evaluation/label=<label>/``, with the trailing slash."""
        return f"{self.prefix}/evaluation/label={check_label(label)}/"

    def registry(self) -> str:
        """``memes/models/registry.json``."""
        return f"{self.prefix}/models/registry.json"

    def report(self, name: str) -> str:
        """``memes/reports/<name>``: plots for people to open."""
        return check_key(f"{self.prefix}/reports/{name}")

    def _whole(self, key: str) -> str:
        return key if key.startswith(f"{self.prefix}/") else f"{self.prefix}/{key}"

    def _models(self, label: str) -> str:
        part = "" if check_label(label) == DEFAULT_LABEL else f"label={label}/"
        return f"{self.prefix}/models/{part}"


def _split(split: Split) -> Split:
    if split not in SPLITS:
        msg = f"unknown split {split!r:.100}: expected one of {', '.join(SPLITS)}"
        raise ValueError(msg)
    return split


def _part(part: int) -> int:
    if not 0 <= part < _MAX_PART:
        msg = f"bad part {part}: expected 0 to {_MAX_PART - 1}"
        raise ValueError(msg)
    return part
