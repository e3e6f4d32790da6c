"""Run by alembic: migrate over the connection, and in the transaction, of whoever asked for it."""

from alembic import context

from clipfarm_assets.ledger.head import VERSION_TABLE
from clipfarm_assets.ledger.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
