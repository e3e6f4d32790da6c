"""Assembling training data, against the plain row-by-row way. ``python -m benchmarks.assemble``.

Both ways give the fused vector and the three modality vectors of every labelled clip; their values
are compared. Ours also verifies shards, makes features, finds duplicates and draws four splits.
They run alternately, each time in a new process. After the first run files are in the page cache.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

from benchmarks.common import answer, begin, child, markdown, medians, options, timed
from benchmarks.planted import HORIZON, STRATEGY, deployment, prepare


def main() -> None:
    parser = options(__doc__, repeats=3, folder="where stores are kept; default: a new one")
    parser.add_argument("--rows", type=int, nargs="+", default=[2700, 50_000])
    parser.add_argument("--plain-rows", type=int, default=2700, help="most rows the plain way does")
    asked = begin(parser)
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        folder = asked.folder or Path(temporary)
        table = [line for rows in asked.rows for line in _compare(folder, rows, asked)]
    columns = ("rows in the store", "way", "rows assembled", "s", "cpu s", "rows/s", "peak MiB")
    print(markdown(columns, table))


def _compare(folder: Path, rows: int, asked: argparse.Namespace) -> list[list[object]]:
    part = min(rows, asked.plain_rows)
    place = prepare(folder, rows, part)
    ours, plain = [], []
    for _ in range(asked.repeats):
        ours.append(child("benchmarks.assemble", ["--child", "ours", place, part]))
        plain.append(child("benchmarks.assemble", ["--child", "plain", place, part]))
    same = {run["digest"] for run in (*ours, *plain)}
    if len(same) != 1:
        msg = f"the two ways must give the same vectors of the first {part} rows: found {same}"
        raise SystemExit(msg)
    names = ("seconds", "cpu_seconds", "peak_mib")
    seconds, cpu, peak = medians(ours, *names)
    plain_seconds, plain_cpu, plain_peak = medians(plain, *names)
    count = ours[0]["rows"]
    subset = "" if part == rows else f" (a part: the first {part} by id)"
    wall_ratio = (count / seconds) / (part / plain_seconds)
    cpu_ratio = (count / cpu) / (part / plain_cpu)
    print(
        f"{rows} rows: {wall_ratio:.1f} times the rows per second of the plain way, "
        f"{cpu_ratio:.1f} times by processor time, same values; "
        f"medians of {asked.repeats}{subset and f'; the plain way did {part} rows'}",
        flush=True,
    )
    return [
        [
            rows,
            "assemble",
            count,
            f"{seconds:.2f}",
            f"{cpu:.2f}",
            f"{count / seconds:.0f}",
            f"{peak:.0f}",
        ],
        [
            rows,
            f"row by row{subset}",
            part,
            f"{plain_seconds:.2f}",
            f"{plain_cpu:.2f}",
            f"{part / plain_seconds:.0f}",
            f"{plain_peak:.0f}",
        ],
    ]


def _child(way: str, place: Path, part: int) -> None:
    if way == "ours":
        from clipfarm_assets.pipelines.assemble import assemble

        opened = deployment(place)
        data, seconds = timed(lambda: assemble(opened, STRATEGY, HORIZON))
        found, ids = data.clips, data.clips.video_ids.tolist()
    else:
        from benchmarks.plain.assemble_rows import assemble_rows

        found, seconds = timed(lambda: assemble_rows(place / "store", STRATEGY, HORIZON, part))
        ids = found.video_ids
    digest = hashlib.sha256("\n".join(ids[:part]).encode())
    for name in ("fused", "video", "audio", "text"):
        digest.update(getattr(found, name)[:part].tobytes())
    answer({**seconds, "rows": len(ids), "digest": digest.hexdigest()})


if __name__ == "__main__":
    import sys

    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
