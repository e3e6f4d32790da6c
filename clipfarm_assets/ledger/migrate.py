"""The schema of a ledger's database, looked at and brought to head on request."""

from pathlib import Path

from clipfarm_assets.ledger.engine import database_url, make_engine
from clipfarm_assets.ledger.head import HEAD, Migration, bring_to_head, found

__all__ = ["HEAD", "Migration", "migrate", "schema_version"]


def migrate(url: str) -> Migration:
    """Create the tables, or bring them to the newest schema; items stay as they are.

    Opening a ledger does the same where it may. On PostgreSQL it may not be allowed to: then this,
    by a role that owns the tables, comes before the first run of new code.

    Args:
        url: As for `Ledger.open`.

    Raises:
        ValueError: The url is none of a ledger.
        NewerSchema: A later version of this code made the tables.
        OutdatedSchema: This role may not change them.
    """
    engine = make_engine(database_url(url))
    try:
        return bring_to_head(engine)
    finally:
        engine.dispose()


def schema_version(url: str) -> str | None:
    """The schema that a database has; None where there is no ledger yet, and none is made.

    Raises:
        ValueError: The url is none of a ledger.
    """
    parsed = database_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        return None
    engine = make_engine(parsed)
    try:
        with engine.connect() as connection:
            return found(connection)
    finally:
        engine.dispose()
