"""Loading the definitions, as every run does. ``python -m benchmarks.definitions``."""

import sys
from statistics import median

from benchmarks.common import answer, begin, child, markdown, options, timed

LIMIT_SECONDS, AIM_SECONDS = 3.0, 2.0
MODEL_LIBRARIES = ("torch", "transformers", "sentence_transformers", "sklearn", "librosa")


def main() -> None:
    parser = options(__doc__)
    asked = begin(parser)
    rows = []
    for what in ("dagster", "clipfarm_assets.definitions"):
        runs = [child("benchmarks.definitions", ["--child", what]) for _ in range(asked.repeats)]
        seconds = median(run["seconds"] for run in runs if run)
        heavy = sorted({name for run in runs if run for name in run["model_libraries"]})
        verdict = (
            "aim met"
            if seconds <= AIM_SECONDS
            else "met"
            if seconds <= LIMIT_SECONDS
            else "NOT MET"
        )
        rows.append([what, f"{seconds:.2f}", ", ".join(heavy) or "none", verdict])
    print(markdown(("imported", "s", "model libraries loaded", "under 3 s, aim 2 s"), rows))


def _child(what: str) -> None:
    import importlib

    _, seconds = timed(lambda: importlib.import_module(what))
    answer({**seconds, "model_libraries": [m for m in MODEL_LIBRARIES if m in sys.modules]})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2])
    else:
        main()
