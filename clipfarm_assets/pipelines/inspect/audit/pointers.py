"""Every pointer of a strategy's manifests, by the shard that it leads to, in 24 bytes a row."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.manifest_merge import KEY

# What of a row a shard that declares nothing tells too.
_PLACE: Final = ("video_id", "fused_dim", "shard_n")

Hashes = NDArray[np.uint64]


def key_hashes(rows: pl.DataFrame) -> Hashes:
    """A number for each row's (video_id, source_hash); equal ones have equal numbers."""
    return rows.select(KEY).hash_rows().to_numpy()


@dataclass
class _Into:
    """The pointers into one shard: where to, and two numbers for what each row says."""

    places: "array[int]" = field(default_factory=lambda: array("q"))
    told: "array[int]" = field(default_factory=lambda: array("Q"))
    told_of_place: "array[int]" = field(default_factory=lambda: array("Q"))


class Pointers:
    """What manifests say of shards, to be compared with what the shards say themselves.

    Rows are kept as hashes of all their columns: of one process, and of 64 bits, so that two rows
    are wrongly taken for equal in one of 10^19 cases.
    """

    def __init__(self) -> None:
        """No pointers yet."""
        self._into: defaultdict[str, _Into] = defaultdict(_Into)

    def add(self, rows: pa.Table) -> None:
        """Take rows of `fused_manifest.SCHEMA`."""
        frame = pl.DataFrame(rows)
        numbered = frame.select(
            "fused_key",
            "shard_idx",
            told=frame.hash_rows(),
            place=frame.select(_PLACE).hash_rows(),
        )
        for (key,), group in numbered.group_by("fused_key"):
            into = self._into[str(key)]
            into.places.frombytes(group["shard_idx"].to_numpy().tobytes())
            into.told.frombytes(group["told"].to_numpy().tobytes())
            into.told_of_place.frombytes(group["place"].to_numpy().tobytes())

    def shards(self) -> Mapping[str, int]:
        """Every shard that a row points to, and how many do."""
        return {key: len(into.places) for key, into in sorted(self._into.items())}

    def astray(self, key: str, shard: FusedShard) -> int:
        """How many of the rows that point into a shard are not the shard's own rows."""
        if key not in self._into:
            return 0
        into = self._into[key]
        places = np.frombuffer(into.places, np.int64)
        if shard.declared is None:
            told = np.frombuffer(into.told_of_place, np.uint64)
            own = _places(shard).hash_rows().to_numpy()
        else:
            told = np.frombuffer(into.told, np.uint64)
            own = pl.DataFrame(shard.manifest_rows(key)).hash_rows().to_numpy()
        inside = (places >= 0) & (places < len(shard))
        return int((~inside).sum() + (own[places[inside]] != told[inside]).sum())


def _places(shard: FusedShard) -> pl.DataFrame:
    """What `_PLACE` should be of each row of a shard."""
    return pl.DataFrame(
        {
            "video_id": shard.video_ids.tolist(),
            "fused_dim": np.full(len(shard), shard.vectors.shape[1], np.int64),
            "shard_n": np.full(len(shard), len(shard), np.int64),
        },
        schema={"video_id": pl.String, "fused_dim": pl.Int64, "shard_n": pl.Int64},
    )


def difference(row: Mapping[str, object], shard: FusedShard) -> Iterator[str]:
    """The columns in which a manifest's row departs from the row of the shard it leads to."""
    place = int(str(row["shard_idx"]))
    if shard.declared is None or not 0 <= place < len(shard):
        return
    (own,) = shard.take([place]).manifest_rows(str(row["fused_key"])).to_pylist()
    for name, value in own.items():
        if name not in {"shard_idx", "shard_n"} and value != row[name]:
            yield f"{name} says {row[name]!r}, the shard declares {value!r}"
