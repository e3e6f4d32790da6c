"""A real encoder's vectors are those of one clip at a time: in a flow, and after a kill."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.demo.sample_store import make_sample_store
from clipfarm_assets.encoders.models import MODEL_VARIABLES
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.workers import PUT_WORKERS
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.real_run import embed, one_by_one
from clipfarm_assets_tests.pipelines.workers import REPOSITORY, Kill

# The sixth of some ten vectors is stored, and its batch of three not yet on record.
HALF_WAY = Kill("ObjectStore.put", "clipfarm/embeddings/", 6, "after")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample")
    make_sample_store(ObjectStore.open(str(root / "store")), clips_per_date=12)
    return root


@pytest.fixture
def copy_of(sample, tmp_path, monkeypatch):
    for variable in MODEL_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)

    def copy(name: str) -> Path:
        shutil.copytree(sample, tmp_path / name)
        return tmp_path / name

    return copy


@pytest.mark.kills
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_stage_in_any_way_and_after_a_kill_gives_the_bytes_of_one_by_one(copy_of, modality):
    undisturbed = embed(copy_of("one"), modality, batch_size=1, workers=1, encode_workers=1)
    assert len(undisturbed) >= 8
    assert one_by_one(copy_of("alone"), modality, undisturbed) == undisturbed
    assert embed(copy_of("eight"), modality, workers=4, encode_workers=3) == undisturbed

    killed = copy_of("killed")
    module = "clipfarm_assets_tests.pipelines.real_run"
    command = [sys.executable, "-m", module, str(killed), modality, json.dumps(asdict(HALF_WAY))]
    done = subprocess.run(command, cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    store = ObjectStore.open(str(killed / "store"))
    left = {Path(info.key).stem for info in store.list(f"clipfarm/embeddings/{modality}/")}
    assert abs(len(left) - HALF_WAY.nth) < PUT_WORKERS  # others are stored beside the sixth
    with Ledger.open(f"sqlite:///{killed / 'ledger.sqlite'}", store.url) as ledger:
        assert len(left - set(ledger.rows(f"{modality}_embedding"))) <= 3  # the batch size

    assert embed(killed, modality, batch_size=3) == undisturbed
