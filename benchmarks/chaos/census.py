"""What was ever put into the store: the truth that the outcome is compared with."""

import random
from dataclasses import dataclass, field, replace

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    CORRUPT,
    TERMINAL_TEXT,
    Clip,
    horizon_csv,
    processed_items,
)

FIRST_DAY = "2026-03-{:02d}"


@dataclass(frozen=True)
class Capture(Clip):
    """A clip as it was captured last; a later capture has a later minute."""

    minute: int = 0

    @property
    def captured_at(self) -> str:
        return f"{self.date}T{self.minute // 60:02d}:{self.minute % 60:02d}:00+00:00"


@dataclass
class Census:
    """Writes what downloaders and collectors write, raw objects first and the CSV last.

    Attributes:
        store: Reached directly, without the faults.
        layout: Where things lie.
        days: How many dates there are.
        draws: Decides what the next clip is like.
        clips: Every clip that was ever put, as it is now.
        removing: Clips that were to be forgotten, and whether with their raw objects. One of a
            command that was killed is among them: it is given again at the end.
    """

    store: ObjectStore
    layout: Layout
    days: int
    draws: random.Random
    clips: dict[str, Capture] = field(default_factory=dict)
    removing: dict[str, bool] = field(default_factory=dict)

    @property
    def dates(self) -> list[str]:
        return [FIRST_DAY.format(day) for day in range(1, self.days + 1)]

    @property
    def remaining(self) -> list[str]:
        """Ids of those that nobody asked to forget."""
        return sorted(self.clips.keys() - self.removing.keys())

    def add(self, number: int) -> None:
        """New clips: most are whole, some are late, mute or corrupt."""
        for _ in range(number):
            video_id = f"clip-{len(self.clips):04d}"
            kind = self.draws.random()
            clip = Capture(video_id, self.draws.choice(self.dates))
            if kind < 0.08:
                clip = replace(clip, text=None, text_state=TERMINAL_TEXT)
            elif kind < 0.14:
                clip = replace(clip, text=None)
            elif kind < 0.18:
                clip = replace(clip, audio=None)
            elif kind < 0.21:
                clip = replace(clip, video=CORRUPT)
            self.put(clip)
        self.write_tables()

    def change_source(self, video_id: str, *, tell: bool = True) -> None:
        """Another url, other media and words behind it, captured later the same day."""
        old = self.clips[video_id]
        url = f"https://youtu.be/{video_id}?n={old.minute + 1}"
        self.put(replace(old, url=url, minute=old.minute + 1))
        if tell:
            self.write_tables()

    def capture_again(self, video_id: str) -> None:
        """The same source on a later day, if there is one."""
        old = self.clips[video_id]
        later = [date for date in self.dates if date > old.date]
        if later:
            self.clips[video_id] = replace(old, date=self.draws.choice(later))
            self.write_tables()

    def words_arrive(self, video_id: str) -> None:
        """A transcript, and a sound, where there was none."""
        old = self.clips[video_id]
        self.put(replace(old, text=b"t", text_state=None, audio=b"a"))
        self.write_tables()

    def put(self, clip: Capture) -> None:
        """The raw objects of a clip as it is now; `write_tables` tells of it."""
        for modality in MODALITIES:
            data = clip.raw(modality)
            if data is not None:
                self.store.put(self.layout.raw(modality, clip.video_id), data)
        self.clips[clip.video_id] = clip

    def write_tables(self) -> None:
        """The CSV and the text downloader's state, of all clips as they are now."""
        rows = [
            (clip.video_id, clip.source_hash, "2026-02-04T00:00:00", clip.text_state)
            for clip in self.clips.values()
            if clip.text_state
        ]
        columns = ("video_id", "source_hash", "processed_at", "status")
        self.store.put(self.layout.text_downloader_state(), processed_items(columns, rows))
        self.store.put(self.layout.metadata(), horizon_csv(list(self.clips.values())))
