"""``clipfarm gc``: objects that nothing refers to any more."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import counted, print_heading, print_json, print_table

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.upkeep.collect import Collected
    from clipfarm_assets.pipelines.upkeep.orphans import Found, Orphan

_SHOWN: Final = 20
_DAYS: Final = 7.0
_MAX_SHARE: Final = 0.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="gc")(collect_garbage)


def collect_garbage(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove them; without it they are only listed.")
    ] = False,
    older_than: Annotated[
        float,
        typer.Option(
            metavar="DAYS",
            min=0.0,
            max=36500.0,
            help="Only what was written so many days ago: a run stores first and refers later.",
        ),
    ] = _DAYS,
    max_share: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Refuse if more than this share of all vectors, or of all shards, would go.",
        ),
    ] = _MAX_SHARE,
    as_json: frame.AsJson = False,
) -> None:
    """List or remove objects that nothing refers to: those of runs that were killed or superseded.

    Raw media, metadata, and whatever the pipeline did not make are never touched.
    """
    from datetime import UTC, datetime, timedelta

    from clipfarm_assets.pipelines.upkeep.collect import collect, refuse_at_work, refuse_many
    from clipfarm_assets.pipelines.upkeep.orphans import find_orphans

    cutoff = datetime.now(UTC) - timedelta(days=older_than)
    if not delete:
        with frame.reading() as reading:
            found = find_orphans(reading.deployment, cutoff)
        if as_json:
            print_json(_document(found, None))
            return
        _print(found)
        refuse_many(found, max_share)  # as --delete would
        if found.orphans:
            print(f"\n{_told(found.orphans)} would be removed: run it with --delete")
        else:
            print("\nnothing would be removed")
        return
    with frame.writing() as deployment:
        refuse_at_work(deployment)
        found = find_orphans(deployment, cutoff)
        done = collect(deployment, found, max_share=max_share)
    if as_json:
        print_json(_document(found, done))
        return
    _print(found)
    for reason, number in done.spared.items():
        print(f"{counted(number, 'of these', 'of these')} stayed after all: {reason}")
    print(f"\n{_told(done.deleted)} removed" + (f"; listed in {done.report}" * bool(done.report)))


def _print(found: "Found") -> None:
    print_table(
        [
            {
                "kind": kind,
                "objects": found.examined.get(kind, "-"),
                "orphans": number,
                "bytes": size,
            }
            for kind, (number, size) in _all_kinds(found).items()
        ]
    )
    if found.orphans:
        print_heading("the first of them:" if len(found.orphans) > _SHOWN else "these:")
        print_table([_row(orphan) for orphan in found.orphans[:_SHOWN]])
    if found.spared:
        print_heading("nothing refers to these either, and they stay:")
        print_table([{"objects": n, "because": why} for why, n in found.spared.items()])
    if found.not_ours:
        print_heading(
            f"not ours: {counted(found.not_ours, 'object')}, {found.not_ours_bytes} bytes, with "
            "raw media and the metadata; never removed"
        )
        for key in found.not_ours_keys:
            print(key)


def _all_kinds(found: "Found") -> dict[str, tuple[int, int]]:
    return dict.fromkeys(found.examined, (0, 0)) | found.by_kind()


def _row(orphan: "Orphan") -> dict[str, object]:
    return {
        "written": orphan.modified.isoformat(timespec="seconds"),
        "bytes": orphan.size,
        "kind": orphan.kind,
        "key": orphan.key,
    }


def _told(orphans: "Sequence[Orphan]") -> str:
    size = sum(orphan.size for orphan in orphans)
    return f"{counted(len(orphans), 'object')}, {size} bytes,"


def _document(found: "Found", done: "Collected | None") -> Mapping[str, Any]:
    document: dict[str, Any] = {
        "cutoff": found.cutoff.isoformat(),
        "examined": found.examined,
        "orphans": [_row(orphan) for orphan in found.orphans],
        "spared": found.spared,
        "not_ours": {"objects": found.not_ours, "bytes": found.not_ours_bytes},
    }
    if done is not None:
        document["deleted"] = [orphan.key for orphan in done.deleted]
        document["spared_after_all"] = done.spared
        document["report"] = done.report
    return document
