"""One encoder at two precisions: versions, bytes, threads."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from clipfarm_assets.encoders.base import Equivalence
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models import ResolvedModel, embedding_version
from clipfarm_assets_tests.encoders import media

RAW = {
    "video": [media.video(5 + index, seed=index) for index in range(3)],
    "audio": [media.wav(media.tone(0.3 + 0.17 * index, hertz=300)) for index in range(3)],
}
BOTH = pytest.mark.parametrize("modality", RAW)

# As they were before there was a precision: vectors made then stay those of the exact way.
IDS = {
    "video-a5163f42176359b6": VideoConfig(),
    "audio-19725e60e2988677": AudioConfig(),
    "text-81d7b28f3b2f8364": TextConfig(),
}


@pytest.mark.parametrize(("known", "config"), IDS.items(), ids=IDS)
def test_the_exact_version_is_what_it_was_and_bf16_another(known, config):
    modality = known.partition("-")[0]
    resolved = ResolvedModel(Path("m"), "some/model", "0" * 40, "a" * 64, False)

    def version(**settings):
        changed = config.model_copy(update=settings)
        return embedding_version(modality, resolved, f"{modality}-1", changed, 768)

    assert version().id == known
    assert version(threads=8).id == known
    assert version(precision="bf16").id != known
    assert version(precision="bf16").params["precision"] == "bf16"


@pytest.fixture
def prepared(opened, prepare):
    return lambda modality: [prepare(opened(modality), raw) for raw in RAW[modality]]


def vectors(encoder, items):
    return [encoded.vector for encoded in encoder.encode(items)]


@BOTH
def test_at_another_precision(opened, prepared, modality):
    exact, items = opened(modality), prepared(modality)
    fast = exact.at("bf16")
    assert type(fast) is type(exact)
    assert fast.version.params == {**exact.version.params, "precision": "bf16"}
    assert fast.version.id != exact.version.id
    assert opened(modality, precision="bf16").version == fast.version
    expected = vectors(exact, items)
    found = vectors(fast, items)
    assert all(one.dtype == np.float32 for one in found)
    for one, other in zip(found, expected, strict=True):
        assert np.linalg.norm(one.astype(np.float64)) == pytest.approx(1, abs=1e-6)
        assert 0.999 < one.astype(np.float64) @ other < 1
        assert one.tobytes() != other.tobytes()
    back = fast.at("exact")
    assert back.version == exact.version
    assert [v.tobytes() for v in vectors(back, items)] == [v.tobytes() for v in expected]
    alone = [encoded.vector.tobytes() for item in items for encoded in fast.encode([item])]
    assert alone == [one.tobytes() for one in found]


@BOTH
def test_precisions_share_what_they_can(opened, modality):
    exact = opened(modality)
    fast, again = exact.at("bf16"), exact.at("bf16")
    assert fast.forward is again.forward is not exact.forward
    fast.equivalence = Equivalence("bf16", True, 12, 1.0, 0.9999, 0, "here")
    assert exact.equivalence is None
    assert again.equivalence is None
    assert fast.group_size == 1


@BOTH
@pytest.mark.parametrize("precision", ["exact", "bf16"])
def test_threads_at_once_give_the_bytes_of_one_after_the_other(
    opened, prepared, modality, precision
):
    encoder, items = opened(modality).at(precision), prepared(modality)
    expected = [vector.tobytes() for vector in vectors(encoder, items)]
    start = threading.Barrier(4)

    def run(_):
        start.wait()
        return [vector.tobytes() for vector in vectors(encoder, items)]

    before = torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [expected] * 4
    torch.set_num_threads(before)


def test_what_the_video_encoder_computes_can_be_read(opened, prepared):
    encoder = opened("video")
    encoder.encode(prepared("video"))
    assert encoder.forward.rows == 16
    assert "same bits" in encoder.forward.note
    assert opened("video", pooling="mean").forward.rows is None
