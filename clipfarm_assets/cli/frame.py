"""What commands have in common: the deployment that the environment names, and their options.

Rooms that cost time to import are imported inside functions: ``clipfarm --help`` needs none.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipfarm_assets.cli.output import Refused

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.pipelines.environment import DeploymentSettings
    from clipfarm_assets.pipelines.inspect.foreseen import ForeseenLedger, ForeseenStore
    from clipfarm_assets.pipelines.inspect.plan import Planner
    from clipfarm_assets.pipelines.inspect.run_settings import RunSettings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
OneDate = Annotated[
    str | None, typer.Option("--date", metavar="DATE", help="One date, as YYYY-MM-DD.")
]
FirstDate = Annotated[
    str | None, typer.Option("--from", metavar="DATE", help="The first of a range of dates.")
]
LastDate = Annotated[
    str | None, typer.Option("--to", metavar="DATE", help="The last of a range of dates.")
]


@dataclass(frozen=True)
class Reading:
    """A deployment that is looked at: whatever is done with it, it stays as it is.

    Attributes:
        settings: Out of the environment.
        deployment: Over `store` and `ledger`.
        store: Refuses to be written.
        ledger: Keeps what is committed to itself, in memory.
    """

    settings: "DeploymentSettings"
    deployment: "Deployment"
    store: "ForeseenStore"
    ledger: "ForeseenLedger"


def settings_here() -> "DeploymentSettings":
    """The settings of this process's environment.

    Raises:
        ValueError: A variable has a value it can't have.
    """
    from clipfarm_assets.pipelines.environment import deployment_settings

    return deployment_settings(os.environ)


@contextmanager
def reading() -> Iterator[Reading]:
    """The deployment, to be read; nothing is created, not even an empty folder or database.

    Raises:
        Refused: There is no such store.
    """
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.pipelines.inspect.foreseen import ForeseenLedger, ForeseenStore

    settings = settings_here()
    _refuse_absent(settings)
    store = ForeseenStore(settings.store, settings.s3)
    with ForeseenLedger.open(settings.ledger, store.url) as ledger:
        yield Reading(settings, Deployment(store, settings.layout, ledger), store, ledger)


@contextmanager
def writing() -> Iterator["Deployment"]:
    """The deployment, to be changed. Its memes and songs are taken to lie where they do by default.

    Raises:
        Refused: There is no such store.
        StoreUnavailable: The S3 server ignores conditional writes, and would lose data.
    """
    from clipfarm_assets.ledger.ledger import Ledger
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.storage.objects import ObjectStore

    settings = settings_here()
    _refuse_absent(settings)
    store = ObjectStore.open(settings.store, settings.s3)
    if settings.store.startswith("s3://"):
        store.check_conditional_writes(f"{settings.layout.prefix}/state")
    with Ledger.open(settings.ledger, store.url) as ledger:
        yield Deployment(store, settings.layout, ledger)


def planner(reading: Reading, settings: "RunSettings") -> "Planner":
    """Foresees what runs with those settings would do."""
    from clipfarm_assets.pipelines.inspect.plan import planner_of

    return planner_of(
        reading.deployment,
        reading.store,
        reading.ledger,
        settings,
        reading.settings.profile,
        reading.settings.stand_ins,
    )


def dates_asked(one: str | None, first: str | None, last: str | None) -> tuple[str, str] | None:
    """The range of dates that options name, both included; None if they name none.

    Raises:
        typer.BadParameter: One is no date, or they contradict each other.
    """
    for option, text in (("--date", one), ("--from", first), ("--to", last)):
        _check_date(option, text)
    if one is not None:
        if first is not None or last is not None:
            raise typer.BadParameter("--date names one date: leave out --from and --to")
        return one, one
    if first is None and last is None:
        return None
    asked = first or "0001-01-01", last or "9999-12-31"
    if asked[0] > asked[1]:
        msg = f"--from {first} is after --to {last}"
        raise typer.BadParameter(msg)
    return asked


def choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    """Raise `typer.BadParameter` unless `value` is None or one of the choices."""
    if value is not None and value not in choices:
        msg = f"{option} must be one of {', '.join(choices)}: found {value!r}"
        raise typer.BadParameter(msg)


def checked_id(video_id: str) -> str:
    """`video_id` if keys may be built from it.

    Raises:
        typer.BadParameter: It can't be one.
    """
    from clipfarm_assets.storage.layout import BadVideoId, check_video_id

    try:
        return check_video_id(video_id)
    except BadVideoId as error:
        raise typer.BadParameter(str(error)) from None


def _refuse_absent(settings: "DeploymentSettings") -> None:
    from clipfarm_assets.pipelines.environment import STORE_VARIABLE

    if "://" not in settings.store and not Path(settings.store).expanduser().is_dir():
        msg = (
            f"the store {settings.store} does not exist: set {STORE_VARIABLE} to the "
            "deployment's folder or s3://bucket[/prefix]"
        )
        raise Refused(msg)


def _check_date(option: str, text: str | None) -> None:
    import datetime as dt

    if text is None:
        return
    try:
        canonical = dt.date.fromisoformat(text).isoformat()
    except ValueError:
        canonical = ""
    if canonical != text:
        msg = f"{option} must be a date as YYYY-MM-DD: found {text!r}"
        raise typer.BadParameter(msg)
