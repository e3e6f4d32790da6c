"""Stores to test against: every promise holds for a folder and for S3."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipfarm_assets.storage.backend import Backend
from clipfarm_assets.storage.bulk import Lanes
from clipfarm_assets.storage.objects import ObjectHead, ObjectInfo, ObjectStore, S3Settings
from clipfarm_assets_tests.servers import BUCKET, s3_settings


@pytest.fixture
def folder(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(str(tmp_path / "store"))


@pytest.fixture
def s3() -> ObjectStore:
    return ObjectStore.open(f"s3://{BUCKET}/{uuid.uuid4().hex}", s3_settings())


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return request.getfixturevalue(request.param)


class CountingStore(ObjectStore):
    """A store that counts what reaches its backend: on S3, roughly its requests.

    Kinds are get, tail, range, head, put, list and delete; a compare-and-swap is a put, a version
    is a head. `calls` are (kind, key) in the order in which they began; of a list, its folder.
    """

    def __init__(self, url: str, s3: S3Settings | None = None) -> None:
        super().__init__(url, s3)
        self.calls: list[tuple[str, str]] = []

    def count(self, kind: str, prefix: str = "") -> int:
        """Calls of one kind whose key begins with `prefix`."""
        return sum(called == kind and key.startswith(prefix) for called, key in list(self.calls))

    def reset(self) -> None:
        self.calls.clear()

    def _connect(self) -> Backend:
        return _Counting(super()._connect(), self.calls)


class _Counting:
    def __init__(self, backend: Backend, calls: list[tuple[str, str]]) -> None:
        self._backend, self._calls = backend, calls

    def get(self, key: str) -> bytes:
        self._calls.append(("get", key))
        return self._backend.get(key)

    def get_tail(self, key: str, length: int) -> bytes:
        self._calls.append(("tail", key))
        return self._backend.get_tail(key, length)

    def head(self, key: str) -> ObjectHead:
        self._calls.append(("head", key))
        return self._backend.head(key)

    def get_range(self, key: str, start: int, length: int, mark: str | None) -> bytes:
        self._calls.append(("range", key))
        return self._backend.get_range(key, start, length, mark)

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        self._calls.append(("get", key))
        return self._backend.get_versioned(key)

    def version(self, key: str) -> str:
        self._calls.append(("head", key))
        return self._backend.version(key)

    def put(self, key: str, data: bytes) -> None:
        self._calls.append(("put", key))
        self._backend.put(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._calls.append(("put", key))
        self._backend.create(key, data)

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        self._calls.append(("put", key))
        return self._backend.swap(key, data, expected)

    def exists(self, key: str) -> bool:
        self._calls.append(("head", key))
        return self._backend.exists(key)

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        self._calls.append(("list", folder))
        return self._backend.list(folder)

    def delete(self, key: str) -> None:
        self._calls.append(("delete", key))
        self._backend.delete(key)

    def read_lanes(self, workers: int | None) -> Lanes:
        return self._backend.read_lanes(workers)

    def write_lanes(self, workers: int | None) -> Lanes:
        return self._backend.write_lanes(workers)

    def reader(self) -> Callable[[str], bytes]:
        read = self._backend.reader()

        def counted(key: str) -> bytes:
            self._calls.append(("get", key))
            return read(key)

        return counted

    def writer(self) -> Callable[[str, bytes], None]:
        write = self._backend.writer()

        def counted(key: str, data: bytes) -> None:
            self._calls.append(("put", key))
            write(key, data)

        return counted
