"""``clipfarm retry``: failed clips are taken up again by the next run."""

from typing import Annotated, Final

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import counted, print_json, print_table

_DEFAULT: Final = "fail_terminal"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(retry)


def retry(
    video_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VIDEO_ID]...",
            help="Only these clips; put -- before an id that begins with a dash.",
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Only this stage, e.g. video_embedding.")
    ] = None,
    status: Annotated[
        str,
        typer.Option(
            metavar="STATUS",
            help="fail_terminal: given up. fail: to be tried again anyway, its count is reset.",
        ),
    ] = _DEFAULT,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which clips it would be, and change nothing.")
    ] = False,
    as_json: frame.AsJson = False,
) -> None:
    """Mark failed clips so that the next run takes them up again, with no failures counted.

    The state is published, so that every machine sees it.
    """
    from clipfarm_assets.pipelines.inspect.plan import restore
    from clipfarm_assets.pipelines.inspect.retry import RETRYABLE, failures, mark
    from clipfarm_assets.pipelines.inspect.run_settings import STAGES

    frame.choice("--stage", stage, STAGES)
    frame.choice("--status", status, RETRYABLE)
    wanted = [frame.checked_id(video_id) for video_id in video_ids or ()]
    stages = STAGES if stage is None else (stage,)
    with frame.reading() as reading:
        restore(reading.deployment, stages)
        found = failures(reading.deployment, reading.ledger, stages, status, wanted)
    if dry_run:
        marked = dict.fromkeys(found.by_stage, 0)
    else:
        with frame.writing() as deployment:
            marked = mark(deployment, found, status)
    if as_json:
        print_json({"dry_run": dry_run, "clips": found.by_stage, "marked": marked})
        return
    print_table(
        [
            {"stage": s, status: len(ids), "marked": marked[s], "e.g.": ", ".join(ids[:5])}
            for s, ids in found.by_stage.items()
        ]
    )
    if dry_run:
        print(f"{counted(found.total, 'clip')} would be tried again: run it without --dry-run")
    elif sum(marked.values()) < found.total:
        left = counted(found.total - sum(marked.values()), "clip")
        print(f"{left} were settled by a run meanwhile, and stay so")
