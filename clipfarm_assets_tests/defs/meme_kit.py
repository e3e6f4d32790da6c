"""A store with generated memes, and the meme jobs run on it with experts that cost little."""

import shutil
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from clipfarm_assets.demo.memes.sample import make_memes
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets_tests.defs import kit

LABEL = "abuse_hate"
ROWS = 48
EPOCHS = 2


@dataclass
class MemeBench(kit.Bench):
    """A bench with memes; its experts are tiny stand-ins, fine-tuned by their heads alone."""

    @property
    def memes(self):
        return MemeLayout()

    def make(self, kind="xor", rows=ROWS, *, edge_cases=True):
        make_memes(self.store, self.memes, kind, rows, edge_cases=edge_cases)
        return self

    def copy(self, root):
        shutil.copytree(self.root, root)
        return type(self)(root)

    @cached_property
    def bases(self):
        """Modality -> directory of a tiny model to fine-tune."""
        from clipfarm_assets.training.experts.stand_ins import (
            StandInSize,
            stand_in_text,
            stand_in_vision,
        )

        size = StandInSize(hidden=24, layers=1, heads=2, inner=24, image=32, patch=16)
        folder = self.root / "bases"
        folder.mkdir(exist_ok=True)
        texts = ["lovely golden cheerful dreary bitter gloomy monday station"]
        return {
            "text": stand_in_text(folder, texts, size),
            "vision": stand_in_vision(folder, size),
        }

    def train_config(self, **fusion):
        """Of the job that trains."""
        ops = {
            f"memes__{modality}_expert": {
                "config": {
                    "base": str(path),
                    "max_epochs": EPOCHS,
                    "hyperparameters": {"top_layers": 0},
                }
            }
            for modality, path in self.bases.items()
        }
        ops["memes__fusion_model"] = {"config": {"max_epochs": EPOCHS, **fusion}}
        ops["memes__evaluation"] = {"config": {"resamples": 200}}
        return {"ops": ops}

    def pack(self, instance, *, check=True):
        """Observe, divide, and pack all splits in one run."""
        self.run(instance, "memes_observe", check=check)
        self.run(instance, "memes_split", check=check)
        return self.run(instance, "memes_pack", span=("train", "test"), check=check)

    def train(self, instance, *, check=True, **fusion):
        return self.run(
            instance, "memes_train", LABEL, config=self.train_config(**fusion), check=check
        )

    def objects(self):
        """Everything that was made, and its bytes."""
        return {
            info.key: self.store.get(info.key)
            for info in self.store.list("memes/")
            if not info.key.startswith("memes/raw/")
        }


def observations(instance):
    """The metadata of the manifest's observations, newest first."""
    records = instance.fetch_observations(dg.AssetKey(["memes", "manifest"]), limit=100).records
    return [record.asset_observation for record in records]


def shown(instance, name):
    """Partition -> metadata of the last materialisation."""
    return kit.materialised(instance, name, "memes")


def checked(instance, asset, check):
    """Partition -> (passed, metadata) of the last evaluation."""
    return kit.check_results(instance, asset, check, "memes")


def table(value):
    """The records of a table in metadata."""
    return [record.data for record in value.records]
