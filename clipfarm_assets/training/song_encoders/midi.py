"""MIDI: convolutions over piano rolls, or a transformer over events, with or without bars."""

import math

import torch
from torch import Tensor, nn

from clipfarm_assets.encoders.midi.piano_roll import CHANNELS
from clipfarm_assets.encoders.midi.vocabulary import PAD
from clipfarm_assets.fusion.learned.attention import AttentionLayer
from clipfarm_assets.fusion.learned.tokens import Tokens
from clipfarm_assets.training.song_encoder_config import EventMidi, PianoRollMidi
from clipfarm_assets.training.song_encoders.base import SongEncoder, averaged
from clipfarm_assets.training.song_encoders.convolutions import ConvTokens

_LONGEST_WAVE = 10_000.0


class PianoRollCnn(SongEncoder):
    """Convolutions over pitch by time: onsets, what sounds, and how loud."""

    def __init__(self, pitches: int, dim: int, config: PianoRollMidi) -> None:
        """Draw the weights.

        Args:
            pitches: P, rows of a roll.
            dim: Width of the tokens.
            config: Settings of the convolutions.
        """
        super().__init__()
        self.dim = dim
        self.pitches = pitches
        self.convolutions = ConvTokens(
            len(CHANNELS),
            pitches,
            config.channels,
            dim,
            dropout=config.dropout,
            tokens=config.tokens,
        )

    def forward(self, roll: Tensor) -> Tokens:  # type: ignore[override]
        """Encode B rolls of `piano_roll`.

        Args:
            roll: float32 ``[B, 3, P, T]``.

        Returns:
            Tokens ``[B, T', dim]``, all of them real.

        Raises:
            ValueError: They are of another shape.
        """
        if roll.ndim != 4 or roll.shape[1:3] != (len(CHANNELS), self.pitches):
            expected = [len(CHANNELS), self.pitches]
            msg = f"expected rolls [B, {expected[0]}, {expected[1]}, T]: found {list(roll.shape)}"
            raise ValueError(msg)
        tokens: Tokens = self.convolutions(roll)
        return tokens


class EventTransformer(SongEncoder):
    """A transformer over events in their order: ``event_based``, or ``music_transformer``.

    With `bar_positions` an event also knows its bar and its place in it, whatever came before, so
    that what repeats every bar looks alike in each.
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        config: EventMidi,
        *,
        bar_positions: int | None = None,
    ) -> None:
        """Draw the weights.

        Args:
            vocabulary: How many tokens there are.
            dim: Width of the tokens that come out.
            config: Settings of the transformer.
            bar_positions: Steps of the longest bar; None to know nothing of bars.
        """
        super().__init__()
        self.dim = dim
        self.tokens = config.tokens
        self.events = nn.Embedding(vocabulary, dim, padding_idx=PAD)
        self.bar_positions: nn.Embedding | None = None
        if bar_positions is not None:
            self.bars = nn.Linear(dim, dim)
            self.bar_positions = nn.Embedding(bar_positions, dim)
        self.layers = nn.ModuleList(
            AttentionLayer(dim, config.heads, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(  # type: ignore[override]
        self,
        tokens: Tensor,
        mask: Tensor,
        bars: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tokens:
        """Encode B sequences.

        Args:
            tokens: int64 ``[B, E]``; anything of the vocabulary where masked.
            mask: bool ``[B, E]``: which events are real. A row of none has no real token.
            bars: int64 ``[B, E]``, the bar of each event; needed to know of bars.
            positions: int64 ``[B, E]``, its step in the bar; likewise.

        Returns:
            Tokens ``[B, T, dim]``.

        Raises:
            ValueError: Bars are to be known, and are not given.
        """
        hidden = self.events(tokens) + sinusoids(
            torch.arange(tokens.shape[1], device=tokens.device), self.dim
        )
        if self.bar_positions is not None:
            if bars is None or positions is None:
                msg = "music_transformer needs `bars` and `positions` of the events: found neither"
                raise ValueError(msg)
            hidden = hidden + self.bars(sinusoids(bars, self.dim)) + self.bar_positions(positions)
        for layer in self.layers:
            hidden, _ = layer(hidden, hidden, mask)
        return averaged(Tokens(self.norm(hidden), mask), self.tokens)


def sinusoids(numbers: Tensor, dim: int) -> Tensor:
    """Numbers ``[...]`` as waves of many lengths, float32 ``[..., dim]``.

    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.5; sines first.
    """
    half = torch.arange(-(-dim // 2), device=numbers.device, dtype=torch.float32)
    angles = numbers.unsqueeze(-1) * torch.exp(half * (-2 * math.log(_LONGEST_WAVE) / dim))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :dim]
