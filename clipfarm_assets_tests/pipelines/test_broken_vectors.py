"""Stored vectors that are none, and such as are not what the ledger says."""

import hashlib
import io
import pickle
from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets_tests.pipelines.kit import (
    Clip,
    clips,
    fuse,
    hash_vector,
    npy_key,
    prepared,
    state,
    version_of,
)


def saved(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


class Boom:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


UNIT = np.eye(6, dtype=np.float32)[0]
BROKEN = {
    "cut": (saved(UNIT)[:-1], "cut off or damaged"),
    "empty": (b"", "not an embedding"),
    "junk": (b"\x00" * 300, "not an embedding"),
    "nan": (saved(np.array([np.nan, 1, 0, 0, 0, 0], "f4")), "1 of 6 values are not finite"),
    "inf": (saved(np.array([np.inf, 0, 0, 0, 0, 0], "f4")), "1 of 6 values are not finite"),
    "long": (saved(UNIT * 2), "expected unit norm, found 2.0"),
    "zero": (saved(UNIT * 0), "expected unit norm, found 0.0"),
    "matrix": (saved(UNIT.reshape(2, 3)), "expected a 1-D"),
    "numbers": (saved(np.arange(6)), "expected a 1-D float32"),
    # Writing the attack needs the permission that reading it must never have.
    "pickled": (saved(np.array([Boom()] * 6, dtype=object), allow_pickle=True), "not an embedding"),
    "pickle": (pickle.dumps(Boom()), "not an embedding"),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_a_broken_vector_is_that_clips_failure(world, kind):
    data, expected = BROKEN[kind]
    prepared(world, [*clips(3), Clip("one"), *clips(3, prefix="z")])
    adopt_bytes(world, npy_key("video"), data)

    report = fuse(world, max_fail_retries=0)

    assert report.statuses == {"success_full": 7, "fail_terminal": 1}
    assert state(world).status == "fail_terminal"
    assert expected in state(world).error
    assert npy_key("video") in state(world).error
    world.merge()
    assert "one" not in world.manifest_rows()
    assert fuse(world).reasons == {}


def adopt_bytes(world, key, data):
    """Store other bytes and let the ledger believe that they are what was embedded."""
    world.store.put(key, data)
    stage = f"{key.split('/')[2]}_embedding"
    item = world.states(stage)["one"]
    world.ledger.commit(stage, [replace(item, content_sha256=hashlib.sha256(data).hexdigest())])


def test_a_flipped_bit_is_found(world):
    prepared(world, [Clip("one")])
    good = world.store.get(npy_key("audio"))
    flipped = bytearray(good)
    flipped[-4] ^= 1  # the lowest bit of the last value: still finite and of unit norm
    world.store.put(npy_key("audio"), bytes(flipped))

    fuse(world)
    assert (state(world).status, state(world).retry_count) == ("fail", 1)
    assert npy_key("audio") in state(world).error

    world.store.put(npy_key("audio"), good)
    fuse(world)
    assert state(world).status == "success_full"


def test_a_vector_put_by_a_run_killed_before_its_ledger_row_is_not_mixed_in(world):
    """The object is of the next encoder, the ledger and the lock still speak of the last one."""
    prepared(world, [Clip("one")])
    newer = hash_vector(version_of("video", "r2"), Clip("one").raw("video"), "title of one")
    world.store.put(npy_key("video"), saved(newer))

    fuse(world)

    assert state(world).status == "fail"
    assert "is not what the ledger recorded" in state(world).error


def test_a_vector_of_another_length_stops_the_run(world):
    prepared(world, [Clip("one")])
    adopt_bytes(world, npy_key("video"), saved(np.eye(7, dtype=np.float32)[0]))

    with pytest.raises(LockMismatch, match="video_dim is locked to 6 but 7 was found"):
        fuse(world)

    assert "one" not in world.states("fusion_concat")
