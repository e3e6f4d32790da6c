"""Stores of generated clips to be embedded, made in a child process and kept."""

import argparse
import csv
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.common import answer, child, timed

DATE: Final = "2026-02-05"
RAW: Final = "clipfarm/raw"
METADATA: Final = "clipfarm/metadata/shorts_metadata_horizon.csv"
VIDEO_SECONDS: Final = (8, 24, 12, 30, 10, 16, 20, 28)
WHOLE_SECONDS: Final = (8, 16, 30, 10, 18, 60, 9, 22, 14, 12)
HEIGHTS: Final = (576, 1080)
KEYFRAMES: Final = (30, 250)


@dataclass(frozen=True)
class Media:
    """One clip to generate."""

    number: int
    seconds: int
    height: int
    keyframe_every: int

    @property
    def video_id(self) -> str:
        """Its id."""
        return f"clip-{self.number:05d}"


def mixed(count: int, lengths: Sequence[int], heights: Sequence[int] = HEIGHTS) -> list[Media]:
    """Clips of these lengths in turn, every size with every distance of keyframes."""
    return [
        Media(
            number,
            lengths[number % len(lengths)],
            heights[number % 2],
            KEYFRAMES[number // 2 % 2],
        )
        for number in range(count)
    ]


def prepare(folder: Path, kind: str, count: int, *arguments: object) -> Path:
    """The folder of a store of one of `KINDS`, filled if it is not there yet."""
    name = "-".join(map(str, (kind, count, *arguments)))
    place = folder / name
    if not (place / "ready").exists():
        print(f"generating {place} …", flush=True)
        made = child("benchmarks.clip_store", [place, kind, count, *arguments])
        print(f"generated in {made['seconds']:.0f} s", flush=True)
        (place / "ready").touch()
    return place


@contextmanager
def opened(place: Path) -> Iterator[Any]:
    """The deployment over a prepared store, with nothing embedded in it and an empty ledger."""
    from clipfarm_assets.ledger.ledger import Ledger
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.objects import ObjectStore

    clipfarm = place / "store" / "clipfarm"
    for made in clipfarm.iterdir():
        if made.name not in {"raw", "metadata"}:
            shutil.rmtree(made)
    store = ObjectStore.open(str(place / "store"))
    with (
        tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.sqlite", store.url) as ledger,
    ):
        yield Deployment(store, Layout(), ledger)


def _video(count: int, *heights: int) -> Iterator[tuple[Media, Mapping[str, bytes]]]:
    from benchmarks.media import clip_bytes

    for media in mixed(count, VIDEO_SECONDS, heights or HEIGHTS):
        yield (
            media,
            {"video": clip_bytes(media.seconds, media.height, media.keyframe_every, media.number)},
        )


def _whole(count: int, *heights: int) -> Iterator[tuple[Media, Mapping[str, bytes]]]:
    from benchmarks.media import clip_bytes, sound_bytes, words

    for media in mixed(count, WHOLE_SECONDS, heights or HEIGHTS):
        yield (
            media,
            {
                "video": clip_bytes(
                    media.seconds, media.height, media.keyframe_every, media.number
                ),
                "audio": sound_bytes(media.seconds, media.number),
                "text": words(media.number)[1],
            },
        )


def _tiny(count: int) -> Iterator[tuple[Media, Mapping[str, bytes]]]:
    """Clips of a second, 64 pixels high, and transcripts of a few words."""
    from benchmarks.media import clip_bytes

    few = [clip_bytes(1, 64, 30, seed) for seed in range(8)]
    for number in range(count):
        text = f'{{"transcript": "clip {number} says {number * 7919} words"}}'
        yield (
            Media(number, 1, 64, 30),
            {"video": few[number % len(few)], "text": text.encode()},
        )


KINDS: Final[dict[str, Callable[..., Iterable[tuple[Media, Mapping[str, bytes]]]]]] = {
    "video": _video,
    "whole": _whole,
    "tiny": _tiny,
}


def _make(place: Path, kind: str, count: int, arguments: Sequence[int]) -> None:
    from benchmarks.media import words
    from clipfarm_assets.contracts.horizon_csv import COLUMNS
    from clipfarm_assets.storage.layout import RAW_SUFFIX

    store = place / "store"
    shutil.rmtree(store, ignore_errors=True)  # of a run that was stopped
    metadata = store / METADATA
    metadata.parent.mkdir(parents=True)
    with metadata.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, COLUMNS)
        rows.writeheader()
        for media, objects in KINDS[kind](count, *arguments):
            for modality, data in objects.items():
                folder = store / RAW / modality
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{media.video_id}.{RAW_SUFFIX[modality]}").write_bytes(data)
            rows.writerow(
                {
                    **words(media.number)[0],
                    "video_id": media.video_id,
                    "url": f"https://youtu.be/{media.video_id}",
                    "captured_at": f"{DATE}T12:00:00+00:00",
                    "horizon_days": 7,
                }
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("count", type=int)
    parser.add_argument("arguments", type=int, nargs="*")
    asked = parser.parse_args()
    answer(timed(lambda: _make(asked.place, asked.kind, asked.count, asked.arguments))[1])
