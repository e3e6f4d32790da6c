"""Up to where a stage's rows have been published.

Ledgers of shortly before there were migrations have this table too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table where there is none."""
    op.create_table(
        "clipfarm_published",
        sa.Column("store_id", sa.Text, primary_key=True),
        sa.Column("stage", sa.Text, primary_key=True),
        sa.Column("object_key", sa.Text, primary_key=True),
        sa.Column("mark", sa.Text, nullable=False),
        if_not_exists=True,
    )
