from dataclasses import dataclass
from pathlib import Path

import pytest

from clipfarm_assets.demo.songs.config import demo_config
from clipfarm_assets.demo.songs.corpus import SongCorpus, make_songs
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.songs.alignment import check_alignment
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.pipelines.songs.splits import make_splits
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import song_config

SONGS, SEGMENTS = 8, 3


@dataclass(frozen=True)
class Prepared:
    """A corpus with all edge cases, divided and aligned without Dagster."""

    folder: Path
    deployment: Deployment
    corpus: SongCorpus


@pytest.fixture(scope="package")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    store, layout, config = (
        ObjectStore.open(str(folder / "store")),
        SongLayout(),
        song_config(demo_config(SONGS)),
    )
    corpus = make_songs(store, layout, SONGS, SEGMENTS, edge_cases=True)
    make_splits(store, layout, config)
    for album in read_segments(store, layout).albums:
        check_alignment(store, layout, config, album)
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}", store.url) as ledger:
        deployment = Deployment(store, Layout(), ledger, songs=layout, song_config=config)
        yield Prepared(folder, deployment, corpus)
