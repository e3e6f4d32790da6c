"""A deployment of generated vectors, and suites on it that cost little."""

from contextlib import contextmanager

import pytest
import sklearn.ensemble  # so that its thread pools are there to be limited
import torch
from threadpoolctl import threadpool_limits

from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.assemble import AssembleOptions, assemble
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.train import TrainOptions, train_snapshot
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training import suite
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.environment import GIT_SHA_VARIABLE

assert sklearn.ensemble

GIT_SHA = "0123456789abcdef0123456789abcdef01234567"
DIMS = {"video": 8, "audio": 7, "text": 6}
CLIPS = 150
QUICK = SuiteConfig.model_validate(
    {
        "concat_mlp": {"hidden": [16, 8], "fit": {"max_epochs": 3}},
        "gated_fusion_mlp": {
            "tower_dim": 8,
            "gate_hidden": 8,
            "hidden": [8],
            "fit": {"max_epochs": 3},
        },
        "gbdt": {"projector_dim": 4, "projector_hidden": 8, "boosting": {"max_iter": 20}},
        "metadata_only": {"max_iter": 20},
        "pca_gbdt": {"components": 3, "boosting": {"max_iter": 20, "early_stopping": False}},
        "stacked": {"folds": 2},
    }
)
"""All families within a second, none of them good."""
FLOOR = TrainOptions(families=("mean",), compare_splits=())
"""What costs least."""


class Bench:
    """A store of planted clips in a folder."""

    def __init__(self, folder, *, made=True, **options):
        self.store = ObjectStore.open(str(folder / "store"))
        self.layout = Layout()
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.sqlite", self.store.url)
        self.deployment = Deployment(self.store, self.layout, self.ledger)
        self.said = []
        if made:
            options = {"clips": CLIPS, "dims": DIMS, "seed": 3, "shard_rows": 64, **options}
            self.report = make_planted_store(self.store, self.layout, **options)

    def assemble(self, strategy="concat", horizon=7, **options):
        return assemble(self.deployment, strategy, horizon, AssembleOptions(**options))

    def train(self, data, run_id="r1", config=QUICK, options=None):
        options = options or TrainOptions()
        return train_snapshot(self.deployment, data, run_id, config, options, self.said.append)

    def files(self, trained):
        """The snapshot's artifacts by name."""
        root = trained.id.root(self.layout)
        return {i.key.removeprefix(root): self.store.get(i.key) for i in self.store.list(root)}


@contextmanager
def one_thread():
    """OpenMP's threads spin while they wait for each other.

    Where other processes want the cores too, many small fits then take a hundred times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def quiet():
    """One thread, and a commit that does not change while others work on the checkout."""
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(GIT_SHA_VARIABLE, GIT_SHA)
        yield


def families_opened(monkeypatch):
    """A list that names every family a suite opens from now on."""
    names, real = [], suite.open_family

    def open_family(name):
        names.append(name)
        return real(name)

    monkeypatch.setattr(suite, "open_family", open_family)
    return names


def train_in(folder):
    """Make one and train it, for tests that need another process."""
    with one_thread():
        bench = Bench(folder)
        bench.train(bench.assemble())
        bench.ledger.close()
