"""How often the models' layers run, and over how many rows, counted at torch's own functions."""

import pytest
import torch

from clipfarm_assets.encoders.base import Deadline, Source
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.encoders.text.packing import ROWS_STEP
from clipfarm_assets_tests.encoders import media

CONFIGS = {"video": VideoConfig, "audio": AudioConfig, "text": TextConfig}
METADATA = {"title": "A cat", "description": "jumps", "query": "cats"}
ROWS_THAT_REACH_THE_VECTOR = 16
LINEARS_OF_A_LAYER = 6  # query, key, value, their mix, and up and down


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    cache = tmp_path_factory.mktemp("models")

    def opened(modality):
        config = CONFIGS[modality](model=str(stand_in_dir(modality, cache)))
        return open_encoder(modality, config, profile="demo", cache_dir=cache, models_lock=None)

    return {modality: opened(modality) for modality in CONFIGS}


@pytest.fixture
def counted(monkeypatch):
    """Calls of attention and of linear layers, and the rows of their queries or inputs."""
    calls = {"attention": [], "linear": []}
    attention = torch.nn.functional.scaled_dot_product_attention
    linear = torch.nn.functional.linear

    def counted_attention(query, *others, **options):
        calls["attention"].append(query.shape[-2])
        return attention(query, *others, **options)

    def counted_linear(values, *others):
        calls["linear"].append(values.numel() // values.shape[-1])
        return linear(values, *others)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted_attention)
    monkeypatch.setattr(torch.nn.functional, "linear", counted_linear)
    return calls


def prepared(encoder, *raws):
    return [encoder.prepare(Source("clip", raw, METADATA), Deadline.after(60)) for raw in raws]


def transcript(words):
    return f'{{"transcript": "{" ".join(["word"] * words)}"}}'.encode()


def test_a_clip_is_one_forward_and_few_rows_of_the_last_layer(encoders, counted):
    encoder = encoders["video"]
    clips = prepared(encoder, *(media.video(seed=seed) for seed in range(3)))
    encoder.encode(clips[:1])  # the first is compared with the model's own forward
    for calls in counted.values():
        calls.clear()
    encoder.encode(clips)
    found = counted["attention"]
    layers = len(found) // len(clips)
    tokens = max(found)
    assert found == [*[tokens] * (layers - 1), ROWS_THAT_REACH_THE_VECTOR] * len(clips)
    assert tokens > ROWS_THAT_REACH_THE_VECTOR


def test_a_sound_is_one_forward(encoders, counted):
    encoder = encoders["audio"]
    one, two = prepared(encoder, *(media.wav(media.tone(s)) for s in (0.5, 1.0)))
    encoder.encode([one])
    layers = len(counted["attention"])
    encoder.encode([one, two])
    assert len(counted["attention"]) == 3 * layers


def test_texts_share_forwards_and_pad_little(encoders, counted):
    encoder = encoders["text"]
    texts = prepared(encoder, *(transcript(words) for words in (5, 9, 20, 33)))
    encoder.encode(texts[:1])
    products = len(counted["linear"])
    for calls in counted.values():
        calls.clear()
    encoder.encode(texts)
    assert len(counted["linear"]) == products, "as many products for four clips as for one"
    layers = products // LINEARS_OF_A_LAYER
    tokens = sum(counted["attention"]) // layers
    (rows,) = set(counted["linear"])
    assert tokens <= rows < tokens + ROWS_STEP, "about as many rows as there are tokens"
