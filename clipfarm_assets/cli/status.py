"""``clipfarm status``: how the stages stand, in all and by date."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from clipfarm_assets.cli import frame
from clipfarm_assets.cli.output import (
    Refused,
    moment,
    plain,
    print_heading,
    print_json,
    print_table,
    told,
)

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.inspect.status import DateState

_LATEST_DATES: Final = 7


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    date: frame.OneDate = None,
    first: frame.FirstDate = None,
    last: frame.LastDate = None,
    stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Only this one, e.g. video_embedding, fusion_concat."),
    ] = None,
    as_json: frame.AsJson = False,
) -> None:
    """How the stages stand, in all and by date, and what lies downstream of them.

    Without dates, those of the last 7 that have an index. Nothing is written.
    """
    from clipfarm_assets.pipelines.inspect import status as inspect
    from clipfarm_assets.pipelines.inspect.run_settings import STAGES

    frame.choice("--stage", stage, STAGES)
    asked = frame.dates_asked(date, first, last)
    stages = STAGES if stage is None else (stage,)
    with frame.reading() as reading:
        deployment, ledger = reading.deployment, reading.ledger
        dates = inspect.indexed_dates(deployment)
        shown = (
            dates[-_LATEST_DATES:]
            if asked is None
            else [d for d in dates if asked[0] <= d <= asked[1]]
        )
        if asked is not None and not shown:
            there = f"there are those of {dates[0]} to {dates[-1]}" if dates else "there is none"
            msg = f"no date asked for has a clip index: {there}; materialise clips/clip_index"
            raise Refused(msg)
        states = [inspect.stage_state(deployment, ledger, name) for name in stages]
        by_date = [s for d in shown for s in inspect.date_states(deployment, d, stages)]
        document = {
            "store": deployment.store.url,
            "ledger": ledger.absent or ledger.address,
            "stages": states,
            "dates_with_index": len(dates),
            "dates": by_date,
            "strategies": inspect.strategy_states(deployment),
            "models": inspect.model_states(deployment),
            "at_work": inspect.lease_states(ledger),
        }
    if as_json:
        print_json(document)
        return
    facts = plain(document)
    print(f"store   {facts['store']}")
    print(f"ledger  {facts['ledger']}")
    print_heading("Stages")
    print_table(
        [
            {
                "stage": s["stage"],
                "items": s["items"],
                "statuses": told(s["statuses"]),
                "last changed": moment(s["changed_at"]),
                "published": s["published"],
            }
            for s in facts["stages"]
        ]
    )
    _print_dates(by_date, len(dates) - len(shown) if asked is None else 0)
    print_heading("Strategies")
    print_table(facts["strategies"])
    print_heading("Models that serve")
    print_table(facts["models"])
    if facts["at_work"]:
        print_heading("At work")
        print_table(facts["at_work"])


def _print_dates(by_date: "list[DateState]", earlier: int) -> None:
    if not by_date:
        print("\nNo date has a clip index yet.")
        return
    print_heading("By date of the clip index")
    print_table(
        [
            {"date": s.date, "stage": s.stage, "clips": s.clips, "statuses": told(s.statuses)}
            for s in by_date
        ]
    )
    if earlier:
        print(f"{earlier} earlier dates are not shown: name them with --from and --to")
