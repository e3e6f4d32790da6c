from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers import AutoTokenizer

from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.text.tokens import TextTokenizer

MOST = 32
TEXTS = [
    "",
    " \t\n",
    "a",
    "The cat [SEP] sat, then [CLS] jumped!",
    "नमस्ते 🎬 \x00 été 你好",
    " ".join(f"cat{index % 7} jumps" for index in range(300)),
    "x" * 500,
]


@pytest.fixture(scope="module")
def original(stand_ins):
    return AutoTokenizer.from_pretrained(stand_in_dir("text", stand_ins))


def test_equals_the_transformers_tokenizer(original):
    for text, found in zip(TEXTS, TextTokenizer.copy_of(original, MOST)(TEXTS), strict=True):
        chunks = original(text, truncation=True, max_length=MOST, return_overflowing_tokens=True)[
            "input_ids"
        ]
        assert found.chunks == tuple(map(tuple, chunks))
        assert found.chunks[0] == tuple(
            original(text, truncation=True, max_length=MOST)["input_ids"]
        )
        assert found.tokens == len(original(text, truncation=False, verbose=False)["input_ids"])


def test_the_originals_settings_are_neither_taken_nor_changed(original):
    original.backend_tokenizer.enable_truncation(7)
    original.backend_tokenizer.enable_padding(length=9)
    tokenizer = TextTokenizer.copy_of(original, MOST)
    assert tokenizer(["a"])[0].tokens == 3
    assert original.backend_tokenizer.truncation["max_length"] == 7
    assert original.backend_tokenizer.padding["length"] == 9


def test_threads_do_not_disturb_each_other(original):
    tokenizer = TextTokenizer.copy_of(original, MOST)
    expected = tokenizer(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(tokenizer, [TEXTS] * 200)) == [expected] * 200
