"""The expert of a meme's words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
import transformers
from torch import Tensor

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.training.expert_config import TextRepresentation
from clipfarm_assets.training.experts.expert import BLOCK_ROWS, Expert
from clipfarm_assets.training.experts.representations import (
    NoRepresentation,
    Represented,
    pool_text,
    to_arrays,
)

_STEP: Final = 16
_NO_LIMIT: Final = 1 << 20
"""Tokenizers that know no maximum say a number far beyond this one."""


class Tokenised(NamedTuple):
    """Texts as tokens."""

    inputs: dict[str, Tensor]
    """The model's arguments, int64 ``[N, max_tokens]``: ``input_ids``, ``attention_mask``, …"""
    cut: list[int]
    """How many tokens of each text were beyond the maximum."""


class TextExpert(Expert[str, TextRepresentation]):
    """A sequence classifier with its tokenizer. Texts are padded on the right."""

    modality: Literal["text"] = "text"
    settings = TextRepresentation
    raw = "txt"
    chunk_items = 1024

    def __init__(
        self,
        folder: Path,
        model: Any,
        representation: TextRepresentation,
        name: str | None = None,
    ) -> None:
        """Take a loaded model; see `load` and `start`."""
        self._tokenizer = load_tokenizer(folder, model.config, representation.max_tokens)
        super().__init__(folder, model, representation, name)
        if representation.pooling == "cls":
            self._check_first_token()

    def tokenise(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as the model's arguments, padded and cut to ``max_tokens``, on its device."""
        return {key: value.to(self.device) for key, value in self.encode(texts).inputs.items()}

    def encode(self, texts: Sequence[str]) -> Tokenised:
        """`tokenise` on the CPU, with what was cut."""
        return tokenised(self._tokenizer, texts, self.representation.max_tokens)

    def cut_of(self, items: Sequence[str]) -> list[int]:
        """How many tokens of each text are beyond the maximum, and not seen."""
        return self.encode(items).cut

    def prepare(self, raw: str) -> str:
        """The text as it is."""
        return raw

    def collate(self, raw: Sequence[str]) -> dict[str, Tensor]:
        """Texts tokenised, padded no further than the longest of them needs, on the CPU."""
        inputs = self.encode(raw).inputs
        length = self._length(int(inputs["attention_mask"].sum(dim=1).max()))
        return {key: value[:, :length] for key, value in inputs.items()}

    def _example(self) -> dict[str, Tensor]:
        return self.encode(["a text"]).inputs

    def _pooled(self, output: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return pool_text(output, batch["attention_mask"], self.representation.pooling)

    def _represented(self, items: Sequence[str]) -> Represented:
        """Texts of about one length go together.

        A text is padded to the next multiple of 16 tokens of its own length, never to a neighbour's
        length: with the rows, this is all that the shapes of a forward follow from. And in every
        forward one row at least is filling that has a token masked: transformers leaves out a mask
        that masks nothing, and then another kernel may compute the attention.
        """
        inputs = self.encode(items).inputs
        lengths = [self._length(count) for count in inputs["attention_mask"].sum(dim=1).tolist()]
        hidden = torch.empty((len(items), self.dim))
        logits = torch.empty((len(items), len(self.classes)))
        for length in sorted(set(lengths)):
            rows = torch.tensor([i for i, found in enumerate(lengths) if found == length])
            for block in rows.split(BLOCK_ROWS - 1):
                batch = {
                    key: self._filled(key, value[block, :length]).to(self.device)
                    for key, value in inputs.items()
                }
                output = self(batch)
                hidden[block] = output.hidden[: len(block)].float().cpu()
                logits[block] = output.logits[: len(block)].float().cpu()
        return to_arrays([hidden], [logits], self.dim, len(self.classes))

    def _check_first_token(self) -> None:
        """Refuse to represent texts by a token that knows nothing of those after it.

        Raises:
            NoRepresentation: The model reads from left to right.
        """
        inputs = self._example()
        last = int(inputs["attention_mask"].sum()) - 1
        other = {**inputs, "input_ids": inputs["input_ids"].clone()}
        tokens = other["input_ids"]
        tokens[0, last] = 0 if tokens[0, last] else 1
        with torch.inference_mode():
            same = torch.equal(self(inputs).hidden, self(other).hidden)
        if same:
            msg = (
                f"the first token of {type(self.model).__name__} does not see the rest of a text: "
                "set the text's `pooling` to 'mean'"
            )
            raise NoRepresentation(msg)

    def _length(self, tokens: int) -> int:
        """Tokens that a text of so many is padded to."""
        rounded = -(-max(tokens, 1) // _STEP) * _STEP
        longest: int = self.representation.max_tokens
        return min(rounded, longest)

    def _filled(self, name: str, rows: Tensor) -> Tensor:
        """`rows` and filling, `BLOCK_ROWS` in all: texts of one padding token."""
        filling = rows.new_zeros((BLOCK_ROWS - len(rows), rows.shape[1]))
        if name == "input_ids":
            filling.fill_(self._tokenizer.pad_token_id)
        elif name == "attention_mask":
            filling[:, 0] = 1
        return torch.cat([rows, filling])


def tokenised(tokenizer: Any, texts: Sequence[str], longest: int) -> Tokenised:
    """Texts as a model's arguments, padded and cut to `longest` tokens, and what was cut.

    Args:
        tokenizer: Of `load_tokenizer`.
        texts: N of them; none are fine.
        longest: Special tokens included.
    """
    if not texts:
        example = tokenised(tokenizer, [""], longest).inputs
        return Tokenised({key: value.new_zeros((0, longest)) for key, value in example.items()}, [])
    encoded = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=longest,
        return_attention_mask=True,
        return_tensors="pt",
    )
    inputs = {key: encoded[key] for key in sorted(encoded.keys())}
    cut = [0] * len(texts)
    full = inputs["attention_mask"].sum(dim=1) == longest
    for index in full.nonzero().flatten().tolist():
        whole = tokenizer(texts[index], truncation=False, verbose=False)["input_ids"]
        cut[index] = len(whole) - longest
    return Tokenised(inputs, cut)


def load_tokenizer(folder: Path, config: Any, max_tokens: int) -> Any:
    """The directory's tokenizer, padding and cutting on the right.

    Raises:
        ModelUnavailable: There is none that can be loaded or that pads, or model or tokenizer take
            fewer than `max_tokens`.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # Foreign files: what reading them raises is of any type.
        reason = " ".join(str(error).split())[:500]
        msg = f"cannot load the tokenizer from {folder}: {type(error).__name__}: {reason}"
        raise ModelUnavailable(msg) from error
    if tokenizer.pad_token_id is None:
        msg = (
            f"the tokenizer in {folder} has no padding token: name one as `pad_token` in its "
            "tokenizer_config.json"
        )
        raise ModelUnavailable(msg)
    limits = {
        "the tokenizer": tokenizer.model_max_length,
        "the model": getattr(config, "max_position_embeddings", None) or _NO_LIMIT,
    }
    for who, limit in limits.items():
        if limit < max_tokens:
            msg = (
                f"{who} in {folder} takes {limit} tokens at most: set `max_tokens`, {max_tokens}, "
            )
            raise ModelUnavailable(f"{msg}to that or less")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer
