"""The ways from texts to unit vectors: many a forward, or one by one.

Both give a text the same bits whatever its neighbours. `TextWays` takes the faster one where it is
known to be right, and says why where it is not.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.config import Precision, TextConfig
from clipfarm_assets.encoders.guard import unit_vector
from clipfarm_assets.encoders.text.check import difference, rows_stand_alone, unknown_form
from clipfarm_assets.encoders.text.forward import PackedBert
from clipfarm_assets.encoders.text.packing import PackShape, plan_runs
from clipfarm_assets.encoders.text.tokens import TextTokenizer
from clipfarm_assets.encoders.torch_encoder import OncePerPrecision

_PACK_TOKENS: Final = 1024
"""Tokens of a forward: more were not faster, and a thread's temporaries stay at a few MiB."""
_RUN_CHARACTERS: Final = 1_000_000
"""Characters tokenised at once: far more than a usual group has, and a tokenizer's notes on them
take some 30 MB."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """One text's float32 unit vector, and how many of its tokens the model did not see."""

    vector: NDArray[np.float32]
    tokens_cut: int


class TextWay(Protocol):
    """Texts to unit vectors. Safe to call from several threads at once."""

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """One result a text, in order.

        Raises:
            MediaError: A text's vector has no direction.
        """


class Packed:
    """Texts, and chunks of texts, in shared forwards."""

    def __init__(self, tokenizer: TextTokenizer, forward: PackedBert, config: TextConfig) -> None:
        """Embed what `tokenizer` gives by `forward`."""
        self._tokenizer = tokenizer
        self._forward = forward
        self._chunked = config.long_text == "chunk_mean"

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """See `TextWay.embed`."""
        runs = plan_runs([len(text) for text in texts], _RUN_CHARACTERS)
        return [embedded for run in runs for embedded in self._embed(texts[run])]

    def _embed(self, texts: Sequence[str]) -> list[Embedded]:
        tokenised = self._tokenizer(texts)
        seen = [text.chunks if self._chunked else text.chunks[:1] for text in tokenised]
        vectors = iter(self._forward([chunk for chunks in seen for chunk in chunks]))
        embedded = []
        for text, chunks in zip(tokenised, seen, strict=True):
            units = [unit_vector(next(vectors), "text") for _ in chunks]
            cut = 0 if self._chunked else text.tokens - len(chunks[0])
            embedded.append(Embedded(_mean(units), cut))
        return embedded


class OneByOne:
    """Each text, or chunk of a text, in a forward of its own, by the model's own modules."""

    def __init__(self, model: Any, precision: Precision, config: TextConfig) -> None:
        """Embed by a ``SentenceTransformer``; in bf16 by autocast."""
        self._model = model
        self._precision = precision
        self._chunked = config.long_text == "chunk_mean"
        self._max_tokens = max_tokens(model)
        # A transformers tokenizer sets truncation and padding in every call.
        self._tokenizing = Lock()

    def embed(self, texts: Sequence[str]) -> list[Embedded]:
        """See `TextWay.embed`."""
        return [self._embed(text) for text in texts]

    def _embed(self, text: str) -> Embedded:
        tokenizer = self._model.tokenizer
        with self._tokenizing:
            tokens = len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
        if self._chunked and tokens > self._max_tokens:
            return Embedded(_mean([self._forward(chunk) for chunk in self._chunks(text)]), 0)
        prompt = self._model.prompts.get(self._model.default_prompt_name)
        with self._tokenizing:
            features = self._model.preprocess([text], prompt=prompt)
        return Embedded(self._forward(features), max(0, tokens - self._max_tokens))

    def _chunks(self, text: str) -> list[dict[str, Any]]:
        """The features of consecutive chunks of the most tokens."""
        import torch

        tokenizer = self._model.tokenizer
        with self._tokenizing:
            chunks = tokenizer(
                text, truncation=True, max_length=self._max_tokens, return_overflowing_tokens=True
            )
        names = [name for name in tokenizer.model_input_names if name in chunks]
        return [
            {name: torch.tensor([chunks[name][index]]) for name in names}
            for index in range(len(chunks["input_ids"]))
        ]

    def _forward(self, features: dict[str, Any]) -> NDArray[np.float32]:
        import torch
        from sentence_transformers.util import batch_to_device

        device = self._model.device
        low = torch.autocast(device.type, dtype=torch.bfloat16)
        with torch.inference_mode(), nullcontext() if self._precision == "exact" else low:
            output = self._model(batch_to_device(features, device))["sentence_embedding"][0]
        return unit_vector(output[: self._model.truncate_dim].float().cpu().numpy(), "text")


class TextWays:
    """A loaded model's ways, each made when it is first asked for and kept."""

    def __init__(self, model: Any, config: TextConfig) -> None:
        """Try out whether `model` can be packed; see `check`."""
        most = max_tokens(model)
        self._model = model
        self._config = config
        self._unpackable = unknown_form(model, most)
        if self._unpackable is None:
            self._tokenizer = TextTokenizer.copy_of(model.tokenizer, most)
            self._unpackable = difference(model, self._tokenizer, most)
        self._opened: OncePerPrecision[tuple[TextWay, str | None]] = OncePerPrecision()

    def open(self, precision: Precision) -> tuple[TextWay, str | None]:
        """The fastest way that is right in this precision; and if it isn't packed, why."""
        return self._opened.get(precision, lambda: self._open(precision))

    def _open(self, precision: Precision) -> tuple[TextWay, str | None]:
        if self._unpackable:
            return OneByOne(self._model, precision, self._config), self._unpackable
        bert = self._model[0].model
        shape = PackShape(max(_PACK_TOKENS, max_tokens(self._model)), fixed=precision != "exact")
        forward = PackedBert(bert, precision, shape)
        why_not = self._why_apart(forward, shape)
        if why_not:
            forward = PackedBert(bert, precision, PackShape(0))
        return Packed(self._tokenizer, forward, self._config), why_not

    def _why_apart(self, forward: PackedBert, shape: PackShape) -> str | None:
        """Why texts cannot share a forward of `shape`, or None if they can."""
        threads = self._config.threads
        if threads > 1 and not shape.fixed:
            return (
                f"{threads} threads divide a product by its number of rows, so that a text's last "
                "bits would depend on its neighbours; set threads to 1"
            )
        if not rows_stand_alone(forward.linears(), shape, threads):
            return "on this machine a row's last bits depend on the other rows of a product"
        return None


def max_tokens(model: Any) -> int:
    """The tokens of a text that a sentence transformer sees, special ones included."""
    return int(model.max_seq_length or model.tokenizer.model_max_length)


def _mean(units: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The unit vector of the mean of unit vectors; of one, itself bit for bit."""
    if len(units) == 1:
        return units[0]
    return unit_vector(np.mean(units, axis=0, dtype=np.float64), "text")
