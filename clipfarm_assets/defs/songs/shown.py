"""What the UI shows of songs: coverage, gradients, and the strategies side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from clipfarm_assets.contracts.song_segments import MODALITIES, Segment, coverage_by_album
from clipfarm_assets.orchestration import metadata, plots
from clipfarm_assets.orchestration.metadata import Metadata
from clipfarm_assets.pipelines.songs.comparison import Comparison
from clipfarm_assets.pipelines.songs.comparison_files import losses
from clipfarm_assets.pipelines.songs.judged import subset_name


def coverage(segments: Sequence[Segment]) -> Metadata:
    """How many segments of each album have which modality, as the metadata says."""
    rows = [
        {"album": album, "segments": found.segments}
        | {modality: round(found.share(modality), 4) for modality in MODALITIES}
        for album, found in coverage_by_album(segments).items()
    ]
    return {"albums": len(rows), "coverage": metadata.records(rows)}


def gradients(found: Mapping[str, Any]) -> Metadata:
    """Norms of the last epoch by modality, and how far they are apart."""
    last = {f"gradient/{name}": metadata.rounded(n[-1]) for name, n in found["norms"].items() if n}
    apart = [ratio for ratio in found["strongest_to_weakest"] if ratio is not None]
    return {
        **last,
        "gradient_ratio_most": metadata.rounded(max(apart, default=None)),
        "gradient_ratio_last": metadata.rounded(apart[-1] if apart else None),
        "gradient_ratio_allowed": metadata.rounded(found["ratio"]),
        "epochs_out_of_balance": len(found["advice"]),
    }


def comparison(found: Comparison) -> Metadata:
    """Metrics with their intervals, subsets, Shapley shares, what is lost, verdicts and plots."""
    models = [
        {
            "split": split,
            "model": name,
            **{metric: metadata.with_interval(each) for metric, each in model.metrics.items()},
        }
        for split, judged in found.splits.items()
        for name, model in judged.models.items()
    ]
    decided = found.decided
    subsets = [
        {"model": name}
        | {subset_name(s): metadata.rounded(x["macro_f1"]) for s, x in model.by_subset.items()}
        for name, model in decided.models.items()
        if model.by_subset
    ]
    shares = [
        {"model": name} | {m: metadata.rounded(share) for m, share in model.shapley.items()}
        for name, model in decided.models.items()
        if model.shapley
    ]
    bounds = found.bounds
    lost = [
        {"model": name, "trained": trained}
        | {f"without {removed}": metadata.rounded(x.lost.value) for removed, x in each.items()}
        | {"within": all(x.is_within(bounds[removed]) for removed, x in each.items())}
        for name, kinds in losses(decided).items()
        for trained, each in kinds.items()
    ]
    return {
        "best_on_val": found.best,
        "decided_on": decided.rows.split,
        "segments": len(decided.rows.labels),
        **{f"verdict/{name}": str(verdict) for name, verdict in decided.verdicts.items()},
        "metrics": metadata.records(models),
        "macro_f1_by_modalities": metadata.records(subsets),
        "shapley_shares": metadata.records(shares),
        "macro_f1_lost": metadata.records(lost),
        **{f"most_that_may_be_lost/{removed}": bound for removed, bound in bounds.items()},
        "notes": "; ".join(found.notes) or "none",
        **{f"model/{name}": str(each) for name, each in found.models.items()},
        **plots.inline_files(found.plots),
        "seconds": round(found.seconds, 3),
    }
