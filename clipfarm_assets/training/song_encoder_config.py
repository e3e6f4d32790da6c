"""Settings of the songs' encoders: one of a few kinds for each modality, told apart by ``type``."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from clipfarm_assets.training.config import Positive, Settings, Share
from clipfarm_assets.training.expert_config import TopLayers
from clipfarm_assets.training.song_config_errors import Conflict

ModelName = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
MaxTokens = Annotated[int, Field(ge=4, le=512)]

INPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "precomputed": ("values",),
    "deberta": ("input_ids", "attention_mask"),
    "wav2vec2": ("samples",),
    "clap": ("samples",),
    "cnn": ("mel",),
    "piano_roll": ("roll",),
    "event_based": ("tokens", "mask"),
    "music_transformer": ("tokens", "mask", "bars", "positions"),
}
"""What an encoder is called with, by its type; in a network each as ``<modality>.<name>``.

Of B rows, each of shape:

* ``values`` float32 ``[B, dim]`` or ``[B, T, dim]``: vectors that were encoded before;
* ``input_ids``, ``attention_mask`` int64 ``[B, max_tokens]``, of `LyricTokenizer`;
* ``samples`` float32 ``[B, sample_rate * seconds]``, of `prepare`;
* ``mel`` float32 ``[B, n_mels, frames]``, of `log_mel`;
* ``roll`` float32 ``[B, 3, pitches, seconds * frames_per_second]``, of `piano_roll`;
* ``tokens``, ``bars``, ``positions`` int64 and ``mask`` bool ``[B, max_events]``, of
  `EventSequence`, filled up with `PAD`, zeros and False.
"""

DEBERTA_DIM: Final = 768
"""Width of DeBERTa-v3 base, and so of the vectors that metadata hold."""


class PrecomputedText(Settings):
    """Lyrics as vectors that are there before training: the encoder does not run in it.

    A segment's is the metadata's, or else that of ``songs/features``.

    Attributes:
        dim: Numbers of a vector.
        model: What ``songs/features`` computes vectors with that the metadata do not hold: a
            directory or hub name ``[@revision]``. Unset, the environment's
            ``CLIPFARM_SONG_TEXT_MODEL``; then the profile's.
        max_tokens: Tokens of a text, special ones included; what is beyond is cut and counted.
    """

    type: Literal["precomputed"] = "precomputed"
    dim: Positive = DEBERTA_DIM
    model: ModelName | None = None
    max_tokens: MaxTokens = 128


class DebertaText(Settings):
    """Lyrics through DeBERTa-v3, a token of the text a token.

    Attributes:
        model, max_tokens: As in `PrecomputedText`.
        top_layers: How many of its last layers are trained; 0, by default, for none.
    """

    type: Literal["deberta"] = "deberta"
    model: ModelName | None = None
    max_tokens: MaxTokens = 128
    top_layers: TopLayers = 0


class PretrainedAudio(Settings):
    """What the pretrained audio encoders have in common.

    Attributes:
        model: Directory or hub name ``[@revision]``. Unset, the environment's
            ``CLIPFARM_SONG_AUDIO_MODEL``; then the profile's.
        top_layers: How many of its last layers are trained; 0, by default, for none.
        precomputed: Whether its tokens are read from ``songs/features`` instead of running it in
            training; it can't be trained then, nor its audio augmented.
    """

    model: ModelName | None = None
    top_layers: TopLayers = 0
    precomputed: bool = False

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        if self.precomputed and self.top_layers != 0:
            msg = f"top_layers must be 0 where tokens are precomputed: found {self.top_layers!r}"
            raise Conflict(msg)
        return self


class Wav2Vec2Audio(PretrainedAudio):
    """The raw waveform through wav2vec 2.0, 49 vectors a second.

    Attributes:
        tokens: Most tokens of a segment: vectors that follow each other are averaged, so that
            attention over them stays cheap.
        stored_dim: Width of tokens that are precomputed.
    """

    type: Literal["wav2vec2"] = "wav2vec2"
    tokens: Positive = 32
    stored_dim: Positive = 768


class ClapAudio(PretrainedAudio):
    """The raw waveform through CLAP's audio half, a vector in the space of texts a window.

    Attributes:
        window_seconds: Length of a window; CLAP takes 10 s at most. A segment's last one is
            shorter where it is no multiple.
        stored_dim: Width of tokens that are precomputed.
    """

    type: Literal["clap"] = "clap"
    window_seconds: Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)] = 10.0
    stored_dim: Positive = 512


class CnnAudio(Settings):
    """A log-mel spectrogram through convolutions, trained from scratch.

    Attributes:
        channels: Of the convolutions; each halves time and frequency.
        dropout: Share of channels left out in training.
        tokens: As in `Wav2Vec2Audio`.
    """

    type: Literal["cnn"] = "cnn"
    channels: Annotated[tuple[Positive, ...], Field(min_length=1)] = (32, 64, 128)
    dropout: Share = 0.1
    tokens: Positive = 32


class PianoRollMidi(Settings):
    """Onset, frame and velocity rolls through convolutions, trained from scratch.

    Attributes:
        channels, dropout, tokens: As in `CnnAudio`.
    """

    type: Literal["piano_roll"] = "piano_roll"
    channels: Annotated[tuple[Positive, ...], Field(min_length=1)] = (32, 64, 128)
    dropout: Share = 0.1
    tokens: Positive = 32


class EventMidi(Settings):
    """What the transformers over MIDI events have in common; trained from scratch.

    Attributes:
        max_events: Events of a segment; what is beyond is cut and counted.
        layers: Of the transformer.
        heads: Of its attention.
        dropout: Share of attention weights left out in training.
        tokens: As in `Wav2Vec2Audio`.
    """

    max_events: Annotated[int, Field(ge=8, le=16_384)] = 512
    layers: Positive = 2
    heads: Positive = 4
    dropout: Share = 0.1
    tokens: Positive = 32


class EventBasedMidi(EventMidi):
    """NOTE_ON, NOTE_OFF, VELOCITY and TIME_SHIFT events in the order in which they come."""

    type: Literal["event_based"] = "event_based"
    vocabulary: Literal["midi_like"] = "midi_like"


class MusicTransformerMidi(EventMidi):
    """Events that know their bar and their position in it.

    Attributes:
        vocabulary: ``remi`` tells bars and positions as events, too; with ``midi_like`` the
            positional encoding alone makes the difference to ``event_based``.
    """

    type: Literal["music_transformer"] = "music_transformer"
    vocabulary: Literal["remi", "midi_like"] = "remi"


TextEncoderConfig = Annotated[PrecomputedText | DebertaText, Field(discriminator="type")]
AudioEncoderConfig = Annotated[Wav2Vec2Audio | ClapAudio | CnnAudio, Field(discriminator="type")]
MidiEncoderConfig = Annotated[
    PianoRollMidi | EventBasedMidi | MusicTransformerMidi, Field(discriminator="type")
]
