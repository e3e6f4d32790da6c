"""The chaos test at a small size, and that its proof finds what it is there to find."""

import os
import random
import re
import subprocess
import sys
import uuid
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.servers import BUCKET, postgres_server, s3_settings

pytestmark = [pytest.mark.chaos, pytest.mark.kills, pytest.mark.postgres, pytest.mark.s3]

ROOT = Path(__file__).resolve().parents[1]
SEED = 2


def test_nothing_is_lost_dangling_or_wrong():
    """Bounded by disturbances, not by time; `make chaos` goes on for minutes."""
    postgres_server()  # skips where there is none
    sizes = ["--actions", "30", "--clips", "16", "--dates", "2", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--seed", str(SEED), "--ttl", "1", *sizes],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("findings: 0")
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \|$", done.stdout, re.MULTILINE)
    told = {name: int(number) for name, number in rows}
    assert min(told[name] for name in ("kill", "storm", "restart database")) > 0
    assert min(told[name] for name in ("forget", "change source", "add")) > 0
    assert told["faults of S3"] > 0
    assert told["worker: done"] > 0
    assert told["vectors"] > 40
    assert told["fused vectors"] > 20


@pytest.fixture
def chaos(monkeypatch):
    """The benchmark's modules: they are not installed."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.chaos import census, commits, proof, worker

    return census, commits, proof, worker


@pytest.fixture
def at_rest(chaos, tmp_path):
    """A deployment to which nothing happened but that a clip was forgotten, and what was put."""
    census_of, commits, proof, worker = chaos
    url = postgres_server().url
    commits.watch(url)
    store_url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    place = worker.Place(store_url, s3_settings(), url, tmp_path, 60.0)
    store = ObjectStore.open(store_url, s3_settings())
    census = census_of.Census(store, Layout(), 1, random.Random(1))
    for number in range(3):
        census.put(census_of.Capture(f"clip-{number:04d}", census.dates[0]))
    census.write_tables()
    census.removing["clip-0002"] = True
    with place.opened() as deployment:
        proof.settle(deployment, census)

        def compared(folder):
            return proof.compare(place, deployment, census, tmp_path / folder)

        yield deployment, census, compared


def kinds(proof):
    return {finding.partition(":")[0] for finding in proof.findings}


def test_the_proof_finds_what_is_wrong(at_rest):
    """A vector of other values that everything refers to as it is: only the plain run tells."""
    deployment, census, compared = at_rest
    store, layout, ledger = deployment.store, deployment.layout, deployment.ledger
    sound = compared("sound")
    assert sound.findings == []
    assert sound.looked_at["vectors"] == 6

    key, stage = layout.embedding("video", "clip-0000"), "video_embedding"
    forged = vector_to_npy(np.float32([0, 0, 0, 0, 0, 1]))
    before, row = store.get(key), ledger.rows(stage)["clip-0000"]
    store.put(key, forged)
    assert kinds(compared("bytes")) == {"wrong", "audit"}
    ledger.commit(stage, [replace(row, content_sha256=sha256(forged).hexdigest())])
    deployment.publish(stage)
    assert f"wrong: {key} has other bytes than the plain run's" in compared("sha").findings
    store.put(key, before)
    later = replace(row, processed_at="2100-01-01T00:00:00.000000+00:00")
    ledger.commit(stage, [later])
    assert {"dangling", "twice"} <= kinds(compared("twice"))

    (shard_key,) = {i.artifact_key for i in ledger.rows("fusion_concat").values()} - {None}
    shard = FusedShard.from_npz(store.get(shard_key), shard_key)
    store.put(shard_key, replace(shard, vectors=shard.vectors[::-1]).to_npz())
    assert "wrong: concat of clip-0000 is not the plain run's" in compared("shard").findings
    store.put(shard_key, shard.to_npz())
    store.put(layout.embedding("text", "clip-0002"), before)
    census.put(replace(census.clips["clip-0001"], url="https://youtu.be/other"))
    census.put(replace(census.clips["clip-0000"], video_id="nobody"))
    told = kinds(compared("lost"))
    assert {"remains", "lost", "wrong"} <= told
