"""``clipfarm plan``: what the next run will do, and why."""

import os
from typing import TYPE_CHECKING

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import counted, moment, print_heading, print_json, print_table, told

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.inspect.plan import Plan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(plan)


def plan(
    date: frame.OneDate = None,
    first: frame.FirstDate = None,
    last: frame.LastDate = None,
    as_json: frame.AsJson = False,
) -> None:
    """What the next run will do, by date and stage, why, and how long it should take.

    Without dates, for all that have clips. Nothing is decoded, loaded or written.
    """
    from clipfarm_assets.pipelines.inspect.run_settings import run_settings

    asked = frame.dates_asked(date, first, last)
    settings = run_settings(os.environ)
    with frame.reading() as reading:
        found = frame.planner(reading, settings).plan(asked)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: "Plan") -> None:
    if not found.indexes:
        print("No date asked for has clips.")
    else:
        _print_parts(found)
    if any(found.skipped.values()):
        print(f"\nIn no partition: {told(found.skipped)}")
    for stage, sentence in found.stops.items():
        print(f"\n{stage} will stop: {sentence}")
    for note in found.notes:
        print(f"\nNote: {note}")


def _print_parts(found: "Plan") -> None:
    print("Indexes")
    print_table(
        [{"date": i.date, "clips": i.clips, "stored index": i.stored} for i in found.indexes]
    )
    print_heading("Clips that are taken up")
    print_table(
        [
            {
                "date": part.date,
                "stage": part.stage,
                "clips": part.taken_up,
                "why": told(part.reasons),
                "expected": told(part.expected),
                "e.g.": ", ".join(next(iter(part.samples.values()), ())),
            }
            for part in found.parts
            if part.taken_up
        ]
    )
    idle = sum(not part.taken_up for part in found.parts)
    if idle:
        print(f"{counted(idle, 'date and stage', 'dates and stages')} with nothing to do")
    print_heading("Fused rows to come")
    print_table(
        [{"strategy": strategy, "rows": rows} for strategy, rows in found.fused_rows.items()]
    )
    print_heading("Expected time of the embedding stages")
    print(_time(found))
    for stage, rate in found.rates.items():
        if rate is not None:
            print(
                f"{stage}: {rate.per_second:.2f} clips a second, the median of "
                f"{counted(rate.runs, 'run')} of {counted(rate.items, 'clip')} until "
                f"{moment(rate.until)}, "
                "by the ledger's processed_at"
            )


def _time(found: "Plan") -> str:
    if found.seconds is None:
        return "unknown: the ledger names no run of a stage with 8 clips or more"
    if found.seconds < 60:
        return "less than a minute, and the loading of models"
    hours, minutes = divmod(round(found.seconds / 60), 60)
    return f"about {hours} h {minutes} min, and the loading of models"
