"""How to reach S3: settings, credentials, and the client that they make."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from obstore.store import S3Store

from clipfarm_assets.storage.errors import StoreUnavailable

# A server that takes longer to accept a connection is gone, or too busy: another try is cheaper.
_CONNECT_SECONDS: Final = 10.0


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
        retries: Repeats of one request, after an answer that may pass or none.
        unsigned: Send no credentials, for public buckets.
        verify: Check TLS certificates.
        timeout_seconds: What one request may take, with all that it carries.
        retry_seconds: No repeat begins later than this after its request first began.
    """

    endpoint_url: str | None = None
    region_name: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile_name: str | None = None
    retries: int = 8
    unsigned: bool = False
    verify: bool = True
    timeout_seconds: float = 60.0
    retry_seconds: float = 120.0

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
        _check_seconds("timeout_seconds", self.timeout_seconds)
        _check_seconds("retry_seconds", self.retry_seconds)
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


def _check_seconds(name: str, seconds: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"S3 {name} must be a number of seconds above 0, not {seconds}")


def _check_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("S3 endpoint_url must not contain a user or password")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        msg = f"S3 endpoint_url must look like https://host[:port], not {url!r}"
        raise ValueError(msg)


def open_client(
    bucket: str,
    prefix: str,
    settings: S3Settings,
    provider: Callable[[], Any] | None,
    retries: int | None = None,
) -> S3Store:
    """A client, which repeats requests as `retries` says or else as the settings do."""
    config: dict[str, Any] = {"skip_signature": settings.unsigned}
    if settings.endpoint_url is not None:
        # The service-specific option, because its environment variable outranks "endpoint".
        config["aws_endpoint_url_s3"] = settings.endpoint_url.rstrip("/")
    region = settings.region_name or getattr(provider, "config", {}).get("region")
    if region is not None:
        config["region"] = region
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        credential_provider=provider,
        client_options={
            "allow_http": settings.allow_http,
            "allow_invalid_certificates": not settings.verify,
            "connect_timeout": timedelta(seconds=min(settings.timeout_seconds, _CONNECT_SECONDS)),
            "timeout": timedelta(seconds=settings.timeout_seconds),
        },
        retry_config={
            "max_retries": settings.retries if retries is None else retries,
            "retry_timeout": timedelta(seconds=settings.retry_seconds),
        },
    )


def credentials(settings: S3Settings) -> Callable[[], Any]:
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
