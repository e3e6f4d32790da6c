"""Convolutions over pictures of sound, frequency by time: one for spectrograms and piano rolls."""

import math
from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn

from clipfarm_assets.fusion.learned.tokens import Tokens
from clipfarm_assets.training.song_encoders.base import all_real, averaged

_GROUPS: Final = 8


class ConvTokens(nn.Module):
    """Pictures ``[B, C, F, T]`` to tokens over time.

    Each block halves frequency and time. What is left of the frequencies at a moment becomes its
    token, so that pitch is not averaged away.
    """

    def __init__(
        self,
        pictures: int,
        frequencies: int,
        channels: Sequence[int],
        dim: int,
        *,
        dropout: float,
        tokens: int,
    ) -> None:
        """Draw the weights.

        Args:
            pictures: C.
            frequencies: F.
            channels: Of each block.
            dim: Width of the tokens.
            dropout: Share of channels left out in training.
            tokens: Most tokens of a row.
        """
        super().__init__()
        self.tokens = tokens
        blocks: list[nn.Module] = []
        width, height = pictures, frequencies
        for count in channels:
            # Not BatchNorm: a row's tokens must not depend on other rows.
            blocks += [
                nn.Conv2d(width, count, kernel_size=3, stride=2, padding=1, bias=False),
                nn.GroupNorm(math.gcd(_GROUPS, count), count),
                nn.GELU(),
                nn.Dropout2d(dropout),
            ]
            width, height = count, -(-height // 2)
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(width * height, dim)

    def forward(self, pictures: Tensor) -> Tokens:
        """Tokens ``[B, T', dim]``, all of them real."""
        maps = self.blocks(pictures)
        moments = maps.permute(0, 3, 1, 2).flatten(2)
        return averaged(all_real(self.output(moments)), self.tokens)
