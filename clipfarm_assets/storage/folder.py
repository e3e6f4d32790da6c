"""A folder as an object store."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import obstore
from filelock import FileLock, Timeout
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore

from clipfarm_assets.storage.backend import ObjectHead, ObjectInfo
from clipfarm_assets.storage.bulk import Lanes
from clipfarm_assets.storage.errors import (
    ObjectChanged,
    ObjectExists,
    OutsideStore,
    StoreUnavailable,
)
from clipfarm_assets.storage.keys import LOCKS

_LOCK_SECONDS = 60.0
_LOCK_POLL_SECONDS = 0.005

# A file in the page cache is read in less time than a thread takes to wake up, so each gets several
# at a time; a few threads are for disks and file servers that are slower than that. Writers would
# wait for each other at the lock of their directory: two threads were seen to take twice the
# processor time of one and no less wall time. Workers given by the caller are for file servers.
_WORKERS = 32
_MOST_THREADS = 4
_PART_BYTES = 1 << 30


class FolderBackend:
    """Objects as files below `root`. A write is a staged file renamed into place.

    An object's version is the sha256 of its bytes. Compare-and-swap holds a lock file for the key,
    which keeps swaps apart from swaps; a plain `put` to the same key does not take the lock, so a
    key is written either by swaps or by puts. A process that dies frees its locks.
    """

    def __init__(self, root: Path) -> None:
        """Open `root`, an absolute path without links, creating it if it is missing."""
        self._root = str(root)
        self._store = LocalStore(self._root, mkdir=True)

    def get(self, key: str) -> bytes:
        """See `Backend`."""
        return _read(self._confined(key))

    def get_tail(self, key: str, length: int) -> bytes:
        """See `Backend`."""
        return _read(self._confined(key), last=length)

    def head(self, key: str) -> ObjectHead:
        """See `Backend`."""
        descriptor, found = _opened(self._confined(key))
        os.close(descriptor)
        return _head(found)

    def get_range(self, key: str, start: int, length: int, mark: str | None) -> bytes:
        """See `Backend`."""
        descriptor, found = _opened(self._confined(key))
        try:
            head = _head(found)
            if mark is not None and head.mark != mark:
                raise ObjectChanged(key)
            # Never more than there is: whoever asks may have been told the length by a stranger.
            end = min(start + length, head.size)
            parts = []
            while start < end:
                part = os.pread(descriptor, min(end - start, _PART_BYTES), start)
                if not part:  # cut off in place, by a stranger to this store
                    break
                parts.append(part)
                start += len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            os.close(descriptor)

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        """See `Backend`."""
        data = self.get(key)
        return data, hashlib.sha256(data).hexdigest()

    def version(self, key: str) -> str:
        """See `Backend`."""
        return self.get_versioned(key)[1]

    def put(self, key: str, data: bytes) -> None:
        """See `Backend`."""
        self._confined(key)
        obstore.put(self._store, key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> None:
        """See `Backend`."""
        self._confined(key)
        try:
            obstore.put(self._store, key, data, mode="create")
        except AlreadyExistsError as error:
            raise ObjectExists(key) from error

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """See `Backend`."""
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        path = Path(self._root, LOCKS, f"{name}.lock")
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path, timeout=_LOCK_SECONDS, poll_interval=_LOCK_POLL_SECONDS)
        try:
            with lock:
                return self._swap_locked(key, data, expected)
        except Timeout as error:
            msg = (
                f"the lock of {key} in {self._root} was held for over {_LOCK_SECONDS:g} s; "
                "find the process that hangs while holding it, end it and run again"
            )
            raise StoreUnavailable(msg) from error

    def _swap_locked(self, key: str, data: bytes, expected: str | None) -> str:
        if expected is None:
            try:
                self.create(key, data)
            except ObjectExists as error:
                raise ObjectChanged(key) from error
        else:
            try:
                found = self.version(key)
            except FileNotFoundError as error:
                raise ObjectChanged(key) from error
            if found != expected:
                raise ObjectChanged(key)
            self.put(key, data)
        return hashlib.sha256(data).hexdigest()

    def exists(self, key: str) -> bool:
        """See `Backend`."""
        return Path(self._confined(key)).is_file()

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """See `Backend`."""
        if folder:
            self._confined(folder)
        linked: dict[str, bool] = {}
        for batch in obstore.list(self._store, folder or None):
            for meta in batch:
                key: str = meta["path"]
                if key.startswith(f"{LOCKS}/"):
                    continue
                parent = key.rpartition("/")[0]
                if parent not in linked:
                    path = self._confined(parent)
                    linked[parent] = os.path.realpath(path) != path
                is_link = Path(self._root, key).is_symlink()
                if is_link:
                    self._confined(key)
                yield ObjectInfo(
                    key, meta["size"], meta["last_modified"], is_link or linked[parent]
                )

    def delete(self, key: str) -> None:
        """See `Backend`."""
        self._confined(key)
        with suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def read_lanes(self, workers: int | None) -> Lanes:
        """See `Backend`."""
        if workers is None:
            return Lanes.of(_WORKERS, _MOST_THREADS, at_once=True)
        return Lanes.of(workers, _MOST_THREADS)

    def write_lanes(self, workers: int | None) -> Lanes:
        """See `Backend`."""
        return Lanes.of(_WORKERS, 1) if workers is None else self.read_lanes(workers)

    def reader(self) -> Callable[[str], bytes]:
        """See `Backend`. Each folder is checked once, each file for being a link itself."""
        confined: set[str] = set()

        def read(key: str) -> bytes:
            self._confine_parent(key, confined)
            try:
                return _read(f"{self._root}/{key}", os.O_NOFOLLOW)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                return self.get(key)

        return read

    def writer(self) -> Callable[[str, bytes], None]:
        """See `Backend`. Each folder is checked once, each file for being a link itself."""
        confined: set[str] = set()

        def write(key: str, data: bytes) -> None:
            self._confine_parent(key, confined)
            if os.path.islink(f"{self._root}/{key}"):  # noqa: PTH114 - hot path
                self._confined(key)
            obstore.put(self._store, key, data, use_multipart=False)

        return write

    def _confine_parent(self, key: str, confined: set[str]) -> None:
        parent = key.rpartition("/")[0]
        if parent not in confined:
            self._confined(parent)
            confined.add(parent)

    def _confined(self, key: str) -> str:
        """The path of `key`, unless a link leads out of the root."""
        path = os.path.join(self._root, key) if key else self._root  # noqa: PTH118 - hot path
        real = os.path.realpath(path)
        if real not in {path, self._root} and not real.startswith(self._root.rstrip("/") + "/"):
            msg = (
                f"{key} in {self._root} is or lies behind a symbolic link to {real}, outside the "
                "store; move the data into the store or open the store at that place"
            )
            raise OutsideStore(msg)
        return path


def _read(path: str, flags: int = 0, last: int | None = None) -> bytes:
    """The bytes of a regular file, or its `last` ones; raises as `_opened`."""
    descriptor, found = _opened(path, flags)
    try:
        size = found.st_size
        if last is not None and last < size:
            size = last
            os.lseek(descriptor, -size, os.SEEK_END)
        data = os.read(descriptor, size)
        if len(data) < size:  # one read gives 2 GiB at most
            data = b"".join((data, *iter(lambda: os.read(descriptor, _PART_BYTES), b"")))
    finally:
        os.close(descriptor)
    return data


def _opened(path: str, flags: int = 0) -> tuple[int, os.stat_result]:
    """A regular file opened for reading. What is none holds no object, as on S3.

    Raises:
        FileNotFoundError: No such file, or something else than a file is there.
        OSError: It can't be read.
    """
    try:
        # Not blocking: opening a pipe would wait for someone to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    except NotADirectoryError as error:
        raise FileNotFoundError(path) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor, found


def _head(found: os.stat_result) -> ObjectHead:
    """Every write makes another file, so that its number tells what the clock is too coarse for."""
    mark = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
    return ObjectHead(found.st_size, mark, datetime.fromtimestamp(found.st_mtime, UTC))
