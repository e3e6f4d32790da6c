"""What was committed to the ledger, written down by the database itself: no kill can lose it."""

from collections import Counter

import sqlalchemy as sa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.ledger.engine import database_url
from clipfarm_assets.ledger.ledger import Ledger

_TRIGGER = """
CREATE TABLE chaos_commits (
    number BIGSERIAL PRIMARY KEY, stage TEXT, video_id TEXT, source_hash TEXT, status TEXT,
    version TEXT, processed_at TEXT
);
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_commits (stage, video_id, source_hash, status, version, processed_at)
    VALUES (NEW.stage, NEW.video_id, NEW.source_hash, NEW.status, NEW.version, NEW.processed_at);
    RETURN NEW;
END $$;
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE ON clipfarm_items
    FOR EACH ROW EXECUTE FUNCTION chaos_note();
"""
_TWICE = """
SELECT stage, video_id, count(DISTINCT processed_at) FROM chaos_commits
WHERE status = 'success' AND stage = ANY(%s)
GROUP BY stage, video_id, source_hash, version HAVING count(DISTINCT processed_at) > 1
ORDER BY stage, video_id
"""


def watch(ledger_url: str) -> None:
    """From now on every row that is written is written down too, in the same transaction."""
    with Ledger.open(ledger_url, "chaos") as ledger:
        ledger.stages()  # makes the tables
    with _connected(ledger_url) as connection:
        connection.exec_driver_sql(
            "DROP TRIGGER IF EXISTS chaos_note ON clipfarm_items;"
            "DROP FUNCTION IF EXISTS chaos_note; DROP TABLE IF EXISTS chaos_commits"
        )
        connection.exec_driver_sql(_TRIGGER)


def committed(ledger_url: str) -> Counter[str]:
    """How many rows were written, by stage."""
    query = "SELECT stage, count(*) FROM chaos_commits GROUP BY stage ORDER BY stage"
    with _connected(ledger_url) as connection:
        return Counter(dict(connection.exec_driver_sql(query).tuples().all()))


def committed_twice(ledger_url: str) -> list[str]:
    """Vectors of one source and encoder that two computations were committed of: none may be.

    A row that is only moved, as from a published state, keeps its moment and is none.
    """
    stages = [statuses.embedding_stage(modality) for modality in MODALITIES]
    with _connected(ledger_url) as connection:
        rows = connection.exec_driver_sql(_TWICE, (stages,))
        return [f"{stage} of {i}: {n} computations were committed" for stage, i, n in rows]


def _connected(ledger_url: str) -> sa.Connection:
    engine = sa.create_engine(
        database_url(ledger_url), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    return engine.connect()
