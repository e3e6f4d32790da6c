"""Video and audio encoders of base size. ``python -m benchmarks.encoders``.

Prepared items to vectors: decoding is not in it. Each way runs in a process of its own, in turn,
after one item that is not measured.

- Video, same bytes: the plain way is one forward a clip by the transformers model with torch's
  default threads, that is, all cores on one clip. Ours is the encoder as the pipeline uses it: as
  many clips side by side as there are cores, one thread each, and of the last layer only what
  reaches the vector. The vectors must be equal byte for byte.
- bf16 against float32: our encoder at both precisions, both with as many items side by side as
  there are cores. The smallest cosine of an item's two vectors must be at least 0.9999.
- Then where the exact forward's time goes, on one thread: the share of matrix products, and their
  rate beside that of a large square product, which is about what the processor can do.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
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
    ratio_row,
    same,
    timed,
)
from benchmarks.models import base_model

EXACT, VIDEO_HALF, AUDIO_HALF = Target(1.15, 1.25), Target(2.5, 3.0), Target(1.7, 2.0)
LEAST_COSINE: Final = 0.9999
SAMPLE_RATE: Final = 16_000


def main() -> None:
    parser = options(__doc__, folder="where models are kept; default: a new one")
    parser.add_argument("--items", type=int, default=8, help="clips, and sounds of each length")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5, 15, 30], help="of sounds")
    asked = begin(parser)
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        folder, out = asked.folder or Path(temporary), Path(temporary)
        for modality in ("video", "audio"):
            base_model(folder, modality)
        ways = {
            f"{modality} {way}": partial(_run, modality, way, folder, out, asked)
            for modality, way in (
                ("video", "plain"),
                ("video", "exact"),
                ("video", "bf16"),
                ("audio", "exact"),
                ("audio", "bf16"),
            )
        }
        runs = alternate(ways, asked.repeats)
        same({name: runs[name] for name in ("video plain", "video exact")})
        for name, some in runs.items():
            same({name: some})  # each precision has the same bytes in every run
        cosines = {m: _least_cosine(out, m) for m in ("video", "audio")}
        profiles = [child("benchmarks.encoders", ["--profile", m, folder]) for m in cosines]
    _print_ratios(runs, asked.seconds)
    _print_ways(runs)
    for modality, cosine in cosines.items():
        print(f"\nSmallest cosine of bf16 to exact, {modality}: {cosine:.6f}")
    for profile in profiles:
        print(f"\n{profile['told']}\n\n{profile['table']}")
    if min(cosines.values()) < LEAST_COSINE:
        raise SystemExit(f"bf16 must be within a cosine of {LEAST_COSINE}, found {cosines}")


def _print_ratios(runs, seconds) -> None:
    plain, exact, half = (runs[f"video {way}"] for way in ("plain", "exact", "bf16"))
    rows = [
        ratio_row("video, float32, same bytes", plain, exact, EXACT, per="clips"),
        ratio_row("video, bf16 against our float32", exact, half, VIDEO_HALF, per="clips"),
        ratio_row("video, bf16 against the plain way", plain, half, None, per="clips"),
    ]
    rows += [
        ratio_row(
            f"audio of {length:g} s, bf16 against our float32",
            runs["audio exact"],
            runs["audio bf16"],
            AUDIO_HALF,
            field=f"seconds_{length:g}",
            per="sounds",
        )
        for length in seconds
    ]
    print(markdown(RATIO_COLUMNS, rows), flush=True)


def _print_ways(runs) -> None:
    columns = ("way", "s", "CPU s", "peak MiB", "computed")
    rows = []
    for name, some in runs.items():
        seconds, used, peak = medians(some, "seconds", "cpu_seconds", "peak_mib")
        rows.append([name, f"{seconds:.2f}", f"{used:.2f}", f"{peak:.0f}", some[0]["note"]])
    print("\n" + markdown(columns, rows))


def _run(modality: str, way: str, folder: Path, out: Path, asked: argparse.Namespace):
    arguments = [modality, way, folder, out, asked.items, *asked.seconds]
    return child("benchmarks.encoders", ["--encode", *arguments])


def _least_cosine(out: Path, modality: str) -> float:
    exact, half = (
        np.load(out / f"{modality}-{way}.npy").astype(np.float64) for way in ("exact", "bf16")
    )
    return float((exact * half).sum(axis=1).min())


def _encode(modality: str, way: str, folder: Path, out: Path, items: int, lengths: list[float]):
    encode, note = _way(modality, way, folder)
    groups = _clips(items) if modality == "video" else _sounds(items, lengths)
    encode(groups[next(iter(groups))][:1])
    total: dict[str, float] = {"seconds": 0.0, "cpu_seconds": 0.0}
    fields: dict[str, Any] = {("clips" if modality == "video" else "sounds"): items}
    vectors: list[NDArray[np.float32]] = []
    for name, group in groups.items():
        found, took = timed(partial(encode, group))
        vectors += found
        total = {field: total[field] + took[field] for field in total}
        if modality == "audio":
            fields[f"seconds_{name}"] = took["seconds"]
    stacked = np.stack(vectors)
    np.save(out / f"{modality}-{way}.npy", stacked)
    digest = hashlib.sha256(stacked.tobytes()).hexdigest()
    answer({**total, **fields, "digest": digest, "note": note()})


def _way(modality: str, way: str, folder: Path):
    """A function of items to vectors, and one that then says what was computed."""
    if way != "plain":
        return _side_by_side(_encoder(modality, way, folder))
    from benchmarks.plain.encode_items import encode_clips, load_video

    model = load_video(base_model(folder, modality))
    return (lambda items: encode_clips(model, [item.pixels for item in items])), (
        lambda: "all rows of the last layer"
    )


def _encoder(modality: str, precision: str, folder: Path):
    """Our encoder on CPU at a precision, without the gate: its vectors are compared here."""
    from clipfarm_assets.encoders.config import AudioConfig, VideoConfig
    from clipfarm_assets.encoders.open import open_encoder

    config = (VideoConfig if modality == "video" else AudioConfig)(
        model=str(base_model(folder, modality)), device="cpu"
    )
    encoder = open_encoder(
        modality, config, profile="pretrained", cache_dir=Path(), models_lock=None
    )
    return encoder.at(precision)


def _side_by_side(encoder):
    """Items to vectors, as many at a time as there are cores, in order."""

    def encode(items):
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(lambda item: encoder.encode([item])[0].vector, items))

    return encode, lambda: encoder.forward.note


def _clips(count: int):
    """Clips of 16 frames: smooth pictures that drift, each with other colours."""
    from clipfarm_assets.encoders.video.encoder import PreparedVideo

    random = np.random.default_rng(1)
    clips = []
    for _ in range(count):
        coarse = random.integers(0, 256, (18, 24, 3)).repeat(16, axis=0).repeat(16, axis=1)
        noise = random.integers(0, 12, (16, 224, 224, 3))
        frames = np.stack([coarse[3 * i : 3 * i + 224, 2 * i : 2 * i + 224] for i in range(16)])
        clips.append(PreparedVideo(np.minimum(frames + noise, 255).astype(np.uint8), {}))
    return {"clips": clips}


def _sounds(count: int, lengths: list[float]):
    """Chords in noise, of every length `count`."""
    from clipfarm_assets.encoders.audio.encoder import PreparedAudio

    random = np.random.default_rng(2)
    groups = {}
    for seconds in lengths:
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        sounds = []
        for _ in range(count):
            wave = random.standard_normal(len(time)) * (0.2 + np.sin(2 * np.pi * time) ** 2)
            for hertz in random.uniform(80, 2_000, 4):
                wave += np.sin(2 * np.pi * hertz * time)
            normalised = (wave - wave.mean()) / wave.std()
            sounds.append(PreparedAudio(normalised.astype(np.float32), {}))
        groups[f"{seconds:g}"] = sounds
    return groups


_ATTENTION: Final = "flash_attention"
_PRODUCTS: Final = ("addmm", "::mm", "convolution", _ATTENTION)


def _profile(modality: str, folder: Path) -> None:
    """The operators of one exact forward on one thread, and what a square product reaches."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    encoder = _encoder(modality, "exact", folder)
    [[item]] = (_clips(1) if modality == "video" else _sounds(1, [15.0])).values()
    for _ in range(2):
        encoder.encode([item])  # sets the threads; the first one of a process compares two ways
    rate = _square_rate(torch)
    with profile(activities=[ProfilerActivity.CPU], with_flops=True, record_shapes=True) as watched:
        encoder.encode([item])
    flops: Counter[str] = Counter()
    for event in watched.events():
        flops[event.key] += event.flops or _attention_flops(event)
    taken = {
        event.key: (event.self_cpu_time_total, event.count) for event in watched.key_averages()
    }
    total = sum(time for time, _ in taken.values())
    rows = []
    for key, (time, count) in sorted(taken.items(), key=lambda some: -some[1][0])[:8]:
        achieved = f"{flops[key] / time / 1e3:.0f}" if flops[key] else "-"
        name = key.removeprefix("aten::")
        rows.append([name, count, f"{time / 1e3:.1f}", f"{time / total:.1%}", achieved])
    products = sum(time for key, (time, _) in taken.items() if any(p in key for p in _PRODUCTS))
    told = (
        f"Exact {modality} forward of one item, one thread: {total / 1e6:.2f} s, "
        f"{products / total:.0%} of it matrix products, convolutions and attention; a square "
        f"product of 3072 reaches {rate:.0f} GFLOP/s"
    )
    columns = ("operator", "calls", "ms", "share", "GFLOP/s")
    answer({"told": told, "table": markdown(columns, rows)})


def _attention_flops(event) -> int:
    """Of two products, queries by keys and weights by values, which the profiler does not count."""
    if _ATTENTION not in event.key or not event.input_shapes:
        return 0
    queries, keys = event.input_shapes[:2]
    return 4 * prod(queries) * keys[2]


def _square_rate(torch) -> float:
    values = torch.randn(3072, 3072)
    seconds = min(timed(lambda: values @ values)[1]["seconds"] for _ in range(5))
    return 2 * 3072**3 / seconds / 1e9


if __name__ == "__main__":
    if sys.argv[1:2] == ["--encode"]:
        kind, how, models, results, number, *lengths = sys.argv[2:]
        _encode(kind, how, Path(models), Path(results), int(number), [float(s) for s in lengths])
    elif sys.argv[1:2] == ["--profile"]:
        _profile(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
