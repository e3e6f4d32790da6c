"""``clipfarm audit``: whether all that is referred to is there, and is what was recorded."""

import sys
from typing import TYPE_CHECKING

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import counted, print_heading, print_json, print_table

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.inspect.audit.findings import Audit

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(audit)


def audit(as_json: frame.AsJson = False) -> None:
    """Look whether every row and pointer of the clips leads to an object that is sound.

    Reads all vectors, shards, manifests and published states; nothing is written. The exit status
    is 1 if anything is wrong. Memes and songs are not looked at.
    """
    from clipfarm_assets.pipelines.inspect.audit.run import audit as look

    with frame.reading() as reading:
        found = look(reading.deployment, _progress)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if not found.is_sound:
        raise typer.Exit(1)


def _progress(line: str) -> None:
    """For whoever watches; not among the lines of an error that is redirected."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _print(found: "Audit") -> None:
    from clipfarm_assets.pipelines.inspect.audit.findings import REMEDIES

    print_table([{"looked at": name, "number": n} for name, n in found.examined.items()])
    if found.unmerged:
        what = counted(found.unmerged, "shard")
        print_heading(
            f"{what} that no manifest has looked at yet: materialise clips/fused_manifest"
        )
    if found.is_sound:
        print("\nnothing is wrong")
        return
    print_heading(f"{counted(sum(found.counts.values()), 'finding')}:")
    print_table(
        [{"kind": kind, "number": n, "do": REMEDIES[kind]} for kind, n in found.counts.items()]
    )
    print_heading("the first of them:" if sum(found.counts.values()) > _SHOWN else "these:")
    for finding in found.findings[:_SHOWN]:
        print(f"{finding.kind}  {finding.subject}: {finding.problem}")
