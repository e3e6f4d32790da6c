"""One store class over a folder and S3."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from clipfarm_assets.storage.backend import Backend, ForkGuard, ObjectHead, ObjectInfo
from clipfarm_assets.storage.bulk import in_order
from clipfarm_assets.storage.errors import (
    ObjectChanged,
    ObjectExists,
    OutsideStore,
    StoreUnavailable,
)
from clipfarm_assets.storage.folder import FolderBackend
from clipfarm_assets.storage.keys import check_key, check_prefix
from clipfarm_assets.storage.s3 import S3Backend
from clipfarm_assets.storage.s3_client import S3Settings

__all__ = [
    "ObjectChanged",
    "ObjectExists",
    "ObjectHead",
    "ObjectInfo",
    "ObjectStore",
    "OutsideStore",
    "S3Settings",
    "StoreUnavailable",
]

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 2.0


class ObjectStore:
    """Bytes under keys, in a folder or in an S3 bucket.

    Nothing is contacted or created before the first operation, and pickles hold only the url and
    the settings: safe to hand to spawned workers. Safe to use from several threads.

    Keys are relative paths (see `keys.check_key`). Not found is `FileNotFoundError` everywhere.
    """

    def __init__(self, url: str, s3: S3Settings | None = None) -> None:
        """See `open`."""
        self._s3: S3Settings | None = None
        if url.startswith("s3://"):
            self._s3 = (s3 or S3Settings()).resolved()
            self._bucket, self._prefix = _split_s3(url)
            self._address = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        elif "://" in url or not url:
            msg = f"a store is a folder or s3://bucket[/prefix], not {url!r}"
            raise ValueError(msg)
        else:
            self._address = Path(url).expanduser().resolve().as_posix()
        self._opened: Backend | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(cls, url: str, s3: S3Settings | None = None) -> "ObjectStore":
        """A store at `url`.

        Args:
            url: A folder, created when first used, or ``s3://bucket[/prefix]``.
            s3: How to reach S3; ignored for a folder.

        Raises:
            ValueError: The url is neither.
        """
        return cls(url, s3)

    @property
    def url(self) -> str:
        """What names this store and no other: the resolved path, or bucket, prefix and endpoint."""
        if self._s3 is None or self._s3.endpoint_url is None:
            return self._address
        return f"{self._address}?endpoint={self._s3.endpoint_url.rstrip('/')}"

    def __repr__(self) -> str:
        """The url alone."""
        return f"ObjectStore({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the address and the settings."""
        return type(self), (self._address, self._s3)

    def get(self, key: str) -> bytes:
        """The bytes of `key`; `FileNotFoundError` names store and key."""
        try:
            return self._backend().get(check_key(key))
        except FileNotFoundError:
            # Without the library's own text: it says no more, in a page of it.
            raise self._not_found(key) from None

    def get_tail(self, key: str, length: int) -> bytes:
        """The last `length` bytes of `key`, all of them if there are fewer: a file's footer."""
        if length < 1:
            msg = f"the tail of an object has 1 byte or more, not {length}"
            raise ValueError(msg)
        try:
            return self._backend().get_tail(check_key(key), length)
        except FileNotFoundError:
            # Without the library's own text: it says no more, in a page of it.
            raise self._not_found(key) from None

    def head(self, key: str) -> ObjectHead:
        """Size and mark of `key`, without fetching it."""
        try:
            return self._backend().head(check_key(key))
        except FileNotFoundError:
            # Without the library's own text: it says no more, in a page of it.
            raise self._not_found(key) from None

    def get_range(self, key: str, start: int, length: int, mark: str | None = None) -> bytes:
        """Some bytes of `key`, and nothing else of it.

        Args:
            key: The object.
            start: Where they begin, from 0.
            length: How many.
            mark: That of `head`: bytes of another object than the one seen then are refused, so
                that parts which are read one by one are of one object.

        Raises:
            EOFError: The object ends before; an object that does is damaged or not what it was.
            ObjectChanged: It was written again since `mark`.
            ValueError: `start` is negative, or `length` less than 1.
        """
        if start < 0 or length < 1:
            msg = f"a range begins at 0 or later and has 1 byte or more: found {start}, {length}"
            raise ValueError(msg)
        try:
            data = self._backend().get_range(check_key(key), start, length, mark)
        except FileNotFoundError:
            # Without the library's own text: it says no more, in a page of it.
            raise self._not_found(key) from None
        except ObjectChanged:
            msg = f"{key} in {self.url} was written again while it was read; read it anew"
            raise ObjectChanged(msg) from None
        if len(data) < length:
            msg = f"{key} in {self.url} ends before the bytes {start} to {start + length}"
            raise EOFError(msg)
        return data

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        """The bytes of `key` and their version, to be given to `swap`."""
        try:
            return self._backend().get_versioned(check_key(key))
        except FileNotFoundError:
            # Without the library's own text: it says no more, in a page of it.
            raise self._not_found(key) from None

    def version(self, key: str) -> str:
        """The version of `key`. On S3 this does not fetch the object."""
        try:
            return self._backend().version(check_key(key))
        except FileNotFoundError:
            # Without the library's own text: it says no more, in a page of it.
            raise self._not_found(key) from None

    def get_many(
        self, keys: Iterable[str], workers: int | None = None
    ) -> Generator[tuple[str, bytes | FileNotFoundError], None, None]:
        """Fetch many objects at once, in the order of `keys`.

        Args:
            keys: Read as needed, in the caller's thread.
            workers: At most ``2 * workers`` objects are fetched or held at a time: give it where
                objects are large. By default what the store does best with small ones.

        Yields:
            Each key with its bytes, or with the `FileNotFoundError` if it is absent.

        Raises:
            Exception: Whatever else went wrong, at the key's place in the order.
        """
        backend = self._backend()
        read = backend.reader()

        def fetch(key: str) -> tuple[str, bytes | FileNotFoundError]:
            try:
                return key, read(check_key(key))
            except FileNotFoundError:
                return key, self._not_found(key)

        yield from in_order(fetch, keys, backend.read_lanes(workers))

    def put_many(
        self, items: Iterable[tuple[str, bytes]], workers: int | None = None
    ) -> Generator[str, None, None]:
        """Write many objects at once, each as `put` does; of equal keys the last one stays.

        Nothing is written but by iterating. At an error, objects after it may be stored already
        or not, never in part.

        Args:
            items: Keys and bytes. Read as needed, in the caller's thread.
            workers: As in `get_many`.

        Yields:
            Each key, in the order of `items`, when its object and those before are stored.

        Raises:
            Exception: Whatever went wrong, at the key's place in the order.
        """
        backend = self._backend()
        write = backend.writer()

        def store(item: tuple[str, bytes]) -> str:
            key, data = item
            write(check_key(key), data)
            return key

        yield from in_order(store, items, backend.write_lanes(workers), apart=itemgetter(0))

    def exists(self, key: str) -> bool:
        """Whether `key` is there."""
        return self._backend().exists(check_key(key))

    def put(self, key: str, data: bytes) -> None:
        """Write `data` under `key`, replacing what is there. Readers see the old or the new."""
        self._backend().put(check_key(key), data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write `data` under `key` unless it is taken.

        Finding the very same bytes there counts as done: it is what one's own retry finds when
        the answer to the first try got lost.

        Raises:
            ObjectExists: The key holds other bytes; they are untouched.
        """
        backend = self._backend()
        for last in (False, True):
            try:
                backend.create(check_key(key), data)
            except ObjectExists as error:
                try:
                    same = backend.get(key) == data
                except FileNotFoundError:
                    if not last:
                        continue  # it was removed meanwhile
                    same = False
                if not same:
                    msg = f"{key} in {self.url} exists with other content and is never rewritten"
                    raise ObjectExists(msg) from error
            return

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace `key` if it is still the version that was read.

        Args:
            key: The object. Write it by `swap` and `update` only: on a folder, `put` does not
                wait for a swap in progress.
            data: The new bytes.
            expected: The version from `get_versioned` or `swap`; None if it must not exist.

        Returns:
            The new version.

        Raises:
            ObjectChanged: Someone else wrote it meanwhile; nothing was changed.
        """
        try:
            return self._backend().swap(check_key(key), data, expected)
        except ObjectChanged as error:
            was = "absent" if expected is None else f"version {expected}"
            msg = f"{key} in {self.url} was changed by someone else: it is no longer {was}"
            raise ObjectChanged(msg) from error

    def update(
        self, key: str, change: Callable[[bytes | None], bytes | None], attempts: int = 20
    ) -> bytes | None:
        """Read, change and swap until no one else came between.

        Args:
            key: The object.
            change: From the present bytes (None: absent) to the new ones; None leaves the object
                as it is. Called again with fresh bytes after each lost race, and possibly after a
                won one whose answer got lost, so it must be safe to repeat.
            attempts: Races to lose before giving up.

        Returns:
            What the object holds afterwards; None if it is absent.

        Raises:
            ObjectChanged: Every attempt lost.
        """
        for attempt in range(attempts):
            current: bytes | None
            version: str | None
            try:
                current, version = self.get_versioned(key)
            except FileNotFoundError:
                current, version = None, None
            changed = change(current)
            if changed is None or changed == current:
                return current
            try:
                self.swap(key, changed, version)
            except ObjectChanged:
                pause = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS)
                time.sleep(random.uniform(0, pause))  # noqa: S311 - jitter, not a secret
            else:
                return changed
        msg = f"gave up updating {key} in {self.url}: {attempts} attempts lost to other writers"
        raise ObjectChanged(msg)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects below the folder `prefix`, sorted by key.

        `prefix` is whole path segments: ``a/b`` lists ``a/b/c`` and not ``a/bc``. Lock files and
        unfinished writes are not objects and are not listed.

        Raises:
            OutsideStore: A link below `prefix` leads out of a folder store.
        """
        yield from sorted(self._backend().list(check_prefix(prefix)))

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens if it is not there."""
        self._backend().delete(check_key(key))

    def check_conditional_writes(self, folder: str) -> None:
        """Prove that the store refuses a write whose condition does not hold; once, at start-up.

        Some S3 servers accept conditional writes and ignore the condition, which would silently
        lose rows and rewrite shards.

        Args:
            folder: Where the probe object is written, and removed: credentials may be limited to
                some prefix.

        Raises:
            OutsideStore: `folder` is no plain relative path.
            StoreUnavailable: It does not refuse.
        """
        key = f"{check_prefix(folder)}/.probe-{uuid.uuid4().hex}"
        version = self.swap(key, b"1", None)
        try:
            self.swap(key, b"2", version)
            for stale in (None, version):
                try:
                    self.swap(key, b"3", stale)
                except ObjectChanged:
                    continue
                msg = (
                    f"{self.url} ignores the conditions of conditional writes (If-Match, "
                    "If-None-Match), so concurrent runs would lose data; use another S3 server"
                )
                raise StoreUnavailable(msg)
        finally:
            self.delete(key)

    def _backend(self) -> Backend:
        ForkGuard.check()
        if self._opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._connect()
        return self._opened

    def _connect(self) -> Backend:
        if self._s3 is None:
            return FolderBackend(Path(self._address))
        return S3Backend(self._bucket, self._prefix, self._s3)

    def _not_found(self, key: str) -> FileNotFoundError:
        return FileNotFoundError(f"no object {key} in {self.url}")


def _split_s3(url: str) -> tuple[str, str]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket or any(c in url for c in "?#@\\ "):
        msg = f"an S3 store is s3://bucket[/prefix], not {url!r}"
        raise ValueError(msg)
    return bucket, check_prefix(prefix)
