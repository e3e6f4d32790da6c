"""How well models of songs tell classes on the rows of one split, and what each modality is worth.

Knows nothing of networks: it is given what they said.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.training.classification.calibrated import Calibration
from clipfarm_assets.training.classification.confidence import Interval, intervals
from clipfarm_assets.training.classification.degradation import Degradation, degradations
from clipfarm_assets.training.classification.metrics import (
    Metric,
    classification_metrics,
    macro_f1,
)
from clipfarm_assets.training.classification.subsets import Subset, shapley
from clipfarm_assets.training.classification.values import Labels
from clipfarm_assets.training.classification.verdict import FusionVerdict, judge_fusion
from clipfarm_assets.training.metrics import Doubles
from clipfarm_assets.training.song_config import EvaluationConfig
from clipfarm_assets.training.song_snapshot import modality_of

Scores = Mapping[Metric, float | None]

NOTHING: Final = "none"
"""How the subset without any modality is called."""


def subset_name(subset: Subset) -> str:
    """``text+audio``, or ``none``."""
    return "+".join(subset) or NOTHING


@dataclass(frozen=True)
class JudgedRows:
    """N labelled rows of a split.

    Attributes:
        split: Which.
        ids: ``(N,)``, of segments.
        groups: ``(N,)``, what rows are resampled by: songs, or albums.
        labels: int64 ``(N,)``.
        present: bool ``(N, 3)``: what each row has, in the order of `MODALITIES`.
    """

    split: Split
    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: Labels
    present: NDArray[np.bool_]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which rows have all modalities, bool ``(N,)``."""
        return np.asarray(self.present.all(axis=1))

    def to_fields(self) -> dict[str, Any]:
        """How many there are, as a JSON object."""
        return {
            "rows": len(self.labels),
            "groups": len(np.unique(self.groups)),
            "complete": int(self.complete.sum()),
            "present": {
                name: int(self.present[:, column].sum()) for column, name in enumerate(MODALITIES)
            },
        }


@dataclass(frozen=True)
class JudgedModel:
    """A model on N rows; what is decided is decided by its calibration.

    Attributes:
        model: A strategy, or one modality alone.
        probabilities: float64 ``(N, C)``, calibrated, with all that the rows have.
        predicted: int64 ``(N,)``.
        metrics: With intervals.
        complete_macro_f1: Of the rows that have all modalities; None if there are none.
        by_subset: Modalities shown -> metrics; of one alone, nothing.
        shapley: Each modality's share of the macro-F1 that all of them add; likewise.
        degradation: Modality taken away -> what that costs; likewise.
    """

    model: str
    probabilities: Doubles
    predicted: Labels
    metrics: Mapping[Metric, Interval]
    complete_macro_f1: float | None
    by_subset: Mapping[Subset, Scores]
    shapley: Mapping[str, float]
    degradation: Mapping[str, Degradation]

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        fields: dict[str, Any] = {
            "metrics": {name: asdict(interval) for name, interval in self.metrics.items()},
            "complete_macro_f1": self.complete_macro_f1,
        }
        if self.by_subset:
            fields |= {
                "by_subset": {subset_name(s): dict(found) for s, found in self.by_subset.items()},
                "shapley": dict(self.shapley),
                "degradation": {m: each.to_fields() for m, each in self.degradation.items()},
            }
        return fields


def judge_model(
    model: str,
    rows: JudgedRows,
    logits: Mapping[Subset, Doubles],
    calibration: Calibration,
    config: EvaluationConfig,
) -> JudgedModel:
    """Judge a model.

    Args:
        model: A strategy, or one modality alone.
        rows: Which rows.
        logits: Modalities shown -> float64 ``(N, C)``: of a strategy all subsets of `MODALITIES`;
            of one modality alone, that one.
        calibration: Chosen on val.
        config: Of the bootstrap.

    Raises:
        ValueError: As the metrics.
    """
    alone = modality_of(model)
    everything: Subset = MODALITIES if alone is None else (alone,)
    values = {subset: calibration.probabilities(each) for subset, each in logits.items()}
    predicted = {subset: calibration.predicted(each) for subset, each in values.items()}
    labels, complete = rows.labels, rows.complete
    by_subset: dict[Subset, Scores] = {}
    shares: Mapping[str, float] = {}
    lost: Mapping[str, Degradation] = {}
    if alone is None:
        by_subset = {
            subset: classification_metrics(labels, each, calibration.cut)
            for subset, each in values.items()
        }
        shares = shapley(MODALITIES, {s: macro_f1(labels, each) for s, each in predicted.items()})
        lost = degradations(
            labels, predicted, rows.present, MODALITIES, rows.groups, **bootstrap(config)
        )
    return JudgedModel(
        model=model,
        probabilities=values[everything],
        predicted=predicted[everything],
        metrics=intervals(
            labels,
            values[everything],
            rows.groups,
            threshold=calibration.cut,
            **bootstrap(config),
        ),
        complete_macro_f1=macro_f1(labels[complete], predicted[everything][complete])
        if complete.any()
        else None,
        by_subset=by_subset,
        shapley=shares,
        degradation=lost,
    )


def judge_against_single(
    rows: JudgedRows,
    strategy: JudgedModel,
    alone: Mapping[Modality, JudgedModel],
    config: EvaluationConfig,
) -> FusionVerdict:
    """Whether a strategy is better than every modality alone, beyond chance.

    Args:
        rows: That all of them were judged on.
        strategy: Of all modalities.
        alone: Of one each.
        config: Of the bootstrap.
    """
    return judge_fusion(
        rows.labels,
        strategy.predicted,
        {name: each.predicted for name, each in alone.items()},
        rows.groups,
        judged_on=rows.split,
        **bootstrap(config),
    )


def bootstrap(config: EvaluationConfig) -> dict[str, Any]:
    """The settings of every bootstrap."""
    return {"resamples": config.resamples, "seed": config.seed, "level": config.confidence}
