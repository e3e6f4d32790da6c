"""Writes a set of generated memes into a store, as a person would put one there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from clipfarm_assets.demo.memes import pictures
from clipfarm_assets.demo.memes.edge_cases import (
    EDGE_CASES,
    EdgeCase,
    Files,
    Material,
    line_of,
    ocr_of,
)
from clipfarm_assets.demo.memes.plan import SEED, Kind, Meme, Plan, Words, plan_memes
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore

_OF_EDGE_CASES: Final = 4
"""Tells their random stream from those of the sets."""


@dataclass(frozen=True, slots=True)
class MemeSample:
    """What was written.

    Attributes:
        kind: Which set.
        lines: Of the manifest.
        images: Pictures.
        bytes: All objects together.
        edge_cases: The hard cases among them.
    """

    kind: Kind
    lines: int
    images: int
    bytes: int
    edge_cases: tuple[EdgeCase, ...]


def make_memes(
    store: ObjectStore,
    layout: MemeLayout,
    kind: Kind = "xor",
    rows: int | None = None,
    seed: int = SEED,
    *,
    edge_cases: bool = False,
    say: Say = silent,
) -> MemeSample:
    """Draw and write a set. The same arguments give the same bytes, on one build of Pillow.

    Args:
        store: Where to; objects of the same keys are replaced.
        layout: Names the keys.
        kind: Which set; see `plan`.
        rows: Memes, without edge cases; by default the set's own number.
        seed: Of every random choice.
        edge_cases: Whether the hard cases are written too; their lines come first.
        say: Told how far it is.

    Raises:
        ValueError: See `plan_memes`.
    """
    plan = plan_memes(kind, rows, seed)
    hard = [files for _, files in hard_files(plan, seed)] if edge_cases else []
    lines = [line for files in hard for line in files.lines]
    lines += [line_of(meme) for meme in plan.memes]
    ocr = [line for files in hard for line in files.ocr]
    ocr += [ocr_of(meme) for meme in plan.memes if meme.ocr]
    total = len(plan.draw) + sum(len(files.images) for files in hard)
    progress, size = Progress(f"{kind} memes", total, say), 0

    def images() -> Iterator[tuple[str, bytes]]:
        nonlocal size
        for path, data in _images(plan, hard):
            size += len(data)
            progress.step()
            yield layout.image(path), data

    for _ in store.put_many(images()):
        pass
    # The manifest last: whoever sees a line finds its picture.
    for key, body in ((layout.ocr(), ocr), (layout.manifest(), lines)):
        data = b"".join(line + b"\n" for line in body)
        store.put(key, data)
        size += len(data)
    return MemeSample(kind, len(lines), total, size, EDGE_CASES if edge_cases else ())


def hard_files(plan: Plan, seed: int = SEED) -> Iterator[tuple[EdgeCase, Files]]:
    """The files of every edge case beside a set."""
    root = np.random.SeedSequence([seed, _OF_EDGE_CASES])
    words = Words(np.random.default_rng(root.spawn(1)[0]))
    first = plan.memes[0]
    for number, (case, own) in enumerate(zip(EDGE_CASES, root.spawn(len(EDGE_CASES)), strict=True)):
        moods = (number % 2, number // 2 % 2)
        # Signs of the sets have two words: these are nobody else's.
        sign = f"edge {words.sign()}"
        meme = replace(
            first,
            id=case.meme_id,
            image=image_of(case),
            caption=f"{words.caption(moods[0])} again",
            ocr=sign,
            label=moods[0] ^ moods[1],
        )
        drawn = pictures.picture(moods[1], sign, np.random.default_rng(own))
        yield case, case.make(Material(meme, moods, drawn, first, plan.draw[first.image]()))


def image_of(case: EdgeCase) -> str:
    """Path of a case's picture; it tells the case wherever it is mentioned."""
    return f"edge/{case.name}.png"


def _images(plan: Plan, hard: list[Files]) -> Iterator[tuple[str, bytes]]:
    for files in hard:
        yield from files.images.items()
    for path, draw in plan.draw.items():
        yield path, pictures.encoded(draw(), "PNG" if path.endswith(".png") else "JPEG")


__all__ = ["Meme", "MemeSample", "hard_files", "image_of", "make_memes"]
