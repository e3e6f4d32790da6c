"""Settings of all tests."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Read where Ray is imported: its clusters of several nodes are then for tests alone, on loopback.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

# The same examples each time where a run decides about others' work; new ones on a desk. What
# thirty do not show a hundred rarely do; who searches has `--hypothesis-profile thorough`.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=30)
settings.register_profile("desk", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What imports and collection make stays to the end: nobody looks there for garbage.

    There are millions of such objects, and each full collection would go through all of them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """End to end first, and of that servers: they mostly wait, beside which others can compute."""
    items.sort(key=lambda item: ("/e2e/" not in item.nodeid, "_server.py" not in item.nodeid))
