"""Settings of what is done to songs' audio and MIDI before an encoder sees them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clipfarm_assets.encoders.midi.augment import MidiAugment
from clipfarm_assets.encoders.midi.tokens import MidiLikeSettings, RemiSettings
from clipfarm_assets.encoders.waveforms.augment import MAX_SEMITONES, MAX_TIME_STRETCH, AudioAugment
from clipfarm_assets.encoders.waveforms.heard_offset import TRUSTED_Z
from clipfarm_assets.encoders.waveforms.mel import MelSettings
from clipfarm_assets.encoders.waveforms.prepare import SampleType, WaveformSettings
from clipfarm_assets.training.config import Positive, Settings
from clipfarm_assets.training.song_config_errors import Conflict
from clipfarm_assets.training.song_encoder_config import Seconds

Decibels = Annotated[float, Field(ge=-60, le=200)]
Chance = Annotated[float, Field(ge=0, le=1)]


class MelConfig(Settings):
    """The log-mel spectrograms that the CNN sees.

    Attributes:
        n_fft: Samples of a window.
        hop: Samples from one window to the next.
        n_mels: Mel bands.
        fmin: Lowest frequency, in Hz.
        fmax: Highest one; None for half the sample rate.
    """

    n_fft: Annotated[int, Field(ge=16, le=65_536)] = 1024
    hop: Positive = 512
    n_mels: Annotated[int, Field(ge=4, le=1024)] = 64
    fmin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    fmax: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class AugmentConfig(Settings):
    """What all augmentation has.

    Attributes:
        enabled: Whether anything is changed in training.
        probability: Of each change of a segment, on its own.
    """

    enabled: bool = False
    probability: Chance = 0.5

    def settings(self) -> dict[str, Any]:
        """All but whether it is enabled."""
        return self.model_dump(exclude={"enabled"})


class AudioAugmentConfig(AugmentConfig):
    """What is done to audio in training.

    Attributes:
        time_stretch: Largest change of speed, 0.1 for from 1 / 1.1 to 1.1 times.
        pitch_shift: Most semitones up or down.
        noise_snr_db: Lowest and highest ratio of signal to noise, in dB; None for no noise.
    """

    time_stretch: Annotated[float, Field(ge=0, le=MAX_TIME_STRETCH)] = 0.1
    pitch_shift: Annotated[float, Field(ge=0, le=MAX_SEMITONES)] = 2.0
    noise_snr_db: tuple[Decibels, Decibels] | None = (15.0, 40.0)

    @model_validator(mode="after")
    def _check_noise(self) -> Self:
        if self.noise_snr_db is not None and self.noise_snr_db[0] > self.noise_snr_db[1]:
            msg = f"noise_snr_db must be lowest and highest: found {list(self.noise_snr_db)}"
            raise Conflict(msg)
        return self


class AudioPreprocessing(Settings):
    """Audio as samples of one rate and one length.

    Attributes:
        sample_rate: Hz that it is resampled to: 16,000 for wav2vec2, 48,000 for clap.
        seconds: Length that it is padded with zeros or cut to; MIDI has the same.
        stored_dtype: Type of raw samples in the media file.
        mel: Of the CNN's spectrograms.
        augment: In training.
    """

    sample_rate: Annotated[int, Field(ge=1_000, le=192_000)] = 16_000
    seconds: Seconds = 15.0
    stored_dtype: SampleType = "float32"
    mel: MelConfig = MelConfig()
    augment: AudioAugmentConfig = AudioAugmentConfig()

    @property
    def waveform_settings(self) -> WaveformSettings:
        """What a segment's samples are made to be."""
        return WaveformSettings(self.sample_rate, self.seconds, self.stored_dtype)

    @property
    def mel_settings(self) -> MelSettings:
        """What spectrograms are made with."""
        return MelSettings(sample_rate=self.sample_rate, **self.mel.model_dump())

    @property
    def augmentation(self) -> AudioAugment | None:
        """What is done in training; None for nothing."""
        return AudioAugment(**self.augment.settings()) if self.augment.enabled else None

    @model_validator(mode="after")
    def _check_settings(self) -> Self:
        try:
            _ = self.waveform_settings, self.mel_settings
        except ValueError as error:
            msg = f"mel and seconds do not go with sample_rate: {error}"
            raise Conflict(msg) from None
        return self


class MidiAugmentConfig(AugmentConfig):
    """What is done to MIDI in training.

    Attributes:
        transpose: Most semitones up or down; drums stay. Of segments without audio: those of others
            are transposed as it is, by whole semitones.
        velocity: Most that velocities are scaled by, up or down, as a share.
        quantise: Grid that onsets may be moved to, in parts of a quarter note; None for none.
    """

    transpose: Annotated[int, Field(ge=0, le=24)] = 6
    velocity: Annotated[float, Field(ge=0, lt=1)] = 0.2
    quantise: Annotated[int, Field(ge=1, le=48)] | None = 4


class MidiPreprocessing(Settings):
    """MIDI as rolls or events, over the audio's seconds.

    Attributes:
        frames_per_second: Of the piano roll.
        lowest_pitch, highest_pitch: Of the piano roll, both included.
        drums: Whether drums are in the piano roll.
        steps_per_second: Of the time shifts of NOTE_ON and NOTE_OFF events.
        steps_per_quarter: Of positions in bars.
        velocity_bins: Velocities that events tell apart.
        augment: In training.
    """

    frames_per_second: Annotated[float, Field(gt=0, le=1_000)] = 20.0
    lowest_pitch: Annotated[int, Field(ge=0, le=127)] = 21
    highest_pitch: Annotated[int, Field(ge=0, le=127)] = 108
    drums: bool = False
    steps_per_second: Annotated[int, Field(ge=1, le=1000)] = 100
    steps_per_quarter: Annotated[int, Field(ge=1, le=96)] = 8
    velocity_bins: Annotated[int, Field(ge=1, le=127)] = 32
    augment: MidiAugmentConfig = MidiAugmentConfig()

    @property
    def pitches(self) -> tuple[int, int]:
        """The first pitch, and the one after the last."""
        return self.lowest_pitch, self.highest_pitch + 1

    def token_settings(
        self, vocabulary: Literal["midi_like", "remi"]
    ) -> MidiLikeSettings | RemiSettings:
        """What events are tokenised with; bars and notes are of 8 quarters at most."""
        longest = 8 * self.steps_per_quarter
        if vocabulary == "remi":
            return RemiSettings(
                steps_per_quarter=self.steps_per_quarter,
                longest_note=longest,
                longest_bar=longest,
                velocity_bins=self.velocity_bins,
            )
        return MidiLikeSettings(
            steps_per_second=self.steps_per_second,
            steps_per_quarter=self.steps_per_quarter,
            longest_shift=self.steps_per_second,
            longest_bar=longest,
            velocity_bins=self.velocity_bins,
        )

    @property
    def augmentation(self) -> MidiAugment | None:
        """What is done in training; None for nothing."""
        return MidiAugment(**self.augment.settings()) if self.augment.enabled else None

    @model_validator(mode="after")
    def _check_pitches(self) -> Self:
        if self.highest_pitch - self.lowest_pitch < 11:
            msg = (
                f"highest_pitch must be 11 above lowest_pitch, {self.lowest_pitch}, at least: "
                f"found {self.highest_pitch}"
            )
            raise Conflict(msg)
        return self


class AlignmentConfig(Settings):
    """When audio and MIDI of a segment count as aligned, and what is done if they are not.

    Attributes:
        tolerance_seconds: Most that starts, or ends, may differ by.
        max_offset_seconds: Most that MIDI is looked for before or after the audio.
        z_threshold: How far an offset that is heard has to stand out to be believed, in standard
            deviations over all offsets.
        exclude_misaligned: Whether a misaligned segment is left out; otherwise it is flagged.
        apply_correction: Whether MIDI is moved by the offset that the metadata have.
    """

    tolerance_seconds: Annotated[float, Field(ge=0, le=10)] = 0.05
    max_offset_seconds: Annotated[float, Field(gt=0, le=30)] = 2.0
    z_threshold: Annotated[float, Field(gt=0, allow_inf_nan=False)] = TRUSTED_Z
    exclude_misaligned: bool = False
    apply_correction: bool = True


class PreprocessingConfig(Settings):
    """All of it."""

    audio: AudioPreprocessing = AudioPreprocessing()
    midi: MidiPreprocessing = MidiPreprocessing()
    alignment: AlignmentConfig = AlignmentConfig()
