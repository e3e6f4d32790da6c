"""Where a deployment is, out of its environment."""

from pathlib import Path

import pytest

from clipfarm_assets.pipelines.environment import deployment_settings, home


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CLIPFARM_HOME": "/a", "DAGSTER_HOME": "/d"}, "/a"),
        ({"CLIPFARM_HOME": "", "DAGSTER_HOME": "/d"}, "/d/clipfarm"),
        ({}, str(Path("~/.clipfarm").expanduser())),
    ],
)
def test_home(environ, expected):
    assert str(home(environ)) == expected


def test_what_is_not_set_lies_at_home():
    found = deployment_settings({"CLIPFARM_HOME": "/a"})
    assert (found.store, found.ledger) == ("/a/store", "sqlite:////a/ledger.sqlite")
    assert found.layout.metadata() == "clipfarm/metadata/shorts_metadata_horizon.csv"
    assert (str(found.stand_ins), found.profile) == ("/a/stand-ins", "pretrained")
    assert found.s3.endpoint_url is None


def test_what_is_set_is_taken():
    found = deployment_settings(
        {
            "CLIPFARM_STORE": "s3://bucket/x",
            "CLIPFARM_LEDGER": "postgresql://u:p@h/d",
            "CLIPFARM_METADATA_KEY": "other.csv",
            "CLIPFARM_ENCODERS": "demo",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
            "AWS_REGION": "eu-west-1",
        }
    )
    assert (found.store, found.ledger) == ("s3://bucket/x", "postgresql://u:p@h/d")
    assert found.layout.metadata() == "clipfarm/other.csv"
    assert found.profile == "demo"
    assert (found.s3.endpoint_url, found.s3.region_name) == ("http://127.0.0.1:9000", "eu-west-1")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CLIPFARM_ENCODERS", "best", "CLIPFARM_ENCODERS must be one of"),
        ("CLIPFARM_METADATA_KEY", "../x", "bad object key"),
        ("CLIPFARM_S3_ENDPOINT", "http://u:p@h", "must not contain a user or password"),
    ],
)
def test_a_wrong_value_is_refused(variable, value, says):
    with pytest.raises(ValueError, match=says):
        deployment_settings({variable: value})
