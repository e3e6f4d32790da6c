"""A training dataset in the store.

``dataset.json`` names the current dataset of a strategy and horizon by its sha256; its parts lie
in a folder of that name and are never rewritten:

* ``rows.parquet``: ``video_id``, ``channel_id``, ``source_hash``, ``captured_at``,
  ``published_at``, ``text_present``, ``target_raw``, ``duplicate_group``; the features as
  ``feature.<name>``, what is known only after the outcome as ``outcome.<name>``, and each split as
  ``split.<kind>``;
* ``vectors-0000.npz``, …: up to `PART_ROWS` rows each: ``fused``, and ``video``, ``audio`` and
  ``text`` unless they are slices of it, side by side from its first column.

``dataset.json`` holds the rest (contract, counts, provenance, why splits are missing) and the
sha256 of every part; the dataset's sha256 is taken over all of this. It is put last and read first,
so a reader never mixes two datasets, and a killed writer leaves the one that was there. The same
data give the same bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, cast

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from clipfarm_assets.contracts.features import FeatureContract
from clipfarm_assets.contracts.fused_shard import strings
from clipfarm_assets.contracts.horizons import Horizon
from clipfarm_assets.contracts.statuses import MODALITIES, Modality, Strategy
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npz import BadShard, arrays_to_npz, npz_to_arrays
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import BadTable, parquet_to_table, table_to_parquet
from clipfarm_assets.training.data import (
    SPLIT_KINDS,
    ClipBatch,
    Floats,
    Provenance,
    SplitKind,
    Strings,
    TrainingData,
)

PART_ROWS: Final = 8192
ROWS_PART: Final = "rows.parquet"
FORMAT: Final = 1

_FEATURE, _OUTCOME, _SPLIT = "feature.", "outcome.", "split."
_MOMENT: Final = pa.timestamp("us", "UTC")


class NoDataset(FileNotFoundError):  # noqa: N818 - a state of the store
    """There is no dataset of this strategy and horizon yet."""


class BadDataset(ValueError):  # noqa: N818
    """What is stored is no dataset, or not the one that ``dataset.json`` describes."""


def write_dataset(store: ObjectStore, layout: Layout, data: TrainingData) -> str:
    """Store a dataset as the current one of its strategy and horizon; returns its sha256.

    Each part is serialised twice, once to know the folder's name and once to be put, so that
    memory beside `data` is one part. Parts that were there already may be removed, as those of a
    dataset that nothing refers to, until it is the current one: so they are looked for after that.

    Raises:
        ObjectExists: A part of that name holds other bytes.
    """
    made_of = data.provenance
    header = _header(data)
    sha256 = _sha256_of(header)
    keys = {
        part["name"]: layout.training_dataset_part(
            made_of.strategy, made_of.horizon, sha256, part["name"]
        )
        for part in header["parts"]
    }
    for name, part in _parts(data):
        store.put_if_absent(keys[name], part)
    key = layout.training_dataset(made_of.strategy, made_of.horizon)
    store.put(key, _json({**header, "sha256": sha256}))
    folder = keys[ROWS_PART].rpartition("/")[0]
    if not {*keys.values()} <= {info.key for info in store.list(folder)}:
        for name, part in _parts(data):
            store.put_if_absent(keys[name], part)
    return sha256


def dataset_sha256(data: TrainingData) -> str:
    """Identity of a dataset: what `write_dataset` stores it under."""
    return _sha256_of(_header(data))


def read_dataset(
    store: ObjectStore, layout: Layout, strategy: Strategy, horizon: Horizon
) -> TrainingData:
    """The current dataset of a strategy and horizon, with every part's hash verified.

    Raises:
        NoDataset: There is none; says how to make one.
        BadDataset: A part is gone, or isn't what was written.
    """
    key = layout.training_dataset(strategy, horizon)
    try:
        data = store.get(key)
    except FileNotFoundError:
        msg = (
            f"{key} does not exist: materialise clips/training_dataset for {strategy!r} at "
            f"{horizon} days first"
        )
        raise NoDataset(msg) from None
    header = _parse_header(data, key, strategy, horizon)

    def read(part: Mapping[str, Any]) -> bytes:
        part_key = layout.training_dataset_part(strategy, horizon, header["sha256"], part["name"])
        try:
            found = store.get(part_key)
        except FileNotFoundError:
            raise _bad(part_key, "it does not exist") from None
        sha256 = hashlib.sha256(found).hexdigest()
        if sha256 != part["sha256"]:
            raise _bad(part_key, f"its sha256 must be {part['sha256']}, found {sha256}")
        return found

    try:
        rows, *vectors = header["parts"]
        table = parquet_to_table(read(rows))
        return _training_data(table, header, _clips(table, header, map(read, vectors)))
    except (BadTable, BadShard, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        if isinstance(error, BadDataset):
            raise
        # The hashes are right, so it was written like that: by another version of this code.
        raise _bad(key, f"its parts can't be read ({type(error).__name__}: {error})") from error


def _header(data: TrainingData) -> dict[str, Any]:
    """Everything but the dataset's own hash."""
    parts = [
        {"name": name, "sha256": hashlib.sha256(part).hexdigest(), "bytes": len(part)}
        for name, part in _parts(data)
    ]
    return {
        "format": FORMAT,
        "strategy": data.provenance.strategy,
        "horizon": data.provenance.horizon,
        "rows": len(data),
        "fused_dim": int(data.clips.fused.shape[1]),
        "dims": data.clips.dims,
        "modalities_are_slices": _are_slices(data.clips),
        "contract": data.contract.to_fields(),
        "counts": dict(data.counts),
        "provenance": asdict(data.provenance),
        "unavailable_splits": dict(data.unavailable_splits),
        "parts": parts,
    }


def _sha256_of(header: Mapping[str, Any]) -> str:
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _json(header: Mapping[str, Any]) -> bytes:
    return (json.dumps(header, indent=2) + "\n").encode()


def _parts(data: TrainingData) -> Iterator[tuple[str, bytes]]:
    yield ROWS_PART, table_to_parquet(_rows(data), {})
    clips, slices = data.clips, _are_slices(data.clips)
    stored = ("fused",) if slices else ("fused", *MODALITIES)
    for number, start in enumerate(range(0, len(data), PART_ROWS)):
        rows = slice(start, start + PART_ROWS)
        yield (
            f"vectors-{number:04d}.npz",
            arrays_to_npz({name: getattr(clips, name)[rows] for name in stored}),
        )


def _are_slices(clips: ClipBatch) -> bool:
    """Whether the fused vectors hold the modality vectors side by side.

    Decided by the values, not by whose memory they are in, so that a dataset read back gives the
    same bytes.
    """
    start = 0
    for modality in MODALITIES:
        vectors = clips.modality(modality)
        columns = clips.fused[:, start : start + vectors.shape[1]]
        if columns.shape != vectors.shape:
            return False
        if not _is_same_memory(columns, vectors) and not np.array_equal(columns, vectors):
            return False
        start += vectors.shape[1]
    return True


def _is_same_memory(one: Floats, other: Floats) -> bool:
    return one.__array_interface__["data"] == other.__array_interface__["data"] and (
        one.strides == other.strides
    )


def _rows(data: TrainingData) -> pa.Table:
    clips = data.clips
    columns: dict[str, pa.Array] = {
        "video_id": pa.array(clips.video_ids.tolist(), pa.string()),
        "channel_id": pa.array(clips.channel_id.tolist(), pa.string()),
        "source_hash": pa.array(data.source_hash.tolist(), pa.string()),
        "captured_at": _moments(data.captured_at),
        "published_at": _moments(clips.published_at),
        "text_present": pa.array(clips.text_present, pa.bool_()),
        "target_raw": pa.array(data.target_raw, pa.float64()),
        "duplicate_group": pa.array(data.duplicate_groups, pa.int64()),
    }
    for prefix, frame in ((_FEATURE, clips.metadata), (_OUTCOME, data.outcomes)):
        for name in frame.columns:
            kind = pa.string() if frame.schema[name] == pl.String else pa.float64()
            columns[prefix + name] = pa.array(frame[name].to_list(), kind)
    for kind in SPLIT_KINDS:
        if kind in data.splits:
            columns[_SPLIT + kind] = pa.array(data.splits[kind].tolist(), pa.string())
    return pa.table(columns)


def _moments(moments: NDArray[np.datetime64]) -> pa.Array:
    return pa.array(moments.astype("datetime64[us]"), pa.timestamp("us")).cast(_MOMENT)


def _parse_header(data: bytes, key: str, strategy: Strategy, horizon: Horizon) -> dict[str, Any]:
    try:
        header = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(key, f"it is not JSON ({error})") from None
    if not isinstance(header, dict) or "sha256" not in header:
        raise _bad(key, "it must be a JSON object with a sha256")
    told = header["sha256"]
    if told != _sha256_of({name: value for name, value in header.items() if name != "sha256"}):
        raise _bad(key, "its content is not what its own sha256 was taken over")
    found = (header.get("format"), header.get("strategy"), header.get("horizon"))
    if found != (FORMAT, strategy, horizon):
        raise _bad(
            key, f"expected format, strategy, horizon {(FORMAT, strategy, horizon)}: {found}"
        )
    return header


def _bad(key: str, problem: str) -> BadDataset:
    return BadDataset(
        f"{key} is no training dataset as it was written: {problem}; materialise "
        "clips/training_dataset for this partition again"
    )


def _clips(table: pa.Table, header: Mapping[str, Any], parts: Iterator[bytes]) -> ClipBatch:
    n, slices = int(header["rows"]), bool(header["modalities_are_slices"])
    if table.num_rows != n:
        msg = f"it must have {n} rows: found {table.num_rows}"
        raise ValueError(msg)
    dims = {modality: int(header["dims"][modality]) for modality in MODALITIES}
    widths = {"fused": int(header["fused_dim"])} | ({} if slices else dims)
    blocks = {name: np.empty((n, width), dtype=np.float32) for name, width in widths.items()}
    start = 0
    for part in parts:
        arrays = npz_to_arrays(part, names=list(widths))
        rows = len(arrays["fused"])
        for name, block in blocks.items():
            block[start : start + rows] = arrays[name]
        start += rows
    if start != n:
        msg = f"it must have {n} rows: found vectors of {start}"
        raise ValueError(msg)
    if slices:
        begin = 0
        for modality, dim in dims.items():
            blocks[modality] = blocks["fused"][:, begin : begin + dim]
            begin += dim
    return ClipBatch(
        video_ids=_strings(table, "video_id"),
        fused=blocks["fused"],
        video=blocks["video"],
        audio=blocks["audio"],
        text=blocks["text"],
        text_present=np.array(table["text_present"].to_pylist(), dtype=np.bool_),
        metadata=_frame(table, _FEATURE),
        channel_id=_strings(table, "channel_id"),
        published_at=_times(table, "published_at"),
    )


def _training_data(table: pa.Table, header: Mapping[str, Any], clips: ClipBatch) -> TrainingData:
    made_of = dict(header["provenance"])
    versions = {cast("Modality", m): v for m, v in made_of.pop("embedding_versions").items()}
    splits: dict[SplitKind, Strings] = {
        kind: _strings(table, _SPLIT + kind)
        for kind in SPLIT_KINDS
        if _SPLIT + kind in table.column_names
    }
    return TrainingData(
        clips=clips,
        target_raw=table["target_raw"].to_numpy().astype(np.float64),
        captured_at=_times(table, "captured_at"),
        source_hash=_strings(table, "source_hash"),
        splits=splits,
        unavailable_splits=dict(header["unavailable_splits"]),
        duplicate_groups=table["duplicate_group"].to_numpy().astype(np.int64),
        contract=FeatureContract.from_fields(header["contract"]),
        outcomes=_frame(table, _OUTCOME),
        counts=dict(header["counts"]),
        provenance=Provenance(**made_of, embedding_versions=versions),
    )


def _strings(table: pa.Table, name: str) -> Strings:
    return strings(table[name].to_pylist())


def _times(table: pa.Table, name: str) -> NDArray[np.datetime64]:
    moments = table[name].cast(pa.timestamp("us")).to_numpy()
    times: NDArray[np.datetime64] = moments.astype("datetime64[us]")
    return times


def _frame(table: pa.Table, prefix: str) -> pl.DataFrame:
    names = [name for name in table.column_names if name.startswith(prefix)]
    frame = pl.DataFrame(table.select(names))
    return frame.rename({name: name.removeprefix(prefix) for name in names})
