"""What the ledger's database doesn't let a role do, in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

# PostgreSQL's codes: insufficient privilege, read-only transaction.
_MAY_NOT: Final = frozenset({"42501", "25006"})


class LedgerDenied(RuntimeError):  # noqa: N818 - a state of the database, as its other errors
    """The role that the ledger is opened by lacks a right."""


@contextmanager
def told_in_a_sentence() -> Iterator[None]:
    """Turn a refusal of PostgreSQL into a sentence; statement and values are not repeated.

    Raises:
        LedgerDenied: The role may not do what the block asked for.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _MAY_NOT:
            raise
        why = str(error.orig).splitlines()[0]
        msg = (
            f"the ledger's database refuses the role of CLIPFARM_LEDGER: {why}; a run needs the "
            "rights of clipfarm_worker in deploy/postgres-roles.sql"
        )
        raise LedgerDenied(msg) from None
