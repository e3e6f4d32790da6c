"""The whole pipeline on S3, below a prefix, against the same on a folder."""

import uuid

import pytest

from clipfarm_assets_tests.defs import kit
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
    prefix = on_s3.environ["CLIPFARM_STORE"].removeprefix(f"s3://{BUCKET}/")
    whole_bucket = type(on_s3.store).open(f"s3://{BUCKET}", s3_settings())
    assert whole_bucket.exists(f"{prefix}/clipfarm/fused/concat/schema.json")

    settings = benches.shown(on_s3)
    assert on_s3.environ["CLIPFARM_STORE"] in settings, "the search must have a haystack"
    assert benches.hides(SECRET, told + settings)
    assert benches.hides(TOKEN, told + settings)
