"""When texts may not share forwards: it is seen, said, and the vectors are right all the same."""

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from clipfarm_assets.encoders.config import TextConfig
from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.encoders.text.check import rows_stand_alone
from clipfarm_assets.encoders.text.forward import Linear
from clipfarm_assets.encoders.text.packing import PackShape

SHAPES = [PackShape(128), PackShape(128, fixed=True)]
TEXTS = ["the cat sat", "cat " * 400, ""]


@pytest.fixture
def changed(stand_ins, tmp_path):
    """Copy the stand-in, let `change` work on the copy, open it."""

    def get(change, **settings):
        path = tmp_path / "model"
        shutil.copytree(stand_in_dir("text", stand_ins), path)
        change(path)
        config = TextConfig(model=str(path), template="{title}", **settings)
        encoder = open_encoder("text", config, profile="demo", cache_dir=tmp_path, models_lock=None)
        return encoder, path

    return get


def edit(file, **fields):
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, **fields}))


def pool_by_first_token(path):
    edit(
        path / "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True
    )


def leave_vectors_as_long_as_they_are(path):
    modules = json.loads((path / "modules.json").read_text())
    (path / "modules.json").write_text(json.dumps(modules[:2]))


def put_a_prompt_before_texts(path):
    config = {"prompts": {"said": "he said: "}, "default_prompt_name": "said"}
    (path / "config_sentence_transformers.json").write_text(json.dumps(config))


def cut_vectors(path):
    (path / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": 96}))


def have_an_odd_width(path):
    weights = load_file(path / "model.safetensors")
    for name, value in weights.items():
        if "intermediate.dense" in name:
            weights[name] = value[:760].contiguous()
        elif "output.dense.weight" in name and "attention" not in name:
            weights[name] = value[:, :760].contiguous()
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    edit(path / "config.json", intermediate_size=760)


def see_more_tokens_than_positions(path):
    edit(path / "sentence_bert_config.json", max_seq_length=600)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (pool_by_first_token, "it pools by cls"),
        (leave_vectors_as_long_as_they_are, "its modules are Transformer, Pooling, not"),
        (put_a_prompt_before_texts, "puts a prompt before texts"),
        (cut_vectors, "truncates vectors"),
        (have_an_odd_width, "its widths (384, 760) are not multiples of 64"),
        (see_more_tokens_than_positions, "600 tokens exceed its 512 positions"),
    ],
)
def test_another_kind_of_model_is_embedded_one_by_one(changed, prepare, change, why):
    encoder, path = changed(change)
    assert not encoder.packed
    assert encoder.group_size == 1
    assert why in encoder.why_not_packed
    model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
    texts = TEXTS if "600" not in why else TEXTS[::2]
    items = [
        prepare(encoder, json.dumps({"transcript": "a " + text}).encode(), metadata={"title": text})
        for text in texts
    ]
    found = encoder.encode(items)
    close = encoder.at("bf16").encode(items)
    torch.set_num_threads(1)
    for text, encoded, fast in zip(texts, found, close, strict=True):
        halves = model.encode([text])[0], model.encode(["a " + text])[0]
        halves = [half / np.linalg.norm(half) for half in halves]
        expected = np.concatenate(halves) / np.sqrt(2)
        assert np.abs(encoded.vector - expected).max() <= 3e-7
        assert 0.999 < np.dot(fast.vector, expected) < 1 - 1e-8


def test_several_threads_embed_one_by_one_and_say_why(opened):
    encoder = opened("text", threads=2)
    assert not encoder.packed
    assert "set threads to 1" in encoder.why_not_packed
    assert opened("text").packed
    assert opened("text").why_not_packed is None
    assert opened("text").group_size > 1


@dataclass(frozen=True, slots=True)
class Mixing(Linear):
    """A product whose rows depend on how many rows there are, or on which row is the first."""

    by: str

    def __call__(self, x):
        other = len(x) if self.by == "count" else float(x[0, 0])
        return x @ self.weight.T + self.bias + 1e-6 * other


def linears(*kinds):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((64, 128), generator=generator)
    bias = torch.randn(64, generator=generator)
    return [Mixing(weight, bias, kind) if kind else Linear(weight, bias) for kind in kinds]


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_that_depend_on_others_are_noticed(shape):
    assert rows_stand_alone(linears(None), shape, 1)
    assert not rows_stand_alone(linears("first row"), shape, 1)
    # With a fixed number of rows, their number decides nothing.
    assert rows_stand_alone(linears("count"), shape, 1) == shape.fixed


def test_every_size_of_layer_is_tried():
    other = Linear(torch.ones(64, 64), torch.ones(64))
    assert not rows_stand_alone([other, *linears("first row")], SHAPES[0], 1)


def test_trying_leaves_the_number_of_threads(opened):
    torch.set_num_threads(2)
    rows_stand_alone(linears(None), SHAPES[0], 1)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
