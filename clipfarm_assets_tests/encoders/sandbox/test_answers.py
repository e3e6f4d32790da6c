"""Decoders that a medium has taken over: whatever they say is an answer of theirs, or nonsense."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import clipfarm_assets
from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.sandbox import decoder, pool
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers
from clipfarm_assets.encoders.sandbox.tasks import Arrays
from clipfarm_assets.encoders.video.file import MAX_SIDE
from clipfarm_assets_tests.encoders import planted_jobs

MIB = 2**20
CPU = {"cpu_seconds": 0.0}
PICTURE = {"shape": [4, 6, 3], "dtype": "uint8"}
TOLD = {
    "frames": [0, 1, 0], "decoded_frames": 9, "decode_errors": 0, "listed": True,
    "packets_decoded": 4, "from_start_because": "",
}  # fmt: skip
NONSENSE = r"^cannot decode the {}: its decoder answered nonsense; replace the file$"
SAMPLES = {"shape": [160], "dtype": "float32"}


@pytest.fixture(scope="module")
def workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(clipfarm_assets.__file__).parents[1]))
        with closing(DecodeWorkers(256 * MIB, planted_jobs.__name__)) as workers:
            yield workers


def says(*messages):
    return b"say " + json.dumps(messages).encode()


def frames_told(*arrays, **changes):
    return says({"arrays": arrays or [PICTURE] * 2, "told": {**TOLD, **changes}, **CPU})


def sound_told(*arrays, **changes):
    return says({"arrays": arrays or [SAMPLES], "told": {"seconds": 0.5, **changes}, **CPU})


def pick(workers, raw, seconds=60.0):
    return workers.pick_frames(raw, 5, 3, np.copy, Deadline.after(seconds), "as_stored")


def load(workers, raw):
    return workers.load_audio(raw, 16_000, 0.5, Deadline.after(60))


def test_what_a_job_may_say_is_taken(workers, monkeypatch):
    monkeypatch.setattr(pool, "_ITEMS", 1)  # what says by heart hears no second order
    picked = pick(workers, frames_told())
    assert [frame.shape for frame in picked.frames] == [(4, 6, 3)] * 3
    assert (picked.decoded_frames, picked.packets_decoded, picked.listed) == (9, 4, True)
    first = {"arrays": [PICTURE] * 2}
    assert len(pick(workers, says(first, {"told": TOLD, **CPU})).frames) == 3
    samples, seconds = load(workers, sound_told({"shape": [8_001], "dtype": "float32"}))
    assert (samples.shape, samples.dtype, seconds) == ((8_001,), np.float32, 0.5)
    with pytest.raises(MediaError, match=r"^it is no clip$"):
        pick(workers, says({"media_error": "it is no clip", **CPU}))


FRAMES = {
    "one frame half a million times": frames_told(frames=[0] * 500_000),
    "fewer frames than asked for": frames_told(frames=[0, 1]),
    "a frame that it never gave": frames_told(frames=[0, 1, 2]),
    "a frame from the end": frames_told(frames=[0, 1, -1]),
    "a frame that is no number": frames_told(frames=[0, 1, True]),
    "frames that are no list": frames_told(frames={"0": 0, "1": 1, "2": 2}),
    "a count below nothing": frames_told(decoded_frames=-1),
    "a count that is none": frames_told(decode_errors=0.5),
    "a count of a thousand digits": frames_told(packets_decoded=10**1000),
    "a word for yes": frames_told(listed="yes"),
    "a reason without end": frames_told(from_start_because="a" * 500_000),
    "a field more": frames_told(more=1),
    "a field less": says({"arrays": [PICTURE] * 2, "told": {"frames": [0, 1, 0]}, **CPU}),
    "more frames than it looks at": frames_told(*[PICTURE] * 16),
    "more frames, by and by": says(*[{"arrays": [PICTURE]}] * 16, {"told": TOLD, **CPU}),
    "frames of floats": frames_told(*[{"shape": [4, 6, 3], "dtype": "float32"}] * 2),
    "frames without colours": frames_told(*[{"shape": [4, 6], "dtype": "uint8"}] * 2),
    "frames of four colours": frames_told(*[{"shape": [4, 6, 4], "dtype": "uint8"}] * 2),
    "frames of no height": frames_told(*[{"shape": [0, 6, 3], "dtype": "uint8"}] * 2),
    "frames too high": frames_told(*[{"shape": [MAX_SIDE + 1, 1, 3], "dtype": "uint8"}] * 2),
    "frames that it never wrote": frames_told(*[{"shape": [200, 200, 3], "dtype": "uint8"}] * 2),
    "a side that is no number": frames_told(*[{"shape": [4, True, 3], "dtype": "uint8"}] * 2),
    "a shape that is none": frames_told({"shape": 4, "dtype": "uint8"}, PICTURE),
    "arrays that are no list": says({"arrays": "ab", "told": TOLD, **CPU}),
    "arrays that are none": frames_told("a", 2),
    "none, and not the end": says({"arrays": []}, {"told": TOLD, **CPU}),
    "nothing": says({}),
    "a message that is no object": says([]),
    "an end without its time": says({"told": TOLD}),
    "a time that is none": says({"unexpected": "a", "cpu_seconds": float("nan")}),
    "a time that never was": says({"unexpected": "a", "cpu_seconds": 1e9}),
    "a mistake that it does not tell": says({"unexpected": None, **CPU}),
    "a bare mistake": says({"unexpected": "a"}),
    "an error that is no text": says({"media_error": ["a"], **CPU}),
    "an error without end": says({"media_error": "a" * 500_000, **CPU}),
    "little memory, perhaps": says({"short_of_memory": "a little", **CPU}),
    "two ends": says({"media_error": "a", "told": TOLD, **CPU}),
    "another end": says({"secret": "a", **CPU}),
    "fields that are no object": says({"told": [TOLD], **CPU}),
}  # fmt: skip
SOUNDS = {
    "no samples": says({"told": {"seconds": 0.5}, **CPU}),
    "samples twice": sound_told(SAMPLES, SAMPLES),
    "samples of bytes": sound_told({"shape": [160], "dtype": "uint8"}),
    "samples of two channels": sound_told({"shape": [80, 2], "dtype": "float32"}),
    "samples beyond what was asked for": sound_told({"shape": [8_002], "dtype": "float32"}),
    "2 GiB of samples": sound_told({"shape": [2**29], "dtype": "float32"}),
    "seconds that are none": sound_told(seconds=float("nan")),
    "seconds without end": sound_told(seconds=float("inf")),
    "seconds of 400 digits": sound_told(seconds=10**400),
    "seconds below nothing": sound_told(seconds=-1.0),
    "seconds in words": sound_told(seconds="1"),
}  # fmt: skip


@pytest.mark.parametrize("said", FRAMES)
def test_other_answers_than_frames_are_nonsense(workers, said):
    with pytest.raises(MediaError, match=NONSENSE.format("video")):
        pick(workers, FRAMES[said])
    assert workers._idle.get("frames", []) == [], "it is not used again"


@pytest.mark.parametrize("said", SOUNDS)
def test_other_answers_than_samples_are_nonsense(workers, said):
    with pytest.raises(MediaError, match=NONSENSE.format("audio")):
        load(workers, SOUNDS[said])
    assert workers._idle.get("sound", []) == [], "it is not used again"


def test_one_that_talks_and_never_listens_holds_up_nobody(workers, monkeypatch):
    """Were it waited for, this test would end by its time limit."""
    monkeypatch.setattr(decoder, "_GRACE", 0.1)
    with pytest.raises(MediaError, match="answered nonsense"):
        pick(workers, b'flood {"arrays": []}')
    # Were it allowed as many as it likes, it is told of each that it is taken, until that blocks.
    endless = replace(planted_jobs.TASK, arrays=Arrays(10**9, "uint8", (0,), (0,)))
    flood = b'flood {"arrays": [{"shape": [0], "dtype": "uint8"}]}'
    with pytest.raises(MediaError, match=r"gave up decoding the planted after 0\.3 s"):
        workers.run(endless, flood, Deadline.after(0.3), bytes)
