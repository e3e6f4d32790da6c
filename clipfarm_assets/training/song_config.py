"""All settings of the songs pipeline as one tree, from YAML or a run's configuration.

The fields are the same in both, and what is left out has its default:

    model:
      audio_encoder: {type: cnn}
      midi_encoder: {type: music_transformer}
      fusion: {strategy: late}
    training:
      modality_dropout: 0.2

An error names the field from the root, as ``config.model.fusion.strategy``, and its choices.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import yaml  # type: ignore[import-untyped]
from pydantic import Field, ValidationError, model_validator

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality, SegmentColumns
from clipfarm_assets.encoders.waveforms.mel import mel_filters
from clipfarm_assets.fusion.options import FusionOptions, StrategyName
from clipfarm_assets.training.config import FitConfig, Positive, Rate, Settings, Share
from clipfarm_assets.training.expert_config import SHUFFLE_BYTES
from clipfarm_assets.training.song_config_errors import BadSongConfig, Conflict, bad_config
from clipfarm_assets.training.song_encoder_config import (
    INPUTS,
    AudioEncoderConfig,
    CnnAudio,
    DebertaText,
    EventMidi,
    MidiEncoderConfig,
    PianoRollMidi,
    PrecomputedText,
    PretrainedAudio,
    TextEncoderConfig,
)
from clipfarm_assets.training.song_preprocessing_config import PreprocessingConfig

SAMPLE_RATES: Final[Mapping[str, int]] = {"wav2vec2": 16_000, "clap": 48_000}
"""What pretrained audio encoders were trained at."""

# What of a `SongConfig` makes no model another one: how it is judged, what the checks expect of the
# data, and where media lie whose content the segments have hashes of.
NOT_OF_A_MODEL: Final[Mapping[str, bool | Mapping[str, bool]]] = {
    "evaluation": True,
    "data": {"declared": True, "media_folders": True},
}
PRETRAINED_RATE: Final = 2e-5
"""Learning rate of what is trained of a pretrained encoder, unless another is set."""

Seed = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
_FUSION: Final = FusionOptions()


class FusionConfig(Settings):
    """How the modalities' tokens become one vector: see `FusionOptions`.

    The width that all are projected to is the model's ``hidden_dim``; modality dropout and
    auxiliary heads are settings of ``training``.
    """

    strategy: StrategyName = "late"
    hidden: tuple[Positive, ...] = _FUSION.hidden
    dropout: Share = _FUSION.dropout
    heads: Positive = _FUSION.heads
    layers: Positive = _FUSION.layers
    attention_dropout: Share = _FUSION.attention_dropout
    gate_hidden: Positive = _FUSION.gate_hidden
    gate_on_content: bool = _FUSION.gate_on_content


class ModelConfig(Settings):
    """Encoders and fusion.

    Attributes:
        text_encoder: ``precomputed`` or ``deberta``.
        audio_encoder: ``wav2vec2``, ``clap`` or ``cnn``.
        midi_encoder: ``piano_roll``, ``event_based`` or ``music_transformer``.
        fusion: The strategy, ``late`` by default, and its settings.
        hidden_dim: Width of the encoders that are trained from scratch, and the one that all
            modalities are projected to before fusion.
    """

    text_encoder: TextEncoderConfig = PrecomputedText()
    audio_encoder: AudioEncoderConfig = CnnAudio()
    midi_encoder: MidiEncoderConfig = PianoRollMidi()
    fusion: FusionConfig = FusionConfig()
    hidden_dim: Positive = 256

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        heads = {"fusion": self.fusion.heads}
        if isinstance(self.midi_encoder, EventMidi):
            heads["midi_encoder"] = self.midi_encoder.heads
        for name, count in heads.items():
            if self.hidden_dim % count:
                msg = f"{name}.heads must divide hidden_dim, {self.hidden_dim}: found {count}"
                raise Conflict(msg)
        return self


class DeclaredShares(Settings):
    """Shares of segments that have a modality, as the data are said to be.

    Attributes:
        text, audio, midi: Each; None for nothing said.
        tolerance: Most that what is found may differ by.
    """

    text: Fraction | None = None
    audio: Fraction | None = None
    midi: Fraction | None = None
    tolerance: Fraction = 0.05


class DataConfig(Settings):
    """What the segments are.

    Attributes:
        columns: What the files call their columns.
        classes: The labels, in the order of the network's outputs; none for those that are found,
            sorted.
        split_by: What is of one split as a whole: a song, or an album.
        ratios: Shares of train, val and test.
        seed: Of the split.
        media_folders: Folders on disk that paths of audio and MIDI may lead into, beside the
            store's own.
        declared: How often each modality is there.
        shuffle_buffer: Rows an epoch is shuffled within.
        shuffle_bytes: Bytes that these have at most, one row at least.
    """

    columns: SegmentColumns = SegmentColumns()
    classes: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    split_by: Literal["song", "album"] = "song"
    ratios: tuple[Share, Share, Share] = (0.7, 0.15, 0.15)
    seed: Seed = 42
    media_folders: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    declared: DeclaredShares = DeclaredShares()
    shuffle_buffer: Positive = 1024
    shuffle_bytes: Positive = SHUFFLE_BYTES

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.classes)) < len(self.classes) or len(self.classes) == 1:
            msg = f"classes must be two or more, each another one: found {list(self.classes)}"
            raise Conflict(msg)
        if abs(sum(self.ratios) - 1) > 1e-9 or not min(self.ratios) > 0:
            msg = (
                "ratios must be positive, for train, val and test, and add up to 1: "
                f"found {list(self.ratios)}"
            )
            raise Conflict(msg)
        return self


class EncoderRates(Settings):
    """Learning rate of each modality's encoder; None for its own default.

    Where nothing of an encoder is trained, as it is precomputed or frozen, the rate is that of what
    the modality does train: its projection, missing token and own head.
    """

    text: Rate | None = None
    audio: Rate | None = None
    midi: Rate | None = None


class TrainingConfig(Settings):
    """How a network is fitted.

    Attributes:
        fit: The loop's.
        modality_dropout: Probability with which training hides a modality of a segment, never its
            last one; at inference none is hidden.
        auxiliary_weight: Of the loss of the modalities' own heads beside that of the fused one; 0
            for none, but those that the warm start fits.
        clip_per_modality: Length that each modality's gradients are clipped to; None for as they
            are.
        warm_start_epochs: In which each modality's encoder, projection and own head are fitted by
            themselves, at most, before fusion is; 0 for none. Of a modality alone, as many more
            epochs, so that what it is compared with was not fitted longer.
        imbalance_ratio: From this ratio of two modalities' gradient norms on, a warning says so.
        class_weights: ``balanced`` weighs a class by rows / (classes * rows of the class).
        encoder_learning_rates: See `EncoderRates`. By default ``fit``'s, and a small one for what
            is trained of pretrained encoders.
        seed: Decides every random choice.
    """

    fit: FitConfig = FitConfig(batch_size=32, max_epochs=30)
    modality_dropout: Share = 0.2
    auxiliary_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    clip_per_modality: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 1.0
    warm_start_epochs: Annotated[int, Field(ge=0)] = 5
    imbalance_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 10.0
    class_weights: Literal["balanced", "none"] = "balanced"
    encoder_learning_rates: EncoderRates = EncoderRates()
    seed: Seed = 42

    @property
    def has_own_heads(self) -> bool:
        """Whether each modality has a head of its own beside the fused one."""
        return self.auxiliary_weight > 0 or self.warm_start_epochs > 0


class ModalityBounds(Settings):
    """Most macro-F1 that may be lost without each modality; None for what holds of all."""

    text: Fraction | None = None
    audio: Fraction | None = None
    midi: Fraction | None = None


class EvaluationConfig(Settings):
    """How the strategies are judged.

    Attributes:
        resamples: Of the bootstrap, by song.
        confidence: Of every interval.
        most_degradation: Macro-F1 that a model may lose, as a difference, where a modality is
            removed from what it sees.
        most_degradation_of: The same of one modality, where it is another.
        seed: Of the bootstrap.
    """

    resamples: Positive = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    most_degradation: Fraction = 0.25
    most_degradation_of: ModalityBounds = ModalityBounds()
    seed: Seed = 42

    def bounds(self) -> dict[str, float]:
        """Modality -> most macro-F1 that may be lost where it is removed."""
        given = self.most_degradation_of.model_dump()
        return {name: self.most_degradation if own is None else own for name, own in given.items()}


class SongConfig(Settings):
    """The whole tree."""

    model: ModelConfig = ModelConfig()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def fusion_options(self, strategy: StrategyName | None = None) -> FusionOptions:
        """What a `FusionNetwork` is made of beside encoders and classes.

        Args:
            strategy: In place of the model's.
        """
        chosen = {} if strategy is None else {"strategy": strategy}
        return FusionOptions(
            **{**self.model.fusion.model_dump(), **chosen},
            dim=self.model.hidden_dim,
            modality_dropout=self.training.modality_dropout,
            auxiliary=self.training.has_own_heads,
        )

    def encoder_rates(self) -> dict[Modality, float]:
        """The learning rate of each encoder: see `EncoderRates`."""
        given = self.training.encoder_learning_rates
        rates: dict[Modality, float] = {}
        for name in MODALITIES:
            encoder = getattr(self.model, f"{name}_encoder")
            tuned = isinstance(encoder, DebertaText | PretrainedAudio) and encoder.top_layers != 0
            own = PRETRAINED_RATE if tuned else self.training.fit.learning_rate
            rates[name] = own if (told := getattr(given, name)) is None else told
        return rates

    def inputs(self) -> dict[Modality, tuple[str, ...]]:
        """Names of the tensors that a network is called with beside ``present``: see `INPUTS`."""
        found: dict[Modality, tuple[str, ...]] = {}
        for name in MODALITIES:
            encoder = getattr(self.model, f"{name}_encoder")
            is_stored = isinstance(encoder, PretrainedAudio) and encoder.precomputed
            arguments = INPUTS["precomputed" if is_stored else encoder.type]
            found[name] = tuple(f"{name}.{argument}" for argument in arguments)
        return found

    def to_yaml(self) -> str:
        """All of it, defaults too; `song_config` reads it back."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))

    @model_validator(mode="before")
    @classmethod
    def _rate_of_encoder(cls, told: Any) -> Any:
        """An audio encoder that takes one rate alone has that where none is told."""
        try:
            rate = SAMPLE_RATES.get(told["model"]["audio_encoder"]["type"])
            audio = {**told.get("preprocessing", {}).get("audio", {})}
        except (KeyError, TypeError, AttributeError):
            return told  # nothing is said of it, or what the fields themselves refuse
        if rate is None or "sample_rate" in audio:
            return told
        preprocessing = {**told.get("preprocessing", {}), "audio": {**audio, "sample_rate": rate}}
        return {**told, "preprocessing": preprocessing}

    @model_validator(mode="after")
    def _check_audio(self) -> Self:
        encoder, audio = self.model.audio_encoder, self.preprocessing.audio
        rate = SAMPLE_RATES.get(encoder.type, audio.sample_rate)
        if audio.sample_rate != rate:
            msg = (
                f"preprocessing.audio.sample_rate must be {rate} with the audio encoder "
                f"{encoder.type!r}: found {audio.sample_rate}"
            )
            raise Conflict(msg)
        if isinstance(encoder, PretrainedAudio) and encoder.precomputed and audio.augment.enabled:
            msg = (
                "preprocessing.audio.augment.enabled must be false where the audio encoder's "
                "tokens are precomputed: found true"
            )
            raise Conflict(msg)
        if isinstance(encoder, CnnAudio):
            try:
                mel_filters(audio.mel_settings)
            except ValueError as error:
                msg = f"preprocessing.audio.mel has bands that are empty: {error}"
                raise Conflict(msg) from None
        return self

    @model_validator(mode="after")
    def _check_roll(self) -> Self:
        rate, seconds = self.preprocessing.midi.frames_per_second, self.preprocessing.audio.seconds
        if isinstance(self.model.midi_encoder, PianoRollMidi) and round(seconds * rate) < 1:
            msg = (
                "preprocessing.midi.frames_per_second must give a frame at least in "
                f"preprocessing.audio.seconds, {seconds:g}: found {rate:g}"
            )
            raise Conflict(msg)
        return self


def song_config(told: str | Mapping[str, Any], where: str = "config") -> SongConfig:
    """The tree that YAML or a mapping says.

    Args:
        told: Fields that differ from their defaults; YAML of nothing is all defaults.
        where: What the fields' names begin with in errors.

    Raises:
        BadSongConfig: It is no YAML of a mapping, a field is none, or has a value that it can't
            have; one sentence names the field, what was expected and what was found.
    """
    values = _read_yaml(told, where) if isinstance(told, str) else told
    try:
        return SongConfig.model_validate(values)
    except ValidationError as error:
        raise bad_config(SongConfig, error, where) from None


class _UniqueKeys(yaml.SafeLoader):  # type: ignore[misc]
    """Safe, and refuses a key that is given twice, of which YAML would take the last one."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping of unique keys."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str):
                if key.value in seen:
                    problem = f"found {key.value!r} a second time"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def _read_yaml(text: str, where: str) -> Mapping[str, Any]:
    try:
        values = yaml.load(text, _UniqueKeys)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        found = " ".join(str(error).split())
        msg = f"{where} must be YAML: {found:.300}"
        raise BadSongConfig(msg) from None
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        msg = f"{where} must be a mapping of settings: found {values!r:.100}"
        raise BadSongConfig(msg)
    return values
