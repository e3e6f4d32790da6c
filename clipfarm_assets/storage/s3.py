"""An S3 bucket, or a prefix of one, as an object store."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from clipfarm_assets.storage.backend import ObjectHead, ObjectInfo
from clipfarm_assets.storage.bulk import Lanes
from clipfarm_assets.storage.errors import ObjectChanged, ObjectExists, StoreUnavailable
from clipfarm_assets.storage.s3_client import S3Settings, credentials, open_client
from clipfarm_assets.storage.s3_retries import Fault, Garbled, RequestRefused, Retries

# Marks who wrote an object, so that a conflict can be told from a lost answer to our own write.
_WRITE_TOKEN: Final = "clipfarm-write"  # noqa: S105 - the name of a header, not a secret

# Requests wait for distance and not for the processor: their number at a time is the rate.
_WORKERS: Final = 96

# What one request reads: at the default timeout, lines of 1.1 MB/s suffice.
_PART_BYTES: Final = 64 << 20
# Writes above this go in parts, where they have no condition.
_WHOLE_BYTES: Final = 5 << 20
_PAGE: Final = 1000
# How often an object may change while its parts are read.
_REWRITTEN_TIMES: Final = 5


class S3Backend:
    """Objects of one bucket below one prefix. An object's version is its ETag."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        """Open the bucket without contacting it."""
        place = f"s3://{bucket}/{prefix}".rstrip("/")
        if settings.endpoint_url is not None:
            place += f"?endpoint={settings.endpoint_url.rstrip('/')}"
        self._retries = Retries(place, bucket, settings.retries, settings.retry_seconds)
        provider = None if settings.unsigned else credentials(settings)
        self._open = partial(open_client, bucket, prefix, settings, provider)
        self._store = self._open(retries=0)

    @cached_property
    def _in_parts(self) -> S3Store:
        """A client that repeats requests itself: each part of a large object by its own."""
        return self._open()

    @property
    def repeated(self) -> int:
        """Requests that were repeated so far, but for parts of large objects that are written."""
        return self._retries.repeated

    def get(self, key: str) -> bytes:
        """See `Backend`."""
        return self.get_versioned(key)[0]

    def get_tail(self, key: str, length: int) -> bytes:
        """See `Backend`."""

        def request() -> bytes:
            tail = obstore.get(self._store, key, options={"range": {"suffix": length}})
            _etag(tail.meta)
            return bytes(tail.bytes())

        try:
            return self._retries.call("GET", key, request)
        except RequestRefused:
            # An empty object has no range to give, and some servers know no ranges. Whatever else
            # it was happens again here.
            return self.get(key)[-length:]

    def head(self, key: str) -> ObjectHead:
        """See `Backend`."""

        def request() -> ObjectHead:
            found = obstore.head(self._store, key)
            return ObjectHead(found["size"], _etag(found), found["last_modified"])

        return self._retries.call("HEAD", key, request)

    def get_range(self, key: str, start: int, length: int, mark: str | None) -> bytes:
        """See `Backend`."""

        def request() -> bytes:
            part = obstore.get(self._store, key, options={"range": (start, start + length)})
            # Compared here: some servers know no conditions of reading.
            if _etag(part.meta) != mark and mark is not None:
                raise ObjectChanged(key)
            return bytes(part.bytes())

        try:
            return self._retries.call("GET", key, request)
        except RequestRefused:
            # A range beyond the end is an error of the server, told as any other.
            if start >= self.head(key).size:
                return b""
        # It is there: what refused may have been a proxy's page, which is no part of anything.
        return self._retries.call("GET", key, request)

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        """See `Backend`.

        A large object is read in parts, each repeated by its own: within the time of one request,
        it might never come through as a whole.
        """

        def request() -> tuple[bytes | int, str]:
            result = obstore.get(self._store, key)
            meta = result.meta
            etag, size = _etag(meta), meta["size"]
            return (size if size > _PART_BYTES else bytes(result.bytes())), etag

        for _ in range(_REWRITTEN_TIMES):
            found, etag = self._retries.call("GET", key, request)
            if isinstance(found, bytes):
                return found, etag
            try:
                parts = [
                    self.get_range(key, start, min(_PART_BYTES, found - start), etag)
                    for start in range(0, found, _PART_BYTES)
                ]
            except ObjectChanged:
                continue
            return b"".join(parts), etag
        msg = f"{key} was written again each of {_REWRITTEN_TIMES} times that it was read in parts"
        raise ObjectChanged(msg)

    def version(self, key: str) -> str:
        """See `Backend`."""
        return self.head(key).mark

    def put(self, key: str, data: bytes) -> None:
        """See `Backend`."""
        store = self._store if len(data) <= _WHOLE_BYTES else self._in_parts
        request = partial(obstore.put, store, key, data, chunk_size=_WHOLE_BYTES)
        self._retries.call("PUT", key, request, writes=True)

    def create(self, key: str, data: bytes) -> None:
        """See `Backend`."""
        request = partial(obstore.put, self._store, key, data, mode="create")
        try:
            self._retries.call("conditional PUT", key, request, writes=True, conditional=True)
        except AlreadyExistsError as error:
            raise ObjectExists(key) from error

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """See `Backend`.

        A write whose answer got lost is repeated and then meets its own result as a conflict. So
        each write carries a token: found on the object, the swap did happen.
        """
        token = uuid.uuid4().hex
        mode = "create" if expected is None else {"e_tag": expected}

        def request() -> str:
            marked = {_WRITE_TOKEN: token}
            result = obstore.put(self._store, key, data, mode=mode, attributes=marked)
            return _etag(result)

        try:
            return self._retries.call(
                "conditional PUT", key, request, writes=True, conditional=True
            )
        except (AlreadyExistsError, PreconditionError) as error:
            found = self._written_by(key, token)
            if found is None:
                raise ObjectChanged(key) from error
            return found

    def _written_by(self, key: str, token: str) -> str | None:
        """The version of `key` if the write marked `token` made it."""

        def request() -> str | None:
            result = obstore.get(self._store, key, options={"head": True})
            etag = _etag(result.meta)
            return etag if result.attributes.get(_WRITE_TOKEN) == token else None

        try:
            return self._retries.call("HEAD", key, request)
        except FileNotFoundError:
            return None

    def exists(self, key: str) -> bool:
        """See `Backend`."""
        try:
            self.head(key)
        except FileNotFoundError:
            return False
        return True

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """See `Backend`."""
        pages = _Pages(self._store, folder)
        while page := self._retries.call("list", folder or "everything", pages.next):
            yield from page

    def delete(self, key: str) -> None:
        """See `Backend`."""

        def request() -> None:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError as error:  # some servers tell
                if Fault.of(error).is_of_bucket:
                    raise

        self._retries.call("DELETE", key, request, writes=True)

    def read_lanes(self, workers: int | None) -> Lanes:
        """See `Backend`."""
        return Lanes.of(_WORKERS if workers is None else workers)

    def write_lanes(self, workers: int | None) -> Lanes:
        """See `Backend`."""
        return self.read_lanes(workers)

    def reader(self) -> Callable[[str], bytes]:
        """See `Backend`."""
        return self.get

    def writer(self) -> Callable[[str, bytes], None]:
        """See `Backend`."""
        return self.put


class _Pages:
    """A listing that goes on after the last key it gave when one of its pages failed."""

    def __init__(self, store: S3Store, folder: str) -> None:
        self._store, self._folder = store, folder or None
        self._stream: Iterator[Sequence[Mapping[str, Any]]] | None = None
        self._last: str | None = None
        self._sorted = True

    def next(self) -> list[ObjectInfo]:
        """Some objects more; none at the end."""
        if self._stream is None:
            if not self._sorted:
                msg = (
                    f"this S3 server lists keys in no order, so the listing of {self._folder!r}, "
                    "which broke off, cannot go on: start again"
                )
                raise StoreUnavailable(msg)
            self._stream = iter(
                obstore.list(self._store, self._folder, offset=self._last, chunk_size=_PAGE)
            )
        try:
            page = [
                ObjectInfo(meta["path"], meta["size"], meta["last_modified"])
                for meta in next(self._stream, ())
            ]
        except (FileNotFoundError, BaseError):
            self._stream = None
            raise
        keys = [info.key for info in page]
        if self._last is not None:
            keys.insert(0, self._last)
        self._sorted = self._sorted and all(a < b for a, b in pairwise(keys))
        self._last = keys[-1] if keys else None
        return page


def _etag(meta: Mapping[str, Any]) -> str:
    """The version that an answer tells.

    Raises:
        Garbled: It tells none, as a proxy's own pages don't.
    """
    etag = meta["e_tag"]
    if not isinstance(etag, str):
        raise Garbled("an answer without an ETag, which no S3 server gives")
    return etag
