"""Reading shards of memes, against webdataset and PIL. ``python -m benchmarks.meme_shards``.

The same shards, written by us, over 1, 10 and 100 of them: once with all images decoded, once with
the images left as their files. Each run is a process of its own, whose peak memory is told, and
hashes everything it reads. Files are in the page cache. Ours verifies each shard's hash, the bytes
between its members and each PNG's checksums, and decodes in threads; the plain loop does neither.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.common import (
    RATIO_COLUMNS,
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

if TYPE_CHECKING:
    from collections.abc import Generator

    from clipfarm_assets.pipelines.memes.shard_set import Made

AT_MOST: Final = 1.10
_PICTURES: Final = 48
_COLUMNS: Final = (
    "path", "way", "shards", "rows", "rows/s", "peak MiB", "of it while reading",
    "peak against the fewest", "at most", "verdict",
)  # fmt: skip
Run = dict[str, Any]


def main() -> None:
    parser = options(__doc__, folder="where the shards are kept")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--shard-rows", type=int, default=50)
    parser.add_argument("--side", type=int, default=256, help="of the images, in pixels")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode, of ours")
    asked = begin(parser)
    ratios: list[list[str]] = []
    memory: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-", dir=asked.folder) as temporary:
        places = {count: Path(temporary, f"{count}-shards") for count in sorted(asked.shards)}
        for count, place in places.items():
            made = ["--make", place, count, asked.shard_rows, asked.side]
            child("benchmarks.meme_shards", made)
        for what in ("images", "files"):
            fewest: dict[str, float] = {}
            for count, place in places.items():
                ways = {
                    way: partial(_run, way, what, place, asked.workers) for way in ("plain", "ours")
                }
                runs = alternate(ways, asked.repeats)
                same(runs)
                name = f"{what}: {count} x {asked.shard_rows} rows"
                ratios.append(ratio_row(name, runs["plain"], runs["ours"], None, per="rows"))
                for way, some in runs.items():
                    memory.append(_memory_row(what, way, count, some, fewest))
    print(markdown(RATIO_COLUMNS, ratios))
    print()
    print(markdown(_COLUMNS, memory))


def _memory_row(
    what: str, way: str, count: int, runs: list[Run], fewest: dict[str, float]
) -> list[str]:
    rows, seconds, peak, before = medians(runs, "rows", "seconds", "peak_mib", "before_mib")
    ratio = peak / fewest.setdefault(way, peak)
    verdict = "-" if way == "plain" else "met" if ratio <= AT_MOST else "NOT MET"
    figures = [f"{rows:.0f}", f"{rows / seconds:.0f}", f"{peak:.1f}", f"{peak - before:.1f}"]
    return [what, way, str(count), *figures, f"**{ratio:.3f}x**", f"{AT_MOST:g}x", verdict]


def _run(way: str, what: str, place: Path, workers: int) -> Run:
    found = child("benchmarks.meme_shards", ["--child", way, what, place, workers])
    assert found is not None  # there is no time limit
    return found


def _make(place: Path, shards: int, shard_rows: int, side: int) -> None:
    import io

    import numpy as np
    from PIL import Image

    from clipfarm_assets.contracts.label_taxonomy import DEFAULT_TAXONOMY
    from clipfarm_assets.pipelines.memes.shard_set import Made, ShardOptions, publish
    from clipfarm_assets.pipelines.progress import silent
    from clipfarm_assets.storage.images import rgb_png
    from clipfarm_assets.storage.meme_layout import MemeLayout
    from clipfarm_assets.storage.objects import ObjectStore
    from clipfarm_assets.storage.tar_shards import Sample

    random = np.random.default_rng(7)
    pictures = []
    for _ in range(_PICTURES):
        coarse = random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG")
        pictures.append(rgb_png(file.getvalue()).data)

    def make() -> "Generator[Made, None, None]":
        for n in range(shards * shard_rows):
            text = " ".join(f"word{(n * k) % 997}" for k in range(20))
            fields = {"id": f"m{n}", "labels": {"abuse_hate": n % 2}, "group": f"g{n}"}
            yield Made(Sample(f"m{n:07d}", text, pictures[n % _PICTURES], fields))

    chosen = ShardOptions(shard_rows=shard_rows)
    store = ObjectStore.open(str(place))
    report = publish(store, MemeLayout(), "train", make, DEFAULT_TAXONOMY, chosen, silent)
    assert len(report.index.shards) == shards
    answer({"rows": report.rows})


def _child(way: str, what: str, place: Path, workers: int) -> None:
    read = (_ours if way == "ours" else _plain)(what, place, workers)
    before = peak_mib()
    (rows, digest), seconds = timed(partial(_digest, read))
    answer({**seconds, "rows": rows, "digest": digest, "before_mib": before})


Rows = Iterable[tuple[str, str, Any, Any]]


def _digest(rows: Rows) -> tuple[int, str]:
    """How many rows, and a hash of all that is in them."""
    digest, count = hashlib.sha256(), 0
    for key, txt, image, fields in rows:
        digest.update(f"{key}\n{txt}\n{json.dumps(fields, sort_keys=True)}\n".encode())
        digest.update(image if isinstance(image, bytes) else image.tobytes())
        count += 1
    return count, digest.hexdigest()


def _plain(what: str, place: Path, _workers: int) -> Rows:
    from benchmarks.plain import read_shards_webdataset as plain

    shards = sorted(place.glob("memes/shards/train/*.tar"))
    return plain.read_images(shards) if what == "images" else plain.read_files(shards)


def _ours(what: str, place: Path, workers: int) -> Rows:
    from clipfarm_assets.pipelines.memes.rows import iter_images, iter_samples
    from clipfarm_assets.storage.meme_layout import MemeLayout
    from clipfarm_assets.storage.objects import ObjectStore

    def refuse(bad: object) -> None:
        raise SystemExit(f"every sample must be good: found {bad}")

    samples = iter_samples(ObjectStore.open(str(place)), MemeLayout(), "train", on_bad=refuse)
    if what == "files":
        return ((s.key, s.txt, s.png, s.json) for s in samples)
    decoded = iter_images(samples, on_bad=refuse, workers=workers)
    return ((s.key, s.txt, image, s.json) for s, image in decoded)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    elif sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:4], Path(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
