"""``make demo-memes``: generated memes through the meme pipeline, and what became of them.

Three sets (see `plan`), each below a prefix of its own in the demo's store. The first one, ``xor``
with all edge cases, is the deployment's own: it runs on the Dagster instance of ``$DAGSTER_HOME``,
so that ``make ui`` shows its runs, checks and plots. The others run beside it, on instances that
are gone afterwards. Running it again computes nothing twice.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg
from dagster import DagsterInstance

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_LABEL
from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.demo.memes import summary
from clipfarm_assets.demo.memes.plan import FEWEST, ROWS, Kind
from clipfarm_assets.demo.memes.sample import make_memes
from clipfarm_assets.demo.run import prepare_home, required, run_job
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore

Print = Callable[[str], None]

# The jobs in order, each with the first and the last partition of its range.
STEPS: Final[tuple[tuple[str, tuple[str, str] | None], ...]] = (
    ("memes_observe", None),
    ("memes_split", None),
    ("memes_pack", (SPLITS[0], SPLITS[-1])),
    ("memes_train", (DEFAULT_LABEL, DEFAULT_LABEL)),
)

ROWS_VARIABLE: Final = "CLIPFARM_DEMO_MEMES"
"""Memes of the sets ``xor`` and ``noise``, instead of their own numbers."""


@dataclass(frozen=True, slots=True)
class DemoSet:
    """A set of the demo.

    Attributes:
        kind: Which.
        is_own: Whether it is the deployment's, shown in the UI.
    """

    kind: Kind
    is_own: bool = False


SETS: Final = (DemoSet("pilot"), DemoSet("noise"), DemoSet("xor", is_own=True))


def main(say: Print = print) -> int:
    """Make the sets where there are none, run everything, print the result; an exit status."""
    home, store_url = required("DAGSTER_HOME"), required("CLIPFARM_STORE")
    prepare_home(Path(home))
    # Not before the environment is known to be set: the definitions read it.
    from clipfarm_assets.definitions import definitions
    from clipfarm_assets.defs.resources import resources_from
    from clipfarm_assets.orchestration.meme_settings import VARIABLE, meme_settings

    told = meme_settings()
    outcomes = []
    for each in SETS:
        prefix = told.prefix if each.is_own else f"{told.prefix}-{each.kind}"
        config = {**told.model_dump(mode="json"), "prefix": prefix}
        resources = resources_from({**os.environ, VARIABLE: json.dumps(config)})
        deployment = resources["deployment"]
        store, layout = deployment.open_store(), deployment.memes
        say(f"\n== {each.kind} memes, below {layout.prefix}/")
        make_set(store, layout, each, say)
        seconds = _run(definitions(resources), each, say)
        outcomes.append(summary.outcome_of(each.kind, store, layout, seconds))
    text, as_declared = summary.of(outcomes)
    say(f"\n{text}")
    say(f"\nStore    {store_url}\nDagster  {home}\nLook at it: make ui, then http://localhost:3000")
    return 0 if as_declared else 1


def make_set(store: ObjectStore, layout: MemeLayout, each: DemoSet, say: Print) -> None:
    """Draw the set, unless the store has a manifest there already."""
    if store.exists(layout.manifest()):
        say(f"{layout.manifest()} is there: working on the memes as they are")
        return
    rows = None if each.kind == "pilot" else rows_told()
    made = make_memes(store, layout, each.kind, rows, edge_cases=each.is_own, say=say)
    hard = f", {len(made.edge_cases)} edge cases" if made.edge_cases else ""
    say(f"{made.lines} lines{hard}, {made.images} images, {made.bytes / 1e6:.1f} MB")


def rows_told() -> int | None:
    """Memes of the larger sets, as the variable says; None for their own numbers."""
    text = os.environ.get(ROWS_VARIABLE)
    if not text:
        return None
    if not text.isdecimal() or int(text) < FEWEST:
        must = f"must be a number of memes, {FEWEST} or more, e.g. {ROWS['xor']}"
        sys.exit(f"{ROWS_VARIABLE} {must}: found {text!r}")
    return int(text)


def _run(defs: dg.Definitions, each: DemoSet, say: Print) -> dict[str, dict[str, float]]:
    """Run all steps; seconds by job and step."""
    seconds = {}
    with DagsterInstance.get() if each.is_own else DagsterInstance.ephemeral() as instance:
        for job, partition_range in STEPS:
            say(f"\n-- {each.kind}: {job} {' to '.join(partition_range or ())}".rstrip())
            seconds[job] = run_job(defs, instance, job, partition_range)
    return seconds
