"""A deployment's settings out of its environment: names and addresses only, no I/O.

Dagster's resources and the ``clipfarm`` command read them here, so that both mean the same store
and the same ledger. The variables are described in ``defs/resources.py`` and docs/operating.md.

Credentials are never read here: the S3 client finds them as any AWS client does.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

from clipfarm_assets.encoders.models import Profile, encoder_profile
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import S3Settings

STORE_VARIABLE: Final = "CLIPFARM_STORE"
LEDGER_VARIABLE: Final = "CLIPFARM_LEDGER"
METADATA_VARIABLE: Final = "CLIPFARM_METADATA_KEY"
S3_RETRIES_VARIABLE: Final = "CLIPFARM_S3_RETRIES"
S3_RETRY_VARIABLE: Final = "CLIPFARM_S3_RETRY_SECONDS"
S3_TIMEOUT_VARIABLE: Final = "CLIPFARM_S3_TIMEOUT_SECONDS"
START_DATE_VARIABLE: Final = "CLIPFARM_START_DATE"
END_DATE_VARIABLE: Final = "CLIPFARM_END_DATE"
DEFAULT_START_DATE: Final = "2026-01-01"

_METADATA_KEY: Final = "metadata/shorts_metadata_horizon.csv"
_S3: Final = S3Settings()


@dataclass(frozen=True)
class DeploymentSettings:
    """Where a deployment's data are, and where its state is kept.

    Attributes:
        home: Folder for what is neither the store's nor Dagster's.
        store: Folder, or ``s3://bucket[/prefix]``.
        ledger: SQLAlchemy URL; may hold a password.
        layout: The keys of the clip pipeline.
        s3: How to reach S3.
        profile: Which default models encoders have.
    """

    home: Path
    store: str
    ledger: str
    layout: Layout
    s3: S3Settings
    profile: Profile

    @property
    def stand_ins(self) -> Path:
        """Folder of the stand-in models."""
        return self.home / "stand-ins"


def deployment_settings(environ: Mapping[str, str]) -> DeploymentSettings:
    """The settings that environment variables hold.

    Raises:
        ValueError: A variable has a value it can't have; says which it can.
    """
    here = home(environ)
    return DeploymentSettings(
        home=here,
        store=environ.get(STORE_VARIABLE) or str(here / "store"),
        ledger=environ.get(LEDGER_VARIABLE) or f"sqlite:///{here / 'ledger.sqlite'}",
        layout=Layout(metadata_key=environ.get(METADATA_VARIABLE) or _METADATA_KEY),
        s3=s3_settings(environ),
        profile=encoder_profile(environ),
    )


def home(environ: Mapping[str, str]) -> Path:
    """The folder for what is neither the store's nor Dagster's."""
    if environ.get("CLIPFARM_HOME"):
        return Path(environ["CLIPFARM_HOME"]).expanduser().absolute()
    if environ.get("DAGSTER_HOME"):
        return Path(environ["DAGSTER_HOME"]).expanduser().absolute() / "clipfarm"
    return Path("~/.clipfarm").expanduser()


def s3_settings(environ: Mapping[str, str]) -> S3Settings:
    """How S3 is reached.

    Raises:
        ValueError: The endpoint is no address, or holds a password; or a number is none.
    """
    return S3Settings(
        endpoint_url=environ.get("CLIPFARM_S3_ENDPOINT")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL"),
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        profile_name=environ.get("AWS_PROFILE"),
        retries=_whole_number(environ, S3_RETRIES_VARIABLE, _S3.retries),
        timeout_seconds=_seconds(environ, S3_TIMEOUT_VARIABLE, _S3.timeout_seconds),
        retry_seconds=_seconds(environ, S3_RETRY_VARIABLE, _S3.retry_seconds),
    )


def _whole_number(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable) or str(default)
    if not (text.isascii() and text.isdecimal()):
        msg = f"{variable} must be a whole number, 0 or more: found {text!r}"
        raise ValueError(msg)
    return int(text)


def _seconds(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        msg = f"{variable} must be a number of seconds above 0: found {text!r}"
        raise ValueError(msg)
    return seconds


def first_and_last_date(environ: Mapping[str, str]) -> tuple[date, date | None]:
    """The first date partition, and the last one there will be; None if none will be the last.

    Raises:
        ValueError: A variable is no date, or the end is before the start.
    """
    first = _day(environ, START_DATE_VARIABLE) or date.fromisoformat(DEFAULT_START_DATE)
    last = _day(environ, END_DATE_VARIABLE)
    if last is not None and last < first:
        msg = f"{END_DATE_VARIABLE} must not be before {START_DATE_VARIABLE} {first}: found {last}"
        raise ValueError(msg)
    return first, last


def _day(environ: Mapping[str, str], variable: str) -> date | None:
    text = environ.get(variable)
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        msg = f"{variable} must be a date as YYYY-MM-DD: found {text!r}"
        raise ValueError(msg) from None


def json_object(variable: str, text: str) -> dict[str, Any]:
    """The JSON object that a variable holds.

    Raises:
        ValueError: It is none, or names a field twice; one sentence says so.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            msg = f"{variable} must name each field once: found {text[:200]!r}"
            raise ValueError(msg)
        return found

    try:
        values = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        msg = f"{variable} must be a JSON object of fields: found {text[:200]!r} ({error})"
        raise ValueError(msg) from None
    if not isinstance(values, dict):
        msg = f"{variable} must be a JSON object of fields: found {text[:200]!r}"
        raise ValueError(msg)  # noqa: TRY004 - a variable's text is a value, of whatever type
    return values
