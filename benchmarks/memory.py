"""Peak memory of the embedding stage by the number of items. ``python -m benchmarks.memory``.

The same stage over few and over many clips, each time in a process of its own: text by MiniLM, and
tiny clips by the demo's small video model. What is measured is the process's peak, libraries and
model included, and how much of it came after the model had embedded a first clip. The index comes
as a parquet file, as it does to a run.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.clip_store import DATE, opened, prepare
from benchmarks.common import (
    alternate,
    answer,
    begin,
    child,
    markdown,
    medians,
    options,
    peak_mib,
    timed,
)

AT_MOST: Final = 1.10
MODALITIES: Final = ("text", "video")
_COLUMNS: Final = (
    "stage", "items", "peak MiB", "of it while running", "index MiB", "s", "cpu s",
    "peak against the fewest", "at most", "verdict",
)  # fmt: skip


def main() -> None:
    parser = options(__doc__, folder="where clips and models are kept")
    parser.add_argument("--items", type=int, nargs=2, default=[100, 10_000])
    parser.add_argument("--only", choices=MODALITIES)
    asked = begin(parser)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        folder = asked.folder or Path(temporary)
        places = {count: prepare(folder, "tiny", count) for count in sorted(asked.items)}
        for place in places.values():
            child("benchmarks.memory", ["--index", place])
        for modality in [asked.only] if asked.only else MODALITIES:
            ways = {str(count): partial(_run, modality, place) for count, place in places.items()}
            rows += _rows(modality, alternate(ways, asked.repeats))
    print(markdown(_COLUMNS, rows))


def _rows(modality: str, runs: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    names = ("peak_mib", "before_mib", "index_mib", "seconds", "cpu_seconds")
    rows, fewest = [], 0.0
    for count, some in runs.items():
        peak, before, index, seconds, cpu = medians(some, *names)
        fewest = fewest or peak
        ratio = peak / fewest
        figures = [f"{value:.1f}" for value in (peak, peak - before, index, seconds, cpu)]
        verdict = "met" if ratio <= AT_MOST else "NOT MET"
        rows.append([modality, count, *figures, f"**{ratio:.3f}x**", f"{AT_MOST:g}x", verdict])
    return rows


def _run(modality: str, place: Path) -> dict[str, Any]:
    found = child("benchmarks.memory", ["--child", modality, place])
    assert found is not None  # there is no time limit
    return found


def _write_index(place: Path) -> None:
    import pyarrow.parquet as pq

    from clipfarm_assets.pipelines.index import build_index

    with opened(place) as deployment:
        pq.write_table(build_index(deployment, [DATE]).by_date[DATE], place / "index.parquet")
    answer({})


def _child(modality: str, place: Path) -> None:
    import pyarrow.parquet as pq

    from clipfarm_assets.encoders.base import Deadline, Source
    from clipfarm_assets.encoders.config import TEMPLATE_FIELDS, TextConfig, VideoConfig
    from clipfarm_assets.encoders.open import open_encoder
    from clipfarm_assets.pipelines.embed import EmbeddingStage

    with opened(place) as deployment:
        encoder = open_encoder(
            modality,
            {"text": TextConfig, "video": VideoConfig}[modality](device="cpu"),
            profile="demo",  # for text that is the packaged MiniLM
            cache_dir=place.parent / "models",
            models_lock=deployment.models_lock(),
        )
        index = pq.read_table(place / "index.parquet")
        row = index.slice(0, 1).to_pylist()[0]
        raw = deployment.store.get(deployment.layout.raw(modality, row["video_id"]))
        source = Source("first", raw, {name: row[name] for name in TEMPLATE_FIELDS})
        encoder.encode([encoder.prepare(source, Deadline.after(60))])
        before = peak_mib()
        stage = EmbeddingStage(
            deployment, modality, lambda: encoder, say=partial(print, file=sys.stderr, flush=True)
        )
        reports, seconds = timed(lambda: stage.run({DATE: index}))
        done = reports[DATE].statuses
        if done != {"success": index.num_rows}:
            raise SystemExit(f"all of {index.num_rows} clips must be embedded, found {done}")
    answer({**seconds, "before_mib": before, "index_mib": index.nbytes / 2**20})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--index"]:
        _write_index(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
