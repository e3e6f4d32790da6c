import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.training.expert_config import TextRepresentation
from clipfarm_assets.training.experts.expert import BLOCK_ROWS
from clipfarm_assets.training.experts.representations import NoRepresentation
from clipfarm_assets.training.experts.text import TextExpert
from clipfarm_assets_tests.training.experts import kit

TEXTS = kit.some_texts(70)


@pytest.fixture(scope="module")
def expert(text_dir):
    return TextExpert.load(text_dir, representation=TextRepresentation(max_tokens=48))


@pytest.fixture(scope="module")
def everything(expert):
    return expert.represent(TEXTS)


def changed_copy(folder, tmp_path, name, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    body = json.loads((copy / name).read_text())
    change(body)
    (copy / name).write_text(json.dumps(body))
    return copy


def test_hidden_state_and_logits_are_those_of_plain_transformers(text_dir, expert, everything):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(text_dir)
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_dir)
    with torch.inference_mode():
        for index in (0, 1, 2):
            inputs = tokenizer(TEXTS[index], return_tensors="pt")
            hidden = model.eval().bert(**inputs).last_hidden_state[0, 0]
            np.testing.assert_allclose(everything.hidden[index], hidden, atol=1e-5)
            np.testing.assert_allclose(
                everything.logits[index], model(**inputs).logits[0], atol=1e-5
            )
    assert everything.hidden.shape == (len(TEXTS), expert.dim) == (len(TEXTS), 32)


def test_mean_is_of_the_texts_own_tokens(text_dir):
    expert = TextExpert.load(text_dir, representation=TextRepresentation(pooling="mean"))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(text_dir).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_dir)
    with torch.inference_mode():
        states = model.bert(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state
    hidden = expert.represent([TEXTS[0]]).hidden[0]
    np.testing.assert_allclose(hidden, states[0].mean(dim=0), atol=1e-5)


def test_a_texts_bits_do_not_depend_on_its_neighbours(expert, everything):
    order = np.random.default_rng(3).permutation(len(TEXTS))
    shuffled = expert.represent([TEXTS[index] for index in order])
    assert np.array_equal(shuffled.hidden, everything.hidden[order])
    assert np.array_equal(shuffled.logits, everything.logits[order])
    for index in (0, 33, 69):
        alone = expert.represent([TEXTS[index]])
        assert np.array_equal(alone.hidden[0], everything.hidden[index])
        assert np.array_equal(alone.logits[0], everything.logits[index])


def test_a_block_without_any_padding_computes_as_others_do(expert):
    """transformers leaves out a mask that masks nothing, and may compute attention otherwise."""
    full = [" ".join(["cat", "dog"] * 7)] * (BLOCK_ROWS - 1)
    assert expert.tokenise(full)["attention_mask"].sum(dim=1).tolist() == [16] * len(full)
    together = expert.represent(full).hidden
    beside_shorter = expert.represent([full[0], *(["cat dog"] * 3)]).hidden
    assert np.array_equal(together[0], beside_shorter[0])
    assert np.array_equal(together, np.repeat(together[:1], len(full), axis=0))


def test_what_is_cut_is_counted_and_not_seen(expert):
    long, longer = " ".join(["cat"] * 46), " ".join(["cat"] * 50 + ["dog"] * 7)
    assert expert.encode([long, longer, "cat"]).cut == [0, 11, 0]
    assert expert.cut_of([longer]) == [11]
    found = expert.represent([long, longer]).hidden
    assert np.array_equal(found[0], found[1])


def test_tokens_have_one_shape_whatever_the_texts(expert):
    shapes = {tuple(value.shape) for value in expert.tokenise(["cat", TEXTS[0]]).values()}
    assert shapes == {(2, 48)}
    assert {tuple(value.shape) for value in expert.tokenise([]).values()} == {(0, 48)}


def test_no_texts_give_no_rows(expert):
    found = expert.represent([])
    assert found.hidden.shape == (0, 32)
    assert found.logits.shape == (0, 2)


def test_representing_leaves_training_as_it_was(expert):
    expert.train()
    try:
        first = expert.represent(["cat"]).hidden
        assert expert.training
        assert np.array_equal(first, expert.represent(["cat"]).hidden)
    finally:
        expert.eval()


def test_version_names_files_and_representation(text_dir, expert):
    same = TextExpert.load(text_dir, representation=TextRepresentation(max_tokens=48))
    other = TextExpert.load(
        text_dir, representation=TextRepresentation(max_tokens=48, pooling="mean")
    )
    assert expert.version == same.version != other.version
    assert expert.version.startswith("text-")


def test_a_tokenizer_that_cannot_pad_is_refused(text_dir, tmp_path):
    folder = changed_copy(
        text_dir, tmp_path, "tokenizer_config.json", lambda body: body.update(pad_token=None)
    )
    with pytest.raises(ModelUnavailable, match="no padding token"):
        TextExpert.load(folder)


def test_more_tokens_than_the_model_takes_are_refused(text_dir):
    with pytest.raises(ModelUnavailable, match="takes 512 tokens at most: set `max_tokens`, 600"):
        TextExpert.load(text_dir, representation=TextRepresentation(max_tokens=600))


def test_a_finished_expert_must_be_whole(text_dir, tmp_path):
    folder = changed_copy(
        text_dir, tmp_path, "config.json", lambda body: body.update(num_hidden_layers=4)
    )
    with pytest.raises(ModelUnavailable, match="do not fill AutoModelForSequenceClassification"):
        TextExpert.load(folder)
    with pytest.raises(ModelUnavailable, match="cannot load"):
        TextExpert.load(tmp_path / "nowhere")


def test_a_first_token_that_does_not_see_the_text_stands_for_none(text_dir, tmp_path):
    config = transformers.GPT2Config(
        vocab_size=200,
        n_embd=8,
        n_layer=1,
        n_head=1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(text_dir / name, tmp_path)
    with pytest.raises(NoRepresentation, match="set the text's `pooling` to 'mean'"):
        TextExpert.load(tmp_path)
    expert = TextExpert.load(tmp_path, representation=TextRepresentation(pooling="mean"))
    assert expert.represent(["cat dog"]).hidden.shape == (1, 8)


def test_a_base_gets_a_head_of_its_own_drawn_from_the_seed(text_dir):
    three = ("a", "b", "c")
    first, again, other = (TextExpert.start(text_dir, three, seed) for seed in (1, 1, 2))
    assert first.classes == three
    states = [expert.model.state_dict() for expert in (first, again, other)]
    assert states[0]["classifier.weight"].shape == (3, 32)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    differing = {key for key in states[0] if not torch.equal(states[0][key], states[2][key])}
    assert differing == {"classifier.weight"}
