"""MIDI files to notes, piano rolls and tokens. ``python -m benchmarks.midi``.

Against pretty_midi, and miditok for the tokens, on files of one track with changes of tempo.
symusic is shown for information: it reads the notes of such files, and leaves out what else a file
tells (see `clipfarm_assets.encoders.midi.smf`). Each run is a process of its own; the clock starts
when the files are in memory and one has been read; what a file gave is let go before the next, as
training does, or new memory would be what is measured. Notes and rolls must be equal bit by bit,
and tokens the same in number and kind: where notes begin at once, miditok has another order.
"""

import hashlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
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
    options,
    ratio_row,
    same,
    timed,
)

TARGETS: Final = {"notes": Target(5, 10), "roll": Target(4, 6), "remi": Target(2, 3)}
FRAMES_PER_SECOND: Final = 20
_TICKS_PER_QUARTER: Final = 512
_TEMPOS: Final = (250_000, 500_000, 1_000_000)
"""Microseconds a quarter note. With 512 ticks all seconds are exact in binary: readers that sum
them up in another order give the same."""
Way = Callable[[bytes], Any]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--notes", type=int, default=1200, help="of a file")
    asked = begin(parser)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        child("benchmarks.midi", ["--make", temporary, asked.files, asked.notes])
        for what, target in TARGETS.items():
            names = ("plain", "ours", "symusic") if what == "notes" else ("plain", "ours")
            ways = {name: partial(_run, what, name, temporary) for name in names}
            runs = alternate(ways, asked.repeats)
            same({name: runs[name] for name in ("plain", "ours")})
            same(runs, "count")
            rows.append(ratio_row(what, runs["plain"], runs["ours"], target, per="files"))
            if "symusic" in runs:
                rows.append(
                    ratio_row("notes, of symusic", runs["symusic"], runs["ours"], None, per="files")
                )
    print(f"Input: {asked.files} files of {asked.notes} notes")
    print(markdown(RATIO_COLUMNS, rows))


def _run(what: str, way: str, folder: str) -> dict[str, Any]:
    found = child("benchmarks.midi", ["--child", what, way, folder])
    assert found is not None  # there is no time limit
    return found


def _make(folder: Path, files: int, notes: int) -> None:
    import mido

    for index in range(files):
        random = np.random.default_rng(index)
        events: list[tuple[int, Any]] = []
        free = np.zeros(128, dtype=int)
        for _ in range(notes):
            pitch = int(random.integers(21, 109))
            # Of one pitch one after the other: rolls of pretty_midi add up what overlaps.
            start = max(int(random.integers(0, notes * 128)), int(free[pitch]))
            end = start + int(random.integers(128, 1024))
            free[pitch] = end + 64
            velocity = int(random.integers(1, 128))
            message = partial(mido.Message, note=pitch)
            events.append((start, message("note_on", velocity=velocity)))
            events.append((end, message("note_off")))
        ticks = random.integers(1, notes * 128, 5).tolist()
        for tick, tempo in zip([0, *ticks], random.choice(_TEMPOS, 6).tolist(), strict=True):
            events.append((tick, mido.MetaMessage("set_tempo", tempo=tempo)))
        track, now = mido.MidiTrack(), 0
        for tick, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=tick - now))
            now = tick
        file = mido.MidiFile(type=0, ticks_per_beat=_TICKS_PER_QUARTER, tracks=[track])
        file.save(folder / f"{index:05d}.mid")
    answer({"files": files})


def _child(what: str, way: str, folder: Path) -> None:
    work, told = _ways(what, way)
    data = [path.read_bytes() for path in sorted(folder.glob("*.mid"))]
    work(data[0])
    digest, count = hashlib.sha256(), 0
    total: Counter[str] = Counter()
    for one in data:
        found, seconds = timed(partial(work, one))
        total.update(seconds)
        array = told(found)
        count += len(array)
        digest.update(np.ascontiguousarray(array).tobytes())
    answer({**total, "files": len(data), "count": count, "digest": digest.hexdigest()})


def _ways(what: str, way: str) -> tuple[Way, Callable[[Any], NDArray[Any]]]:
    """What is timed, and how its result is told as an array that all ways share."""
    if way == "plain":
        from benchmarks.plain import read_midi_pretty as plain

        if what == "notes":
            return plain.read_notes, _in_order
        if what == "roll":
            return partial(plain.piano_roll, frames_per_second=FRAMES_PER_SECOND), _levels
        return plain.remi, lambda words: _counted(_pair(word) for word in words)
    if way == "symusic":
        return _symusic, _in_order

    from clipfarm_assets.encoders.midi.piano_roll import piano_roll
    from clipfarm_assets.encoders.midi.score import read_score
    from clipfarm_assets.encoders.midi.tokens import RemiSettings, remi

    names = ("start", "end", "pitch", "velocity")
    if what == "notes":
        return read_score, lambda score: _in_order(np.stack([score.notes[n] for n in names], 1))
    if what == "roll":

        def roll(data: bytes) -> NDArray[Any]:
            score = read_score(data)
            end = float(score.notes["end"].max())
            frames = int(end * FRAMES_PER_SECOND)  # pretty_midi's rule
            seconds = frames / FRAMES_PER_SECOND
            return piano_roll(score, seconds=seconds, frames_per_second=FRAMES_PER_SECOND)

        return roll, lambda found: _levels(found[2] * 127)
    vocabulary = RemiSettings().vocabulary()
    return (lambda data: remi(read_score(data)).tokens), (
        lambda tokens: _counted(vocabulary.read(tokens))
    )


def _symusic(data: bytes) -> NDArray[np.float64]:
    from symusic import Score

    (track,) = Score.from_midi(data).to("second").tracks
    notes = track.notes.numpy()
    ends = notes["time"] + notes["duration"]
    return np.stack([notes["time"], ends, notes["pitch"], notes["velocity"]], 1).astype(float)


def _in_order(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[np.lexsort(rows.T)]


def _levels(roll: NDArray[Any]) -> NDArray[Any]:
    return np.rint(roll).astype(np.uint8)


def _pair(word: str) -> tuple[str, int]:
    """Ours of miditok's words."""
    kind, value = word.split("_")
    if kind == "Velocity":
        levels = np.linspace(0, 127, 33, dtype=int)[1:].tolist()
        return "velocity", levels.index(int(value))
    if kind == "Duration":
        beats, steps, _ = map(int, value.split("."))
        return "duration", beats * 8 + steps - 1
    return kind.lower(), 0 if value == "None" else int(value)


def _counted(pairs: Any) -> NDArray[Any]:
    """How often each kind and value comes, in order."""
    counts = sorted(Counter(pairs).items())
    return np.array([f"{kind} {value} {count}" for (kind, value), count in counts], dtype="S32")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    elif sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:4], Path(sys.argv[4]))
    else:
        main()
