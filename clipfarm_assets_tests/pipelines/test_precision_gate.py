"""A faster precision in the embedding stage: gated, told, recorded, and never mixed unseen."""

import pytest

from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.precision.canary import canaries
from clipfarm_assets.encoders.precision.equivalence import gate
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets_tests.encoders.doubles import TwoPrecisions, version_of
from clipfarm_assets_tests.pipelines.kit import DAY_1, Clip, clips

PASSES, FAILS = 0.001, 0.02  # radians between bf16 and exact vectors
STAGE = "text_embedding"
CANARIES = len(list(canaries("text")))
EXACT, BF16 = version_of(), version_of(precision="bf16")


def embed(world, encoder, build="first machine", **options):
    """The first day's texts by that encoder, bf16 asked for."""
    return world.embed(
        "text",
        by=lambda: gate(encoder, "bf16", build, world.deployment.models_lock()),
        **options,
    )[DAY_1]


def exact_run(world):
    return world.embed("text", by=lambda: TwoPrecisions().at("exact"))[DAY_1]


def versions(world):
    return {item.version for item in world.states(STAGE).values()}


def vectors(world):
    return world.objects("clipfarm/embeddings/text")


def expected(encoder, some):
    return {
        f"clipfarm/embeddings/text/{clip.video_id}.npy": vector_to_npy(
            encoder.encode([clip.raw("text")])[0].vector
        )
        for clip in some
    }


@pytest.mark.parametrize(
    ("angle", "precision", "version", "told"),
    [
        (PASSES, "bf16", BF16, "bf16 is used: "),
        (FAILS, "exact", EXACT, "bf16 was asked for but exact stays: "),
    ],
)
def test_the_verdict_decides_the_vectors_and_the_run_says_so(
    world, angle, precision, version, told
):
    some = clips(5)
    world.fill(some)
    encoder = TwoPrecisions(angle)
    report = embed(world, encoder)

    assert report.statuses == {"success": 5}
    assert report.version == version.id
    assert versions(world) == {version.id}
    assert vectors(world) == expected(encoder.at(precision), some)
    assert report.equivalence.startswith(told)
    assert f"{CANARIES} canaries embedded both ways" in report.equivalence
    assert report.equivalence in world.said


def test_a_recorded_verdict_is_used_whatever_machine_asks_for_it(open_world):
    first, encoder = open_world("first"), TwoPrecisions(PASSES)
    first.fill([Clip("one")])
    embed(first, encoder)
    assert encoder.embedded == {"exact": CANARIES, "bf16": CANARIES + 1}

    second, again = open_world("second"), TwoPrecisions(PASSES)
    second.fill([Clip("one"), Clip("two")])
    report = embed(second, again, known=BF16)
    assert again.embedded == {"bf16": 1}, "no canary"
    assert report.reasons == {"new": 1}
    assert report.equivalence.startswith("bf16 is used: ")


def test_a_run_with_nothing_to_do_opens_nothing(world):
    world.fill([Clip("one")])
    embed(world, TwoPrecisions(PASSES))
    idle = TwoPrecisions(PASSES)
    report = embed(world, idle, known=BF16)
    assert (report.worked_on, report.equivalence) == (0, "")
    assert idle.embedded == {}


@pytest.mark.parametrize(("here", "there"), [(PASSES, FAILS), (FAILS, PASSES)])
@pytest.mark.parametrize("new", [[], [Clip("two")]])
def test_a_machine_whose_verdict_differs_changes_nothing(open_world, here, there, new):
    """Else the two would embed each other's clips anew, every night."""
    first = open_world("first")
    first.fill([Clip("one")])
    embed(first, TwoPrecisions(here))
    before = vectors(first)

    second = open_world("second")
    second.fill([Clip("one"), *new])
    with pytest.raises(ModelMismatch, match="on this machine") as found:
        embed(second, TwoPrecisions(there), "second machine")
    assert 'CLIPFARM_TEXT_CONFIG={"precision": "exact"}' in str(found.value)
    assert vectors(second) == before
    assert versions(second) == versions(first)
    assert list(second.states(STAGE)) == ["one"]

    embed(first, TwoPrecisions(here))  # the first one isn't held up
    assert versions(first) == {BF16.id if here == PASSES else EXACT.id}


def test_going_over_is_a_migration(world):
    world.fill(clips(3))
    world.embed("video")
    world.embed("audio")
    exact_run(world)
    world.lock()
    report = embed(world, TwoPrecisions(PASSES))
    assert report.reasons == {"version_changed": 3}
    with pytest.raises(LockMismatch, match=rf"{EXACT.id}' but '{BF16.id}' was found"):
        world.lock()
    assert world.lock(migrate=True).lock.embedding_versions["text"] == BF16.id

    assert exact_run(world).reasons == {"version_changed": 3}, "and back, likewise"
    with pytest.raises(LockMismatch):
        world.lock()


def test_asked_for_in_vain_it_is_no_change_at_all(world):
    world.fill(clips(3))
    exact_run(world)
    before = vectors(world)
    report = embed(world, TwoPrecisions(FAILS))
    assert report.worked_on == 0
    assert vectors(world) == before
