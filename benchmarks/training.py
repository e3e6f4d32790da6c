"""Fitting each model family on planted data. ``python -m benchmarks.training``.

A family is fitted on the train rows of the random split with the suite's default settings, in a
process of its own that reads the stored dataset. The peak is that of the whole process; the column
before it is what the process held when the fit began, dataset and libraries included.
"""

import tempfile
from pathlib import Path

from benchmarks.common import answer, begin, child, markdown, options, peak_mib, timed
from benchmarks.planted import HORIZON, STRATEGY, deployment, prepare


def main() -> None:
    from clipfarm_assets.training.families import FAMILIES

    parser = options(__doc__, repeats=None, folder="where stores are kept; default: a new one")
    parser.add_argument("--rows", type=int, nargs="+", default=[2700, 50_000])
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--timeout-seconds", type=float, default=1800)
    asked = begin(parser)
    table: list[list[object]] = []
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as temporary:
        folder = asked.folder or Path(temporary)
        for rows in asked.rows:
            place = prepare(folder, rows, 0)
            child("benchmarks.training", ["--assemble", place])
            for family in asked.families:
                run = child("benchmarks.training", ["--fit", place, family], asked.timeout_seconds)
                table.append([rows, family, *_cells(run, asked.timeout_seconds)])
                print(f"{rows} rows, {family}: {table[-1][2:]}", flush=True)
    columns = ("rows", "family", "fit s", "cpu s", "MiB before", "peak MiB", "test r2_log")
    print(markdown(columns, table))


def _cells(run: dict | None, limit: float) -> list[object]:
    if run is None:
        return [f"over {limit:.0f}", "", "", "", ""]
    figures = [f"{run[name]:.0f}" for name in ("before_mib", "peak_mib")]
    times = [f"{run[name]:.1f}" for name in ("seconds", "cpu_seconds")]
    return [*times, *figures, f"{run['r2_log']:.3f}"]


def _assemble(place: Path) -> None:
    from clipfarm_assets.pipelines.assemble import assemble
    from clipfarm_assets.training.dataset_file import write_dataset

    opened = deployment(place)
    data, seconds = timed(lambda: assemble(opened, STRATEGY, HORIZON))
    write_dataset(opened.store, opened.layout, data)
    answer(seconds)


def _fit(place: Path, family: str) -> None:
    from clipfarm_assets.training.config import SuiteConfig
    from clipfarm_assets.training.dataset_file import read_dataset
    from clipfarm_assets.training.families import open_family
    from clipfarm_assets.training.metadata_encoder import MetadataEncoder
    from clipfarm_assets.training.metrics import regression_metrics

    opened = deployment(place)
    data = read_dataset(opened.store, opened.layout, STRATEGY, HORIZON)
    train, val, test = (data.part("random", part) for part in ("train", "val", "test"))
    encoder = MetadataEncoder.fit(train.clips.metadata, data.contract)
    module = open_family(family)
    config = SuiteConfig()
    before = peak_mib()
    model, seconds = timed(
        lambda: module.fit(train, val, encoder, config, config.seed, lambda _line: None)
    )
    metrics = regression_metrics(test.target_log, model.predict(test.clips))
    answer({**seconds, "before_mib": before, "r2_log": metrics["r2_log"]})


if __name__ == "__main__":
    import sys

    if sys.argv[1:2] == ["--assemble"]:
        _assemble(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--fit"]:
        _fit(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
