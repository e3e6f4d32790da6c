"""What stops the planning of a later date stops the run by its own name."""

import pytest

from clipfarm_assets.pipelines import fuse
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, clips


@pytest.mark.parametrize("nth", [1, 2])
def test_an_error_of_a_date_that_is_planned_ahead_is_raised(world, monkeypatch, nth):
    world.fill([*clips(3, DAY_1, "a"), *clips(3, DAY_2, "b")])
    world.embed_all(DAY_1, DAY_2)
    world.lock()
    calls, original = [], fuse.take_over_orphans

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == nth:
            msg = "the database is away"
            raise ConnectionError(msg)
        return original(*arguments, **options)

    monkeypatch.setattr(fuse, "take_over_orphans", failing)
    with pytest.raises(ConnectionError, match="the database is away"):
        world.fuse(DAY_1, DAY_2)
    world.fuse(DAY_1, DAY_2)
    assert set(world.statuses("fusion_concat").values()) == {"success_full"}
