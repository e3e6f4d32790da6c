"""An S3 bucket, or a prefix of one, as an object store."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from clipfarm_assets.storage.backend import ObjectHead, ObjectInfo
from clipfarm_assets.storage.bulk import Lanes
from clipfarm_assets.storage.errors import ObjectChanged, ObjectExists, StoreUnavailable

# Marks who wrote an object, so that a conflict can be told from a lost answer to our own write.
_WRITE_TOKEN = "clipfarm-write"  # noqa: S105 - the name of a header, not a secret

# Requests wait for distance and not for the processor: their number at a time is the rate.
_WORKERS = 96


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach S3. The fields are those of dagster-aws's ``S3Resource``.

    With neither keys nor `unsigned`, credentials come from boto3's chain (environment, shared
    files, instance role), for `profile_name` if given, and are refreshed.

    Attributes:
        endpoint_url: Another server than AWS, e.g. ``http://127.0.0.1:9000``.
        region_name: Region; by default that of the profile, else ``us-east-1``.
        access_key_id: Explicit key, together with `secret_access_key`.
        secret_access_key: Its secret.
        session_token: Token of temporary keys.
        profile_name: Profile of the shared AWS configuration.
        retries: Repeats after server errors and lost connections.
        unsigned: Send no credentials, for public buckets.
        verify: Check TLS certificates.
    """

    endpoint_url: str | None = None
    region_name: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile_name: str | None = None
    retries: int = 5
    unsigned: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that contradict themselves or would put a secret into the store's name.

        Raises:
            ValueError: One sentence naming the field.
        """
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("S3 access_key_id and secret_access_key must be given together")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("S3 session_token belongs to an access_key_id, and none is given")
        if self.access_key_id is not None and (self.profile_name is not None or self.unsigned):
            raise ValueError("S3 access_key_id excludes profile_name and unsigned: give one")
        if self.retries < 0:
            raise ValueError(f"S3 retries must be 0 or more, not {self.retries}")
        if self.endpoint_url is not None:
            _check_endpoint(self.endpoint_url)

    @property
    def allow_http(self) -> bool:
        """Whether the endpoint is plain http; never so for AWS itself."""
        return self.endpoint_url is not None and urlsplit(self.endpoint_url).scheme == "http"

    def resolved(self) -> "S3Settings":
        """With the endpoint that the AWS environment variables name, if none is set here."""
        if self.endpoint_url is not None:
            return self
        found = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return replace(self, endpoint_url=found) if found else self


def _check_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("S3 endpoint_url must not contain a user or password")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        msg = f"S3 endpoint_url must look like https://host[:port], not {url!r}"
        raise ValueError(msg)


class S3Backend:
    """Objects of one bucket below one prefix. An object's version is its ETag."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        """Open the bucket without contacting it."""
        self._bucket = bucket
        config: dict[str, Any] = {"skip_signature": settings.unsigned}
        if settings.endpoint_url is not None:
            # The service-specific option, because its environment variable outranks "endpoint".
            config["aws_endpoint_url_s3"] = settings.endpoint_url.rstrip("/")
        provider = None if settings.unsigned else _credentials(settings)
        region = settings.region_name or getattr(provider, "config", {}).get("region")
        if region is not None:
            config["region"] = region
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            config=config,
            credential_provider=provider,
            client_options={
                "allow_http": settings.allow_http,
                "allow_invalid_certificates": not settings.verify,
            },
            retry_config={"max_retries": settings.retries},
        )

    def get(self, key: str) -> bytes:
        """See `Backend`."""
        with self._bucket_checked():
            return bytes(obstore.get(self._store, key).bytes())

    def get_tail(self, key: str, length: int) -> bytes:
        """See `Backend`."""
        try:
            tail = obstore.get(self._store, key, options={"range": {"suffix": length}})
            return bytes(tail.bytes())
        except (FileNotFoundError, BaseError):
            # An empty object has no range to give, and some servers know no ranges. Whatever else
            # it was happens again here.
            return self.get(key)[-length:]

    def head(self, key: str) -> ObjectHead:
        """See `Backend`."""
        with self._bucket_checked():
            found = obstore.head(self._store, key)
            return ObjectHead(found["size"], self._etag(key, found["e_tag"]))

    def get_range(self, key: str, start: int, length: int, mark: str | None) -> bytes:
        """See `Backend`."""
        with self._bucket_checked():
            try:
                part = obstore.get(self._store, key, options={"range": (start, start + length)})
            except FileNotFoundError:
                raise
            except BaseError:
                # A range beyond the end is an error of the server, told as any other.
                if start < self.head(key).size:
                    raise
                return b""
            # Compared here: some servers know no conditions of reading.
            if mark is not None and part.meta["e_tag"] != mark:
                raise ObjectChanged(key)
            return bytes(part.bytes())

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        """See `Backend`."""
        with self._bucket_checked():
            result = obstore.get(self._store, key)
            return bytes(result.bytes()), self._etag(key, result.meta["e_tag"])

    def version(self, key: str) -> str:
        """See `Backend`."""
        with self._bucket_checked():
            return self._etag(key, obstore.head(self._store, key)["e_tag"])

    def put(self, key: str, data: bytes) -> None:
        """See `Backend`."""
        with self._bucket_checked():
            obstore.put(self._store, key, data)

    def create(self, key: str, data: bytes) -> None:
        """See `Backend`."""
        with self._bucket_checked():
            try:
                obstore.put(self._store, key, data, mode="create")
            except AlreadyExistsError as error:
                raise ObjectExists(key) from error

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """See `Backend`.

        A write whose answer got lost is repeated by the client and then meets its own result as a
        conflict. So each write carries a token: found on the object, the swap did happen.
        """
        token = uuid.uuid4().hex
        mode = "create" if expected is None else {"e_tag": expected}
        with self._bucket_checked():
            try:
                result = obstore.put(
                    self._store, key, data, mode=mode, attributes={_WRITE_TOKEN: token}
                )
            except (AlreadyExistsError, PreconditionError) as error:
                found = self._written_by(key, token)
                if found is None:
                    raise ObjectChanged(key) from error
                return found
            return self._etag(key, result["e_tag"])

    def _written_by(self, key: str, token: str) -> str | None:
        """The version of `key` if the write marked `token` made it."""
        try:
            result = obstore.get(self._store, key, options={"head": True})
        except FileNotFoundError:
            return None
        if result.attributes.get(_WRITE_TOKEN) != token:
            return None
        return self._etag(key, result.meta["e_tag"])

    def exists(self, key: str) -> bool:
        """See `Backend`."""
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def list(self, folder: str) -> Iterator[ObjectInfo]:
        """See `Backend`."""
        with self._bucket_checked():
            for batch in obstore.list(self._store, folder or None, chunk_size=1000):
                for meta in batch:
                    yield ObjectInfo(meta["path"], meta["size"])

    def delete(self, key: str) -> None:
        """See `Backend`."""
        with self._bucket_checked():
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError as error:
                if "<Code>NoSuchBucket</Code>" in str(error):
                    raise

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

    @contextmanager
    def _bucket_checked(self) -> Iterator[None]:
        """Tell a missing bucket from a missing object: S3 answers 404 to both."""
        try:
            yield
        except (FileNotFoundError, BaseError) as error:
            if "<Code>NoSuchBucket</Code>" not in str(error):
                raise
            msg = f"there is no bucket {self._bucket!r}; create it or correct the store's url"
            raise StoreUnavailable(msg) from error

    def _etag(self, key: str, etag: str | None) -> str:
        if etag is None:
            msg = f"the server sent no ETag for {key} in bucket {self._bucket!r}; it cannot swap"
            raise StoreUnavailable(msg)
        return etag


def _credentials(settings: S3Settings) -> Callable[[], Any]:
    """What obstore asks for credentials.

    Explicit keys too go through a provider: as options they would be completed from the
    environment, e.g. by the session token of other keys.
    """
    if settings.access_key_id is not None:
        fixed = {
            "access_key_id": settings.access_key_id,
            "secret_access_key": settings.secret_access_key,
            "token": settings.session_token,
            "expires_at": None,
        }
        return lambda: fixed
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.Session(
            profile_name=settings.profile_name, region_name=settings.region_name
        )
        return Boto3CredentialProvider(session)  # type: ignore[no-any-return]
    except (BotoCoreError, ValueError) as error:
        msg = (
            f"no S3 credentials (profile {settings.profile_name!r}): {error}; set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile that has them"
        )
        raise StoreUnavailable(msg) from error
