"""``make demo-songs``: generated songs through the song pipeline, and what became of them.

Runs the jobs of the real definitions on the Dagster instance of ``$DAGSTER_HOME``, so that
``make ui`` shows its runs, checks and plots. Running it again computes nothing twice.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster import DagsterInstance

from clipfarm_assets.demo.run import prepare_home, required, run_job
from clipfarm_assets.demo.songs import summary
from clipfarm_assets.demo.songs.config import demo_config
from clipfarm_assets.demo.songs.corpus import make_songs
from clipfarm_assets.demo.songs.plan import ALBUMS, SEGMENTS_PER_SONG, SONGS
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import FUSION_STRATEGIES, SongLayout

Print = Callable[[str], None]

SONGS_VARIABLE: Final = "CLIPFARM_DEMO_SONGS"
"""Songs of the corpus, instead of its own number."""
FEWEST: Final = 4 * len(ALBUMS)
"""Of fewer songs, splits of one have no bounds worth the name."""

_EVERY: Final = "every album"
_STRATEGIES: Final = (FUSION_STRATEGIES[0], FUSION_STRATEGIES[-1])
# One, so that it is seen: what dropout spares takes many corpora to tell, and half the demo's time.
_WITHOUT_DROPOUT: Final = {"without_dropout": [FUSION_STRATEGIES[0]]}

# The jobs in order, each with its range of partitions and the configuration of its step.
STEPS: Final[tuple[tuple[str, tuple[str, str] | str | None, Mapping[str, Any]], ...]] = (
    ("songs_observe", None, {}),
    ("songs_split", None, {}),
    ("songs_align", _EVERY, {}),
    ("songs_features", _EVERY, {}),
    ("songs_train", _STRATEGIES, {}),
    ("songs_compare", None, {"songs__strategy_comparison": {"config": _WITHOUT_DROPOUT}}),
)


def main(say: Print = print) -> int:
    """Make the corpus if there is none, run everything, print the result; an exit status."""
    home, store_url = required("DAGSTER_HOME"), required("CLIPFARM_STORE")
    prepare_home(Path(home))
    # Not before the environment is known to be set: the definitions read it.
    from clipfarm_assets.definitions import definitions
    from clipfarm_assets.defs.resources import resources_from
    from clipfarm_assets.orchestration.song_settings import VARIABLE, song_settings

    told = song_settings()
    config = {**told.model_dump(mode="json"), "config": told.config or demo_config(songs_told())}
    resources = resources_from({**os.environ, VARIABLE: json.dumps(config)})
    deployment = resources["deployment"]
    make_corpus(deployment.open_store(), deployment.songs, say)
    defs = definitions(resources)
    seconds: dict[str, dict[str, float]] = {}
    with DagsterInstance.get() as instance:
        for job, partitions, ops in STEPS:
            chosen = _albums(instance) if isinstance(partitions, str) else partitions
            say(f"\n== {job} {' to '.join(chosen or ())}".rstrip())
            seconds[job] = run_job(defs, instance, job, chosen, ops)
    with deployment.open() as opened:
        text, as_declared = summary.of(opened, seconds)
    say(f"\n{text}")
    say(f"\nStore    {store_url}\nDagster  {home}\nLook at it: make ui, then http://localhost:3000")
    say(f"To run more of it there: export {VARIABLE}='{json.dumps(config)}'")
    return 0 if as_declared else 1


def make_corpus(store: ObjectStore, layout: SongLayout, say: Print) -> None:
    """Compose the songs, unless the store has their metadata already."""
    if store.exists(layout.metadata()):
        say(f"{layout.metadata()} is there: working on the songs as they are")
        return
    made = make_songs(store, layout, songs_told(), edge_cases=True, say=say)
    hard = made.rows - len(made.plan.segments)
    say(
        f"{len(made.plan.segments)} segments of {len(made.plan.segments) // SEGMENTS_PER_SONG} "
        f"songs, {hard} rows of edge cases, {made.files} files, {made.bytes / 1e6:.1f} MB"
    )


def songs_told() -> int:
    """How many songs there are to be, as the variable says."""
    text = os.environ.get(SONGS_VARIABLE)
    if not text:
        return SONGS
    if not text.isdecimal() or int(text) < FEWEST:
        must = f"must be a number of songs, {FEWEST} or more, e.g. {SONGS}"
        sys.exit(f"{SONGS_VARIABLE} {must}: found {text!r}")
    return int(text)


def _albums(instance: dg.DagsterInstance) -> tuple[str, str]:
    """The first and the last album that the instance knows."""
    from clipfarm_assets.orchestration import partitions

    albums = partitions.known_albums(instance)
    return albums[0], albums[-1]
