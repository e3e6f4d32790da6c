"""Settings of all tests."""

import os

import pytest
from hypothesis import settings

# The same examples each time where a run decides about others' work; new ones on a desk.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End to end first: they wait for servers most of the time, beside which others can compute."""
    items.sort(key=lambda item: "/e2e/" not in item.nodeid)
