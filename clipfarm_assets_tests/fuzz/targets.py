"""The parsers that read what others wrote: how to call each, what it may raise, valid examples."""

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clipfarm_assets.contracts.horizon_csv import (
    COLUMNS,
    REQUIRED,
    HorizonCsvError,
    latest_rows,
    read_horizon_csv,
)
from clipfarm_assets.contracts.schema_lock import BadLock, SchemaLock
from clipfarm_assets.encoders.base import ContentMissing, EmbeddingVersion, MediaError
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.text.encoder import read_transcript
from clipfarm_assets.storage.layout import BadVideoId, Layout, check_video_id
from clipfarm_assets.storage.npy import BadVector, npy_to_vector, vector_to_npy
from clipfarm_assets.storage.npz import BadShard, arrays_to_npz, npz_to_arrays
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import BadTable, parquet_to_table, table_to_parquet

_MAX_BYTES = 1 << 20
_LONGEST_TOLD = 20_000
SCHEMA = pa.schema([("video_id", pa.string()), ("dim", pa.int32()), ("ok", pa.bool_())])
_MODELS_LOCK = "models_lock.json"


@dataclass(frozen=True)
class Target:
    """A parser under test.

    Attributes:
        parse: Bytes to a value that was looked at, or an error.
        errors: What it says it raises.
        valid: Bytes that it reads; what is tried are mutations of them.
        tokens: What means something in the format: put into them.
        told: What the error must say, where the type alone says little.
    """

    parse: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]
    valid: Sequence[bytes]
    tokens: Sequence[bytes]
    told: str = ""

    def check(self, data: bytes) -> None:
        """Parse; any other exception than the documented ones comes through."""
        try:
            self.parse(data)
        except self.errors as error:
            told = str(error)
        else:
            return
        assert self.told in told
        assert len(told) < _LONGEST_TOLD


def _npy(data: bytes) -> None:
    vector = npy_to_vector(data)
    assert vector.ndim == 1
    assert np.isfinite(vector).all()


def _npz(data: bytes) -> None:
    for array in npz_to_arrays(data, max_bytes=_MAX_BYTES).values():
        assert array.dtype.kind in "biufcUS"
        array.tobytes()


def _csv(data: bytes) -> None:
    rows = latest_rows(read_horizon_csv(data)).rows
    for video_id in rows["video_id"].to_list():
        assert check_video_id(video_id) == video_id


def _transcript(data: bytes) -> None:
    assert read_transcript(data).strip()


def _schema_lock(data: bytes) -> None:
    lock = SchemaLock.from_json(data)
    assert SchemaLock.from_json(lock.to_json()) == lock


def _models_lock(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore.open(folder)
        store.put(_MODELS_LOCK, data)
        lock = ModelsLock(store, _MODELS_LOCK)
        assert set(lock.adopted()) <= {"video", "audio", "text"}


def _video_id(data: bytes) -> None:
    video_id = data.decode("utf-8", "surrogateescape")
    key = Layout().raw("video", video_id)
    assert key == f"clipfarm/raw/video/{video_id}.mp4"
    assert "/" not in video_id
    assert "." not in video_id


def _parquet(data: bytes) -> None:
    table = parquet_to_table(data, SCHEMA, max_rows=10_000)
    table.validate(full=True)
    assert table.schema.names == SCHEMA.names


def _rows(columns: Sequence[str]) -> bytes:
    values = {
        "video_id": "abc_-1", "url": "https://youtu.be/abc_-1", "title": '"A ""cat"", twice"',
        "captured_at": "2026-02-05T17:34:41.595562+00:00", "description": '"one\ntwo"',
    }  # fmt: skip
    lines = [columns, [values.get(name, "1") for name in columns]]
    return "\n".join(",".join(line) for line in lines).encode()


def _models_lock_example() -> bytes:
    version = EmbeddingVersion("video", "m", "r", "0" * 64, "video-1", {"num_frames": 16}, 768)
    model = {"revision": "r", "weights_sha256": "0" * 64}
    body = {
        "models": {"video:m@r": model},
        "versions": {version.id: version.to_dict()},
        "adopted": {"video": version.id},
    }
    return json.dumps(body).encode()


def _npy_of(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version, allow_pickle=False)
    return file.getvalue()


def _savez(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, video_ids=np.array(["a", "b"]), vectors=np.ones((2, 3), np.float32))
    return file.getvalue()


_JSON = (
    b"[", b"{", b'"', b"\\", b"\\ud800", b"null", b"true", b"NaN", b"-1", b"1e999", b"9" * 400,
    b"1.0", b"[]", b"{}", b"\xff", b"\x00", b"0",
)  # fmt: skip
_LOCK = SchemaLock.of(
    "concat",
    {"video": 4, "audio": 3, "text": 2},
    {"video": "video-1", "audio": "audio-1", "text": "text-1"},
)
_BINARY = (b"\x00" * 8, b"\xff" * 4, b"\xff" * 8, b"\x80", b"\x7f\xff\xff\xff", b"PK\x05\x06")
_HEADER = (
    b"'|O'", b"'<f8'", b"'<U9'", b"(9999999999999,)", b"(-1,)", b"()", b"True", b"'descr': ",
    b"\xff\xff", b"\x93NUMPY\x03\x00",
)  # fmt: skip

TARGETS: Mapping[str, Target] = {
    "npy": Target(
        _npy,
        (BadVector,),
        [
            vector_to_npy(np.arange(1, 9, dtype=np.float32)),
            _npy_of(np.arange(1, 5, dtype=np.float64), (2, 0)),
            _npy_of(np.array(["a"])),
        ],
        (*_HEADER, *_BINARY),
    ),
    "npz": Target(
        _npz,
        (BadShard,),
        [
            arrays_to_npz({"a": np.arange(3), "b": np.array(["x", "yz"])}),
            _savez(np.savez),
            _savez(np.savez_compressed),
        ],
        (*_HEADER, *_BINARY, b"PK\x01\x02", b"PK\x03\x04", b".npy", b"../"),
    ),
    "csv": Target(
        _csv,
        (HorizonCsvError,),
        [_rows(REQUIRED), _rows(COLUMNS), "\ufeff".encode() + _rows(REQUIRED)],
        (b'"', b",", b"\n", b"\r\n", b"\x00", b"\xff", b'""', b"\xef\xbb\xbf", b"/../", b"x" * 300),
    ),
    "transcript": Target(
        _transcript,
        (MediaError, ContentMissing),
        [b'{"transcript": "hello there", "language": "en"}', b'{"transcript": null}'],
        _JSON,
    ),
    "schema_lock": Target(_schema_lock, (BadLock,), [_LOCK.to_json()], _JSON),
    "models_lock": Target(
        _models_lock, (ValueError,), [_models_lock_example()], _JSON, "is malformed: expected"
    ),
    "video_id": Target(
        _video_id,
        (BadVideoId,),
        [b"abc_-123", b"a" * 64],
        (b"/", b".", b"..", b"\n", b"\x00", "é".encode()),
    ),
    "parquet": Target(
        _parquet,
        (BadTable,),
        [
            table_to_parquet(
                pa.table({"video_id": ["a", "b"], "dim": [1, 2], "ok": [True, None]}, schema=SCHEMA)
            )
        ],
        (*_BINARY, b"PAR1"),
    ),
}
