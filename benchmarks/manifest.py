"""Updating a large manifest, against the plain way. ``python -m benchmarks.manifest``.

New rows, half of them of clips that the manifest has, go into manifests of several sizes: with
pandas, and as `update_manifest` does, which publishes a delta. What readers then see must be
equal. Merging that delta into the base, and reading both merged, are shown by themselves.

Every run is a process of its own and begins with the base alone. Seconds are those of the work
without imports; the peak is the process's resident memory at its end.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

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

_TARGET = Target(10, 10)
_WAYS = ("plain", "update", "read base", "read merged", "compact")


def main() -> None:
    """Compare, and print tables."""
    parser = options(__doc__, folder="where stores are kept; default: a new one")
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 5_000_000])
    parser.add_argument("--new-rows", type=int, default=10_000)
    parser.add_argument("--shards", type=int, default=5, help="in which the new rows are")
    asked = begin(parser)
    ratios, table, updates = [], [], {}
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        for rows in asked.rows:
            place = _prepared(asked.folder or Path(temporary), rows, asked)
            runs = alternate({way: _run(way, place) for way in _WAYS}, asked.repeats)
            same({way: runs[way] for way in ("plain", "update", "read merged", "compact")})
            path = f"manifest update, {asked.new_rows} rows into {rows}"
            ratios.append(ratio_row(path, runs["plain"], runs["update"], _TARGET, per="updates"))
            updates[rows] = medians(runs["update"], "seconds")[0]
            for way in _WAYS:
                seconds, cpu, peak = medians(runs[way], "seconds", "cpu_seconds", "work_peak_mib")
                table.append([rows, way, f"{seconds:.3f}", f"{cpu:.3f}", f"{peak:.0f}"])
    print(markdown(RATIO_COLUMNS, ratios))
    print()
    print(markdown(("rows", "way", "s", "cpu s", "peak MiB"), table))
    print()
    small, large = min(updates), max(updates)
    print(
        f"An update of {large} rows takes {updates[large] / updates[small]:.2f} times the seconds "
        f"of one of {small}. All ways give the same rows; medians of {asked.repeats}."
    )


def _prepared(folder: Path, rows: int, asked: argparse.Namespace) -> Path:
    place = folder / f"manifest-rows={rows}-new={asked.new_rows}-shards={asked.shards}"
    if not (place / "ready").exists():
        made = child("benchmarks.manifest_base", [place, rows, asked.new_rows, asked.shards])
        if made:
            print(f"made {rows} rows in {made['seconds']:.0f} s", flush=True)
        shutil.copyfile(_base(place), place / "base.parquet")
        (place / "ready").touch()
    return place


def _base(place: Path) -> Path:
    return place / "store/clipfarm/fused/concat/fused_manifest.parquet"


def _run(way: str, place: Path) -> Any:
    def run() -> dict[str, Any]:
        shutil.rmtree(_base(place).parent / "manifest_deltas", ignore_errors=True)
        shutil.copyfile(place / "base.parquet", _base(place))
        if way in {"read merged", "compact"}:
            child("benchmarks.manifest", ["--child", "update", place])
        found = child("benchmarks.manifest", ["--child", way, place])
        assert found is not None
        return found

    return run


def _child(way: str, place: Path) -> None:
    if way == "plain":
        rows, seconds = _plain(place)
    else:
        rows, seconds = _ours(way, place)
    peak = peak_mib()
    answer({**seconds, "work_peak_mib": peak, "updates": 1, "digest": _digest(rows())})


def _plain(place: Path) -> Any:
    from benchmarks.plain.manifest_pandas import update

    store = place / "store"
    new = sorted((store / "clipfarm/fused/concat/shards/date=2026-02-05").iterdir())
    keys = [path.relative_to(store).as_posix() for path in new]
    base, target = _base(place).relative_to(store).as_posix(), place / "plain.parquet"
    _, seconds = timed(lambda: update(store, base, keys, target))

    def rows() -> Any:
        from clipfarm_assets.contracts.manifest_file import from_bytes

        return from_bytes(target.read_bytes(), target.name).rows

    return rows, seconds


def _ours(way: str, place: Path) -> Any:
    import pyarrow as pa

    from benchmarks.manifest_base import STRATEGY, deployment
    from clipfarm_assets.pipelines.manifest import ManifestOptions, load_manifest, update_manifest

    opened = deployment(place)
    # Where pandas is installed, pyarrow imports it when it first sees a list.
    pa.table({"a": ["b"]})
    if way.startswith("read"):
        manifest, seconds = timed(lambda: load_manifest(opened, STRATEGY))
        return lambda: manifest.rows, seconds
    options = ManifestOptions("always" if way == "compact" else "never", whole_rows=0)
    done, seconds = timed(lambda: update_manifest(opened, STRATEGY, options=options))
    if done.deltas != (way == "update"):
        raise SystemExit(f"{way} must leave {int(way == 'update')} deltas: found {done.deltas}")
    return lambda: done.manifest.rows, seconds


def _digest(rows: Any) -> str:
    """Of all values in their order."""
    import hashlib

    import polars as pl

    digest = hashlib.sha256()
    frame = pl.DataFrame(rows)
    for start in range(0, len(frame), 1 << 18):
        digest.update(frame[start : start + (1 << 18)].hash_rows(seed=0).to_numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
