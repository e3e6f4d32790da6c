import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VideoMAEConfig, VideoMAEModel

from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.config import VideoConfig
from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.encoders.video.encoder import FramePreprocess
from clipfarm_assets_tests.encoders import media
from clipfarm_assets_tests.encoders.video.test_video_frames import decode_all

CLIPS = {
    "plain": media.video(24),
    "three frames": media.video(3, seed=1),
    "wide, odd, b-frames": media.video(
        33, width=131, height=65, b_frames=2, seed=2, pix_fmt="yuv444p"
    ),
}


def plain_model(path):
    """The model without the loading code under test."""
    config = VideoMAEConfig.from_dict(json.loads((path / "config.json").read_text()))
    model = VideoMAEModel(config)
    weights = load_file(path / "model.safetensors")
    model.load_state_dict(
        {
            key.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value
            for key, value in weights.items()
        }
    )
    return model.eval()


def triangle_weights(size, target):
    """Antialiased bilinear interpolation along one axis, as a matrix (target, size)."""
    scale = size / target
    support = max(scale, 1.0)
    weights = np.zeros((target, size))
    for row in range(target):
        centre = scale * (row + 0.5)
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), size)
        distance = np.abs(np.arange(first, last) + 0.5 - centre) / support
        weights[row, first:last] = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def resize_axis(levels, target, axis):
    """The same in fixed point: 16-bit weights, rounded to uint8 levels after each axis."""
    if levels.shape[axis] == target:
        return levels
    weights = triangle_weights(levels.shape[axis], target)
    bits = next(p for p in range(22) if int(0.5 + weights.max() * 2 ** (p + 1)) >= 2**15)
    whole = np.floor(0.5 + weights * 2**bits).astype(np.int64)
    sums = np.tensordot(whole, levels.astype(np.int64), axes=(1, axis))
    return np.moveaxis(np.clip((sums + 2 ** (bits - 1)) >> bits, 0, 255), 0, axis)


def plain_levels(frame, edge):
    """Shorter side to `edge`, width before height, then the centre crop."""
    height, width = frame.shape[:2]
    short = min(height, width)
    target = [edge if side == short else int(edge * side / short) for side in (height, width)]
    resized = resize_axis(resize_axis(frame, target[1], 1), target[0], 0)
    top, left = (round((side - edge) / 2) for side in target)
    return resized[top : top + edge, left : left + edge]


def plain_pixels(frame, edge):
    levels = plain_levels(frame, edge).astype(np.float64) / 255
    values = (levels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.tensor(values).permute(2, 0, 1).float()


def plain_vector(model, raw, pooling):
    every = decode_all(raw)
    indices = np.linspace(0, len(every) - 1, 16).astype(int)
    if len(every) < 16:
        indices = [min(index, len(every) - 1) for index in range(16)]
    edge = model.config.image_size
    pixels = torch.stack([plain_pixels(every[index], edge) for index in indices])
    with torch.no_grad():
        hidden = model(pixel_values=pixels[None]).last_hidden_state
    vector = hidden[0, 0] if pooling == "first_token" else hidden[0].mean(0)
    return (vector / vector.norm()).numpy()


@pytest.mark.parametrize("pooling", ["first_token", "mean"])
@pytest.mark.parametrize("clip", CLIPS)
def test_equals_the_plain_way(opened, encode, stand_ins, clip, pooling):
    expected = plain_vector(plain_model(stand_in_dir("video", stand_ins)), CLIPS[clip], pooling)
    found = encode(opened("video", pooling=pooling), CLIPS[clip]).vector
    assert found.dtype == np.float32
    assert found.shape == (768,)
    assert np.abs(found - expected).max() <= 1e-5
    assert np.linalg.norm(found.astype(np.float64)) == pytest.approx(1, abs=1e-6)


SIZES = [(96, 64), (65, 131), (360, 640), (480, 270), (113, 112), (112, 300), (50, 600)]


@pytest.mark.parametrize("edge", [112, 224])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_fixed_point_formula(size, edge):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    preprocess = FramePreprocess(edge, (edge, edge), 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert np.array_equal(preprocess.reduce(frame), plain_levels(frame, edge))


def test_pixels_are_within_a_rounding_of_exact_interpolation():
    frame = next(media.pictures(1, 270, 480))
    preprocess = FramePreprocess(224, (224, 224), 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    rows = np.tensordot(triangle_weights(270, 224), frame, axes=(1, 1))
    exact = np.tensordot(triangle_weights(480, 398), rows, axes=(1, 1))[87 : 87 + 224]
    difference = np.abs(preprocess.reduce(frame) - exact)
    assert difference.max() < 1.5  # half a level a rounding, and the weights' own
    assert difference.mean() < 0.5


def test_same_bytes_in_groups_of_any_size(opened, prepare):
    encoder = opened("video")
    items = [prepare(encoder, media.video(5 + index, seed=index)) for index in range(8)]
    alone = [encoder.encode([item])[0].vector.tobytes() for item in items]
    assert len(set(alone)) == 8
    for group in (3, 8):
        vectors = [
            encoded.vector.tobytes()
            for start in range(0, 8, group)
            for encoded in encoder.encode(items[start : start + group])
        ]
        assert vectors == alone


def test_preparing_in_threads_changes_nothing(opened, prepare):
    encoder = opened("video")
    clips = [media.video(5 + index, seed=index) for index in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda clip: prepare(encoder, clip).pixels.tobytes(), clips))
    assert together == [prepare(encoder, clip).pixels.tobytes() for clip in clips]


def test_prepared_items_are_small_integers_and_carry_notes(opened, encode, prepare):
    encoder = opened("video")
    prepared = prepare(encoder, CLIPS["plain"])
    assert prepared.pixels.dtype == np.uint8
    assert prepared.pixels.shape == (16, 112, 112, 3)
    assert encode(encoder, CLIPS["plain"]).notes == {
        "decoded_frames": 24,
        "decode_errors": 0,
        "decoded_from_start": 0,
    }


def test_a_clip_that_had_to_be_decoded_from_the_start_is_counted(opened, encode):
    raw = media.video(24, container="avi", codec="mpeg4")
    assert encode(opened("video"), raw).notes["decoded_from_start"] == 1


def test_another_number_of_frames_is_resampled_to_the_models(opened, encode):
    default = encode(opened("video"), CLIPS["plain"]).vector
    few = encode(opened("video", num_frames=4), CLIPS["plain"]).vector
    assert few.shape == default.shape
    assert not np.array_equal(few, default)
    assert opened("video", num_frames=4).version.id != opened("video").version.id


def test_parameters_are_the_version(opened):
    ids = {
        opened("video").version.id,
        opened("video", pooling="mean").version.id,
        opened("video", rotation="upright").version.id,
    }
    assert len(ids) == 3
    assert opened("video", item_deadline_seconds=5).version.id in ids
    assert opened("video").version.dim == 768
    assert opened("video").is_stand_in


@pytest.mark.parametrize("raw", [b"", b"nothing", media.sound_only_mp4(), CLIPS["plain"][:100]])
def test_unusable_media(opened, prepare, raw):
    with pytest.raises(MediaError, match="cannot decode the video"):
        prepare(opened("video"), raw)


def test_a_frame_like_a_ribbon_is_refused(opened, prepare):
    with pytest.raises(MediaError, match="4096x32 pixels: longer than 64:1"):
        prepare(opened("video"), media.video(1, width=4096, height=32))


def test_a_prompt_end(opened, prepare):
    with pytest.raises(MediaError, match="deadline for one item"):
        prepare(opened("video"), CLIPS["plain"], seconds=0)


@pytest.fixture
def copy(stand_ins, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(stand_in_dir("video", stand_ins), path)
    return path


def open_copy(path, **settings):
    config = VideoConfig(model=str(path), **settings)
    return open_encoder("video", config, profile="demo", cache_dir=path, models_lock=None)


def rewrite(path, change):
    weights = load_file(path / "model.safetensors")
    save_file(change(weights), path / "model.safetensors", metadata={"format": "pt"})


def test_the_published_checkpoints_layout_loads_whole(copy, opened, encode):
    """As on the hub: below ``videomae.``, biases as q_bias and v_bias, a decoder beside."""

    def published(weights):
        assert "encoder.layer.0.attention.attention.q_bias" in weights
        assert "encoder.layer.0.attention.attention.v_bias" in weights
        below = {f"videomae.{key}": value for key, value in weights.items()}
        return {**below, "mask_token": torch.zeros(1, 1, 384)}

    rewrite(copy, published)
    found = encode(open_copy(copy), CLIPS["plain"]).vector
    assert found.tobytes() == encode(opened("video"), CLIPS["plain"]).vector.tobytes()


def test_missing_weights_are_refused(copy):
    rewrite(copy, lambda weights: {k: v for k, v in weights.items() if "layer.1.output" not in k})
    with pytest.raises(ModelUnavailable, match=r"2 missing \['encoder\.layer\.1\.output\.dense"):
        open_copy(copy)


def test_weights_of_another_shape_are_refused(copy):
    rewrite(copy, lambda weights: {**weights, "layernorm.weight": torch.ones(4)})
    with pytest.raises(ModelUnavailable, match=r"1 of another shape \['layernorm\.weight'\]"):
        open_copy(copy)


def test_garbled_weights_are_refused(copy):
    (copy / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ModelUnavailable, match="cannot load VideoMAEModel"):
        open_copy(copy)


def test_means_of_the_checkpoint_are_used(copy, opened, encode):
    file = copy / "preprocessor_config.json"
    settings = {**json.loads(file.read_text()), "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    file.write_text(json.dumps(settings))
    found = encode(open_copy(copy), CLIPS["plain"]).vector
    assert np.abs(found - encode(opened("video"), CLIPS["plain"]).vector).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": False}, "another preprocessing"),
        ({"resample": 3}, "another preprocessing"),
        ({"image_mean": [0.5]}, "expected size, crop_size, image_mean and image_std"),
        ({"crop_size": 96}, r"frames of \(112, 112\) pixels"),
    ],
)
def test_a_preprocessing_we_do_not_do_is_refused(copy, change, message):
    file = copy / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ModelUnavailable, match=message):
        open_copy(copy)


def test_output_without_direction_is_a_media_error(copy, encode):
    rewrite(copy, lambda weights: {**weights, "layernorm.bias": torch.full((768,), torch.nan)})
    with pytest.raises(MediaError, match="not finite"):
        encode(open_copy(copy), CLIPS["plain"])


def test_a_device_that_is_not_there(copy):
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ModelUnavailable, match=f"device {absent} is not available"):
        open_copy(copy, device=absent)
