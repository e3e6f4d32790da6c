"""Hearing by how much notes are late, against librosa. ``python -m benchmarks.heard_offset``.

The first table is where the threshold of trust comes from: z of pairs that belong together, late by
0 to 1.5 s, and of notes with the sound of others, by the length of the sound. Pairs are the demo's
music of all moods. The second compares the time: both ways hear the same related pairs, in a
process of its own each, in turn.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import (
    RATIO_COLUMNS,
    Target,
    alternate,
    answer,
    begin,
    child,
    markdown,
    medians,
    options,
    ratio_row,
    same,
    timed,
)

Pair = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]
"""Samples, the notes' onsets in seconds, and their velocities."""

RATE: Final = 16_000
LATEST: Final = 1.5
WITHIN: Final = 0.05
TARGET: Final = Target(1.5, 3.0)
_MOODS: Final = (None, 0, 1, 2)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--pairs", type=int, default=200, help="related ones, and unrelated ones")
    parser.add_argument("--seconds", type=float, nargs="+", default=[6.0, 10.0, 15.0])
    asked = begin(parser)
    rows = [_separation(seconds, asked.pairs) for seconds in asked.seconds]
    print(markdown(_COLUMNS, rows), flush=True)
    longest = max(asked.seconds)
    ways = {way: partial(_run, way, asked.pairs, longest) for way in _WAYS}
    runs = alternate(ways, asked.repeats)
    for way in _WAYS:
        same({way: runs[way]}, "offsets")
    print()
    path = f"offset of {longest:g} s"
    print(markdown(RATIO_COLUMNS, [ratio_row(path, *runs.values(), TARGET, per="pairs")]))
    print()
    told = [
        [way, *(f"{value:.4g}" for value in medians(some, "cpu_seconds", "found", "error"))]
        for way, some in runs.items()
    ]
    print(markdown(("way", "cpu s", "found within 50 ms", "their mean error, s"), told))


_COLUMNS: Final = (
    "seconds",
    "pairs",
    "related: z, least, 1%, median",
    "found within 50 ms",
    "trusted",
    "trusted and wrong",
    "unrelated: z, median, 99%, most",
    "unrelated trusted",
)


def _separation(seconds: float, pairs: int) -> list[object]:
    from clipfarm_assets.encoders.waveforms.heard_offset import heard_offset

    made = list(_pairs(pairs, seconds))
    late = np.linspace(0, LATEST, pairs)
    related = [
        heard_offset(samples, RATE, onsets + by, velocities)
        for (samples, onsets, velocities), by in zip(made, late, strict=True)
    ]
    unrelated = [
        heard_offset(samples, RATE, *made[at - len(_MOODS)][1:])
        for at, (samples, *_) in enumerate(made)
    ]
    wrong = np.array([abs(h.offset_seconds - by) for h, by in zip(related, late, strict=True)])
    trusted = np.array([heard.is_trusted for heard in related])
    z = np.array([heard.z for heard in related])
    other_z = np.array([heard.z for heard in unrelated])
    return [
        f"{seconds:g}",
        pairs,
        f"{z.min():.1f}, {np.quantile(z, 0.01):.1f}, {np.median(z):.1f}",
        f"{np.mean(wrong <= WITHIN):.1%}",
        f"{trusted.mean():.1%}",
        int(np.count_nonzero(trusted & (wrong > WITHIN))),
        f"{np.median(other_z):.1f}, {np.quantile(other_z, 0.99):.1f}, {other_z.max():.1f}",
        sum(heard.is_trusted for heard in unrelated),
    ]


def _pairs(count: int, seconds: float) -> Iterator[Pair]:
    from clipfarm_assets.demo.songs.files import synthesise
    from clipfarm_assets.demo.songs.music import compose

    for seed in range(count):
        rng = np.random.default_rng([6, seed])
        notes = compose(0, _MOODS[seed % len(_MOODS)], seconds, rng)
        samples = synthesise(notes, seconds, RATE, rng)
        onsets = np.array([note.start for note in notes])
        yield samples, onsets, np.array([float(note.velocity) for note in notes])


def _run(way: str, pairs: int, seconds: float) -> dict[str, Any]:
    found = child("benchmarks.heard_offset", ["--child", way, pairs, seconds])
    assert found is not None  # there is no time limit
    return found


def _child(way: str, pairs: int, seconds: float) -> None:
    made = list(_pairs(pairs, seconds))
    late = np.linspace(0, LATEST, pairs)
    hear = _WAYS[way]
    hear(*made[0])  # imports and first calls are no part of a pair

    def work() -> list[float]:
        return [hear(s, onsets + by, v) for (s, onsets, v), by in zip(made, late, strict=True)]

    offsets, spent = timed(work)
    errors = np.array(offsets) - late
    close = np.abs(errors) <= WITHIN
    answer(
        {
            **spent,
            "pairs": pairs,
            "offsets": [round(offset, 6) for offset in offsets],
            "found": float(close.mean()),
            "error": float(errors[close].mean()) if close.any() else float("nan"),
        }
    )


def _plain(
    samples: NDArray[np.float32], onsets: NDArray[np.float64], velocities: NDArray[np.float64]
) -> float:
    from benchmarks.plain.hear_offset_librosa import hear_offset

    return hear_offset(samples, RATE, onsets, velocities)[0]


def _ours(
    samples: NDArray[np.float32], onsets: NDArray[np.float64], velocities: NDArray[np.float64]
) -> float:
    from clipfarm_assets.encoders.waveforms.heard_offset import heard_offset

    return heard_offset(samples, RATE, onsets, velocities).offset_seconds


_WAYS: Final[dict[str, Callable[..., float]]] = {"plain": _plain, "ours": _ours}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
