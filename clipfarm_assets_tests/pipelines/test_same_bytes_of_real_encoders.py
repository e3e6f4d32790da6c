"""A real encoder's vectors are the same bytes for any batch size, and after a kill and a resume."""

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
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.real_run import embed
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
def test_any_batch_size_and_a_kill_half_way_give_the_same_bytes(copy_of, modality):
    undisturbed = embed(copy_of("one"), modality, batch_size=1)
    assert len(undisturbed) >= 8
    assert embed(copy_of("eight"), modality, batch_size=8) == undisturbed

    killed = copy_of("killed")
    module = "clipfarm_assets_tests.pipelines.real_run"
    command = [sys.executable, "-m", module, str(killed), modality, json.dumps(asdict(HALF_WAY))]
    done = subprocess.run(command, cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL
    left = list(ObjectStore.open(str(killed / "store")).list(f"clipfarm/embeddings/{modality}/"))
    assert len(left) == HALF_WAY.nth

    assert embed(killed, modality, batch_size=3) == undisturbed
