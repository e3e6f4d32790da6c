"""Stores to test against: every promise holds for a folder and for S3."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.stores import folder, s3, store  # noqa: F401 - fixtures

WORKERS = Path(__file__).with_name("workers.py")


@pytest.fixture
def start_worker() -> Callable[..., subprocess.Popen[bytes]]:
    """Start a function of workers.py in a new process: its name, a store, more arguments."""

    def start(name: str, used: ObjectStore, *arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(WORKERS), name, pickle.dumps(used).hex()]
        return subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE)

    return start
