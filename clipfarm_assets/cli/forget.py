"""``clipfarm forget``: a clip is removed for good."""

from typing import TYPE_CHECKING, Annotated

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import counted, print_heading, print_json, print_table

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.upkeep.presence import Presence


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(forget)


def forget(
    video_id: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO_ID", help="The clip; put -- before an id that begins with a dash."
        ),
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove it; without this it is only told where it is.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Also its raw video, audio and text.")] = False,
    as_json: frame.AsJson = False,
) -> None:
    """Remove a clip from store, manifests and ledger, for good: no later run takes it up again.

    Lists the snapshots and models that it was in; these stay.
    """
    from clipfarm_assets.pipelines.upkeep.forget import find_clip, forget_clip

    frame.checked_id(video_id)
    if not yes:
        with frame.reading() as reading:
            found = find_clip(reading.deployment, video_id)
        if as_json:
            print_json({"forgotten": False, "before": found, "after": found})
            return
        _print_removed(found, raw=raw)
        _print_stays(found, raw=raw)
        if found.remains(raw=raw):
            print("\nnothing was removed: run it with --yes")
        return
    with frame.writing() as deployment:
        done = forget_clip(deployment, video_id, raw=raw)
    if as_json:
        print_json({"forgotten": True, "before": done.before, "after": done.after})
        return
    _print_removed(done.before, raw=raw)
    _print_stays(done.after, raw=raw)
    print(f"\n{video_id} is forgotten: what is left of it in the ledger is a tombstone")


def _print_removed(found: "Presence", *, raw: bool) -> None:
    if not found.remains(raw=raw):
        print(f"{found.video_id} is forgotten already: nothing of it is left but its tombstone")
        return
    rows: list[dict[str, object]] = [
        {"what": "state", "where": stage, "rows": status} for stage, status in found.states.items()
    ]
    rows += [{"what": "vector", "where": key, "rows": 1} for key in found.embeddings]
    rows += [{"what": "shard, rewritten", "where": key, "rows": 1} for key in found.shards]
    rows += [{"what": "manifest", "where": key, "rows": n} for key, n in found.manifests.items()]
    rows += [{"what": "table", "where": key, "rows": n} for key, n in found.tables.items()]
    if raw:
        rows += [{"what": "raw object", "where": key, "rows": 1} for key in found.raw]
    print(f"to be removed of {found.video_id}:")
    print_table(rows)


def _print_stays(found: "Presence", *, raw: bool) -> None:
    """What forgetting leaves, and what to do about it."""
    if found.raw and not raw:
        print_heading(f"stay, unless --raw is given: {counted(len(found.raw), 'raw object')}")
        for key in found.raw:
            print(key)
    if found.in_metadata or found.in_text_state:
        print_heading("not ours to change, and passed over from now on:")
        if found.in_metadata:
            print("its rows of the metadata CSV")
        if found.in_text_state:
            print("its row of the text downloader's state")
    if found.in_metadata is None:
        print_heading("the metadata CSV can't be read: whether it has the clip isn't known")
    if found.datasets:
        print_heading("training datasets that have it: materialise clips/training_dataset again")
        for key in found.datasets:
            print(key)
    if found.trained:
        print_heading("snapshots that were made with it: they stay; train and promote new ones")
        print_table(
            [
                {
                    "run_id": t.run_id,
                    "strategy": t.strategy,
                    "horizon": t.horizon,
                    "family": t.family or "all",
                    "split": t.split,
                    "promoted as": ", ".join(t.models),
                }
                for t in found.trained
            ]
        )
    for sentence in found.unreadable:
        print_heading(f"can't be looked at: {sentence}")
