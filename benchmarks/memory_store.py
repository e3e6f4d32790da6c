"""A store in memory that counts requests, pages of lists and bytes, as S3 would."""

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock

from clipfarm_assets.storage.backend import Backend, ObjectHead, ObjectInfo
from clipfarm_assets.storage.bulk import Lanes
from clipfarm_assets.storage.errors import ObjectChanged, ObjectExists
from clipfarm_assets.storage.objects import ObjectStore

PAGE = 1000
"""Objects that one list request of S3 names."""


class MemoryStore(ObjectStore):
    """Counts by kind (get, tail, head, put, list, delete) and by what `room` says of a key.

    Attributes:
        requests: How many.
        moved: Bytes, of gets, tails and puts.
    """

    def __init__(self, room: Callable[[str], str]) -> None:
        super().__init__("/memory")
        self.room = room
        self.requests: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.lock = Lock()
        self.objects: dict[str, tuple[bytes, int]] = {}

    def count(self, kind: str, key: str, size: int = 0, times: int = 1) -> None:
        name = f"{kind} {self.room(key)}"
        with self.lock:
            self.requests[name] += times
            self.moved[name] += size

    def reset(self) -> None:
        """Forget the counts, keep the objects."""
        with self.lock:
            self.requests.clear()
            self.moved.clear()

    def size(self, key: str) -> int:
        """Of an object, uncounted."""
        return len(self.objects[key][0])

    def _connect(self) -> Backend:
        return _Memory(self)


class _Memory:
    def __init__(self, store: MemoryStore) -> None:
        self._store, self._written = store, 0

    def _found(self, key: str) -> tuple[bytes, int]:
        try:
            return self._store.objects[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    def get(self, key: str) -> bytes:
        return self.get_versioned(key)[0]

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        self._store.count("get", key)
        data, version = self._found(key)
        self._store.count("get", key, len(data), 0)
        return data, str(version)

    def get_tail(self, key: str, length: int) -> bytes:
        self._store.count("tail", key)
        tail = self._found(key)[0][-length:]
        self._store.count("tail", key, len(tail), 0)
        return tail

    def get_range(self, key: str, start: int, length: int, mark: str | None) -> bytes:
        self._store.count("range", key, length)
        data, version = self._found(key)
        if mark not in {None, str(version)}:
            raise ObjectChanged(key)
        return data[start : start + length]

    def head(self, key: str) -> ObjectHead:
        self._store.count("head", key)
        data, version = self._found(key)
        return ObjectHead(len(data), str(version))

    def version(self, key: str) -> str:
        return self.head(key).mark

    def exists(self, key: str) -> bool:
        self._store.count("head", key)
        return key in self._store.objects

    def put(self, key: str, data: bytes) -> None:
        self._store.count("put", key, len(data))
        with self._store.lock:
            self._written += 1
            self._store.objects[key] = bytes(data), self._written

    def create(self, key: str, data: bytes) -> None:
        if key in self._store.objects:
            self._store.count("put", key)
            raise ObjectExists(key)
        self.put(key, data)

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        present = self._store.objects.get(key)
        if (None if present is None else str(present[1])) != expected:
            self._store.count("put", key)
            raise ObjectChanged(key)
        self.put(key, data)
        return str(self._written)

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        prefix = f"{folder}/" if folder else ""
        found = [
            ObjectInfo(key, len(data))
            for key, (data, _) in list(self._store.objects.items())
            if key.startswith(prefix)
        ]
        self._store.count("list", folder, times=max(1, -(-len(found) // PAGE)))
        yield from found

    def delete(self, key: str) -> None:
        self._store.count("delete", key)
        with self._store.lock:
            self._store.objects.pop(key, None)

    def read_lanes(self, workers: int | None) -> Lanes:
        return Lanes.of(workers or 1)

    write_lanes = read_lanes

    def reader(self) -> Callable[[str], bytes]:
        return self.get

    def writer(self) -> Callable[[str, bytes], None]:
        return self.put
