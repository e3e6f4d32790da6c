"""What the UI shows of memes: metrics with their intervals, and the first problems of a list."""

from typing import Any

import dagster as dg

from clipfarm_assets.orchestration import metadata, plots
from clipfarm_assets.orchestration.metadata import Metadata
from clipfarm_assets.pipelines.memes.evaluation import Evaluation

_SHOWN = 20


def evaluation(found: Evaluation) -> Metadata:
    """Metrics, the verdict, what serves, and every plot."""
    verdict, version = found.verdict, found.served.version
    rows = [
        {
            "split": split,
            "system": system,
            **{name: metadata.with_interval(interval) for name, interval in metrics.items()},
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
        **plots.inline_files(found.plots),
        "seconds": round(found.seconds, 3),
    }


def first_problems(found: Any) -> dg.TableMetadataValue:
    """Some of a list of `RowProblem`."""
    return metadata.records(
        [{"kind": p.kind, "where": p.where, "detail": p.detail} for p in found[:_SHOWN]]
    )
