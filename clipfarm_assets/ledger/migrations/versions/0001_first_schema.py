"""States of items, and which version of a published object they were taken from.

Ledgers of before there were migrations have these tables.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables where there are none."""
    op.create_table(
        "clipfarm_items",
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
        if_not_exists=True,
    )
    op.create_table(
        "clipfarm_merged",
        sa.Column("store_id", sa.Text, primary_key=True),
        sa.Column("stage", sa.Text, primary_key=True),
        sa.Column("object_key", sa.Text, primary_key=True),
        sa.Column("object_version", sa.Text, nullable=False),
        if_not_exists=True,
    )
