import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from clipfarm_assets.encoders.base import ContentMissing, MediaError
from clipfarm_assets.encoders.config import TextConfig
from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.models import ModelUnavailable, resolve_model
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.encoders.text import ways as text_ways
from clipfarm_assets.encoders.text.encoder import (
    MAX_CHARACTERS,
    MAX_JSON_BYTES,
    TextEncoder,
    read_transcript,
)
from clipfarm_assets_tests.encoders.conftest import METADATA

SHORT = "the cat sat, then it jumped"
LONG = " ".join(f"cat{index % 7} jumps" for index in range(120))


def raw(transcript):
    return json.dumps({"transcript": transcript, "language": "en"}).encode()


class PlainText:
    """The stand-in by hand: character pieces, BERT, mean over tokens."""

    def __init__(self, path):
        config = BertConfig.from_dict(json.loads((path / "config.json").read_text()))
        self.model = BertModel(config).eval()
        self.model.load_state_dict(load_file(path / "model.safetensors"))
        self.vocabulary = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]

    def tokens(self, text):
        """Words and punctuation, lower case; a word is its first letter and ##-letters."""
        spaced = "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in text.lower())
        pieces = [
            letter if place == 0 else f"##{letter}"
            for word in spaced.split()
            for place, letter in enumerate(word)
        ]
        return [self.vocabulary[piece] for piece in pieces]

    def embed(self, tokens):
        ids = [self.vocabulary["[CLS]"], *tokens, self.vocabulary["[SEP]"]]
        with torch.no_grad():
            hidden = self.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return unit(hidden.mean(0).double().numpy())


def unit(vector):
    return vector / np.linalg.norm(vector)


METADATA_TEXT = "A cat | jumps, far.\nTwice | cats"
TEMPLATE = "{title} | {description} | {query}"


@pytest.fixture(scope="module")
def plain(stand_ins):
    return PlainText(stand_in_dir("text", stand_ins))


@pytest.mark.parametrize("transcript", [SHORT, LONG])
def test_equals_the_plain_way(opened, encode, plain, transcript):
    parts = [plain.embed(plain.tokens(text)[:254]) for text in (METADATA_TEXT, transcript)]
    found = encode(opened("text", template=TEMPLATE), raw(transcript)).vector
    assert found.dtype == np.float32
    assert found.shape == (768,)
    assert np.abs(found - unit(np.concatenate(parts))).max() <= 1e-5


def test_chunk_mean_equals_the_plain_way(opened, encode, plain):
    tokens = plain.tokens(LONG)
    assert len(tokens) > 2 * 254
    chunks = [plain.embed(tokens[start : start + 254]) for start in range(0, len(tokens), 254)]
    parts = [plain.embed(plain.tokens(METADATA_TEXT)), unit(np.mean(chunks, axis=0))]
    encoder = opened("text", template=TEMPLATE, long_text="chunk_mean")
    found = encode(encoder, raw(LONG))
    assert np.abs(found.vector - unit(np.concatenate(parts))).max() <= 1e-5
    assert found.notes == {"tokens_cut": 0}


def test_tokens_cut_are_counted(opened, encode, plain):
    encoder = opened("text")
    assert encode(encoder, raw(SHORT)).notes == {"tokens_cut": 0}
    cut = len(plain.tokens(LONG)) - 254
    assert encode(encoder, raw(LONG)).notes == {"tokens_cut": cut}
    both = encode(encoder, raw(LONG), {"title": LONG, "description": "", "query": ""})
    extra = len(plain.tokens(" [SEP]  [SEP] ".replace("[SEP]", "")))
    assert extra == 0
    assert both.notes == {"tokens_cut": 2 * cut + 2}  # the template's two separators


def test_long_text_is_another_version_but_short_text_the_same_vector(opened, encode):
    truncate, chunks = opened("text"), opened("text", long_text="chunk_mean")
    assert truncate.version.id != chunks.version.id
    assert encode(truncate, raw(SHORT)).vector.tobytes() == (
        encode(chunks, raw(SHORT)).vector.tobytes()
    )


def test_same_bytes_in_groups_of_any_size(opened, prepare):
    encoder = opened("text")
    items = [prepare(encoder, raw(f"{index} {SHORT} " * (1 + index))) for index in range(8)]
    alone = [encoder.encode([item])[0].vector.tobytes() for item in items]
    assert len(set(alone)) == 8
    for group in (3, 8):
        vectors = [
            encoded.vector.tobytes()
            for start in range(0, 8, group)
            for encoded in encoder.encode(items[start : start + group])
        ]
        assert vectors == alone


@pytest.mark.parametrize("precision", ["exact", "bf16"])
@pytest.mark.parametrize("long_text", ["truncate", "chunk_mean"])
def test_same_bytes_in_any_group_by_any_thread(opened, prepare, precision, long_text):
    encoder = opened("text", long_text=long_text).at(precision)
    transcripts = ["a", SHORT, "नमस्ते 🎬", f"{SHORT}! " * 15]
    items = [prepare(encoder, raw(text)) for text in transcripts]
    alone = [result(*encoder.encode([item])) for item in items]
    assert len(set(alone)) == len(items)

    @settings(max_examples=5, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, len(items) - 1), max_size=6))
    def in_a_group(chosen):
        found = encoder.encode([items[index] for index in chosen])
        assert [result(encoded) for encoded in found] == [alone[index] for index in chosen]

    in_a_group()
    with ThreadPoolExecutor(4) as pool:
        groups = list(pool.map(encoder.encode, [items[turn:] + items[:turn] for turn in range(4)]))
    for turn, found in enumerate(groups):
        assert [result(encoded) for encoded in found] == alone[turn:] + alone[:turn]


def result(encoded):
    return encoded.vector.tobytes(), encoded.notes["tokens_cut"]


def test_a_text_without_a_direction_is_found_one_at_a_time(stand_ins, tmp_path, prepare):
    path = tmp_path / "model"
    shutil.copytree(stand_in_dir("text", stand_ins), path)
    weights = load_file(path / "model.safetensors")
    tilde = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]["~"]
    weights["embeddings.word_embeddings.weight"][tilde] = float("nan")
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    encoder = open_encoder(
        "text",
        TextConfig(model=str(path)),
        profile="demo",
        cache_dir=tmp_path,
        models_lock=None,
    )
    good, bad = prepare(encoder, raw(SHORT)), prepare(encoder, raw("a ~ b"))
    with pytest.raises(MediaError, match="not finite"):
        encoder.encode([good, bad, good])
    with pytest.raises(MediaError, match="not finite"):
        encoder.encode([bad])
    assert np.isfinite(encoder.encode([good])[0].vector).all()


def test_another_precision_is_another_version_of_the_same_weights(stand_ins, opened, prepare):
    exact = opened("text")
    config = TextConfig(model=str(stand_in_dir("text", stand_ins)), precision="bf16")
    resolved = resolve_model("text", config, "demo", stand_ins, models_lock=None)
    fast = exact.at("bf16")
    assert exact.at("exact").version == exact.version
    assert fast.version.params == {**exact.version.params, "precision": "bf16"}
    assert fast.version == TextEncoder(resolved, config).version
    assert fast.version.id != exact.version.id
    assert fast.version.weights_sha256 == exact.version.weights_sha256
    item = prepare(exact, raw(LONG))
    vectors = [encoder.encode([item])[0].vector for encoder in (exact, fast)]
    assert 0.999 < np.dot(*vectors) < 1 - 1e-8
    back = fast.at("exact")
    assert back.encode([item])[0].vector.tobytes() == vectors[0].tobytes()
    assert fast.packed
    assert fast.equivalence is None


def test_a_group_of_more_text_than_is_tokenised_at_once(opened, prepare, monkeypatch):
    encoder = opened("text")
    items = [prepare(encoder, raw(text)) for text in (SHORT, f"{SHORT} " * 20, "a", SHORT)]
    expected = [result(encoded) for encoded in encoder.encode(items)]
    monkeypatch.setattr(text_ways, "_RUN_CHARACTERS", len(SHORT) + 1)
    assert [result(encoded) for encoded in encoder.encode(items)] == expected


@pytest.mark.parametrize(
    "content", [b"{}", b'{"transcript": null}', raw(""), raw(" \n\t"), raw("\u00a0\u2003")]
)
def test_nothing_to_embed_yet(opened, prepare, content):
    with pytest.raises(ContentMissing):
        prepare(opened("text"), content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b'{"transcript": "a', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "expected a JSON object, found list"),
        (b'"text"', "expected a JSON object, found str"),
        (b'{"transcript": 3}', "expected text in the field transcript, found int"),
        (b'{"transcript": ["a"]}', "expected text in the field transcript, found list"),
        (b'{"transcript": "\\ud800"}', "half of a character pair"),
        (b" " * (MAX_JSON_BYTES + 1), f"the limit is {MAX_JSON_BYTES}"),
        (raw("a" * (MAX_CHARACTERS + 1)), f"the limit is {MAX_CHARACTERS}"),
    ],
)
def test_unusable_json(opened, prepare, content, message):
    with pytest.raises(MediaError, match=message) as raised:
        prepare(opened("text"), content)
    assert "\n" not in str(raised.value)


def test_text_of_any_script_is_embedded(opened, encode):
    found = encode(opened("text"), raw("नमस्ते 🎬 \x00 cat"))
    assert np.isfinite(found.vector).all()


def test_the_metadata_must_have_the_templates_fields(opened, prepare):
    with pytest.raises(MediaError, match="the metadata has no description, query"):
        prepare(opened("text"), raw(SHORT), metadata={"title": "a"})
    encoder = opened("text", template="{title}!")
    assert prepare(encoder, raw(SHORT), metadata={"title": "{a}"}).metadata == "{a}!"


def test_the_template_decides_the_metadata_text(opened, prepare):
    prepared = prepare(opened("text"), raw(SHORT))
    assert prepared.metadata == "A cat [SEP] jumps, far.\nTwice [SEP] cats"
    assert METADATA["title"] == "A cat"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(raw)))
def test_any_bytes_are_text_or_a_clear_refusal(content):
    try:
        transcript = read_transcript(content)
    except (MediaError, ContentMissing):
        return
    assert transcript.strip()


def test_missing_weights_are_refused(stand_ins, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(stand_in_dir("text", stand_ins), path)
    weights = load_file(path / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "layer.0.output" not in key},
        path / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = TextConfig(model=str(path))
    with pytest.raises(ModelUnavailable, match="do not fill"):
        open_encoder("text", config, profile="demo", cache_dir=tmp_path, models_lock=None)


def test_weights_of_another_shape_are_refused(stand_ins, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(stand_in_dir("text", stand_ins), path)
    weights = load_file(path / "model.safetensors")
    name = "embeddings.position_embeddings.weight"
    weights[name] = weights[name][:100].contiguous()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    config = TextConfig(model=str(path))
    with pytest.raises(ModelUnavailable, match=r"do not fill|cannot load"):
        open_encoder("text", config, profile="demo", cache_dir=tmp_path, models_lock=None)


def test_weights_under_another_classs_names_are_found(opened, stand_ins, tmp_path, encode):
    """A checkpoint of BERT with a head has the prefix ``bert.`` and needs no pooler."""
    path = tmp_path / "model"
    shutil.copytree(stand_in_dir("text", stand_ins), path)
    weights = load_file(path / "model.safetensors")
    renamed = {f"bert.{name}": value for name, value in weights.items() if "pooler" not in name}
    save_file(renamed, path / "model.safetensors", metadata={"format": "pt"})
    config = TextConfig(model=str(path))
    encoder = open_encoder("text", config, profile="demo", cache_dir=tmp_path, models_lock=None)
    found, expected = (encode(one, raw(SHORT)).vector for one in (encoder, opened("text")))
    assert found.tobytes() == expected.tobytes()
