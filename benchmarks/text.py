"""Embedding text, against two calls of one item each. ``python -m benchmarks.text``.

Metadata and transcript of made-up clips (10-60 and 50-400 words or so) by MiniLM with its real
weights. Each way runs in a process of its own, in turn; the clock starts when the model is loaded
and a clip has been embedded. Ours takes raw objects to vectors as the embedding stage does: groups
of clips, in as many threads as there are cores.

All runs of one of our ways must give the same bytes. Exact vectors must equal the plain way's
within 3e-7, bf16 ones in direction; the largest difference and the smallest cosine are shown.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import quantiles
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

TARGETS: Final = {"exact": Target(1.3, 1.5), "bf16": Target(3.0, 4.5)}
WAYS: Final = ("plain", *TARGETS)
LARGEST_DIFFERENCE: Final = 3e-7
SMALLEST_COSINE: Final = 0.9999

Clip = tuple[dict[str, str], bytes]
"""Metadata fields, and the transcript's raw object."""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    asked = begin(parser)
    if "OMP_NUM_THREADS" in os.environ:
        print("OMP_NUM_THREADS is set: the plain way does not have torch's default threads")
    print(f"Input: {_told(_clips(asked.clips))}; {asked.workers} encode workers", flush=True)
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        files = {way: Path(temporary) / f"{way}.npy" for way in WAYS}
        ways = {
            way: partial(_run, way, asked.clips, asked.workers, file) for way, file in files.items()
        }
        runs = alternate(ways, asked.repeats)
        vectors = {way: np.load(file) for way, file in files.items()}
    for way in TARGETS:
        same({way: runs[way]})
    print(f"{_agreement(vectors)}; all runs of a way gave the same bytes")
    rows = [
        ratio_row(f"text, {way}", runs["plain"], runs[way], target, per="clips")
        for way, target in TARGETS.items()
    ]
    print(markdown(RATIO_COLUMNS, rows))
    print()
    print(markdown(("way", "clips/s", "cpu ms a clip", "peak MiB"), _costs(runs)))


def _run(way: str, clips: int, workers: int, file: Path) -> dict[str, Any]:
    found = child("benchmarks.text", ["--child", way, clips, workers, file])
    assert found is not None  # only a timeout gives None
    return found


def _agreement(vectors: Mapping[str, NDArray[np.float32]]) -> str:
    """How near our vectors are to the plain way's.

    Raises:
        SystemExit: Not near enough: there is nothing to compare.
    """
    difference = float(np.abs(vectors["exact"] - vectors["plain"]).max())
    wide = {way: found.astype(np.float64) for way, found in vectors.items()}
    cosine = float((wide["bf16"] * wide["plain"]).sum(axis=1).min())
    told = (
        f"Against the plain way: exact differs by {difference:.1e} at most, the smallest cosine of "
        f"bf16 is {cosine:.6f}"
    )
    if not (difference <= LARGEST_DIFFERENCE and cosine >= SMALLEST_COSINE):
        raise SystemExit(f"{told}: wanted {LARGEST_DIFFERENCE:g} and {SMALLEST_COSINE:g}")
    return told


def _costs(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    rows = []
    for way, some in runs.items():
        seconds, cpu, peak, clips = medians(some, "seconds", "cpu_seconds", "peak_mib", "clips")
        rows.append([way, f"{clips / seconds:.1f}", f"{cpu / clips * 1e3:.1f}", f"{peak:.0f}"])
    return rows


def _clips(count: int) -> list[Clip]:
    from benchmarks.media import words

    return [words(seed) for seed in range(count)]


def _told(clips: Sequence[Clip]) -> str:
    """How long the texts are."""
    import json

    lengths = {
        "metadata": [len(" ".join(fields.values()).split()) for fields, _ in clips],
        "transcript": [len(json.loads(raw)["transcript"].split()) for _, raw in clips],
    }
    parts = []
    for name, counts in lengths.items():
        middle = quantiles(counts, n=2)[0] if len(counts) > 1 else counts[0]
        parts.append(f"{name} {min(counts)}-{max(counts)} words, median {middle:.0f}")
    return f"{len(clips)} clips: " + "; ".join(parts)


def _child(way: str, count: int, workers: int, file: Path) -> None:
    clips = _clips(count)
    vectors, seconds = (_plain if way == "plain" else partial(_ours, way, workers))(clips)
    np.save(file, vectors)
    digest = hashlib.sha256(vectors.tobytes()).hexdigest()
    answer({**seconds, "clips": count, "digest": digest})


def _plain(clips: Sequence[Clip]) -> tuple[NDArray[np.float32], dict[str, float]]:
    from benchmarks.models import base_model
    from benchmarks.plain.text_one_by_one import PlainText

    plain = PlainText(base_model(Path(), "text"))
    plain.embed(clips[:1])
    return timed(lambda: plain.embed(clips))


def _ours(
    precision: str, workers: int, clips: Sequence[Clip]
) -> tuple[NDArray[np.float32], dict[str, float]]:
    from benchmarks.models import base_model
    from clipfarm_assets.encoders.base import Deadline, Encoded, Source
    from clipfarm_assets.encoders.config import TextConfig
    from clipfarm_assets.encoders.models import resolve_model
    from clipfarm_assets.encoders.text.encoder import TextEncoder
    from clipfarm_assets.pipelines.flow import batched, ordered_map

    # Without the gate of `open_encoder`: its canaries are not what is measured, and the vectors
    # are held against the plain way's in the end.
    config = TextConfig.model_validate(
        {"model": str(base_model(Path(), "text")), "precision": precision}
    )
    resolved = resolve_model("text", config, "demo", Path(), models_lock=None)
    encoder = TextEncoder(resolved, config)
    if not encoder.packed:
        print(f"texts are embedded one by one: {encoder.why_not_packed}", file=sys.stderr)

    def encode(group: Sequence[Clip]) -> list[Encoded]:
        sources = (Source("clip", raw, metadata) for metadata, raw in group)
        return encoder.encode([encoder.prepare(one, Deadline.after(60)) for one in sources])

    def work() -> NDArray[np.float32]:
        groups = batched(clips, encoder.group_size)
        with closing(ordered_map(encode, groups, workers=workers, ahead=2 * workers)) as done:
            return np.stack([encoded.vector for group in done for encoded in group])

    encode(clips[:1])
    return timed(work)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
