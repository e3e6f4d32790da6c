"""What the requests of S3's protocol do to buckets in memory. See `benchmarks.latency_s3`."""

import hashlib
import http
import json
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

BUCKET = "benchmark"
_MOST_KEYS_A_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """An object: its bytes, ETag in quotes, time in seconds, and the headers that come back."""

    data: bytes
    etag: str
    modified: float
    headers: str


@dataclass
class Bucket:
    """Objects by key, and the keys in order."""

    objects: dict[str, Stored] = field(default_factory=dict)
    ordered: list[str] = field(default_factory=list)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def put(self, key: str, data: bytes, headers: Mapping[str, str]) -> Stored:
        kept = "".join(
            f"{name}: {value}\r\n"
            for name, value in headers.items()
            if name == "content-type" or name.startswith("x-amz-meta-")
        )
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        now = time.time()
        told = f"ETag: {etag}\r\nLast-Modified: {formatdate(now, usegmt=True)}\r\n{kept}"
        if key not in self.objects:
            insort(self.ordered, key)
        stored = self.objects[key] = Stored(data, etag, now, told)
        return stored

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self.ordered[bisect_left(self.ordered, key)]

    def page(self, prefix: str, after: str, most: int) -> tuple[list[str], bool]:
        """At most `most` keys of `prefix` that come after `after`, and whether more follow."""
        start = bisect_left(self.ordered, prefix)
        if after:
            start = max(start, bisect_right(self.ordered, after))
        found = []
        for key in self.ordered[start : start + most + 1]:
            if not key.startswith(prefix):
                break
            found.append(key)
        return found[:most], len(found) > most


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Failed(Exception):  # noqa: N818 - an answer of the protocol
    """An answer other than success."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class Server:
    """What the protocol's requests do to the buckets."""

    def __init__(self) -> None:
        self.buckets = {BUCKET: Bucket()}
        self.counts: Counter[str] = Counter()
        self.in_flight = self.most_at_once = 0

    def told(self) -> bytes:
        """What `counts` shows."""
        return json.dumps({**self.counts, "most at once": self.most_at_once}).encode()

    def answer(self, request: Request) -> bytes:
        """The whole answer to `request`, which has taken effect by then."""
        try:
            if not request.key:
                return self._of_bucket(request)
            return self._of_object(self._bucket(request), request)
        except Failed as failed:
            body = f"<Error><Code>{failed.code}</Code><Message>{failed.code}</Message></Error>"
            return response(failed.status, body.encode(), headers_only=request.method == "HEAD")

    def _bucket(self, request: Request) -> Bucket:
        try:
            return self.buckets[request.bucket]
        except KeyError:
            raise Failed(404, "NoSuchBucket") from None

    def _of_bucket(self, request: Request) -> bytes:
        if request.method == "PUT" and not request.query:
            self._count("create bucket")
            self.buckets.setdefault(request.bucket, Bucket())
            return response(200)
        bucket = self._bucket(request)
        if request.method == "HEAD":
            self._count("head bucket")
            return response(200)
        if request.method == "GET" and request.query.get("list-type") == "2":
            self._count("list")
            return response(200, _listing(bucket, request.query))
        if request.method == "POST" and "delete" in request.query:
            self._count("delete")
            keys = [key for key in _texts(request.body, "Key") if key]
            for key in keys:
                bucket.delete(key)
            done = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            return response(200, f"<DeleteResult>{done}</DeleteResult>".encode())
        raise Failed(501, "NotImplemented")

    def _of_object(self, bucket: Bucket, request: Request) -> bytes:
        if "uploads" in request.query or "uploadId" in request.query:
            return self._multipart(bucket, request)
        key = request.key
        self._count(request.method.lower())
        match request.method:
            case "GET" | "HEAD":
                stored = bucket.objects.get(key)
                if stored is None:
                    raise Failed(404, "NoSuchKey")
                wanted = request.headers.get("range")
                if wanted is not None and request.method == "GET":
                    return _part(stored, wanted)
                return response(
                    200, stored.data, stored.headers, headers_only=request.method == "HEAD"
                )
            case "PUT":
                if "x-amz-copy-source" in request.headers:
                    raise Failed(501, "NotImplemented")
                _check_conditions(bucket, request)
                stored = bucket.put(key, request.body, request.headers)
                return response(200, b"", f"ETag: {stored.etag}\r\n")
            case "DELETE":
                bucket.delete(key)
                return response(204)
        raise Failed(501, "NotImplemented")

    def _multipart(self, bucket: Bucket, request: Request) -> bytes:
        if request.method == "POST" and "uploads" in request.query:
            self._count("start upload")
            upload = hashlib.md5(
                f"{request.key} {len(bucket.uploads)}".encode(), usedforsecurity=False
            ).hexdigest()
            bucket.uploads[upload] = {}
            body = (
                f"<InitiateMultipartUploadResult><Bucket>{request.bucket}</Bucket><Key>"
                f"{escape(request.key)}</Key><UploadId>{upload}</UploadId>"
                "</InitiateMultipartUploadResult>"
            )
            return response(200, body.encode())
        upload = request.query.get("uploadId", "")
        if upload not in bucket.uploads:
            raise Failed(404, "NoSuchUpload")
        if request.method == "PUT":
            self._count("put part")
            bucket.uploads[upload][int(request.query["partNumber"])] = request.body
            etag = hashlib.md5(request.body, usedforsecurity=False).hexdigest()
            return response(200, b"", f'ETag: "{etag}"\r\n')
        if request.method == "POST":
            self._count("complete upload")
            _check_conditions(bucket, request)
            parts = bucket.uploads.pop(upload)
            data = b"".join(parts[int(number)] for number in _texts(request.body, "PartNumber"))
            stored = bucket.put(request.key, data, request.headers)
            body = (
                f"<CompleteMultipartUploadResult><Bucket>{request.bucket}</Bucket><Key>"
                f"{escape(request.key)}</Key><ETag>{escape(stored.etag)}</ETag>"
                "</CompleteMultipartUploadResult>"
            )
            return response(200, body.encode())
        if request.method == "DELETE":
            self._count("abort upload")
            del bucket.uploads[upload]
            return response(204)
        raise Failed(501, "NotImplemented")

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1


def response(
    status: int, body: bytes = b"", headers: str = "", *, headers_only: bool = False
) -> bytes:
    """An HTTP answer; the answer to HEAD states a length and has no body."""
    length = "" if status == http.HTTPStatus.NO_CONTENT else f"Content-Length: {len(body)}\r\n"
    head = f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n{headers}{length}\r\n".encode()
    return head if headers_only else head + body


def _check_conditions(bucket: Bucket, request: Request) -> None:
    stored = bucket.objects.get(request.key)
    match = request.headers.get("if-match")
    if match is not None and stored is None:
        raise Failed(404, "NoSuchKey")
    rival = request.headers.get("if-none-match") == "*" and stored is not None
    if rival or (match is not None and stored is not None and match != stored.etag):
        raise Failed(412, "PreconditionFailed")


def _part(stored: Stored, wanted: str) -> bytes:
    """The answer to a GET with a Range header: RFC 9110, section 14, one range."""
    size = len(stored.data)
    first, dash, last = wanted.removeprefix("bytes=").partition("-")
    if not wanted.startswith("bytes=") or not dash or not (first or last) or "," in wanted:
        raise Failed(501, "NotImplemented")
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise Failed(416, "InvalidRange")
    told = f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
    return response(206, stored.data[start:end], stored.headers + told)


def _listing(bucket: Bucket, query: Mapping[str, str]) -> bytes:
    if "delimiter" in query:
        raise Failed(501, "NotImplemented")
    most = min(int(query.get("max-keys", _MOST_KEYS_A_PAGE)), _MOST_KEYS_A_PAGE)
    after = query.get("continuation-token") or query.get("start-after", "")
    keys, more = bucket.page(query.get("prefix", ""), after, most)
    encoded = query.get("encoding-type") == "url"
    spelled = quote if encoded else escape
    contents = ""
    for key in keys:
        stored = bucket.objects[key]
        modified = datetime.fromtimestamp(stored.modified, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        contents += (
            f"<Contents><Key>{spelled(key)}</Key><LastModified>{modified}</LastModified><ETag>"
            f"{escape(stored.etag)}</ETag><Size>{len(stored.data)}</Size></Contents>"
        )
    token = f"<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>" if more else ""
    told = "<EncodingType>url</EncodingType>" if encoded else ""
    return (
        f"<ListBucketResult><KeyCount>{len(keys)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{told}{contents}</ListBucketResult>"
    ).encode()


def _texts(body: bytes, tag: str) -> list[str]:
    """The texts of all elements `tag`, of whatever namespace."""
    found = ET.fromstring(body).iter()
    return [element.text or "" for element in found if element.tag.rpartition("}")[2] == tag]
