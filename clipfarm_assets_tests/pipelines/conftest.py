import pytest

from clipfarm_assets_tests.pipelines import older
from clipfarm_assets_tests.pipelines.kit import DAY_1, World, clips


@pytest.fixture
def open_world(tmp_path):
    """Opens the test's store by machine: two names are two ledgers."""
    opened = []

    def open_one(machine="machine"):
        opened.append(World(tmp_path, machine))
        return opened[-1]

    yield open_one
    for world in opened:
        world.close()


@pytest.fixture
def world(open_world):
    return open_world()


@pytest.fixture
def fused(world):
    """Five clips of the first encoders, fused and in the manifest."""
    world.fill(clips(5))
    world.all_of_it(DAY_1)
    return world


@pytest.fixture
def kept(world):
    """An older deployment's bucket, and what of it must stay as it is."""
    return older.leave(world)
