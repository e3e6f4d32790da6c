"""Stores to test against: every promise holds for a folder and for S3."""

import uuid
from pathlib import Path

import pytest

from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.servers import BUCKET, s3_settings


@pytest.fixture
def folder(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(str(tmp_path / "store"))


@pytest.fixture
def s3() -> ObjectStore:
    return ObjectStore.open(f"s3://{BUCKET}/{uuid.uuid4().hex}", s3_settings())


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return request.getfixturevalue(request.param)
