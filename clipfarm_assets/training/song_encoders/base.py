"""What the songs' encoders have in common."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.fusion.learned.tokens import Tokens, masked_mean
from clipfarm_assets.training.expert_config import TopLayers
from clipfarm_assets.training.experts.layers import unfreeze

PRETRAINED_ROWS: Final = 4
"""Rows that go through a pretrained model at once: 15 s of audio are 100 MB in its first layer."""


class SongEncoder(nn.Module, ABC):
    """An `Encoder` of one modality, which also gives a vector a row.

    Attributes:
        dim: Width of tokens and vectors.
    """

    dim: int

    @abstractmethod
    def forward(self, **inputs: Tensor) -> Tokens:
        """Encode B rows; the arguments are those of `song_encoder_config.INPUTS`."""

    def pooled(self, **inputs: Tensor) -> Tensor:
        """The mean of each row's real tokens, ``[B, dim]``; zeros for a row without any."""
        return masked_mean(self(**inputs))


class PretrainedEncoder(SongEncoder):
    """A transformers model, frozen but for its last layers.

    It is always in eval mode: in training mode such models draw masks from numpy's global
    generator, leave out layers, and move the statistics of batch norms, so that a row's tokens
    would depend on other rows and no fit would repeat.

    Attributes:
        model: The transformers model.
        is_frozen: Whether nothing of it is trained.
    """

    base_model_prefix = "model"
    """What `unfreeze` finds the backbone by."""

    def __init__(self, model: Any, top_layers: TopLayers) -> None:
        """Take a loaded model.

        Raises:
            NoLayers: It has fewer layers.
        """
        super().__init__()
        self.model = model
        unfreeze(self, top_layers, head=False)
        for module in self.modules():
            # They are before the layers, but registered after them in CLAP.
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(requires_grad=False)
        self.is_frozen = not any(each.requires_grad for each in self.parameters())
        self.eval()

    @property
    def base_model(self) -> nn.Module:
        """The backbone."""
        return self.model

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """As of any module, but the pretrained model stays in eval mode."""
        super().train(mode)
        self.model.eval()
        return self

    def _in_blocks(self, run: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """What `run` gives for `PRETRAINED_ROWS` rows at a time; no graph is kept if frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            blocks = zip(*(each.split(PRETRAINED_ROWS) for each in inputs), strict=True)
            return torch.cat([run(*block) for block in blocks])


def averaged(tokens: Tokens, most: int) -> Tokens:
    """Tokens that follow each other averaged, so that a row has `most` at most.

    As many go into each mean, but for the last; those that are masked don't count.
    """
    length = tokens.mask.shape[1]
    size = -(-length // most)
    if size <= 1:
        return tokens
    filling = -length % size
    values = nn.functional.pad(tokens.values, (0, 0, 0, filling))
    mask = nn.functional.pad(tokens.mask, (0, filling))
    rows, dim = values.shape[0], values.shape[2]
    windows = Tokens(values.reshape(-1, size, dim), mask.reshape(-1, size))
    means = masked_mean(windows).reshape(rows, -1, dim)
    return Tokens(means, mask.reshape(rows, -1, size).any(dim=2))


def all_real(values: Tensor) -> Tokens:
    """Tokens ``[B, T, D]`` none of which is padding."""
    return Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))


def check_model_type(folder: Path, *expected: str) -> None:
    """Refuse a model directory of another architecture.

    transformers would only warn, and fill a model of its class's default size at random.

    Raises:
        ModelUnavailable: It is of none of the types expected, or says none.
    """
    config = folder / "config.json"
    try:
        told = json.loads(config.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"cannot read {config}: {error}; get the model's files again"
        raise ModelUnavailable(msg) from error
    found = told.get("model_type") if isinstance(told, dict) else None
    if found not in expected:
        wanted = " or ".join(repr(each) for each in expected)
        msg = f"expected a model of type {wanted} in {folder}: found {found!r}; name another model"
        raise ModelUnavailable(msg)
