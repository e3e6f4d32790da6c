"""What says which shards are a split's: ``index.json``, the one object of them that is replaced.

Shards have their parts' numbers for names, and are never rewritten. A set that follows another
takes over those of equal content and gives the rest numbers that no set before it had, nor any that
was begun and not finished. So a reader has a whole set, the old or the new, and whoever removes
what an index no longer names removes nothing that a later one will.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from clipfarm_assets.contracts.meme_rows import RowProblem, Split
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"shard-(\d{6})\.tar", flags=re.ASCII)
_SHOWN: Final = 200

LIMIT: Final = "image_"
"""Begins the names of limits of images in `ShardIndex.made_with`."""


class BadIndex(ValueError):  # noqa: N818 - reads better where it is raised
    """Not an index of shards: a structural fault that stops the run."""


class NoShards(FileNotFoundError):  # noqa: N818
    """The split has no shards yet."""


class OtherClasses(ValueError):  # noqa: N818
    """The numbers of classes in shards stand for other classes than are asked for."""


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of a set.

    Attributes:
        part: The number in its name.
        sha256: Of its bytes, in hex.
        bytes: Its length.
        rows: Samples in it.
    """

    part: int
    sha256: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class ShardIndex:
    """A split's set of shards.

    Attributes:
        split: Which.
        shards: In the order in which they are read.
        next_part: The number that the next new shard gets at the earliest.
        labels: Label -> number of the class -> samples.
        changes: How many images were changed how; see `images.CHANGES`.
        problems: Rows that are not in the set, each with its reason.
        made_with: Limits of images and versions of libraries: what bytes depend on beside the rows.
        classes: Label -> names of its classes 0, 1, … as they were when the samples were labelled:
            a number in a sample says nothing without. Empty in an index of before they were kept.
    """

    split: Split
    shards: tuple[ShardEntry, ...]
    next_part: int
    labels: Mapping[str, Mapping[int, int]]
    changes: Mapping[str, int]
    problems: tuple[RowProblem, ...]
    made_with: Mapping[str, str]
    classes: Mapping[str, tuple[str, ...]]

    @property
    def rows(self) -> int:
        """Samples in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def version(self) -> str:
        """Names the samples and their order: a sha256 in hex of the shards' own."""
        told = "\n".join(shard.sha256 for shard in self.shards)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def image_limits(self) -> dict[str, int]:
        """The fields of `ImageLimits` that images were packed within, where it says."""
        return {
            name.removeprefix(LIMIT): int(value)
            for name, value in self.made_with.items()
            if name.startswith(LIMIT)
        }

    def naming(self, label: str, classes: Sequence[str]) -> Self:
        """This index, if its samples' classes of `label` are `classes`, in that order.

        Raises:
            OtherClasses: They are others, or it doesn't say.
        """
        found = self.classes.get(label, ())
        if found != tuple(classes):
            msg = (
                f"the shards of {self.split} must have the classes {', '.join(classes)} of "
                f"{label!r}, in this order: they have {', '.join(found) or 'none by name'}; "
                "materialise memes/splits and memes/shards again"
            )
            raise OtherClasses(msg)
        return self

    def to_json(self) -> bytes:
        """The object's bytes; equal indices have equal ones."""
        shards = [
            {
                "name": f"shard-{s.part:06d}.tar",
                "sha256": s.sha256,
                "bytes": s.bytes,
                "rows": s.rows,
            }
            for s in self.shards
        ]
        body = {
            "split": self.split,
            "rows": self.rows,
            "shards": shards,
            "next_part": self.next_part,
            "labels": self.labels,
            "changes": self.changes,
            "problems": [asdict(problem) for problem in self.problems],
            "made_with": self.made_with,
            "classes": self.classes,
        }
        return (json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, key: str, split: Split) -> "ShardIndex":
        """Parse the index of a split.

        Raises:
            BadIndex: Not JSON, of another form, or of another split; names `key`.
        """
        try:
            body = json.loads(data)
            index = cls(
                body["split"],
                tuple(_entry(each) for each in body["shards"]),
                _count(body["next_part"]),
                {
                    str(label): {int(number): _count(n) for number, n in counts.items()}
                    for label, counts in body["labels"].items()
                },
                {str(name): _count(n) for name, n in body["changes"].items()},
                tuple(_problem(each) for each in body["problems"]),
                {str(name): str(value) for name, value in body["made_with"].items()},
                {str(label): _names(each) for label, each in body.get("classes", {}).items()},
            )
            parts = [shard.part for shard in index.shards]
            if index.split != split or len(set(parts)) < len(parts):
                msg = f"it is of {index.split!r:.100} and has the parts {parts}"
                raise BadIndex(msg)
            if max(parts, default=-1) >= index.next_part or index.rows != body["rows"]:
                msg = "its next_part and rows contradict its shards"
                raise BadIndex(msg)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            msg = (
                f"{key} must be the index of the shards of {split!r}: "
                f"{type(error).__name__}: {str(error)[:_SHOWN]}; remove it and materialise "
                "memes/shards again"
            )
            raise BadIndex(msg) from error
        return index


def load_index(store: ObjectStore, layout: MemeLayout, split: Split) -> tuple[ShardIndex, str]:
    """The index of a split, and the version of its object.

    Raises:
        NoShards: There is none yet.
        BadIndex: It is none.
    """
    key = layout.shard_index(split)
    try:
        data, version = store.get_versioned(key)
    except FileNotFoundError as error:
        msg = f"{error}; materialise memes/shards for {split!r} first"
        raise NoShards(msg) from None
    return ShardIndex.from_json(data, key, split), version


def stored_parts(store: ObjectStore, layout: MemeLayout, split: Split) -> Iterator[int]:
    """Numbers of the shards in the split's folder, in an index or not; other objects are let be."""
    prefix = layout.shards_prefix(split)
    for info in store.list(prefix):
        match = _NAME.fullmatch(info.key.removeprefix(prefix))
        if match:
            yield int(match[1])


def _entry(body: Mapping[str, Any]) -> ShardEntry:
    match, sha256 = _NAME.fullmatch(body["name"]), body["sha256"]
    if not match or not _SHA256.fullmatch(sha256):
        msg = f"a shard has the name {body['name']!r:.100} and the sha256 {sha256!r:.100}"
        raise BadIndex(msg)
    return ShardEntry(int(match[1]), sha256, _count(body["bytes"]), _count(body["rows"]))


def _problem(body: Mapping[str, Any]) -> RowProblem:
    return RowProblem(str(body["kind"]), str(body["where"]), str(body["detail"]))


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        msg = f"expected names of classes: found {value!r:.100}"
        raise BadIndex(msg)
    return tuple(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        msg = f"expected a count: found {value!r:.100}"
        raise BadIndex(msg)
    return value
