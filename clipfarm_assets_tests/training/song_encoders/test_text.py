"""Lyrics to tokens."""

import io
import json

import pytest
import sentencepiece
import torch
import transformers

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_encoder_config import DEBERTA_DIM, DebertaText
from clipfarm_assets.training.song_encoders.build import PrecomputedEncoder, build_encoders
from clipfarm_assets.training.song_encoders.stand_ins import stand_in_deberta
from clipfarm_assets.training.song_encoders.text import DebertaEncoder, LyricTokenizer
from clipfarm_assets_tests.training.song_encoders import kit

LYRICS = ["love night", "rain gold river stone love", ""]


@torch.inference_mode()
def test_semantic_text_embedding(tmp_path):
    """``[batch, 768]`` of a model of DeBERTa-v3 base's class and width."""
    folder = stand_in_deberta(tmp_path, kit.WORDS)
    encoder = DebertaEncoder.load(folder, DebertaText())
    found = encoder.pooled(**LyricTokenizer(folder, 8)(LYRICS[:2]).inputs)
    assert found.shape == (2, DEBERTA_DIM)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


@torch.inference_mode()
def test_tokens_are_the_models_last_hidden_states(deberta_dir):
    encoder = DebertaEncoder.load(deberta_dir, DebertaText())
    inputs = LyricTokenizer(deberta_dir, 12)(LYRICS * 2).inputs
    found = encoder(**inputs)
    plain = transformers.DebertaV2Model.from_pretrained(deberta_dir).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(deberta_dir)
    assert found.values.shape == (6, 12, 32)
    for row, text in enumerate(LYRICS * 2):
        states = plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert found.mask[row].tolist() == [place < len(states) for place in range(12)]
        torch.testing.assert_close(found.values[row, : len(states)], states, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_words_change_the_embedding_and_words_of_the_vocabulary_are_one_token(deberta_dir):
    encoder = DebertaEncoder.load(deberta_dir, DebertaText())
    inputs = LyricTokenizer(deberta_dir, 8)(list(kit.WORDS)).inputs
    assert inputs["attention_mask"].sum(dim=1).tolist() == [3] * len(kit.WORDS)
    found = encoder.pooled(**inputs)
    assert torch.cdist(found, found).add(torch.eye(len(found))).min() > 1e-2


def test_a_tokenizer_that_is_a_sentencepiece_model_alone(tmp_path):
    """As the pinned DeBERTa-v3 is published: ``spm.model``, and no ``tokenizer.json``."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*LYRICS[:2], "river love rain", "stone night gold"] * 4),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        user_defined_symbols=["[MASK]"],
    )
    (tmp_path / "spm.model").write_bytes(model.getvalue())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    told = {"do_lower_case": False, "vocab_type": "spm"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))

    found = LyricTokenizer(tmp_path, 64)(LYRICS)

    plain = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    for row, text in enumerate(LYRICS):
        ids = found.inputs["input_ids"][row, : found.inputs["attention_mask"][row].sum()].tolist()
        assert ids == [plain.bos_id(), *plain.encode(text), plain.eos_id()]
        assert plain.decode(ids) == text
    assert found.cut == [0, 0, 0]


def test_what_is_cut_is_counted(deberta_dir):
    found = LyricTokenizer(deberta_dir, 6)(LYRICS)
    assert found.cut == [0, 1, 0]
    assert {name: tuple(each.shape) for name, each in found.inputs.items()} == {
        "input_ids": (3, 6),
        "attention_mask": (3, 6),
    }


def test_precomputed_embedding_loading():
    """No model runs in training: the network takes the vectors, and has no weights for them."""
    encoder = build_encoders(SongConfig())["text"]
    assert isinstance(encoder, PrecomputedEncoder)
    assert list(encoder.parameters()) == []
    vectors = torch.randn(3, DEBERTA_DIM)
    assert torch.equal(encoder.pooled(values=vectors), vectors)
    with pytest.raises(ValueError, match="of 768 numbers"):
        encoder(values=torch.zeros(3, 384))


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match=r"cannot read .*config\.json"):
        DebertaEncoder.load(tmp_path, DebertaText())
    with pytest.raises(ModelUnavailable, match="cannot"):
        LyricTokenizer(tmp_path, 8)


def test_a_model_of_another_architecture_is_refused_before_it_is_filled_at_random(clap_dir):
    expected = "type 'deberta-v2' in .*: found 'clap_audio_model'"
    with pytest.raises(ModelUnavailable, match=expected):
        DebertaEncoder.load(clap_dir, DebertaText())
