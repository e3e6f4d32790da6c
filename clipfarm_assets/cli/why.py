"""``clipfarm why VIDEO_ID``: everything that is known of one clip."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import moment, print_heading, print_json, print_table

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.inspect.clip import ClipFacts, StageFacts


def register(app: typer.Typer) -> None:
    """Add the command. An id may begin with ``-``, so what is no option is taken for one."""
    app.command(context_settings={"ignore_unknown_options": True})(why)


def why(
    video_id: Annotated[str, typer.Argument(metavar="VIDEO_ID", help="The clip.")],
    as_json: frame.AsJson = False,
) -> None:
    """Everything that is known of one clip: rows, states, objects, pointers, uses.

    Also what the next run will do with it, and why. Nothing is written.
    """
    from clipfarm_assets.pipelines.inspect.clip import clip_facts
    from clipfarm_assets.pipelines.inspect.run_settings import run_settings

    frame.checked_id(video_id)
    settings = run_settings(os.environ)
    with frame.reading() as reading:
        facts = clip_facts(frame.planner(reading, settings), video_id)
    if as_json:
        print_json(facts)
    else:
        _print(facts)


def _print(facts: "ClipFacts") -> None:
    print(facts.video_id)
    if facts.forgotten_at:
        print(
            f"removed for good at {moment(facts.forgotten_at)} by clipfarm forget: a tombstone in "
            "each stage keeps every run from it"
        )
    print_heading("Metadata")
    metadata = facts.metadata
    if metadata is None:
        print(facts.no_metadata)
    else:
        print_table(metadata.rows)
        if metadata.date:
            print(f"date         {metadata.date} ({metadata.partition})")
            print(f"source_hash  {metadata.source_hash}: sha256 of {metadata.hashed}")
        else:
            print(metadata.partition)
    print_heading("Stages")
    print_table([_stage(stage) for stage in facts.stages])
    for stage in facts.stages:
        if stage.row and stage.row.error:
            print(f"{stage.stage}: {stage.row.error}")
    print_heading("What the next run does")
    print_table([{"stage": s.stage, "with the clip": s.next_run} for s in facts.stages])
    print_heading("Objects")
    print_table(
        [
            {"object": o.what, "bytes": o.size, "found": o.verdict, "key": o.key}
            for o in facts.objects
        ]
    )
    print_heading("Fused vectors")
    print_table(
        [
            {
                "strategy": p.strategy,
                "named by": p.named_by,
                "status": p.status,
                "row": p.row,
                "found": p.verdict,
                "shard": p.key,
                "source_hash": p.source_hash[:12],
            }
            for p in facts.pointers
        ]
    )
    if not facts.pointers:
        print("none")
    _print_uses(facts)


def _stage(facts: "StageFacts") -> dict[str, object]:
    row = facts.row
    return {
        "stage": facts.stage,
        "status": row.status if row else "(none)",
        "tries failed": row.retry_count if row else None,
        "processed_at": moment(row.processed_at) if row else None,
        "version": row.version if row else None,
        "source_hash": row.source_hash[:12] if row else None,
        "sha256": (row.content_sha256 or "")[:12] if row else None,
        "state": "published, not restored here yet" if facts.from_published else "ledger",
    }


def _print_uses(facts: "ClipFacts") -> None:
    uses = facts.uses
    print_heading("Training data, models and predictions")
    print_table(
        [
            {"dataset": f"strategy={d.strategy}/horizon={d.horizon}", "sha256": d.sha256[:12]}
            for d in uses.datasets
        ]
    )
    print_table([{"snapshot": s.snapshot, "split": s.split} for s in uses.snapshots])
    print_table(
        uses.predictions, columns=("horizon_days", "model_version", "prediction_raw", "split")
    )
    for problem in uses.unreadable:
        print(f"unreadable: {problem}")
    if not (uses.datasets or uses.snapshots or uses.predictions or uses.unreadable):
        print("none")
