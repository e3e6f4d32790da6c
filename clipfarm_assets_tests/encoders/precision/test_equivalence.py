"""The gate: a faster precision is used only where it gives the same embedding, and that is told."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.encoders.base import Equivalence, MediaError, ModelMismatch
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.precision import equivalence
from clipfarm_assets.encoders.precision.canary import CANARY_VERSION, canaries
from clipfarm_assets.encoders.precision.equivalence import LEAST_COSINE, TIE, compare, gate
from clipfarm_assets.encoders.precision.verdicts import Verdict, Verdicts
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.encoders.doubles import TwoPrecisions, version_of

LOCK_KEY, KEY = "clipfarm/state/models_lock.json", "clipfarm/state/equivalence.json"
EXACT, BF16 = version_of(), version_of(precision="bf16")
NEAR, FAR = 0.001, 0.02  # radians: cosines 0.9999995 and 0.9998
ITEMS = len(list(canaries("text")))


def unit(*angles):
    """Vectors in the plane at these angles in radians, shape (n, 2)."""
    return np.array([[math.cos(angle), math.sin(angle)] for angle in angles])


def judged(exact, fast):
    return compare(np.asarray(exact), np.asarray(fast), "bf16", "here")


# What counts as equivalent.


def test_the_same_vectors_are_equivalent():
    vectors = unit(0, 0.1, 1, 1.1)
    found = judged(vectors, vectors)
    assert found.min_cosine == pytest.approx(1.0, abs=1e-15)
    assert found == Equivalence("bf16", True, 4, found.min_cosine, LEAST_COSINE, 0, "here")


@pytest.mark.parametrize(("share", "holds"), [(0.999, True), (1.001, False)])
def test_the_least_cosine_is_that_of_the_worst_item(share, holds):
    angle = math.acos(LEAST_COSINE) * share
    found = judged(unit(0, 0.1, 1, 1.1), unit(0, 0.1, 1, 1.1 + angle))
    assert found.min_cosine == pytest.approx(math.cos(angle), abs=1e-12)
    assert (found.holds, found.neighbours_changed) == (holds, 0)


def test_a_neighbour_that_changes_is_enough_to_fail():
    found = judged(unit(0, 0.1, 0.2005), unit(0, 0.101, 0.2005))
    assert found.min_cosine > 0.999999
    assert found.neighbours_changed == 1  # of the one in the middle
    assert not found.holds


@pytest.mark.parametrize(("apart", "changed"), [(TIE / 10, 0), (TIE * 10, 1)])
def test_of_a_tie_either_may_be_the_nearest(apart, changed):
    """The third and the fourth are the first's neighbours, but for `apart` in cosine."""
    near = math.cos(0.5)
    left, right = math.acos(near), -math.acos(near - apart)
    exact = np.vstack([unit(0, left, right), unit(left + 0.1, right - 0.1)])
    swapped = np.vstack([unit(0, -right, -left), unit(left + 0.1, right - 0.1)])
    assert judged(exact, swapped).neighbours_changed == changed


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_fast_vector_without_direction_fails(bad):
    exact = unit(0, 0.1, 1, 1.1)
    fast = exact.copy()
    fast[2] = bad
    found = judged(exact, fast)
    assert (found.min_cosine, found.holds) == (0.0, False)
    assert found.neighbours_changed >= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_an_exact_vector_without_direction_is_no_reference(bad):
    exact = unit(0, 0.1, 1, 1.1)
    exact[2] = bad
    with pytest.raises(ValueError, match=r"expected exact vectors .* found others at \[2\]"):
        judged(exact, unit(0, 0.1, 1, 1.1))


@pytest.mark.parametrize(
    "shapes", [((4, 2), (4, 3)), ((4, 2), (3, 2)), ((2, 2), (2, 2)), ((4,),) * 2]
)
def test_what_cannot_be_compared_is_refused(shapes):
    with pytest.raises(ValueError, match="vectors of one shape"):
        judged(*(np.ones(shape) for shape in shapes))


@given(
    st.integers(0, 2**32 - 1),
    st.integers(3, 12),
    st.floats(0, 0.05),
    st.sampled_from([1e-200, 1e-3, 1.0, 1e200]),
)
def test_order_and_length_of_vectors_do_not_matter(seed, items, noise, scale):
    random = np.random.default_rng(seed)
    exact = random.normal(size=(items, 8))
    fast = exact + noise * random.normal(size=exact.shape)
    order = random.permutation(items)
    here, there = judged(exact, fast), judged(exact[order] * scale, fast[order] / 3)
    assert (here.holds, here.neighbours_changed) == (there.holds, there.neighbours_changed)
    assert here.min_cosine == pytest.approx(there.min_cosine, abs=1e-9)


# The gate.


@pytest.fixture
def store(tmp_path):
    return ObjectStore.open(str(tmp_path / "store"))


@pytest.fixture
def lock(store):
    return ModelsLock(store, LOCK_KEY, Verdicts(store, KEY))


def verdicts(store):
    return json.loads(store.get(KEY))["verdicts"]


def opened(encoder, lock, build="here"):
    return gate(encoder, "bf16", build, lock)


@pytest.mark.parametrize("modality", ["video", "audio", "text"])
@pytest.mark.parametrize(("angle", "version"), [(NEAR, "bf16"), (FAR, "exact")])
def test_the_gate_gives_the_encoder_at_the_precision_that_may_be_used(
    lock, modality, angle, version
):
    encoder = opened(TwoPrecisions(angle, modality), lock)
    assert encoder.version == version_of(modality, precision=version)
    found = encoder.equivalence
    assert (found.precision, found.holds) == ("bf16", version == "bf16")
    assert found.items == len(list(canaries(modality)))
    assert found.min_cosine == pytest.approx(math.cos(angle), abs=1e-6)
    assert found.sentence().startswith(
        "bf16 is used: " if version == "bf16" else "bf16 was asked for but exact stays: "
    )


def test_the_canaries_are_embedded_once_a_build_one_at_a_time(lock, store):
    encoder = TwoPrecisions(NEAR)
    first = opened(encoder, lock)
    assert encoder.embedded == {"exact": ITEMS, "bf16": ITEMS}
    assert encoder.groups == {1}
    again = opened(encoder, lock)
    assert encoder.embedded.total() == 2 * ITEMS
    assert (again.version, again.equivalence) == (first.version, first.equivalence)

    (entry,) = verdicts(store)
    assert entry["exact_version"] == EXACT.id
    assert entry["canaries"] == CANARY_VERSION
    assert entry["holds"] is True
    assert entry["build"] == "here"
    assert entry["recorded_at"].endswith("+00:00")

    opened(encoder, lock, build="another build")
    assert encoder.embedded.total() == 4 * ITEMS
    opened(TwoPrecisions(FAR, revision="r2"), lock)
    assert len(verdicts(store)) == 3


def test_a_failure_is_recorded_too(lock):
    encoder = TwoPrecisions(FAR)
    opened(encoder, lock)
    assert opened(encoder, lock).version == EXACT
    assert encoder.embedded.total() == 2 * ITEMS


@pytest.mark.parametrize(
    ("name", "value"), [("CANARY_VERSION", "canary-2"), ("LEAST_COSINE", 0.99995)]
)
def test_other_canaries_or_demands_are_another_question(lock, monkeypatch, name, value):
    encoder = TwoPrecisions(NEAR)
    opened(encoder, lock)
    monkeypatch.setattr(equivalence, name, value)
    opened(encoder, lock)
    assert encoder.embedded.total() == 4 * ITEMS


def test_without_a_record_every_opening_compares(store):
    encoder = TwoPrecisions(NEAR)
    for lock in (None, ModelsLock(store, LOCK_KEY)):
        assert opened(encoder, lock).version == BF16
    assert encoder.embedded.total() == 4 * ITEMS
    assert list(store.list("")) == []


def test_a_mode_whose_output_has_no_direction_is_not_used(lock):
    encoder = opened(TwoPrecisions(NEAR, lost=("bf16",)), lock)
    assert encoder.version == EXACT
    assert encoder.equivalence.min_cosine == 0


def test_an_exact_mode_that_fails_is_no_verdict(lock, store):
    with pytest.raises(MediaError, match="no direction"):
        opened(TwoPrecisions(NEAR, lost=("exact",)), lock)
    assert list(store.list("")) == []


def test_of_two_that_find_out_at_once_the_first_decides(lock, store):
    """The other one, whose own figures differ, goes by what is on record."""
    first = compare(unit(0, 1, 2), unit(0, 1, 2), "bf16", "here")
    encoder = TwoPrecisions(FAR)
    honest = encoder.encode

    class Overtaken(TwoPrecisions):
        def encode(self, prepared):
            lock.verdicts.record(Verdict(EXACT.id, CANARY_VERSION, first, "2026-01-01"))
            return honest(prepared)

    assert opened(Overtaken(FAR), lock).equivalence == first
    (entry,) = verdicts(store)
    assert entry["recorded_at"] == "2026-01-01"


def test_verdicts_recorded_at_once_are_all_kept(lock, store):
    update, rivals = store.update, ["b", "c"]

    def overtaken(key, change):
        def slowly(raw):
            new = change(raw)
            if rivals:
                opened(TwoPrecisions(NEAR), lock, build=rivals.pop())
            return new

        return update(key, slowly)

    store.update = overtaken
    opened(TwoPrecisions(NEAR), lock, build="a")
    assert sorted(entry["build"] for entry in verdicts(store)) == ["a", "b", "c"]


# Two machines of one deployment.


def test_where_bf16_made_the_vectors_a_machine_that_fails_refuses(lock):
    lock.record_version(opened(TwoPrecisions(NEAR), lock, "first").version)
    for _ in range(2):  # found out, then on record
        with pytest.raises(ModelMismatch) as found:
            opened(TwoPrecisions(FAR), lock, "second")
    told = str(found.value)
    for part in (BF16.id, "smallest cosine 0.9998", "passed (first)", "this machine is second"):
        assert part in told
    assert 'set CLIPFARM_TEXT_CONFIG={"precision": "exact"} on every machine' in told
    assert opened(TwoPrecisions(NEAR), lock, "first").version == BF16, "the first one goes on"


def test_it_refuses_by_the_vectors_even_where_the_record_is_lost(lock, store):
    lock.record_version(BF16)
    with pytest.raises(ModelMismatch, match="none on record"):
        opened(TwoPrecisions(FAR), lock)


def test_where_the_gate_failed_a_machine_that_passes_refuses(lock, store):
    lock.record_version(opened(TwoPrecisions(FAR), lock, "first").version)
    for _ in range(2):
        with pytest.raises(ModelMismatch) as found:
            opened(TwoPrecisions(NEAR), lock, "second")
    for part in (EXACT.id, "failed on first", "this machine is second", f"delete {KEY}"):
        assert part in str(found.value)
    assert opened(TwoPrecisions(FAR), lock, "first").version == EXACT, "the first one goes on"
    store.delete(KEY)  # as the sentence says
    assert opened(TwoPrecisions(NEAR), lock, "second").version == BF16


def test_going_over_from_exact_to_bf16_is_no_contradiction(lock):
    lock.record_version(EXACT)
    assert opened(TwoPrecisions(NEAR), lock).version == BF16
    lock.record_version(BF16)
    assert opened(TwoPrecisions(NEAR), lock, "another that passes").version == BF16


def test_a_failure_elsewhere_that_made_no_vectors_binds_nobody(lock):
    assert opened(TwoPrecisions(FAR), lock, "somebody's laptop").version == EXACT
    assert opened(TwoPrecisions(NEAR), lock).version == BF16


# The record.

GOOD = {
    "exact_version": EXACT.id,
    "canaries": CANARY_VERSION,
    "recorded_at": "2026-01-01T00:00:00+00:00",
    "precision": "bf16",
    "holds": True,
    "items": 12,
    "min_cosine": 0.99995,
    "least_cosine": LEAST_COSINE,
    "neighbours_changed": 0,
    "build": "here",
}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"verdicts": {}}',
        b'{"verdicts": [], "more": 1}',
        *(
            json.dumps({"verdicts": entries}).encode()
            for entries in (
                [None],
                [{}],
                [GOOD | {"more": 1}],
                [GOOD | {"holds": 1}],
                [GOOD | {"items": "12"}],
                [GOOD | {"min_cosine": None}],
                [GOOD | {"min_cosine": 0.5}],
                [GOOD | {"min_cosine": float("nan"), "holds": False}],
                [GOOD | {"neighbours_changed": 1}],
                [GOOD | {"holds": False}],
                [GOOD, GOOD],
            )
        ),
    ],
)
def test_a_malformed_record_is_a_clear_error_and_stays_as_it_is(lock, store, raw):
    store.put(KEY, raw)
    with pytest.raises(ValueError, match=rf"{KEY} is malformed: expected .* found .*; restore it"):
        opened(TwoPrecisions(NEAR), lock)
    assert store.get(KEY) == raw


def test_a_record_by_hand_is_believed(lock, store):
    store.put(KEY, json.dumps({"verdicts": [GOOD]}).encode())
    encoder = TwoPrecisions(FAR)
    assert opened(encoder, lock).equivalence.min_cosine == 0.99995
    assert encoder.embedded.total() == 0
