"""One item's state, and the tables it is kept in."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

Scalar = int | float | str | bool | None

#: Order of a `processed_at` that is no time: older than any.
NO_TIME = -(2**62)


@dataclass(frozen=True, slots=True)
class Item:
    """What is known of one clip in one stage.

    Attributes:
        video_id: The clip.
        source_hash: The source it was processed from.
        processed_at: When, as `timestamp` writes it; older tools' files may hold other forms.
        status: One of `contracts.statuses`.
        error: Why not, in words; at most `rules.MAX_ERROR_LENGTH` characters.
        artifact_key: Key of the object made.
        vector_id: Name of the vector, e.g. ``fused:concat:<video_id>``.
        retry_count: Failures so far with this source_hash.
        version: Id of the embedding version or schema lock it was made with; None if unversioned.
        content_sha256: Hash of the object made, in hex.
        details: Notes for people, as JSON scalars.
    """

    video_id: str
    source_hash: str
    processed_at: str
    status: str
    error: str | None = None
    artifact_key: str | None = None
    vector_id: str | None = None
    retry_count: int = 0
    version: str | None = None
    content_sha256: str | None = None
    details: Mapping[str, Scalar] = field(default_factory=dict)


def timestamp(moment: dt.datetime) -> str:
    """ISO 8601 in UTC with microseconds, ``2026-02-05T17:34:41.595562+00:00``.

    Raises:
        ValueError: The moment has no time zone.
    """
    if moment.tzinfo is None:
        msg = f"expected a time with its zone, found {moment.isoformat()} without one"
        raise ValueError(msg)
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds")


def microseconds(processed_at: str) -> int:
    """The moment in microseconds since 1970, for comparing; `NO_TIME` if it cannot be parsed.

    A time without a zone is UTC, as older tools wrote it.
    """
    try:
        moment = dt.datetime.fromisoformat(processed_at)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return (moment - _EPOCH) // dt.timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return NO_TIME


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

METADATA = sa.MetaData()

# One database serves several stores; a store is named by its url.
ITEMS = sa.Table(
    "clipfarm_items",
    METADATA,
    sa.Column("store_id", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("video_id", sa.Text, primary_key=True),
    sa.Column("source_hash", sa.Text, nullable=False),
    sa.Column("processed_at", sa.Text, nullable=False),
    sa.Column("processed_us", sa.BigInteger, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("artifact_key", sa.Text),
    sa.Column("vector_id", sa.Text),
    sa.Column("retry_count", sa.Integer, nullable=False),
    sa.Column("version", sa.Text),
    sa.Column("content_sha256", sa.Text),
    sa.Column("details", sa.Text, nullable=False),
)

# Which version of a published object a database has taken its rows from.
MERGED = sa.Table(
    "clipfarm_merged",
    METADATA,
    sa.Column("store_id", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("object_key", sa.Text, primary_key=True),
    sa.Column("object_version", sa.Text, nullable=False),
)

# Up to where a stage's rows have been published, see `Ledger.mark`.
PUBLISHED = sa.Table(
    "clipfarm_published",
    METADATA,
    sa.Column("store_id", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("object_key", sa.Text, primary_key=True),
    sa.Column("mark", sa.Text, nullable=False),
)

# Who works on what, see `leases`. A row stays when its lease has ended: its token must only grow.
LEASES = sa.Table(
    "clipfarm_leases",
    METADATA,
    sa.Column("store_id", sa.Text, primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("taken_us", sa.BigInteger, nullable=False),
    sa.Column("expires_us", sa.BigInteger, nullable=False),
)
