"""A backfill of many dates as one run, against a run a date. ``python -m benchmarks.backfill``.

Each run is the process that a run launcher starts: it loads the definitions, plans, and starts a
step process each from the fork server. Encoders are the demo's stand-ins on small real media, so
what is compared is the cost of runs; models of real size add the same to both ways.

Of the single runs a round does some dates only, spread over all; the rate per date is compared.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.common import (
    RATIO_COLUMNS,
    Target,
    alternate,
    begin,
    markdown,
    options,
    ratio_row,
    same,
    timed,
)

FIRST = date(2026, 2, 5)
JOB = "clips_daily"
MEDIA = 20
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--dates", type=int, default=30)
    parser.add_argument("--clips", type=int, default=20, help="clips of a date")
    parser.add_argument("--single", type=int, default=6, help="dates a round of single runs does")
    asked = begin(parser)
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        folder = Path(temporary)
        make_store(folder / "made", asked.dates, asked.clips)
        days = [FIRST + timedelta(days=n) for n in range(asked.dates)]
        some = days[:: max(1, len(days) // asked.single)][: asked.single]
        runs = alternate(
            {
                "single runs": lambda: _way(folder, [(day, day) for day in some], some, days[-1]),
                "one range": lambda: _way(folder, [(days[0], days[-1])], some, days[-1]),
            },
            asked.repeats,
        )
        same(runs)
    row = ratio_row(
        f"backfill of {asked.dates} dates with {asked.clips} clips each",
        runs["single runs"],
        runs["one range"],
        Target(5, 10),
        per="dates",
    )
    print(markdown(RATIO_COLUMNS, [row]))


def make_store(place: Path, dates: int, clips: int) -> None:
    """A folder store of `dates` days with `clips` real clips each; their media recur."""
    from clipfarm_assets.contracts.horizon_csv import parse_captured_at
    from clipfarm_assets.contracts.statuses import MODALITIES
    from clipfarm_assets.demo.edge_cases import EDGE_CASES
    from clipfarm_assets.demo.horizon_csv import rows_of, to_csv
    from clipfarm_assets.demo.plan import plan_sample
    from clipfarm_assets.demo.sample_store import raw_objects, text_states
    from clipfarm_assets.demo.text_state import text_state_sqlite
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.objects import ObjectStore

    hard = {case.video_id for case in EDGE_CASES}
    enough = dates * clips // 2 + len(hard)
    plan = [c for c in plan_sample(clips_per_date=enough).clips if c.video_id not in hard]
    plan = [clip for clip in plan if clip.video and clip.audio and clip.text]
    store, layout = ObjectStore.open(str(place / "store")), Layout()
    media: list[dict[str, bytes]] = []
    moved = []
    for number, clip in enumerate(plan[: dates * clips]):
        day = (FIRST + timedelta(days=number // clips)).isoformat()
        seen = [
            replace(o, captured_at=f"{day}T{_time(parse_captured_at(o.captured_at))}Z")
            for o in clip.observations[-1:]
        ]
        moved.append(replace(clip, date=day, observations=tuple(seen)))
        if len(media) < MEDIA:
            media.append({kind: data for kind, _, data in raw_objects(clip, layout)})
        for modality in MODALITIES:
            store.put(layout.raw(modality, clip.video_id), media[number % MEDIA][modality])
    if len(moved) < dates * clips:
        raise SystemExit(f"the sample has {len(moved)} ordinary clips, {dates * clips} are needed")
    store.put(layout.text_downloader_state(), text_state_sqlite(list(text_states(moved, layout))))
    store.put(layout.metadata(), to_csv([row for clip in moved for row in rows_of(clip)]))


def _time(captured: datetime | None) -> str:
    return captured.strftime("%H:%M:%S") if captured else "12:00:00"


def _way(
    folder: Path, ranges: Sequence[tuple[date, date]], compared: Iterable[date], last: date
) -> dict[str, Any]:
    """Run the job over each range on a fresh copy of the store; the digest is of `compared`."""
    place = folder / "run"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder / "made", place)
    home = place / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("CLIPFARM_", "DAGSTER_"))}
    environ |= {
        "DAGSTER_HOME": str(home),
        "CLIPFARM_STORE": str(place / "store"),
        "CLIPFARM_ENCODERS": "demo",
        "CLIPFARM_START_DATE": FIRST.isoformat(),
        "CLIPFARM_END_DATE": (last + timedelta(days=1)).isoformat(),
        "HF_HUB_OFFLINE": "1",
    }
    _, seconds = timed(lambda: [_run(first, end, environ) for first, end in ranges])
    dates = sum((end - first).days + 1 for first, end in ranges)
    return {**seconds, "dates": dates, "digest": _digest(place, compared)}


def _run(first: date, last: date, environ: dict[str, str]) -> None:
    if first == last:
        tags = {"dagster/partition": first.isoformat()}
    else:
        tags = {
            "dagster/asset_partition_range_start": first.isoformat(),
            "dagster/asset_partition_range_end": last.isoformat(),
        }
    command = ["dagster", "job", "execute", "-m", "clipfarm_assets.definitions", "-j", JOB]
    done = subprocess.run(  # our own command, no shell
        [sys.executable, "-m", *command, "--tags", json.dumps(tags)],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout)


def _digest(place: Path, dates: Iterable[date]) -> str:
    """A hash over every vector of the clips of these dates."""
    import hashlib

    from clipfarm_assets.contracts.statuses import MODALITIES
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.objects import ObjectStore
    from clipfarm_assets.storage.tables import parquet_to_table

    store, layout, digest = ObjectStore.open(str(place / "store")), Layout(), hashlib.sha256()
    for day in dates:
        index = parquet_to_table(store.get(layout.clip_index(day.isoformat())))
        for video_id in index["video_id"].to_pylist():
            for modality in MODALITIES:
                digest.update(store.get(layout.embedding(modality, video_id)))
    return digest.hexdigest()


if __name__ == "__main__":
    main()
