"""Picking 16 frames of a clip, against decoding it from the start. ``python -m benchmarks.decode``.

Each way runs in a process of its own, in turn, on one decoder thread: many clips are decoded side
by side. Frames are RGB, of full size. The plain way must give the same bytes. Libraries that are
installed (torchcodec, decord) pick the same indices of the same files; they convert colours in
their own way, so how far their frames are away is said instead.
"""

import hashlib
import importlib
import importlib.metadata
import sys
import tempfile
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
    medians,
    options,
    peak_mib,
    ratio_row,
    same,
    timed,
)

Frames = list[NDArray[np.uint8]]

WANTED: Final = 16
OFTEN, SELDOM = Target(3.5, 5.0), Target(1.3, 1.6)
_DEADLINE_SECONDS: Final = 3600.0


def main() -> None:
    parser = options(__doc__, folder="where clips are kept; default: a new one")
    parser.add_argument("--seconds", type=int, default=60, help="of the long clips")
    parser.add_argument("--short-seconds", type=int, default=8, help="of the short clip")
    parser.add_argument("--heights", type=int, nargs="+", default=[576, 1080])
    asked = begin(parser)
    peers = {name: version for name in _PEERS if (version := _usable(name))}
    for name in _PEERS:
        print(f"{name}: {peers.get(name, 'not installed, or cannot be loaded')}", flush=True)
    clips = [(height, asked.seconds, every) for height in asked.heights for every in (30, 250)]
    clips.append((max(asked.heights), asked.short_seconds, 30))
    ratios: list[list[str]] = []
    others: list[list[object]] = []
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        folder = asked.folder or Path(temporary)
        for height, seconds, every in clips:
            path = _clip(folder, height, seconds, every)
            title = f"{height}p {seconds} s, keyframe every {every}"
            ways = {name: partial(_run, name, path) for name in ("plain", "ours", *sorted(peers))}
            runs = alternate(ways, asked.repeats)
            same({name: runs[name] for name in ("plain", "ours")})
            target = None if seconds == asked.short_seconds else OFTEN if every == 30 else SELDOM
            row = ratio_row(title, runs["plain"], runs["ours"], target or OFTEN, per="clips")
            ratios.append(row if target else [*row[:-3], "-", "-", "-"])
            others += [_line(title, name, some, runs["ours"]) for name, some in runs.items()]
    print(markdown(RATIO_COLUMNS, ratios))
    print()
    print(markdown(_OTHER_COLUMNS, others))


_OTHER_COLUMNS: Final = (
    "clip",
    "way",
    "s",
    "cpu s",
    "packets decoded",
    "peak MiB",
    "ours is faster by",
    "mean difference from ours, levels",
)


def _clip(folder: Path, height: int, seconds: int, every: int) -> Path:
    from benchmarks.media import clip_bytes, kept

    name = f"clip-{height}p-{seconds}s-{every}.mp4"
    return kept(folder, name, lambda: clip_bytes(seconds, height, every, seed=height + every))


def _line(
    title: str, name: str, runs: list[dict[str, Any]], ours: list[dict[str, Any]]
) -> list[object]:
    seconds, cpu, peak = medians(runs, "seconds", "cpu_seconds", "picking_peak_mib")
    (ours_seconds,) = medians(ours, "seconds")
    return [
        title,
        name,
        f"{seconds:.3f}",
        f"{cpu:.3f}",
        runs[0]["packets"],
        f"{peak:.0f}",
        f"{seconds / ours_seconds:.2f}x",
        f"{runs[0]['distance']:.2f}",
    ]


def _run(way: str, path: Path) -> dict[str, Any]:
    found = child("benchmarks.decode", ["--child", way, path])
    assert found is not None  # there is no time limit
    return found


def _child(way: str, path: Path) -> None:
    raw = path.read_bytes()
    pick = _WAYS[way]
    pick(raw)  # page in the libraries: imports and first calls are no part of a clip
    (frames, packets), seconds = timed(lambda: pick(raw))
    peak = peak_mib()
    reference = _ours(raw)[0] if way in _PEERS else frames
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame))
    distance = np.mean(
        [
            np.abs(one.astype(np.int16) - other).mean()
            for one, other in zip(frames, reference, strict=True)
        ]
    )
    answer(
        {
            **seconds,
            "clips": 1,
            "packets": packets,
            "picking_peak_mib": peak,
            "digest": digest.hexdigest(),
            "distance": float(distance),
        }
    )


def _plain(raw: bytes) -> tuple[Frames, str]:
    from benchmarks.plain.decode_frames import decode_frames

    return decode_frames(raw, WANTED), "all"


def _ours(raw: bytes) -> tuple[Frames, str]:
    from clipfarm_assets.encoders.base import Deadline
    from clipfarm_assets.encoders.video.frames import pick_frames

    picked = pick_frames(raw, WANTED, WANTED, np.copy, Deadline.after(_DEADLINE_SECONDS))
    return picked.frames, f"{picked.packets_decoded} of {picked.decoded_frames}"


def _indices(count: int) -> list[int]:
    chosen: list[int] = np.linspace(0, count - 1, WANTED).astype(int).tolist()
    return chosen


def _torchcodec(raw: bytes) -> tuple[Frames, str]:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(
        raw, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="approximate"
    )
    batch = decoder.get_frames_at(_indices(decoder.metadata.num_frames))
    return list(batch.data.numpy()), "-"


def _decord(raw: bytes) -> tuple[Frames, str]:
    import io

    from decord import VideoReader, cpu

    reader = VideoReader(io.BytesIO(raw), ctx=cpu(0), num_threads=1)
    return list(reader.get_batch(_indices(len(reader))).asnumpy()), "-"


_PEERS: Final = ("torchcodec", "decord")
_WAYS: Final[dict[str, Callable[[bytes], tuple[Frames, str]]]] = {
    "plain": _plain,
    "ours": _ours,
    "torchcodec": _torchcodec,
    "decord": _decord,
}


def _usable(name: str) -> str:
    """The version of a library, if it is there and loads in a process of its own."""
    found = child("benchmarks.decode", ["--usable", name])
    return "" if found is None else str(found["version"])


def _try_import(name: str) -> None:
    try:
        module = importlib.import_module("torchcodec.decoders" if name == "torchcodec" else name)
    except (ImportError, OSError, RuntimeError) as error:
        print(f"{name}: {type(error).__name__}", file=sys.stderr)
        answer({"version": ""})
    else:
        del module
        answer({"version": importlib.metadata.version(name)})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--usable"]:
        _try_import(sys.argv[2])
    else:
        main()
