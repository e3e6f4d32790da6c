"""The whole pipeline on S3, below a prefix, against the same on a folder."""

import uuid

import dagster as dg
import pytest

from clipfarm_assets.defs.clips import common
from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets_tests.defs import kit
from clipfarm_assets_tests.defs.kit import materialised
from clipfarm_assets_tests.defs.test_serving_assets import busiest_date
from clipfarm_assets_tests.defs.training_kit import CLIPS, DIMS, TrainingBench
from clipfarm_assets_tests.e2e import benches
from clipfarm_assets_tests.servers import BUCKET, s3_settings

pytestmark = pytest.mark.s3

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYSECRET"
TOKEN = "FwoGZXIvYXdzTOKEN"


@pytest.fixture
def on_s3(tmp_path, monkeypatch):
    environ = {
        "CLIPFARM_STORE": f"s3://{BUCKET}/team/{uuid.uuid4().hex}",
        "CLIPFARM_HOME": str(tmp_path / "s3-home"),
        "CLIPFARM_S3_ENDPOINT": s3_settings().endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return benches.EnvironBench(tmp_path / "s3", environ=environ)


def test_s3_below_a_prefix_equals_a_folder(tmp_path, on_s3):
    on_folder = kit.Bench(tmp_path / "folder")
    benches.all_of_it(on_folder)
    told = benches.all_of_it(on_s3)
    expected, found = benches.objects(on_folder), benches.objects(on_s3)
    assert found.keys() == expected.keys()
    assert found == expected
    assert len([key for key in found if key.endswith(".npy")]) == 3 * 5 - 2
    assert len([key for key in found if key.endswith(".npz")]) == 2 * 3
    assert_below_the_prefix(on_s3, "clipfarm/fused/concat/schema.json")
    assert_no_secret(on_s3, told)


def assert_below_the_prefix(on_s3, key):
    prefix = on_s3.environ["CLIPFARM_STORE"].removeprefix(f"s3://{BUCKET}/")
    whole_bucket = type(on_s3.store).open(f"s3://{BUCKET}", s3_settings())
    assert whole_bucket.exists(f"{prefix}/{key}")


def assert_no_secret(on_s3, told):
    """Neither in what was told of runs nor in what the UI shows of the definitions."""
    settings = benches.shown(on_s3)
    assert on_s3.environ["CLIPFARM_STORE"] in settings, "the search must have a haystack"
    assert benches.hides(SECRET, told + settings)
    assert benches.hides(TOKEN, told + settings)


class TrainingOnEnviron(benches.EnvironBench, TrainingBench):
    """Training deployed as environment variables say."""


def train_promote_score(bench):
    """The three jobs on a generated store; the predictions' metadata, and every event."""
    make_planted_store(bench.store, bench.layout, clips=CLIPS, dims=DIMS, strategies=["concat"])
    date = busiest_date(bench)
    with dg.DagsterInstance.ephemeral() as instance:
        bench.train(instance, "7|concat", run_id="r1", families=["mean", "ridge"])
        bench.run(instance, "clips_promote", "7")
        bench.run(instance, "clips_daily", date, selection=[common.INDEX])
        bench.run(instance, "clips_score", date)
        shown = materialised(instance, "clip_predictions")[date]
        return shown, benches.told_of(instance)


def test_training_promoting_and_scoring_on_s3_equal_a_folder(tmp_path, on_s3):
    (tmp_path / "folder").mkdir()
    on_folder = TrainingBench(tmp_path / "folder")
    train_promote_score(on_folder)
    bench = TrainingOnEnviron(on_s3.root, environ=on_s3.environ)
    shown, told = train_promote_score(bench)
    assert shown["dagster/row_count"].value == shown["clips"].value > 0
    expected, found = benches.objects(on_folder), benches.objects(bench)
    assert found.keys() == expected.keys()
    assert {key for key in found if found[key] != expected[key]} == set()
    root = bench.layout.snapshot("r1", "concat", 7)
    promoted = found[bench.layout.model_registry(7)]["versions"][0]["artifacts"]
    assert f"{root}models/ridge.skops" in found
    assert "models/ridge.skops" in promoted
    assert_below_the_prefix(bench, f"{root}snapshot.json")
    assert_no_secret(bench, told)
