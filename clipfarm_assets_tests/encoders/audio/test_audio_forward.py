import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from clipfarm_assets.encoders.audio.forward import AudioForward, fold_group_norm
from clipfarm_assets_tests.encoders import media


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(**settings):
    torch.manual_seed(5)
    config = Wav2Vec2Config(
        **{
            "hidden_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "intermediate_size": 384,
            "conv_dim": (64,) * 7,
            "num_conv_pos_embeddings": 32,
            "num_conv_pos_embedding_groups": 4,
            **settings,
        }
    )
    model = Wav2Vec2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def samples(seconds=1.0, seed=0):
    """A tone in noise, louder towards its end, as the extractor normalises it."""
    wave = media.tone(seconds)
    wave = wave + 0.2 * np.random.default_rng(seed).standard_normal(len(wave))
    wave *= np.linspace(0.1, 2, len(wave))
    return torch.tensor((wave - wave.mean()) / wave.std(), dtype=torch.float32)[None]


def of_the_model(model, values):
    with torch.no_grad():
        return model(values).last_hidden_state.mean(1)


def cosine(found, expected):
    return torch.cosine_similarity(found.double(), expected.double()).item()


def test_exact_is_the_models_own_forward():
    model, values = made(), samples()
    found = AudioForward(model, "exact")(values)
    assert found.numpy().tobytes() == of_the_model(model, values).numpy().tobytes()


BASE = {
    "base": {},
    "with biases": {"conv_bias": True},
    "an odd positional kernel": {"num_conv_pos_embeddings": 31},
    "other strides": {"conv_stride": (4, 3, 1, 2, 2, 2, 1)},
}
OTHERS = {
    "layer norms in the convolutions": {"feat_extract_norm": "layer", "conv_bias": True},
    "norms before the sublayers": {"do_stable_layer_norm": True},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    "with an adapter": {"add_adapter": True},
}


@pytest.mark.parametrize("settings", BASE.values(), ids=BASE)
@pytest.mark.parametrize(
    ("seconds", "least"),
    [(0.0251, 0.9995), (0.9, 0.9999), (2.13, 0.9999)],  # the first: no mean over time evens out
)
def test_bf16_is_near_exact_deterministic_and_float32(settings, seconds, least):
    model, values = made(**settings), samples(seconds)
    forward = AudioForward(model, "bf16")
    found = forward(values)
    exact = of_the_model(model, values)
    assert "channels-last" in forward.note
    assert found.dtype == torch.float32
    assert found.shape == exact.shape
    assert cosine(found, exact) >= least
    assert not torch.equal(found, exact)
    forward(samples(0.5, seed=1))
    assert found.numpy().tobytes() == forward(values).numpy().tobytes()


@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_other_architectures_run_under_autocast(settings):
    model, values = made(**settings), samples()
    forward = AudioForward(model, "bf16")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = model(values).last_hidden_state.float().mean(1)
    assert "autocast" in forward.note
    assert forward(values).numpy().tobytes() == expected.numpy().tobytes()
    assert cosine(forward(values), of_the_model(model, values)) >= 0.999


def test_bf16_leaves_the_exact_weights_alone():
    model, values = made(), samples()
    expected = of_the_model(model, values)
    AudioForward(model, "bf16")(values)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert AudioForward(model, "exact")(values).numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_the_folded_group_norm_is_the_layers_output(bias, offset):
    layer = made(conv_bias=bias).feature_extractor.conv_layers[0]
    values = samples() + offset
    with torch.no_grad():
        expected = layer.layer_norm(layer.conv(values[:, None]))[0].T
        windows, weight, shift = (part.float() for part in fold_group_norm(layer, values[0]))
    found = windows @ weight.T + shift
    assert found.shape == expected.shape
    # Each of the ten products is rounded twice to 8 bits, and so is the shift.
    scale = windows.abs() @ weight.abs().T + shift.abs()
    assert ((found - expected).abs() <= scale * 2**-7 + 1e-5).all()


def test_silence_is_finite():
    model = made()
    found = AudioForward(model, "bf16")(torch.zeros(1, 16_000))
    assert cosine(found, of_the_model(model, torch.zeros(1, 16_000))) >= 0.9999
