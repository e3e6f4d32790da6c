"""``clipfarm migrate``: the schema of the ledger's database, brought to the newest."""

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(migrate)


def migrate(as_json: frame.AsJson = False) -> None:
    """Create the ledger's tables, or bring them to the schema that this version knows.

    On PostgreSQL, run it with a role that owns the tables before workers start the new version.
    """
    from clipfarm_assets.ledger.migrate import migrate as bring_to_head

    settings = frame.settings_here()
    migration = bring_to_head(settings.ledger)
    if as_json:
        print_json({"before": migration.before, "after": migration.after})
        return
    print(f"before  {migration.before or 'no ledger'}")
    print(f"after   {migration.after}")
