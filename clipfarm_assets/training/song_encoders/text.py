"""Lyrics: DeBERTa-v3. Vectors that are there already go through `StoredEncoder`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from torch import Tensor

from clipfarm_assets.encoders.loading import load_model
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.fusion.learned.tokens import Tokens
from clipfarm_assets.training.expert_config import TopLayers
from clipfarm_assets.training.experts.text import Tokenised, load_tokenizer, tokenised
from clipfarm_assets.training.song_encoder_config import DebertaText
from clipfarm_assets.training.song_encoders.base import PretrainedEncoder, check_model_type


class DebertaEncoder(PretrainedEncoder):
    """DeBERTa-v3's last hidden states: a token of the text a token, special ones included."""

    def __init__(self, model: Any, top_layers: TopLayers = 0) -> None:
        """Take a loaded ``DebertaV2Model``; see `load`."""
        super().__init__(model, top_layers)
        self.dim: int = model.config.hidden_size

    @classmethod
    def load(cls, folder: Path, config: DebertaText) -> Self:
        """From a model directory, on the CPU.

        Raises:
            ModelUnavailable: The files cannot be loaded, or do not fill the model.
            NoLayers: More layers are to be trained than there are.
        """
        check_model_type(folder, "deberta-v2")
        # Disentangled attention has no fused kernel.
        model = load_model(
            transformers.DebertaV2Model, folder, torch.device("cpu"), attention="eager"
        )
        return cls(model, config.top_layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tokens:  # type: ignore[override]
        """Encode B texts.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: int64 or bool ``[B, T]``: which tokens are the text's.

        Returns:
            Tokens ``[B, T, dim]``.
        """
        values = self._in_blocks(self._states, input_ids, attention_mask)
        return Tokens(values, attention_mask.bool())

    def _states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask.long())
        states: Tensor = output.last_hidden_state
        return states


class LyricTokenizer:
    """Lyrics as what `DebertaEncoder` is called with."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Load a model directory's tokenizer.

        Args:
            folder: Of the model.
            max_tokens: Tokens that every text is padded or cut to, special ones included.

        Raises:
            ModelUnavailable: There is none that can be loaded, or it takes fewer tokens.
        """
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            msg = f"cannot read the configuration in {folder}: {error}"
            raise ModelUnavailable(msg) from error
        self._tokenizer = load_tokenizer(folder, config, max_tokens)
        self._max_tokens = max_tokens

    def __call__(self, texts: Sequence[str]) -> Tokenised:
        """``input_ids`` and ``attention_mask`` of N texts, int64 ``[N, max_tokens]``; and cuts."""
        inputs, cut = tokenised(self._tokenizer, texts, self._max_tokens)
        return Tokenised({key: inputs[key] for key in ("input_ids", "attention_mask")}, cut)
