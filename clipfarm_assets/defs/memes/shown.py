"""What the UI shows of memes: problems by kind, learning curves, metrics with their intervals."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from clipfarm_assets.orchestration import metadata, plots
from clipfarm_assets.orchestration.metadata import Metadata
from clipfarm_assets.pipelines.memes.evaluation import Evaluation
from clipfarm_assets.pipelines.memes.manifest import ProblemCounts

_SHOWN = 20


def problems(found: ProblemCounts, prefix: str = "problem") -> Metadata:
    """A count a kind, and the first few of each in words."""
    samples = [
        {"kind": kind, "what": what} for kind, some in found.samples.items() for what in some
    ]
    return {
        f"{prefix}s": sum(found.counts.values()),
        **{f"{prefix}/{kind}": n for kind, n in found.counts.items()},
        f"{prefix}_samples": metadata.records(samples),
    }


def counts_by(name: str, found: Mapping[Any, Mapping[str, Any]]) -> dg.TableMetadataValue:
    """A row a key: the key under `name`, then its counts."""
    return metadata.records([{name: str(key), **counts} for key, counts in found.items()])


def curve(curves: Mapping[str, Mapping[str, Any]], title: str) -> Metadata:
    """Learning curves as a picture, and their ends as numbers."""
    from clipfarm_assets.training.classification.plots import curves_png

    shown: Metadata = {}
    for name, found in curves.items():
        losses = found["train_loss"]
        shown |= {
            f"{name}/epochs": len(losses),
            f"{name}/best_epoch": found["best_epoch"],
            f"{name}/first_train_loss": metadata.rounded(losses[0]),
            f"{name}/last_train_loss": metadata.rounded(losses[-1]),
        }
    return {**shown, "plot/curves": plots.inline_png(curves_png(curves, title), "learning curves")}


def evaluation(found: Evaluation) -> Metadata:
    """Metrics, the verdict, what serves, and every plot."""
    verdict, version = found.verdict, found.served.version
    rows = [
        {
            "split": split,
            "system": system,
            **{name: _with_interval(interval) for name, interval in metrics.items()},
        }
        for split, judged in found.splits.items()
        for system, metrics in judged.metrics.items()
    ]
    subsets = [
        {"split": split, "fusion_sees": "+".join(subset) or "nothing", "macro_f1": round(score, 4)}
        for split, judged in found.splits.items()
        for subset, score in judged.by_subset.items()
    ]
    calibration = [
        {
            "system": system,
            "temperature": metadata.rounded(each.temperature.value),
            "threshold": metadata.rounded(each.cut),
            "val_ece_before": metadata.rounded(each.temperature.ece_before),
            "val_ece_after": metadata.rounded(each.temperature.ece_after),
            "note": each.temperature.why_neutral,
        }
        for system, each in found.calibration.items()
    ]
    pictures = {
        f"plot/{name.removeprefix('plots/').removesuffix('.png')}": plots.inline_png(png, name)
        for name, png in sorted(found.plots.items())
    }
    return {
        "verdict": found.title,
        "verdict_told": str(verdict),
        "lower_bound": metadata.rounded(verdict.difference.low),
        "difference": metadata.rounded(verdict.difference.value),
        "serves": version.system,
        "model_version": version.model_version,
        "registry": found.served.what,
        "previous": found.served.previous or "none",
        "fusion_model": str(found.fusion),
        **{f"expert/{name}": title for name, title in found.experts.items()},
        "metrics": metadata.records(rows),
        "fusion_by_modalities": metadata.records(subsets),
        "calibration": metadata.records(calibration),
        **pictures,
        "seconds": round(found.seconds, 3),
    }


def _with_interval(interval: Any) -> str:
    if interval.value is None:
        return "n/a"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def first_problems(found: Any) -> dg.TableMetadataValue:
    """Some of a list of `RowProblem`."""
    return metadata.records(
        [{"kind": p.kind, "where": p.where, "detail": p.detail} for p in found[:_SHOWN]]
    )
