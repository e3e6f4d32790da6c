"""What the text downloader says about clips. Its file is read, never written."""

from clipfarm_assets.contracts.text_gate import TextState
from clipfarm_assets.ledger.sqlite_file import BadState, open_sqlite, read_table, text_values
from clipfarm_assets.storage.objects import ObjectStore

_COLUMNS = {"video_id": True, "status": True, "source_hash": False}


def read_text_state(store: ObjectStore, key: str) -> dict[str, TextState]:
    """The downloader's states by video_id.

    Raises:
        FileNotFoundError: There is no such object.
        BadState: It cannot be read, or a row is malformed.
    """
    data = store.get(key)
    states: dict[str, TextState] = {}
    with open_sqlite(data, key) as connection:
        for row in read_table(connection, key, "processed_items", _COLUMNS, len(data)):
            video_id, status, source_hash = text_values(key, row, tuple(_COLUMNS))
            if not video_id or status is None:
                msg = f"{key}: the row {row[0]!r} lacks its video_id or status"
                raise BadState(msg)
            if video_id in states:
                msg = f"{key}: {video_id!r} has two rows; the file is damaged"
                raise BadState(msg)
            states[video_id] = TextState(status, source_hash or None)
    return states
