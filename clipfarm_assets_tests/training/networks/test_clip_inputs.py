import numpy as np
import pytest
import torch

from clipfarm_assets.training.networks.clip_inputs import (
    WrongVectors,
    check_encoder,
    fused_input,
    metadata_inputs,
    modality_inputs,
    target_of,
)
from clipfarm_assets.training.networks.weights import BadWeights
from clipfarm_assets_tests.training import kit


@pytest.fixture(scope="module")
def planted():
    return kit.planted(60)


def test_vectors_are_the_clips_own(planted):
    clips = planted.train.clips
    assert fused_input(clips, 25)["fused"].numpy().tobytes() == clips.fused.tobytes()
    inputs = modality_inputs(clips, (8, 8, 8))
    assert list(inputs) == ["video", "audio", "text", "present"]
    for modality in ("video", "audio", "text"):
        assert np.array_equal(inputs[modality].numpy(), clips.modality(modality))


def test_presence(planted):
    clips = planted.train.clips
    present = modality_inputs(clips, (8, 8, 8))["present"]
    assert present.dtype == torch.bool
    expected = [[True, True, bool(text)] for text in clips.text_present]
    assert present.tolist() == expected
    assert not clips.text_present.all()


def test_metadata_are_what_the_encoder_says(planted):
    clips = planted.test.clips
    inputs = metadata_inputs(clips, planted.encoder)
    assert inputs["numeric"].dtype == torch.float32
    assert inputs["codes"].dtype == torch.int64
    standardised = planted.encoder.standardised(clips.metadata)
    assert np.array_equal(inputs["numeric"].numpy(), standardised)
    assert np.array_equal(inputs["codes"].numpy(), planted.encoder.codes(clips.metadata))


def test_target(planted):
    target = target_of(planted.train)
    assert target.dtype == torch.float32
    np.testing.assert_allclose(target.numpy(), planted.train.target_log, rtol=1e-6)


def test_vectors_of_another_length(planted):
    with pytest.raises(WrongVectors, match=r"fused vectors must be of 24 numbers.*\(42, 25\)"):
        fused_input(planted.train.clips, 24)
    with pytest.raises(WrongVectors, match="audio vectors must be of 9 numbers"):
        modality_inputs(planted.train.clips, (8, 9, 8))


@pytest.mark.parametrize(("numeric", "cardinalities"), [(3, (4, 3)), (2, (3, 4)), (2, (4,))])
def test_an_encoder_of_other_features(planted, numeric, cardinalities):
    check_encoder("net", 2, (4, 3), planted.encoder)
    with pytest.raises(BadWeights, match=rf"net was fitted with {numeric} numeric features"):
        check_encoder("net", numeric, cardinalities, planted.encoder)
