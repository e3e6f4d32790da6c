"""How well each family predicts, over several random splits. ``python -m benchmarks.families``.

One split of a small set says little: of 80 test rows, R2 moves by 0.1 from split to split. So each
family is fitted on `--seeds` random splits, and once on each of the other kinds. Sets: the plain
and the harder planted law (`clipfarm_assets/demo/planted_law.py`) at vector level, and, with
``--store``, the datasets of a deployment, such as ``.demo/store`` after ``make demo``.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from benchmarks.common import answer, begin, child, markdown, options
from benchmarks.planted import deployment

_KINDS = ("chronological", "grouped", "chronological_grouped")


def main() -> None:
    from clipfarm_assets.training.families import FAMILIES

    parser = options(__doc__, repeats=None)
    parser.add_argument("--rows", type=int, default=2700)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--store", type=Path, help="a deployment's folder, judged as well")
    parser.add_argument("--strategy", default="concat")
    asked = begin(parser)
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        for name, place, attainable in _sets(asked, Path(temporary)):
            for horizon in (7, 30):
                told = f", attainable {attainable[horizon]:.3f}" if attainable else ""
                print(f"\n{name}, {horizon} days{told}: R2 of log1p(views) on test\n", flush=True)
                runs = [
                    child(
                        "benchmarks.families",
                        ["--judge", place, asked.strategy, horizon, family, asked.seeds],
                    )
                    for family in asked.families
                ]
                print(_table(asked.families, runs), flush=True)


def _sets(asked, folder: Path) -> Iterator[tuple[str, Path, dict[int, float]]]:
    if asked.store:
        yield str(asked.store), asked.store, {}
    from clipfarm_assets.demo.planted_law import attainable_r2

    for name, hard in (("plain", False), ("harder", True)):
        place = folder / name
        child("benchmarks.families", ["--make", place, asked.rows, int(hard), asked.strategy])
        attainable = {horizon: attainable_r2(horizon, hard=hard) for horizon in (7, 30)}
        yield f"{name} law, {asked.rows} clips", place / "store", attainable


def _table(families, runs) -> str:
    rows = []
    for family, run in zip(families, runs, strict=True):
        found = run["random"]
        error = stdev(found) / len(found) ** 0.5 if len(found) > 1 else float("nan")
        others = ["" if run[k] is None else f"{run[k]:.3f}" for k in _KINDS]
        rows.append([family, f"{mean(found):.3f} ± {error:.3f}", *others, f"{run['seconds']:.1f}"])
    return markdown(("family", "random, mean ± s.e.", *_KINDS, "s a fit"), rows)


def _make(place: Path, rows: int, hard: bool, strategy: str) -> None:
    from clipfarm_assets.demo.planted_vectors import make_planted_store
    from clipfarm_assets.pipelines.assemble import assemble
    from clipfarm_assets.training.dataset_file import write_dataset

    opened = deployment(place)
    make_planted_store(
        opened.store, opened.layout, clips=rows, seed=1, hard=hard, strategies=(strategy,)
    )
    for horizon in (7, 30):
        write_dataset(opened.store, opened.layout, assemble(opened, strategy, horizon))
    answer({})


def _judge(store: str, strategy: str, horizon: int, family: str, seeds: int) -> None:
    from clipfarm_assets.storage.layout import Layout
    from clipfarm_assets.storage.objects import ObjectStore
    from clipfarm_assets.training.config import SuiteConfig
    from clipfarm_assets.training.dataset_file import read_dataset
    from clipfarm_assets.training.splits import RATIOS, make_splits
    from clipfarm_assets.training.suite import fit_split

    data = read_dataset(ObjectStore.open(store), Layout(), strategy, horizon)

    def judged(kind: str, seed: int) -> tuple[float, float]:
        splits, _ = make_splits(
            data.clips.video_ids,
            data.captured_at,
            data.clips.channel_id,
            data.duplicate_groups,
            RATIOS,
            seed,
        )
        drawn = replace(data, splits=splits)
        result = fit_split(drawn, kind, [family], SuiteConfig(seed=seed), lambda _line: None)
        fitted = result.families[family]
        return fitted.scores["test"]["r2_log"], fitted.seconds

    random = [judged("random", seed) for seed in range(seeds)]
    others = {k: judged(k, 42)[0] if k in data.splits else None for k in _KINDS}
    answer({"random": [r2 for r2, _ in random], "seconds": mean(s for _, s in random), **others})


if __name__ == "__main__":
    import sys

    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]), int(sys.argv[3]), bool(int(sys.argv[4])), sys.argv[5])
    elif sys.argv[1:2] == ["--judge"]:
        _judge(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
    else:
        main()
