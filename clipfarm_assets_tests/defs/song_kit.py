"""A store with generated songs, and the song jobs run on it with networks that cost little."""

import json
import shutil
from dataclasses import dataclass

import dagster as dg
from dagster_aws.s3 import S3Resource

from clipfarm_assets.demo.songs.corpus import make_songs
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets_tests.defs import kit

SONGS, SEGMENTS = 12, 2
CONFIG = {
    "model": {
        "audio_encoder": {"type": "cnn", "channels": [4], "tokens": 2},
        "midi_encoder": {"type": "piano_roll", "channels": [4], "tokens": 2},
        "fusion": {"hidden": [8], "heads": 2, "layers": 1},
        "hidden_dim": 8,
    },
    "preprocessing": {
        "audio": {"sample_rate": 8000, "seconds": 6, "mel": {"n_fft": 512, "n_mels": 8}},
        "midi": {"frames_per_second": 4, "lowest_pitch": 36, "highest_pitch": 95},
    },
    "data": {"ratios": [0.5, 0.25, 0.25], "declared": {"audio": 0.9}},
    "training": {"fit": {"max_epochs": 2, "batch_size": 16}, "warm_start_epochs": 0},
    "evaluation": {"resamples": 100, "most_degradation": 1.0},
}


@dataclass
class SongBench(kit.Bench):
    """A bench with songs."""

    @property
    def songs(self):
        return SongLayout()

    def resource(self):
        return DeploymentResource(
            store=str(self.root / "store"),
            ledger=f"sqlite:///{self.root / 'ledger.sqlite'}",
            songs_config=json.dumps(CONFIG),
            s3=S3Resource(),
        )

    def make(self):
        make_songs(self.store, self.songs, SONGS, SEGMENTS, edge_cases=True)
        return self

    def copy(self, root):
        shutil.copytree(self.root, root)
        return type(self)(root)

    def prepare(self, instance):
        """Observe, divide, align, and compute features of all albums, a run a job."""
        self.run(instance, "songs_observe")
        self.run(instance, "songs_split")
        albums = instance.get_dynamic_partitions("song_albums")
        for job in ("songs_align", "songs_features"):
            self.run(instance, job, span=(albums[0], albums[-1]))

    def train(self, instance, span=("late", "gated"), **options):
        return self.run(instance, "songs_train", span=span, **options)

    def objects(self):
        """Everything that was made, and its bytes."""
        return {
            info.key: self.store.get(info.key)
            for info in self.store.list("songs/")
            if not info.key.startswith("songs/raw/")
        }


def observed(instance, name):
    """The last observation."""
    key = dg.AssetKey(["songs", name])
    return instance.fetch_observations(key, limit=1).records[0].asset_observation


def shown(instance, name):
    """Partition -> metadata of the last materialisation."""
    return kit.materialised(instance, name, "songs")


def versions(instance, name):
    """Partition -> data version of the last materialisation."""
    found = kit.materialisations(instance, name, "songs")
    return {key: each.tags["dagster/data_version"] for key, each in found.items()}


def checked(instance, asset, check):
    """Partition -> (passed, metadata) of the last evaluation."""
    return kit.check_results(instance, asset, check, "songs")


def table(value):
    """The records of a table in metadata."""
    return [record.data for record in value.records]
