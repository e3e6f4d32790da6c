"""Texts to token ids, for several threads at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Tokenised:
    """One text's tokens, special ones included.

    Attributes:
        chunks: Consecutive pieces of at most the model's maximum, each complete with its special
            tokens. The first is the text as the model sees it when the rest is cut.
        tokens: Tokens of the whole text, had it not been divided.
    """

    chunks: tuple[tuple[int, ...], ...]
    tokens: int


class TextTokenizer:
    """A fast tokenizer whose settings nobody changes any more.

    Every call of a transformers tokenizer sets truncation and padding of the Rust tokenizer below,
    so that threads sharing one get each other's settings, or an error about borrowing. This one is
    a copy of that Rust tokenizer with both set once. Encoding only reads it and lets go of the
    interpreter's lock.
    """

    def __init__(self, backend: Any, max_tokens: int) -> None:
        """Take over `backend`, a ``tokenizers.Tokenizer`` that nobody else uses."""
        backend.no_padding()
        backend.enable_truncation(max_tokens)
        self._backend = backend
        self._special = int(backend.num_special_tokens_to_add(is_pair=False))

    @classmethod
    def copy_of(cls, tokenizer: Any, max_tokens: int) -> Self:
        """A copy of a transformers tokenizer, which must be a fast one."""
        from tokenizers import Tokenizer

        original = tokenizer.backend_tokenizer
        backend = Tokenizer.from_str(original.to_str())
        backend.encode_special_tokens = original.encode_special_tokens  # to_str leaves it out
        return cls(backend, max_tokens)

    def __call__(self, texts: Sequence[str]) -> list[Tokenised]:
        """Tokenise each text once, whole."""
        return [
            Tokenised(
                chunks=tuple(tuple(part.ids) for part in (encoding, *encoding.overflowing)),
                tokens=len(encoding.ids)
                + sum(len(part.ids) - self._special for part in encoding.overflowing),
            )
            for encoding in self._backend.encode_batch_fast(list(texts))
        ]
