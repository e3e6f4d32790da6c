"""The embedding stage, against one clip after the other. ``python -m benchmarks.stage``.

Two pieces of work: the video stage over mixed clips of 8 to 30 s, and video, audio and text over
mixed clips of 8 to 60 s. The models are of base size with random weights, for text MiniLM's own;
the store is a folder, the ledger SQLite. Each way runs in a process of its own, in turn; the clock
starts when libraries and models are loaded and a clip of a second has been embedded.

Exact vectors must be those of our encoders given one clip at a time, byte by byte, whatever the
queues do; and the bf16 vectors likewise. The plain way's differ a little, by Pillow's resizing: the
smallest cosine is shown. The second table holds each run against the machine's limit: cores over
the processor seconds that decoding and encoding a clip took.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.clip_store import DATE, METADATA, RAW, opened, prepare
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

TARGETS: Final = {
    ("video", "exact"): Target(1.6, 1.9),
    ("video", "bf16"): Target(3.0, 4.0),
    ("whole", "exact"): Target(1.3, 1.45),
    ("whole", "bf16"): Target(2.5, 3.0),
}
LIMIT: Final = Target(0.85, 0.95)
MODALITIES: Final = {"video": ("video",), "whole": ("video", "audio", "text")}
_LIMIT_COLUMNS: Final = (
    "path", "s", "s at the limit", "ratio", "at least", "aim", "verdict", "bound by", "cpu s",
    "peak MiB",
)  # fmt: skip


def main() -> None:
    parser = options(__doc__, folder="where media and models are kept")
    parser.add_argument("--videos", type=int, default=16, help="clips of the video stage")
    parser.add_argument("--clips", type=int, default=40, help="clips of the whole stage")
    parser.add_argument("--heights", type=int, nargs=2, default=[576, 1080])
    parser.add_argument("--only", choices=sorted(MODALITIES))
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    asked = begin(parser)
    if "OMP_NUM_THREADS" in os.environ:
        print("OMP_NUM_THREADS is set: the plain way does not have torch's default threads")
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        folder = asked.folder or Path(temporary)
        counts = {"video": asked.videos, "whole": asked.clips}
        kinds = [asked.only] if asked.only else list(counts)
        ratios, limits = [], []
        for kind in kinds:
            place = prepare(folder, kind, counts[kind], *asked.heights)
            child("benchmarks.stage", ["--models", folder])
            compared = _compare(kind, place, asked)
            ratios += compared[0]
            limits += compared[1]
    print(markdown(RATIO_COLUMNS, ratios))
    print()
    print(markdown(_LIMIT_COLUMNS, limits))


def _compare(
    kind: str, place: Path, asked: argparse.Namespace
) -> tuple[list[list[str]], list[list[str]]]:
    precisions = ("exact", "bf16") if asked.bf16 else ("exact",)
    ways = {"plain": partial(_run, "plain", kind, place)}
    ways |= {precision: partial(_run, precision, kind, place) for precision in precisions}
    runs = alternate(ways, asked.repeats)
    for precision in precisions:
        alone = _run(f"{precision}-alone", kind, place)
        same({precision: runs[precision], "one clip at a time": [alone]})
        cosine = _least_cosine(place, kind, precision)
        print(
            f"{kind}, {precision}: all vectors are those of one clip at a time, byte by byte; "
            f"smallest cosine with the plain way's {cosine:.6f}"
        )
        for told in runs[precision][0]["told"]:
            print(f"  {told}")
    title = f"{kind} stage"
    ratios = [
        ratio_row(
            f"{title}, {precision}",
            runs["plain"],
            runs[precision],
            TARGETS[kind, precision],
            per="clips",
        )
        for precision in precisions
    ]
    return ratios, [_limit_row(f"{title}, {name}", runs[name]) for name in precisions]


def _limit_row(path: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    seconds, limit, cpu, peak = medians(runs, "seconds", "limit_seconds", "cpu_seconds", "peak_mib")
    (ratio,) = medians([{"ratio": r["limit_seconds"] / r["seconds"]} for r in runs], "ratio")
    return [
        path,
        f"{seconds:.2f}",
        f"{limit:.2f}",
        f"**{ratio:.2f}**",
        f"{LIMIT.at_least:g}",
        f"{LIMIT.aim:g}",
        LIMIT.verdict(ratio),
        runs[0]["bound_by"],
        f"{cpu:.1f}",
        f"{peak:.0f}",
    ]


def _run(way: str, kind: str, place: Path) -> dict[str, Any]:
    found = child("benchmarks.stage", ["--child", way, kind, place])
    assert found is not None  # there is no time limit
    return found


def _vectors(place: Path, kind: str, way: str) -> Path:
    return place / "vectors" / f"{kind}-{way}.npz"


def _least_cosine(place: Path, kind: str, precision: str) -> float:
    plain, ours = (np.load(_vectors(place, kind, way)) for way in ("plain", precision))
    if set(plain.files) != set(ours.files):
        raise SystemExit(f"the plain way has {len(plain.files)} vectors, ours {len(ours.files)}")
    return min(
        float(
            np.dot(plain[name], ours[name])
            / np.linalg.norm(plain[name])
            / np.linalg.norm(ours[name])
        )
        for name in plain.files
    )


def _models(folder: Path) -> dict[str, Path]:
    from benchmarks.models import base_model

    return {modality: base_model(folder / "models", modality) for modality in MODALITIES["whole"]}


def _small(modality: str) -> bytes:
    """A raw object of a second, for the first call of everything."""
    from benchmarks.media import clip_bytes, sound_bytes, words

    return {
        "video": lambda: clip_bytes(1, 64, 30, 1),
        "audio": lambda: sound_bytes(1, 1),
        "text": lambda: words(1)[1],
    }[modality]()


def _answer(
    way: str, kind: str, place: Path, clips: int, seconds: dict[str, float], **more: Any
) -> None:
    """Keep the vectors, and tell their digest."""
    vectors = dict(sorted(more.pop("vectors").items()))
    digest = hashlib.sha256()
    for name, vector in vectors.items():
        digest.update(name.encode() + vector.tobytes())
    path = _vectors(place, kind, way)
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **vectors)
    answer({**seconds, "clips": clips, "digest": digest.hexdigest(), **more})


def _plain(kind: str, place: Path) -> None:
    from benchmarks.plain.embed_clips import PlainEncoders, embed_clips

    modalities = MODALITIES[kind]
    models = _models(place.parent)
    encoders = PlainEncoders({modality: models[modality] for modality in modalities})
    store = place / "store"
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        row = {"title": "t", "description": "d", "query": "q"}
        for modality in modalities:
            small = Path(temporary, f"small-{modality}")
            small.write_bytes(_small(modality))
            getattr(encoders, modality)(small, row)
        raw = {modality: store / RAW / modality for modality in modalities}
        out = Path(temporary, "out")
        written, seconds = timed(
            lambda: embed_clips(raw, store / METADATA, encoders, out, modalities)
        )
        vectors = {
            f"{modality}/{path.stem}": np.load(path)
            for modality in modalities
            for path in (out / modality).iterdir()
        }
    clips = written // len(modalities)
    _answer("plain", kind, place, clips, seconds, vectors=vectors, limit_seconds=0.0)


def _encoders(kind: str, place: Path, precision: str, lock: Any) -> dict[str, Any]:
    """Our encoders at a precision, each having embedded a clip of a second."""
    from clipfarm_assets.encoders.base import Deadline, Source
    from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
    from clipfarm_assets.encoders.open import open_encoder

    configs = {"video": VideoConfig, "audio": AudioConfig, "text": TextConfig}
    models = _models(place.parent)
    encoders = {}
    for modality in MODALITIES[kind]:
        config = configs[modality](model=str(models[modality]), device="cpu", precision=precision)
        encoder = open_encoder(
            modality, config, profile="pretrained", cache_dir=place, models_lock=lock
        )
        if encoder.version.params.get("precision", "exact") != precision:
            raise SystemExit(encoder.equivalence.sentence())
        row = {"title": "t", "description": "d", "query": "q"}
        source = Source("small", _small(modality), row)
        encoder.encode([encoder.prepare(source, Deadline.after(600))])
        encoders[modality] = encoder
    return encoders


def _ours(precision: str, kind: str, place: Path) -> None:
    from clipfarm_assets.pipelines.embed import EmbeddingStage
    from clipfarm_assets.pipelines.index import build_index
    from clipfarm_assets.storage.npy import npy_to_vector

    with opened(place) as deployment:
        encoders = _encoders(kind, place, precision, deployment.models_lock())
        say = partial(print, file=sys.stderr, flush=True)

        def work() -> dict[str, Any]:
            index = build_index(deployment, [DATE]).by_date
            return {
                modality: EmbeddingStage(
                    deployment, modality, lambda opened=encoder: opened, say=say
                ).run(index)[DATE]
                for modality, encoder in encoders.items()
            }

        reports, seconds = timed(work)
        done = {modality: report.statuses["success"] for modality, report in reports.items()}
        clips = reports["video"].considered
        if set(done.values()) != {clips}:
            raise SystemExit(f"all of {clips} clips must be embedded, found {done}")
        store, layout = deployment.store, deployment.layout
        vectors = {
            f"{modality}/{Path(info.key).stem}": npy_to_vector(store.get(info.key))
            for modality in encoders
            for info in store.list(layout.embeddings_prefix(modality))
        }
    found = {modality: report.roofline for modality, report in reports.items()}
    _answer(
        precision,
        kind,
        place,
        clips,
        seconds,
        vectors=vectors,
        limit_seconds=sum(r.whole.items / r.whole.limit for r in found.values()),
        bound_by=", ".join(f"{m}: {r.whole.bound_by}" for m, r in found.items()),
        told=[f"{m}: {r.sentence()}" for m, r in found.items()]
        + [report.equivalence for report in reports.values() if report.equivalence],
    )


def _alone(precision: str, kind: str, place: Path) -> None:
    """Every clip by itself: no stage, no group, no neighbour."""
    from clipfarm_assets.encoders.base import Deadline, Source
    from clipfarm_assets.encoders.config import TEMPLATE_FIELDS
    from clipfarm_assets.pipelines.index import build_index

    with opened(place) as deployment:
        encoders = _encoders(kind, place, precision, deployment.models_lock())
        rows = build_index(deployment, [DATE]).by_date[DATE].to_pylist()
        vectors = {}

        def work() -> None:
            for modality, encoder in encoders.items():
                for row in rows:
                    raw = deployment.store.get(deployment.layout.raw(modality, row["video_id"]))
                    fields = {name: row[name] for name in TEMPLATE_FIELDS}
                    source = Source(row["video_id"], raw, fields)
                    prepared = encoder.prepare(source, Deadline.after(600))
                    (encoded,) = encoder.encode([prepared])
                    vectors[f"{modality}/{row['video_id']}"] = encoded.vector

        _, seconds = timed(work)
    _answer(f"{precision}-alone", kind, place, len(rows), seconds, vectors=vectors)


def _child(way: str, kind: str, place: Path) -> None:
    if way == "plain":
        _plain(kind, place)
    elif way.endswith("-alone"):
        _alone(way.removesuffix("-alone"), kind, place)
    else:
        _ours(way, kind, place)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    elif sys.argv[1:2] == ["--models"]:
        _models(Path(sys.argv[2]))
        answer({})
    else:
        main()
