import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.storage.images import BadImage
from clipfarm_assets.training.experts.vision import VisionExpert
from clipfarm_assets_tests.training.experts import kit


@pytest.fixture(scope="module")
def expert(vision_dir):
    return VisionExpert.load(vision_dir)


@pytest.fixture(scope="module")
def images(expert):
    return [expert.prepare(image) for image in kit.some_images(70)]


@pytest.fixture(scope="module")
def everything(expert, images):
    return expert.represent(images)


@pytest.fixture(scope="module")
def resnet_dir(vision_dir, tmp_path_factory):
    """A convolutional model, with running statistics and without a first token."""
    folder = tmp_path_factory.mktemp("resnet")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2
    )
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    shutil.copy(vision_dir / "preprocessor_config.json", folder)
    return folder


def test_an_image_is_prepared_as_pillow_alone_would(expert):
    image = kit.some_image(4)
    small = image.resize((32, 32), Image.Resampling.BILINEAR)
    plain = (np.asarray(small, dtype=np.float64).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    prepared = expert.prepare(kit.encoded(image))
    assert prepared.dtype == torch.float32
    np.testing.assert_allclose(prepared, plain, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_images_of_any_mode_become_three_channels(expert, mode):
    prepared = expert.prepare(kit.encoded(kit.some_image(1).convert(mode)))
    assert tuple(prepared.shape) == (3, 32, 32)


def test_what_was_packed_within_wider_limits_is_not_shrunk_on_the_way(expert):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 1500, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    small = image.resize((32, 32), Image.Resampling.BILINEAR)
    plain = (np.asarray(small, dtype=np.float64).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(expert.prepare(kit.encoded(image)), plain, atol=1e-6)


def test_a_file_that_is_no_image_is_refused(expert):
    whole = kit.encoded(kit.some_image(1))
    for data in (b"", b"not an image", whole[: len(whole) // 2]):
        with pytest.raises(BadImage):
            expert.prepare(data)


def test_hidden_state_and_logits_are_those_of_plain_transformers(vision_dir, images, everything):
    model = transformers.AutoModelForImageClassification.from_pretrained(vision_dir).eval()
    with torch.inference_mode():
        for index in (0, 69):
            pixels = images[index].unsqueeze(0)
            hidden = model.vit(pixels).last_hidden_state[0, 0]
            np.testing.assert_allclose(everything.hidden[index], hidden, atol=1e-5)
            np.testing.assert_allclose(everything.logits[index], model(pixels).logits[0], atol=1e-5)


def test_an_images_bits_do_not_depend_on_its_neighbours(expert, images, everything):
    order = np.random.default_rng(3).permutation(len(images))
    shuffled = expert.represent([images[index] for index in order])
    assert np.array_equal(shuffled.hidden, everything.hidden[order])
    assert np.array_equal(shuffled.logits, everything.logits[order])
    for index in (0, 40):
        alone = expert.represent([images[index]])
        assert np.array_equal(alone.hidden[0], everything.hidden[index])
        assert np.array_equal(alone.logits[0], everything.logits[index])


def test_no_images_give_no_rows(expert):
    assert expert.represent([]).hidden.shape == (0, 32)


def test_a_convolutional_model_gives_its_pooled_map(resnet_dir, images):
    expert = VisionExpert.load(resnet_dir)
    model = transformers.AutoModelForImageClassification.from_pretrained(resnet_dir).eval()
    with torch.inference_mode():
        states = model.resnet(images[0].unsqueeze(0)).last_hidden_state
    found = expert.represent(images[:3])
    assert found.hidden.shape == (3, 16)
    np.testing.assert_allclose(found.hidden[0], states[0].mean(dim=(1, 2)), atol=1e-5)


def test_running_statistics_of_frozen_parts_stay(resnet_dir, images):
    expert = VisionExpert.load(resnet_dir)
    for parameter in expert.backbone.parameters():
        parameter.requires_grad = False
    before = {key: value.clone() for key, value in expert.state_dict().items()}
    expert.train()
    expert(expert.stacked(images[:4])).logits.sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in expert.state_dict().items())


def test_a_processor_that_makes_images_of_several_sizes_is_refused(vision_dir, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(vision_dir, folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "size": {"shortest_edge": 32}}))
    with pytest.raises(ModelUnavailable, match="must make all images of one size"):
        VisionExpert.load(folder)


def test_a_directory_without_a_processor_is_refused(vision_dir, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(vision_dir, folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelUnavailable, match="cannot load the image processor"):
        VisionExpert.load(folder)
