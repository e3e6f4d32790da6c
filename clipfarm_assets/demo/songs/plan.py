"""What the segments of a corpus are: labels, what tells them, what is missing, what is out of step.

The law. A segment's label is one of three moods. Each of three channels tells it in a planted share
of the segments, chosen independently of each other, and tells nothing in the rest:

* words: the lyrics have words of the mood, or of things alone;
* harmony: major, minor or diminished chords, or open fifths, which are neither;
* rhythm: how often chords are struck, or long held ones.

Text shows the words, MIDI harmony and rhythm, and audio, which is played from the same notes, the
rhythm clearly and the harmony through noise. So whoever knows one modality knows the label of those
segments in which that one is there and speaks, and guesses at the others; who knows more modalities
has to guess at fewer. That is all there is to gain, and it is known beforehand: see `ceiling`.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final, Literal, get_args

import numpy as np

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.demo.songs.lyrics import MOODS

SEED: Final = 42
SONGS: Final = 120
SEGMENTS_PER_SONG: Final = 4
SECONDS: Final = 6.0
"""Of a segment."""

Channel = Literal["words", "harmony", "rhythm"]
CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)
TELLING: Final[dict[Channel, float]] = {"words": 0.65, "harmony": 0.65, "rhythm": 0.65}
"""Share of segments in which a channel tells the mood."""
SHOWS: Final[dict[Modality, tuple[Channel, ...]]] = {
    "text": ("words",),
    "audio": ("rhythm",),
    "midi": ("harmony", "rhythm"),
}
"""Channels that a modality shows clearly."""

INSTRUMENTAL: Final = 0.04
WITHOUT_AUDIO: Final = 0.15
WITHOUT_MIDI: Final = 0.57

SPARSE_ALBUM: Final = "Blue"
WITHOUT_MIDI_IN_SPARSE: Final = 0.88
ALBUMS: Final = ("Blue", "Green Season", "Rote Straßen", "Night/Day")
"""Blue lacks most MIDI. Their songs lie in the store in ways of their own: see `corpus`."""

Pairing = Literal["aligned", "late_told", "late_untold", "cut_late", "unrelated"]
PAIRINGS: Final[dict[Pairing, float]] = {
    "late_told": 0.12,
    "late_untold": 0.12,
    "cut_late": 0.08,
    "unrelated": 0.05,
}
"""Share of segments with audio and MIDI that are not simply aligned.

The MIDI's notes are late and the metadata says by how much; they are late and nobody says so; the
MIDI was cut from a later moment, as its timestamps say; or it is of other music.
"""
OFFSETS: Final = (0.3, 1.5)
"""Least and most seconds that one is out of step."""

_FRAME: Final = 0.04
"""Seconds of a frame at 25 a second, as the time codes of one album count."""


@dataclass(frozen=True, slots=True)
class PlannedSegment:
    """One generated segment.

    Attributes:
        id: In the files.
        song: Likewise.
        album: Likewise.
        number: Of it in its song, from 0.
        label: Place of its mood in `MOODS`.
        telling: Channels that tell the mood.
        vocals: Whether there are lyrics.
        has_audio: Whether there is audio.
        has_midi: Whether there is MIDI.
        pairing: How audio and MIDI go together; None unless it has both.
        offset: Seconds that they are out of step, 0 if they aren't.
        case: The edge case that it is; empty if it is none.
    """

    id: str
    song: str
    album: str
    number: int
    label: int
    telling: frozenset[Channel]
    vocals: bool = True
    has_audio: bool = True
    has_midi: bool = True
    pairing: Pairing | None = None
    offset: float = 0.0
    case: str = ""

    @property
    def mood(self) -> str:
        """Its label."""
        return MOODS[self.label]

    @property
    def start(self) -> float:
        """Second of the song at which it begins."""
        return self.number * SECONDS

    @property
    def has_pair(self) -> bool:
        """Whether it has both audio and MIDI."""
        return self.has_audio and self.has_midi

    def cue(self, channel: Channel) -> int | None:
        """The mood that a channel tells; None if it tells none."""
        return self.label if channel in self.telling else None

    def shows(self, modality: Modality) -> bool:
        """Whether it has the modality."""
        return {"text": self.vocals, "audio": self.has_audio, "midi": self.has_midi}[modality]

    def is_told_by(self, modalities: Collection[str]) -> bool:
        """Whether one of these modalities clearly shows a channel that tells the mood."""
        return any(
            self.shows(modality) and self.telling.intersection(SHOWS[modality])
            for modality in MODALITIES
            if modality in modalities
        )


@dataclass(frozen=True)
class Plan:
    """A corpus, before any note is written."""

    segments: tuple[PlannedSegment, ...]
    seed: int

    def share(self, what: Sequence[bool]) -> float:
        """Share of the segments for which something holds."""
        return sum(what) / len(self.segments)

    def without(self, modality: Modality, album: str | None = None) -> float:
        """Share of the segments, or of those of an album, that lack a modality."""
        some = [s for s in self.segments if album in (None, s.album)]
        return sum(not s.shows(modality) for s in some) / max(len(some), 1)

    def ceiling(self, modalities: Collection[str] = MODALITIES) -> float:
        """Expected accuracy of whoever knows all that these modalities clearly show."""
        told = self.share([s.is_told_by(modalities) for s in self.segments])
        return told + (1 - told) / len(MOODS)

    def attainable_loss(self, modality: Modality) -> float:
        """Expected accuracy that whoever knows all that is planted loses without a modality."""
        return self.ceiling() - self.ceiling([m for m in MODALITIES if m != modality])

    def most_lost(self, modality: Modality, judged: int, chance: float) -> float:
        """Accuracy that such a one loses without a modality on some segments, but by chance.

        Each segment is lost independently of the others with the probability of `attainable_loss`,
        so that the share that is lost is about normal: the upper quantile of a proportion.

        Args:
            modality: Which one is taken away.
            judged: On how many segments.
            chance: Probability to lose more.
        """
        loss = self.attainable_loss(modality)
        deviation = math.sqrt(loss * (1 - loss) / judged)
        return loss + NormalDist().inv_cdf(1 - chance) * deviation


def plan_songs(
    songs: int = SONGS, segments_per_song: int = SEGMENTS_PER_SONG, seed: int = SEED
) -> Plan:
    """The segments of a corpus; the same arguments give the same ones.

    Shares come out exactly as far as whole segments can.

    Args:
        songs: How many; dealt to `ALBUMS` in turn.
        segments_per_song: How many of each.
        seed: Of every random choice.

    Raises:
        ValueError: Fewer than four songs, an album each, or no segment.
    """
    if songs < len(ALBUMS) or segments_per_song < 1:
        msg = (
            f"a corpus must have {len(ALBUMS)} songs or more, of a segment or more each: "
            f"found {songs} of {segments_per_song}"
        )
        raise ValueError(msg)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    count = songs * segments_per_song
    labels = rng.permutation(np.arange(count) % len(MOODS))
    telling = {channel: _share_of(count, TELLING[channel], rng) for channel in CHANNELS}
    instrumental = _share_of(count, INSTRUMENTAL, rng)
    segments = [
        PlannedSegment(
            id=f"song-{place // segments_per_song:03d}-{place % segments_per_song:02d}",
            song=f"song-{place // segments_per_song:03d}",
            album=ALBUMS[place // segments_per_song % len(ALBUMS)],
            number=place % segments_per_song,
            label=int(labels[place]),
            telling=frozenset(channel for channel in CHANNELS if telling[channel][place]),
            vocals=not instrumental[place],
        )
        for place in range(count)
    ]
    segments = _without_midi(segments, rng)
    segments = _without_audio(segments, rng)
    return Plan(tuple(_out_of_step(segments, rng)), seed)


def _share_of(count: int, share: float, rng: np.random.Generator) -> list[bool]:
    """Exactly that share of `count` places."""
    chosen = set(rng.permutation(count)[: round(share * count)].tolist())
    return [place in chosen for place in range(count)]


def _without_midi(segments: list[PlannedSegment], rng: np.random.Generator) -> list[PlannedSegment]:
    """Take MIDI from the shares of `WITHOUT_MIDI`, most from the album that lacks it."""
    sparse = [place for place, s in enumerate(segments) if s.album == SPARSE_ALBUM]
    others = [place for place, s in enumerate(segments) if s.album != SPARSE_ALBUM]
    from_sparse = round(WITHOUT_MIDI_IN_SPARSE * len(sparse))
    from_others = min(max(round(WITHOUT_MIDI * len(segments)) - from_sparse, 0), len(others))
    taken = {int(place) for place in rng.permutation(sparse)[:from_sparse]}
    taken |= {int(place) for place in rng.permutation(others)[:from_others]}
    return [replace(s, has_midi=place not in taken) for place, s in enumerate(segments)]


def _without_audio(
    segments: list[PlannedSegment], rng: np.random.Generator
) -> list[PlannedSegment]:
    """Take audio from the share of `WITHOUT_AUDIO`, but never a segment's last modality."""
    able = [place for place, s in enumerate(segments) if s.vocals or s.has_midi]
    chosen = rng.permutation(able)[: round(WITHOUT_AUDIO * len(segments))]
    taken = {int(place) for place in chosen}
    return [replace(s, has_audio=place not in taken) for place, s in enumerate(segments)]


def _out_of_step(segments: list[PlannedSegment], rng: np.random.Generator) -> list[PlannedSegment]:
    """Plant `PAIRINGS` among the segments that have audio and MIDI."""
    pairs = [int(place) for place in rng.permutation(len(segments)) if segments[place].has_pair]
    pairing: dict[int, Pairing] = dict.fromkeys(pairs, "aligned")
    left = iter(pairs)
    offset: dict[int, float] = {}
    for name, share in PAIRINGS.items():
        some = [next(left) for _ in range(round(share * len(pairs)))]
        pairing.update(dict.fromkeys(some, name))
        if name != "unrelated":
            # Whole frames, so that time codes say it exactly.
            steps = (np.linspace(*OFFSETS, max(len(some), 2)) / _FRAME).round() * _FRAME
            offset.update(zip(some, steps.round(2).tolist(), strict=False))
    return [
        replace(s, pairing=pairing.get(place), offset=offset.get(place, 0.0))
        for place, s in enumerate(segments)
    ]
