"""Small seeded models that stand in for pretrained ones where there is no network.

They are ordinary model directories of the real models' classes and hidden size, so that a demo or a
test runs the very code that loads real weights. Their weights are random, and their names and
config.json say so. Two builds are equal byte for byte: weights are drawn by numpy's PCG64, and the
tokenizer's words are counted, not learned by a trainer whose ties break by chance.
"""

import json
import re
import string
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import transformers

from clipfarm_assets.encoders.loading import no_progress_bars
from clipfarm_assets.encoders.models import STAND_IN_FLAG

# Raise the number when a recipe below changes: the name is the identity.
TEXT_STAND_IN: Final = "clipfarm-meme-bert-stand-in-1"
VISION_STAND_IN: Final = "clipfarm-meme-vit-stand-in-1"

_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORD: Final = re.compile(r"\w+")
_LONGEST_WORD: Final = 40
_MOST_WORDS: Final = 4000
_MOST_LETTERS: Final = 500
_MAX_TOKENS: Final = 512
_SEEDS: Final = {TEXT_STAND_IN: 11, VISION_STAND_IN: 12}


@dataclass(frozen=True, slots=True)
class StandInSize:
    """How large a stand-in is.

    Attributes:
        hidden: Width of its hidden state, that of the base models by default.
        layers: Number of its layers.
        heads: Attention heads of a layer.
        inner: Width between a layer's two linear parts.
        image: Pixels of an image's side.
        patch: Pixels of a patch's side.
    """

    hidden: int = 768
    layers: int = 2
    heads: int = 12
    inner: int = 384
    image: int = 64
    patch: int = 16


FULL_SIZE: Final = StandInSize()


def stand_in_text(folder: Path, texts: Iterable[str], size: StandInSize = FULL_SIZE) -> Path:
    """A seeded BERT classifier of two classes whose words are those of `texts`.

    A word that is not among the 4,000 most frequent is read letter by letter.

    Args:
        folder: Where its directory, named as the model, is made.
        texts: Gone through once.
        size: How large it is.

    Returns:
        The directory.
    """
    pieces = [*_SPECIAL, *vocabulary(texts)]
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.inner,
        max_position_embeddings=_MAX_TOKENS,
    )
    path = folder / TEXT_STAND_IN
    save_stand_in(transformers.BertForSequenceClassification(config), path, _SEEDS[TEXT_STAND_IN])
    tokenizer = transformers.BertTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, model_max_length=_MAX_TOKENS
    )
    tokenizer.save_pretrained(path)
    return path


def stand_in_vision(folder: Path, size: StandInSize = FULL_SIZE) -> Path:
    """A seeded ViT classifier of two classes.

    Args:
        folder: Where its directory, named as the model, is made.
        size: How large it is.

    Returns:
        The directory.
    """
    config = transformers.ViTConfig(
        image_size=size.image,
        patch_size=size.patch,
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.inner,
    )
    path = folder / VISION_STAND_IN
    save_stand_in(transformers.ViTForImageClassification(config), path, _SEEDS[VISION_STAND_IN])
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size.image, "width": size.image},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    write_json(path / "preprocessor_config.json", processor)
    return path


def vocabulary(texts: Iterable[str]) -> list[str]:
    """Letters, letters within words, and the most frequent words of `texts`, ties by spelling."""
    words: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    for text in texts:
        lower = text.lower()
        words.update(word for word in _WORD.findall(lower) if len(word) <= _LONGEST_WORD)
        letters.update(letter for letter in lower if not letter.isspace())
    own = set(string.ascii_lowercase + string.digits + string.punctuation)
    own.update(_most_frequent(letters, _MOST_LETTERS))
    single = sorted(own)
    known = {*single, *_SPECIAL}
    frequent = [word for word in _most_frequent(words, _MOST_WORDS) if word not in known]
    return [*single, *(f"##{letter}" for letter in single), *frequent]


def _most_frequent(counts: Counter[str], most: int) -> list[str]:
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:most]


def save_stand_in(model: Any, path: Path, seed: int) -> None:
    """Fill `model` from `seed` and save it, marked as a stand-in."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A stream a name: adding a parameter to a class leaves the others as they are.
            random = np.random.default_rng([seed, zlib.crc32(name.encode())])
            values = random.standard_normal(tuple(parameter.shape), dtype=np.float32)
            if parameter.ndim > 1:
                values *= np.float32(1 / np.sqrt(parameter[0].numel()))  # keeps the signal's scale
            else:
                is_norm = "norm" in name.lower() and name.endswith(".weight")
                values = values * np.float32(0.02) + np.float32(is_norm)
            parameter.copy_(torch.from_numpy(values))
    with no_progress_bars():
        model.save_pretrained(path)
    config = json.loads((path / "config.json").read_bytes())
    config.pop("transformers_version", None)  # the same weights under any version
    write_json(path / "config.json", {**config, STAND_IN_FLAG: True})


def write_json(path: Path, data: Any) -> None:
    """Write a model directory's file; equal data have equal bytes."""
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
