"""Telling an encoder that is broken from items that are, and loading one only for a raw object."""

import threading
from collections import Counter

import pytest

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.pipelines.embed import EncoderBroken
from clipfarm_assets.pipelines.encoder_on_demand import EncoderOnDemand
from clipfarm_assets_tests.pipelines.kit import (
    BUG,
    CORRUPT,
    DAY_1,
    EMPTY,
    REFUSED,
    Clip,
    clips,
    door,
    version_of,
)

STAGE = "video_embedding"
BATCH_SIZES = [1, 2, 3, 8]
LOST = b"lost"  # the model raises something that says nothing about the item


def run(world, by=None, **options):
    return world.embed("video", by=by or door("video"), **options)[DAY_1]


def marked(*marks):
    """Clips in this order, each with its mark."""
    return [Clip(f"clip-{i:03d}", video=mark) for i, mark in enumerate(marks)]


def losing_door():
    """Its model fails on marked items, however few of them it is given."""
    by = door("video")
    honest = by.encoder.encode

    def encode(prepared):
        if any(raw.startswith(LOST) for raw, _ in prepared):
            msg = "CUDA error: device lost"
            raise RuntimeError(msg)
        return honest(prepared)

    by.encoder.encode = encode
    return by


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_model_that_fails_on_everything_stops_the_run_and_costs_no_retry(world, batch_size):
    world.fill(marked(*[LOST] * 9))
    with pytest.raises(EncoderBroken, match=r"failed on 3 items in a row.*device lost") as found:
        run(world, losing_door(), batch_size=batch_size)
    assert world.states(STAGE) == {}
    assert isinstance(found.value.__cause__, RuntimeError)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_decoder_that_fails_on_everything_stops_the_run(world, batch_size):
    """As where a library it imports is gone."""
    world.fill(marked(*[BUG] * 9))
    with pytest.raises(EncoderBroken, match=r"failed on 3 items in a row.*a decoder's surprise"):
        run(world, batch_size=batch_size)
    assert world.states(STAGE) == {}


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_model_whose_vectors_are_none_stops_the_run(world, batch_size):
    world.fill(clips(9))
    by = door("video")
    by.encoder.version = version_of("video", dim=7)
    inner = door("video").encoder
    by.encoder.encode = inner.encode  # gives 6 values
    with pytest.raises(EncoderBroken, match=r"3 items in a row.*expected 7 values, found 6"):
        run(world, by, batch_size=batch_size)
    assert world.states(STAGE) == {}
    assert world.objects("clipfarm/embeddings") == {}


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_decoder_and_model_count_together_and_what_came_before_is_kept(world, batch_size):
    world.fill(marked(b"v", b"v", b"v", LOST, BUG, LOST, b"v"))
    with pytest.raises(EncoderBroken):
        run(world, losing_door(), batch_size=batch_size)
    assert world.statuses(STAGE) == {f"clip-00{i}": "success" for i in range(3)}


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("between", [b"v", CORRUPT, REFUSED, EMPTY, None])
def test_anything_else_in_between_makes_them_their_items_own_failures(world, batch_size, between):
    world.fill(marked(BUG, LOST, between, LOST, BUG, between, BUG))
    expected = {
        CORRUPT: "fail", REFUSED: "fail", EMPTY: "missing_raw_object", None: "missing_raw_object"
    }.get(between, "success")  # fmt: skip

    report = run(world, losing_door(), batch_size=batch_size)

    found = list(world.statuses(STAGE).values())
    assert found == ["fail", "fail", expected, "fail", "fail", expected, "fail"]
    assert report.statuses == Counter(found)
    assert sum(report.statuses.values()) == report.worked_on == 7
    assert world.said[-1].startswith(f"video {DAY_1}: 7/7")
    assert world.states(STAGE)["clip-001"].error == "RuntimeError: CUDA error: device lost"


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_too_few_to_blame_the_encoder_fail_at_the_end(world, batch_size):
    world.fill(marked(b"v", LOST, BUG))
    report = run(world, losing_door(), batch_size=batch_size)
    assert report.statuses == {"success": 1, "fail": 2}
    assert [item.retry_count for item in world.states(STAGE).values()] == [0, 1, 1]
    assert world.said[-1].startswith(f"video {DAY_1}: 3/3")


def test_bad_media_in_a_row_are_no_broken_encoder(world):
    world.fill(marked(*[CORRUPT] * 4, *[REFUSED] * 4))
    assert run(world).statuses == {"fail": 8}


def test_no_model_is_loaded_where_there_is_nothing_to_embed(world):
    """Clips without captions are looked for every night, for ever."""
    world.fill([Clip("one"), *marked(None, None, None)])
    by = door("video")
    assert run(world, by).statuses == {"success": 1, "missing_raw_object": 3}
    assert by.opened == 1

    by = door("video")
    report = run(world, by, known=version_of("video"))

    assert report.reasons == {"unfinished": 3}
    assert report.statuses == {"missing_raw_object": 3}
    assert (by.opened, report.version) == (0, version_of("video").id)


def test_without_any_embedding_the_version_is_not_needed_either(world):
    world.fill(marked(None, None))
    by = door("video")
    assert run(world, by).statuses == {"missing_raw_object": 2}
    assert by.opened == 0


@pytest.mark.parametrize("good", [True, False])
def test_many_workers_open_one_encoder_between_them(world, monkeypatch, good):
    world.fill(clips(12))
    by, calls, all_there = door("video"), [], threading.Barrier(4)
    encoder_of = EncoderOnDemand.__call__
    first = iter(range(4))

    def together(on_demand):
        if next(first, None) is not None:
            all_there.wait(10)
        return encoder_of(on_demand)

    def opening():
        calls.append(threading.current_thread().name)
        if not good:
            msg = "no such model"
            raise ModelUnavailable(msg)
        return by()

    monkeypatch.setattr(EncoderOnDemand, "__call__", together)
    if good:
        assert run(world, opening, workers=4).statuses == {"success": 12}
    else:
        with pytest.raises(ModelUnavailable, match="no such model"):
            run(world, opening, workers=4)
        assert world.states(STAGE) == {}
    assert len(calls) == 1


def test_an_error_of_the_media_in_one_group_is_found_one_at_a_time(world):
    world.fill(marked(b"v", REFUSED, b"v"))
    by = door("video")
    by.encoder.group_size = 3
    assert run(world, by, encode_workers=1).statuses == {"success": 2, "fail": 1}
    assert by.encoder.batches == [3, 1, 1, 1]
