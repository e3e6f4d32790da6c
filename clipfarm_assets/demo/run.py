"""``make demo``: a sample store, the pipeline over its three dates, and what became of it.

Runs the jobs of the real definitions on the Dagster instance of ``$DAGSTER_HOME``, so that
``make ui`` shows the same runs, partitions, checks and numbers. Running it again computes nothing
twice: it tries the failed clips again and looks whether what was missing has come.
"""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster import DagsterInstance

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.demo import summary
from clipfarm_assets.demo.edge_cases import DATES
from clipfarm_assets.demo.plan import FEWEST_PER_DATE
from clipfarm_assets.demo.sample_store import make_sample_store
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore

Print = Callable[[str], None]

_STRATEGIES: Final = (statuses.STRATEGIES[0], statuses.STRATEGIES[-1])

# The code location's name in workspace.yaml.
_LOCATION: Final = "clipfarm"

# The jobs in order, each with the first and the last partition of its range.
STEPS: Final[tuple[tuple[str, tuple[str, str] | None], ...]] = (
    ("clips_observe", None),
    ("clips_daily", (DATES[0], DATES[-1])),
    ("clips_lock", _STRATEGIES),
    (
        "clips_fuse",
        (
            partitions.key_of(DATES[0], _STRATEGIES[0]),
            partitions.key_of(DATES[-1], _STRATEGIES[-1]),
        ),
    ),
    ("clips_publish", _STRATEGIES),
    (
        "clips_train",
        (
            partitions.training_job_key(_STRATEGIES[0], HORIZONS[0]),
            partitions.training_job_key(_STRATEGIES[-1], HORIZONS[-1]),
        ),
    ),
    ("clips_compare", None),
    ("clips_promote", (str(HORIZONS[0]), str(HORIZONS[-1]))),
    ("clips_score", (DATES[0], DATES[-1])),
)

# More clips than the sample's edge cases ask for: models need rows.
CLIPS_VARIABLE: Final = "CLIPFARM_DEMO_CLIPS_PER_DATE"
_DEFAULT_CLIPS: Final = "100"


def main(say: Print = print) -> int:
    """Make the store if there is none, run everything, print the result; an exit status."""
    home, store_url = required("DAGSTER_HOME"), required("CLIPFARM_STORE")
    prepare_home(Path(home))
    # Not before the environment is known to be set: the definitions read it.
    from clipfarm_assets.definitions import defs
    from clipfarm_assets.defs.resources import resources_from

    deployment = resources_from()["deployment"]
    make_store(deployment.open_store(), deployment.layout, say)
    seconds: dict[str, dict[str, float]] = {}
    with DagsterInstance.get() as instance:
        for job, partition_range in STEPS:
            say(f"\n== {job} {' to '.join(partition_range or ())}".rstrip())
            seconds[job] = run_job(defs, instance, job, partition_range)
    with deployment.open() as opened:
        text, as_expected = summary.of(opened, DATES, seconds)
    say(f"\n{text}")
    say(f"\nStore    {store_url}\nDagster  {home}\nLook at it: make ui, then http://localhost:3000")
    return 0 if as_expected else 1


def prepare_home(home: Path) -> None:
    """Make the instance's folder and give it this project's settings, unless it has its own."""
    home.mkdir(parents=True, exist_ok=True)
    settings = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
    if settings.exists() and not (home / "dagster.yaml").exists():
        shutil.copy(settings, home / "dagster.yaml")


def make_store(store: ObjectStore, layout: Layout, say: Print) -> None:
    """Encode the sample, unless the store has a metadata CSV already."""
    if store.exists(layout.metadata()):
        say(f"{layout.metadata()} is there: working on the store as it is")
        return

    def progress(done: int, total: int, what: str) -> None:
        if done % 50 == 0 or done == total:
            say(f"sample store: {done}/{total}  {what}")

    report = make_sample_store(store, layout, clips_per_date=clips_per_date(), progress=progress)
    kinds = ", ".join(f"{n} {kind}" for kind, n in report.objects.items())
    say(f"sample store: {kinds}; {report.csv_rows} CSV rows; {report.bytes / 1e6:.1f} MB")


def clips_per_date() -> int:
    """How many clips the sample has on each of its dates."""
    text = os.environ.get(CLIPS_VARIABLE) or _DEFAULT_CLIPS
    if not text.isdecimal() or int(text) < FEWEST_PER_DATE:
        must = f"must be a number of clips, {FEWEST_PER_DATE} or more"
        sys.exit(f"{CLIPS_VARIABLE} {must}: found {text!r}")
    return int(text)


def run_job(
    defs: dg.Definitions,
    instance: DagsterInstance,
    name: str,
    partition_range: tuple[str, str] | None,
    ops: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Run a job in this process over a range of its partitions; raises what a step raises.

    `ops` is the configuration of its steps, by their names.

    Returns:
        Seconds by step, in order.
    """
    # By this tag the UI knows whose job a run was: runs in this process have no other origin.
    tags = {".dagster/repository": f"{defs.get_repository_def().name}@{_LOCATION}"}
    if partition_range:
        first, last = partition_range
        tags |= {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
    result = defs.resolve_job_def(name).execute_in_process(
        instance=instance,
        tags=tags,
        run_config={"loggers": {"console": {"config": {}}}, "ops": dict(ops or {})},
    )
    return {
        event.step_key: event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.is_step_success and event.step_key
    }


def required(name: str) -> str:
    """The value of an environment variable; without one, ends with a sentence."""
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: run `make demo`, which sets it, or name a folder yourself")
    return value
