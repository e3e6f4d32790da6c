"""What encoders see of one segment, modality by modality; what can't be had is absent, and counted.

Stored features come first where the settings allow: a vector or a spectrogram that is there is not
made again. What is made is made as `songs/features` makes it, by the same functions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np

from clipfarm_assets.contracts.song_segments import Segment, SegmentColumns
from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.midi import augment as midi_augment
from clipfarm_assets.encoders.midi.piano_roll import drawn, piano_roll
from clipfarm_assets.encoders.midi.score import Score, read_score
from clipfarm_assets.encoders.midi.smf import BadMidi
from clipfarm_assets.encoders.midi.tokens import MidiLikeSettings, midi_like, remi
from clipfarm_assets.encoders.waveforms import augment as audio_augment
from clipfarm_assets.encoders.waveforms import prepare as waveforms
from clipfarm_assets.encoders.waveforms.mel import log_mel
from clipfarm_assets.pipelines.songs.album_features import Features, Floats, SegmentFeatures
from clipfarm_assets.pipelines.songs.media import Media, MediaCounts
from clipfarm_assets.pipelines.songs.row_cursor import RowCursor
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_encoder_config import CnnAudio, PianoRollMidi, PrecomputedText
from clipfarm_assets.training.song_items import Arrays, ArraySpec, arrays_bytes

Tokenise: TypeAlias = Callable[[str], tuple[Arrays, int]]
"""Of a text its tokens, and how many more there were than are taken."""
"""Gives a text's ``input_ids`` and ``attention_mask``."""

CHANGES_VERSION: Final = "song-changes-1"
"""How sound and notes are changed in training; to be another wherever that makes others of them."""

_SHOWN: Final = 300


class WrongStored(ValueError):  # noqa: N818 - says what happened
    """Stored vectors are not of the shape that the settings' encoder takes: a structural fault."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What decides random changes of an epoch."""

    seed: int
    epoch: int

    def rng(self, segment: Segment, purpose: str) -> np.random.Generator:
        """A segment's random numbers."""
        return audio_augment.rng_for(self.seed, self.epoch, segment.id, purpose)

    def of_sound(
        self, segment: Segment, settings: audio_augment.AudioAugment
    ) -> tuple[audio_augment.AudioChange, np.random.Generator]:
        """What is done to its sound, which its notes can follow; and what draws the noise."""
        rng = self.rng(segment, "audio")
        change = audio_augment.draw_change(settings, rng, whole_semitones=segment.has_midi)
        return change, rng


class TextInputs:
    """Lyrics as stored vectors, of the metadata or else of the features, or as tokens."""

    def __init__(
        self,
        store: ObjectStore,
        layout: SongLayout,
        config: SongConfig,
        features: SegmentFeatures | None,
        tokenise: Tokenise | None,
        counts: MediaCounts,
    ) -> None:
        """Open the metadata's vectors, if those are wanted and there.

        Raises:
            ValueError: Texts are to be tokenised, and there is no tokeniser.
        """
        self._counts, self._features = counts, features
        encoder, columns = config.model.text_encoder, config.data.columns
        self._dim = encoder.dim if isinstance(encoder, PrecomputedText) else None
        # Stored vectors are not made of tokens again.
        self._tokenise = tokenise if self._dim is None else None
        self._column = columns.text_embedding
        if self._dim is None and self._tokenise is None:
            msg = f"the text encoder {encoder.type!r} needs a tokeniser: none was given"
            raise ValueError(msg)
        self._cursor = None if self._dim is None else _vectors(store, layout, columns)

    def arrays(self, segment: Segment) -> Arrays | None:
        """The segment's words; None if it has none, or none that were encoded.

        Raises:
            WrongStored: A vector has another length.
        """
        if not segment.has_text:
            return None
        if self._tokenise is not None:
            arrays, cut = self._tokenise(segment.lyric_text)
            if cut:
                detail = f"{cut} tokens more than the encoder takes: they are cut"
                self._counts.note("text_cut", segment, detail)
            return arrays
        vector = self._stored(segment)
        if vector is None and self._features is not None:
            vector = self._features.get(segment)
        if vector is None:
            detail = f"it has words, but no vector in {self._column} or songs/features"
            self._counts.note("no_text_embedding", segment, detail)
            return None
        if vector.shape != (self._dim,):
            msg = (
                f"config.model.text_encoder.dim is {self._dim}: the stored vector of segment "
                f"{segment.id!r} has the shape {list(vector.shape)}; set it to that"
            )
            raise WrongStored(msg)
        if not np.isfinite(vector).all():
            self._counts.note("bad_text_embedding", segment, "it has values that are not finite")
            return None
        return {"values": vector}

    def _stored(self, segment: Segment) -> Floats | None:
        if self._cursor is None:
            return None
        found = self._cursor.scalar(segment, self._column)
        if not found.is_valid:
            return None
        # A value of the list that is null becomes NaN.
        values = found.values.to_numpy(zero_copy_only=False)
        return np.array(values, dtype=np.float32)


class AudioInputs:
    """Sound as a spectrogram, a waveform, or stored tokens."""

    def __init__(
        self,
        config: SongConfig,
        media: Media,
        stored: SegmentFeatures | None,
        spec: Mapping[str, ArraySpec],
        counts: MediaCounts,
    ) -> None:
        """Take what there is.

        Args:
            config: Says what is wanted.
            media: Has the files, unless all of it is precomputed.
            stored: Spectrograms or tokens, as the encoder takes them; see `stored_audio`.
            spec: Shapes of what is stored.
            counts: Told of what can't be had.
        """
        audio = config.preprocessing.audio
        self._media, self._counts, self._spec = media, counts, spec
        self._settings, self._mel = audio.waveform_settings, audio.mel_settings
        self._augment, self._stored = audio.augmentation, stored
        self._wants_mel = isinstance(config.model.audio_encoder, CnnAudio)
        self._only_stored = is_precomputed(config)

    @property
    def is_changed(self) -> bool:
        """Whether training sees other sound in every epoch."""
        return self._augment is not None

    def arrays(self, segment: Segment, draw: Draw | None) -> Arrays | None:
        """The segment's sound; None if it has none that can be decoded.

        Args:
            segment: Whose.
            draw: Of the changes in training; None for none.

        Raises:
            WrongStored: What is stored has another shape.
        """
        if not segment.has_audio:
            self._counts.sources["audio"]["undeclared"] += 1
            return None
        changes = draw if self._augment is not None else None
        if self._stored is not None and changes is None:
            found = self._stored.get(segment)
            if found is not None:
                return self._checked(segment, found)
        if self._only_stored:
            self._counts.note("no_audio_features", segment, "songs/features has none of it")
            return None
        return self._decoded(segment, changes)

    def _decoded(self, segment: Segment, draw: Draw | None) -> Arrays | None:
        raw = self._media.audio(segment)
        if raw is None:
            return None
        try:
            prepared = waveforms.prepare(raw.data, raw.rate, self._settings)
        except MediaError as error:
            self._counts.note("bad_audio", segment, str(error)[:_SHOWN])
            return None
        samples = prepared.samples
        if cut := prepared.told_cut(self._settings):
            self._counts.note("audio_cut", segment, cut)
        if draw is not None and self._augment is not None:
            change, rng = draw.of_sound(segment, self._augment)
            samples = audio_augment.apply_change(samples, self._settings.sample_rate, change, rng)
        return {"mel": log_mel(samples, self._mel)} if self._wants_mel else {"samples": samples}

    def _checked(self, segment: Segment, found: Floats) -> Arrays:
        ((name, spec),) = self._spec.items()
        if found.shape != spec.shape:
            msg = (
                f"the stored audio features of segment {segment.id!r} must have the shape "
                f"{list(spec.shape)} of the settings: found {list(found.shape)}; materialise "
                "songs/features again"
            )
            raise WrongStored(msg)
        return {name: found}


class MidiInputs:
    """Notes as a piano roll or as events, on the clock of the audio.

    In training they follow what is done to the speed and the pitch of the segment's audio. Where
    there is audio they are transposed in no other way, so that both stay in one key.
    """

    def __init__(
        self,
        config: SongConfig,
        media: Media,
        corrections: Mapping[str, float],
        counts: MediaCounts,
    ) -> None:
        """Take what there is.

        Args:
            config: Says what is wanted.
            media: Has the files.
            corrections: Id -> seconds to add to the times of a segment's notes, to bring them onto
                the clock of its audio.
            counts: Told of what can't be had.
        """
        self._media, self._corrections, self._counts = media, corrections, counts
        self._midi, self._seconds = config.preprocessing.midi, config.preprocessing.audio.seconds
        self._encoder = config.model.midi_encoder
        self._augment = self._midi.augmentation
        self._audio_augment = config.preprocessing.audio.augmentation

    @property
    def is_changed(self) -> bool:
        """Whether training sees other notes in every epoch, be it that they follow the sound."""
        return self._augment is not None or self._audio_augment is not None

    def arrays(self, segment: Segment, draw: Draw | None) -> Arrays | None:
        """The segment's notes; None if it has none, or no file that can be read.

        Args:
            segment: Whose.
            draw: Of the changes in training; None for none.
        """
        data = self._media.midi(segment)
        if data is None:
            return None
        try:
            score = read_score(data, f"segment {segment.id}")
        except BadMidi as error:
            self._counts.note("bad_midi", segment, str(error)[:_SHOWN])
            return None
        if score.hanging_notes:
            detail = f"{score.hanging_notes} notes begin and never end: they are left out"
            self._counts.note("hanging_notes", segment, detail)
        heard = audio_augment.AudioChange()
        if draw is not None and segment.has_audio and self._audio_augment is not None:
            heard, _ = draw.of_sound(segment, self._audio_augment)
        if draw is not None:
            score = self._changed(score, segment, draw, heard)
        # By the timestamps, or what else is known of the pair; see `songs/alignment`.
        score = score.shifted(self._corrections.get(segment.id, 0.0))
        late = int((score.notes["start"] >= self._seconds).sum())
        if late and draw is None:
            detail = f"{late} notes begin after {self._seconds:g} s: they are left out"
            self._counts.note("notes_cut", segment, detail)
        # What the sound is cut to, before it is stretched and after.
        score = score.cut(0.0, self._seconds * min(1.0, heard.speed)).faster(heard.speed)
        if not len(score.notes):
            detail = f"no note sounds in its {self._seconds:g} s"
            self._counts.note("no_notes", segment, detail)
            return None
        return self._encoded(segment, score)

    def _changed(
        self, score: Score, segment: Segment, draw: Draw, heard: audio_augment.AudioChange
    ) -> Score:
        """Other notes for an epoch; in the key of the segment's sound, if it has any.

        Notes that are so low or high that they can't follow go as far as all of them can.
        """
        change = midi_augment.MidiChange()
        if self._augment is not None:
            rng = draw.rng(segment, "midi")
            change = midi_augment.draw_change(score, self._augment, rng)
        if segment.has_audio:
            wanted = round(heard.semitones)
            low, high = midi_augment.semitones_within(score, abs(wanted))
            change = replace(change, semitones=min(max(wanted, low), high))
        return midi_augment.apply_change(score, change)

    def _encoded(self, segment: Segment, score: Score) -> Arrays | None:
        if isinstance(self._encoder, PianoRollMidi):
            roll = piano_roll(
                score,
                seconds=self._seconds,
                frames_per_second=self._midi.frames_per_second,
                pitches=self._midi.pitches,
                drums=self._midi.drums,
            )
            shown = drawn(score, self._midi.pitches, self._midi.drums)
            # That drums are no part of it is a setting; that a pitch has no place there is a loss.
            beyond = int((~shown & (self._midi.drums | ~score.notes["is_drum"])).sum())
            if beyond or not shown.any():
                detail = f"of {len(shown)} notes it shows {shown.sum()}: {beyond} lie beyond it"
                self._counts.note("notes_cut" if shown.any() else "no_notes", segment, detail)
            return {"roll": roll} if shown.any() else None
        settings: Any = self._midi.token_settings(self._encoder.vocabulary)
        tokenised = midi_like if isinstance(settings, MidiLikeSettings) else remi
        events = tokenised(score, settings)
        most = self._encoder.max_events
        if len(events) > most:
            detail = f"{len(events)} events: those after {most} are cut"
            self._counts.note("events_cut", segment, detail)
            events = events.first(most)
        found = {"tokens": events.tokens, "mask": np.ones(len(events), np.bool_)}
        if self._encoder.type == "music_transformer":
            found |= {"bars": events.bars, "positions": events.positions}
        return found


@dataclass
class PreparedArrays:
    """Arrays that need not be made again, up to a bound of memory; first come, first kept.

    Attributes:
        most_bytes: The bound.
        held: Bytes that are kept.
    """

    most_bytes: int
    held: int = 0
    _kept: dict[tuple[str, str], Arrays | None] = field(default_factory=dict)

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether something of (modality, id) is kept: arrays, or that there are none."""
        return key in self._kept

    def __getitem__(self, key: tuple[str, str]) -> Arrays | None:
        """What is kept."""
        return self._kept[key]

    def keep(self, key: tuple[str, str], arrays: Arrays | None) -> None:
        """Keep arrays if there is room; that there are none, always."""
        size = arrays_bytes(arrays)
        if self.held + size <= self.most_bytes:
            self._kept[key] = arrays
            self.held += size


def is_precomputed(config: SongConfig) -> bool:
    """Whether all that is seen of audio are stored tokens."""
    encoder = config.model.audio_encoder
    return not isinstance(encoder, CnnAudio) and encoder.precomputed


def stored_audio(config: SongConfig, features: Features) -> SegmentFeatures | None:
    """Those of the features that the audio encoder takes, if they are there.

    Raises:
        ValueError: Its tokens are to be precomputed, and there are none.
    """
    if not is_precomputed(config):
        is_cnn = isinstance(config.model.audio_encoder, CnnAudio)
        return features.get("spectrogram") if is_cnn else None
    if "audio" not in features:
        msg = (
            "config.model.audio_encoder.precomputed is true, and there are no audio features: "
            "materialise songs/features first"
        )
        raise ValueError(msg)
    return features["audio"]


def _vectors(store: ObjectStore, layout: SongLayout, columns: SegmentColumns) -> RowCursor | None:
    """The metadata's vectors of words; None if it has no such column."""
    rows = ParquetRows.open(store, layout.metadata())
    if columns.text_embedding not in rows.schema.names:
        return None
    return RowCursor(rows, columns.segment_id, [columns.text_embedding])
