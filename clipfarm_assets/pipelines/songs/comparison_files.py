"""What a comparison of strategies leaves for people: tables, every prediction, and plots."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.pipelines.songs.judged import subset_name
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets.training.classification import modality_plots, plots
from clipfarm_assets.training.classification.confidence import Difference
from clipfarm_assets.training.classification.degradation import Degradation
from clipfarm_assets.training.classification.metrics import (
    METRICS,
    calibration_bins,
    confusion_matrix,
)
from clipfarm_assets.training.song_snapshot import modality_of

if TYPE_CHECKING:
    from clipfarm_assets.pipelines.songs.comparison import JudgedSplit
    from clipfarm_assets.pipelines.songs.judged import JudgedModel

WITH_DROPOUT: Final = "as trained"
WITHOUT_DROPOUT: Final = "without modality dropout"

_DRAWN: Final = ("accuracy", "macro_f1", "auroc", "ece", "nll")


def comparison_csv(splits: "Iterable[JudgedSplit]") -> bytes:
    """A row a split, model and subset of modalities.

    Columns: ``split, model, modalities, rows``, the metrics, and the interval of macro-F1 where
    the model sees all that it can.
    """
    rows = [
        {
            "split": judged.rows.split,
            "model": name,
            "modalities": modalities,
            "rows": len(judged.rows.labels),
            **{metric: scores[metric] for metric in METRICS},
            "macro_f1_low": model.metrics["macro_f1"].low if is_whole else None,
            "macro_f1_high": model.metrics["macro_f1"].high if is_whole else None,
        }
        for judged in splits
        for name, model in judged.models.items()
        for modalities, scores, is_whole in _by_subset(model)
    ]
    return _csv(rows)


def _by_subset(model: "JudgedModel") -> list[tuple[str, Mapping[Any, float | None], bool]]:
    alone = modality_of(model.model)
    if alone is not None:
        return [(alone, {name: each.value for name, each in model.metrics.items()}, True)]
    return [
        (subset_name(subset), scores, subset == MODALITIES)
        for subset, scores in model.by_subset.items()
    ]


def shapley_csv(splits: "Iterable[JudgedSplit]") -> bytes:
    """Columns ``split, model, modality, share``: of the macro-F1 that all modalities add."""
    return _csv(
        {"split": judged.rows.split, "model": name, "modality": modality, "share": share}
        for judged in splits
        for name, model in judged.models.items()
        for modality, share in model.shapley.items()
    )


def degradation_csv(splits: "Iterable[JudgedSplit]", bounds: Mapping[str, float]) -> bytes:
    """A row a split, strategy, way of training and modality that is taken away.

    Columns: ``split, model, trained, removed, macro_f1, lost, low, high, bound, is_within,
    affected, lost_of_affected, lost_of_affected_low, lost_of_affected_high``.
    """
    return _csv(
        {
            "split": judged.rows.split,
            "model": name,
            "trained": trained,
            "removed": removed,
            "macro_f1": each.macro_f1,
            "lost": each.lost.value,
            "low": each.lost.low,
            "high": each.lost.high,
            "bound": bounds[removed],
            "is_within": each.is_within(bounds[removed]),
            "affected": each.affected,
            **_of_affected(each.lost_of_affected),
        }
        for judged in splits
        for name, kinds in losses(judged).items()
        for trained, found in kinds.items()
        for removed, each in found.items()
    )


def _of_affected(lost: Difference | None) -> dict[str, float | None]:
    name = "lost_of_affected"
    if lost is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    return {name: lost.value, f"{name}_low": lost.low, f"{name}_high": lost.high}


def told_of_affected(found: Mapping[str, Any]) -> str:
    """What segments lose that had the modality and have another one left, in words.

    Args:
        found: Of a strategy, way of training and modality, as ``comparison.json`` has it under
            ``degradation``.
    """
    lost = found["lost_of_affected"]
    if lost is None:
        return "no segment had it"
    interval = f"{lost['low']:+.2f} to {lost['high']:+.2f}"
    return f"{lost['value']:+.3f} ({interval}) of {found['affected']}"


def losses(judged: "JudgedSplit") -> dict[str, dict[str, Mapping[str, Degradation]]]:
    """Strategy -> way of training -> modality taken away -> what that costs."""
    found: dict[str, dict[str, Mapping[str, Degradation]]] = {
        name: {WITH_DROPOUT: model.degradation}
        for name, model in judged.models.items()
        if model.degradation
    }
    for name, twin in judged.without_dropout.items():
        found[name][WITHOUT_DROPOUT] = twin.degradation
    return found


def predictions_parquet(splits: "Iterable[JudgedSplit]") -> bytes:
    """One row a segment and model.

    Columns: ``split, id, group, model, label, predicted``, the last two numbers of classes,
    ``text, audio, midi``, which it has, and ``probabilities``, calibrated, one a class.
    """
    frames = [
        pl.DataFrame(
            {
                "split": [judged.rows.split] * len(judged.rows.labels),
                "id": judged.rows.ids.tolist(),
                "group": judged.rows.groups.tolist(),
                "model": [name] * len(judged.rows.labels),
                "label": judged.rows.labels,
                "predicted": model.predicted,
                **{str(m): judged.rows.present[:, n] for n, m in enumerate(MODALITIES)},
                "probabilities": model.probabilities.tolist(),
            }
        )
        for judged in splits
        for name, model in judged.models.items()
    ]
    return table_to_parquet(pl.concat(frames).to_arrow())


def comparison_plots(
    classes: Sequence[str],
    judged: "JudgedSplit",
    best: str,
    bounds: Mapping[str, float],
    norms: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, bytes]:
    """``plots/<name>.png`` -> bytes.

    Args:
        classes: Names.
        judged: The rows to show.
        best: The strategy to show in full.
        bounds: Modality -> most macro-F1 that may be lost where it is taken away.
        norms: Model -> modality -> gradient norm of each epoch.
    """
    rows = judged.rows
    title = f"{len(rows.labels)} segments of {rows.split}"
    models = judged.models
    fused = {name: model for name, model in models.items() if model.by_subset}
    return {
        "plots/subsets.png": modality_plots.subsets_png(
            {
                name: {subset_name(s): found["macro_f1"] for s, found in model.by_subset.items()}
                for name, model in fused.items()
            },
            f"macro-F1 by modalities shown, {title}",
        ),
        "plots/shapley.png": modality_plots.shares_png(
            {name: model.shapley for name, model in fused.items()},
            f"Shapley shares of macro-F1, {title}",
        ),
        "plots/degradation.png": modality_plots.degradation_png(
            {
                name: {
                    kind: {removed: each.lost.value for removed, each in found.items()}
                    for kind, found in kinds.items()
                }
                for name, kinds in losses(judged).items()
            },
            bounds,
            f"macro-F1 lost where a modality is taken away, {title}",
        ),
        "plots/gradients.png": modality_plots.gradients_png(
            norms, "gradient norms, before clipping"
        ),
        "plots/intervals.png": plots.intervals_png(
            {name: dict(model.metrics.items()) for name, model in models.items()}, _DRAWN, title
        ),
        "plots/reliability.png": plots.reliability_png(
            {best: calibration_bins(rows.labels, models[best].probabilities)}, title
        ),
        "plots/confusion.png": plots.confusion_png(
            {best: confusion_matrix(rows.labels, models[best].predicted, len(classes))},
            classes,
            title,
        ),
    }


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return pl.DataFrame(list(rows), infer_schema_length=None).write_csv().encode()
