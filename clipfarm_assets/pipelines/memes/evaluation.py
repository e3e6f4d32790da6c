"""How well text alone, image alone and fusion tell a label, and which of them is to serve.

Every model is calibrated on val and judged on val and test, with intervals of a bootstrap by group.
The verdict is that of test; see `judge_fusion`. ``metrics.json`` is written last and names the
hashes of the other files, then the registry is changed.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.pipelines.memes.evaluation_files import evaluation_plots, predictions_parquet
from clipfarm_assets.pipelines.memes.fusion import CALIBRATION, CURVES, load_fusion
from clipfarm_assets.pipelines.memes.fusion_rows import FusionRows, open_rows
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.serving.meme_artifacts import (
    expert_artifacts,
    fusion_artifacts,
)
from clipfarm_assets.serving.meme_registry import (
    SYSTEMS,
    Candidate,
    MemeVersion,
    System,
    promote,
)
from clipfarm_assets.serving.version_list import Change
from clipfarm_assets.storage.meme_layout import EXPERT_MODALITIES, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training import snapshot
from clipfarm_assets.training.artifacts import json_bytes
from clipfarm_assets.training.classification.calibrated import Calibration
from clipfarm_assets.training.classification.confidence import Interval, intervals
from clipfarm_assets.training.classification.metrics import Metric, macro_f1
from clipfarm_assets.training.classification.subsets import Subset, presence, shapley, subsets
from clipfarm_assets.training.classification.values import Labels
from clipfarm_assets.training.classification.verdict import FusionVerdict, judge_fusion
from clipfarm_assets.training.meme_config import MemeEvaluationConfig
from clipfarm_assets.training.meme_snapshot import FusionId, FusionSnapshot, open_fusion
from clipfarm_assets.training.metrics import Doubles
from clipfarm_assets.training.snapshot import Artifact

METRICS: Final = "metrics.json"
PREDICTIONS: Final = "predictions.parquet"

_JUDGED: Final[tuple[Split, Split]] = ("val", "test")
_DECIDING: Final[Split] = "test"


@dataclass(frozen=True)
class JudgedSplit:
    """One split's labelled rows, and what every system says of them.

    Attributes:
        split: Which.
        ids, groups: ``(N,)``.
        labels: int64 ``(N,)``.
        probabilities: System -> float64 ``(N, C)``, calibrated.
        predicted: System -> int64 ``(N,)``.
        metrics: System -> metric -> value with its interval.
        by_subset: Modalities shown to fusion -> its macro-F1.
        verdict: Fusion against the best modality alone.
    """

    split: Split
    ids: NDArray[np.str_]
    groups: NDArray[np.str_]
    labels: Labels
    probabilities: Mapping[System, Doubles]
    predicted: Mapping[System, Labels]
    metrics: Mapping[System, Mapping[Metric, Interval]]
    by_subset: Mapping[Subset, float]
    verdict: FusionVerdict

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "rows": len(self.labels),
            "groups": len(np.unique(self.groups)),
            "systems": {
                system: {name: asdict(interval) for name, interval in found.items()}
                for system, found in self.metrics.items()
            },
            "fusion_by_modalities": {
                "macro_f1": {
                    "+".join(subset) or "none": score for subset, score in self.by_subset.items()
                },
                "shapley": shapley(EXPERT_MODALITIES, self.by_subset),
            },
            "verdict": self.verdict.to_fields(),
        }


@dataclass(frozen=True)
class Evaluation:
    """How good the models of a label are.

    Attributes:
        label: Which.
        fusion: The fusion model that was judged.
        experts: Modality -> what it is called, stand-ins named as such.
        splits: ``val`` and ``test``.
        calibration: System -> what was chosen on val.
        metrics: ``metrics.json``.
        plots: ``plots/<name>.png`` -> bytes.
        served: What serves now, and what it was before.
        seconds: Wall time.
    """

    label: str
    fusion: FusionId
    experts: Mapping[str, str]
    splits: Mapping[Split, JudgedSplit]
    calibration: Mapping[System, Calibration]
    metrics: Mapping[str, Any]
    plots: Mapping[str, bytes]
    served: Change[MemeVersion]
    seconds: float

    @property
    def verdict(self) -> FusionVerdict:
        """The one that decides what serves."""
        return self.splits[_DECIDING].verdict

    @property
    def title(self) -> str:
        """The verdict in a few words, e.g. for a list of checks."""
        return self.verdict.title


def evaluate(
    store: ObjectStore,
    layout: MemeLayout,
    label: str,
    config: MemeEvaluationConfig | None = None,
    say: Say = silent,
    *,
    cache_dir: Path | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Evaluation:
    """Judge the models of a label, write what was found, and let the better one serve.

    All files are functions of models and shards: the same ones give the same bytes.

    Args:
        store: Where models and shards are.
        layout: Where there.
        label: What they tell.
        config: Of the bootstrap.
        say: Told how far it is.
        cache_dir: Folder for experts' files on this machine; by default one of the moment.
        clock: Gives the registry's ``promoted_at``.

    Raises:
        NoMemeModel, NoExpert, UnfinishedExpert: A model is missing.
        OtherExperts: Fusion was fitted on other experts than there are.
        OtherShards: A model was fitted on other shards of train or val than there are.
        NoShards, NoLabelledRows: Val or test has nothing to judge by.
        NotServable: A file of the model that is to serve is gone or is not what was judged.
    """
    started = time.perf_counter()
    config = config or MemeEvaluationConfig()
    with ExitStack() as stack:
        if cache_dir is None:
            cache_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = open_rows(store, layout, label, _JUDGED, cache_dir, say)
        rows.check_labelled()
        found = open_fusion(store, layout, label)
        shards = found.json(snapshot.CONFIG)["shards"]
        rows.check_fitted(f"fusion model {found.id}", shards, "memes/fusion_model")
        fused = _fused(rows, found, cache_dir)
    splits, calibration = _judged(rows, found, fused, config)
    experts = rows.titles
    files = {
        PREDICTIONS: predictions_parquet(splits.values()),
        **evaluation_plots(
            f"{label}, {', '.join(f'{name}: {expert}' for name, expert in experts.items())}",
            rows.classes,
            splits[_DECIDING],
            found.json(CURVES),
        ),
    }
    metrics = {
        "label": label,
        "classes": list(rows.classes),
        "fusion": str(found.id),
        "experts": {
            name: {"version": record.version, "title": experts[name]}
            for name, record in rows.records.items()
        },
        "shards": {split: index.version for split, index in rows.indices.items()},
        "settings": config.model_dump(mode="json"),
        "calibration": {system: each.to_fields() for system, each in calibration.items()},
        "splits": {split: judged.to_fields() for split, judged in splits.items()},
        "decided_on": _DECIDING,
        "files": {name: Artifact.of(data).sha256 for name, data in sorted(files.items())},
    }
    folder = layout.evaluation(label)
    for name, data in sorted(files.items()):
        store.put(folder + name, data)
    store.put(folder + METRICS, json_bytes(metrics))
    verdict = splits[_DECIDING].verdict
    served = promote(
        store,
        layout,
        label,
        classes=rows.classes,
        verdict=verdict,
        candidates=_candidates(rows, found, splits, calibration),
        clock=clock,
    )
    say(f"{label}: {verdict.title}, {served.version.system} serves ({verdict})")
    return Evaluation(
        label=label,
        fusion=found.id,
        experts=experts,
        splits=splits,
        calibration=calibration,
        metrics=metrics,
        plots={name: data for name, data in files.items() if name.endswith(".png")},
        served=served,
        seconds=time.perf_counter() - started,
    )


Fused = Mapping[Split, Mapping[Subset, Doubles]]
"""Logits of fusion for all rows of a split, by the modalities that it is shown."""


def _fused(rows: FusionRows, found: FusionSnapshot, cache_dir: Path) -> Fused:
    model = load_fusion(rows.store, rows.layout, found, cache_dir, rows.records)
    return {
        split: {
            subset: rows.fused(split, model, presence(EXPERT_MODALITIES, subset).tolist())
            for subset in subsets(EXPERT_MODALITIES)
        }
        for split in _JUDGED
    }


def _judged(
    rows: FusionRows, found: FusionSnapshot, fused: Fused, config: MemeEvaluationConfig
) -> tuple[dict[Split, JudgedSplit], dict[System, Calibration]]:
    """Calibrate experts on val as fusion was, and judge all of them."""
    judged = {split: rows.without_hidden(split) for split in _JUDGED}
    logits: dict[Split, dict[System, Any]] = {
        split: {
            "text": judged[split].logits["text"],
            "vision": judged[split].logits["vision"],
            "fusion": fused[split][EXPERT_MODALITIES],
        }
        for split in _JUDGED
    }
    calibration: dict[System, Calibration] = {
        name: Calibration.fit(logits["val"][name], judged["val"].labels)
        for name in EXPERT_MODALITIES
    }
    calibration["fusion"] = Calibration.from_fields(found.json(CALIBRATION))
    splits = {}
    for split in _JUDGED:
        labels, groups = judged[split].labels, judged[split].groups
        values = {s: calibration[s].probabilities(logits[split][s]) for s in SYSTEMS}
        predicted = {s: calibration[s].predicted(values[s]) for s in SYSTEMS}
        drawn: dict[str, Any] = {
            "resamples": config.resamples,
            "seed": config.seed,
            "level": config.confidence,
        }
        whole = calibration["fusion"]
        splits[split] = JudgedSplit(
            split=split,
            ids=judged[split].ids,
            groups=groups,
            labels=labels,
            probabilities=values,
            predicted=predicted,
            metrics={
                s: intervals(labels, values[s], groups, threshold=calibration[s].cut, **drawn)
                for s in SYSTEMS
            },
            by_subset={
                subset: macro_f1(labels, whole.predicted(whole.probabilities(said)))
                for subset, said in fused[split].items()
            },
            verdict=judge_fusion(
                labels,
                predicted["fusion"],
                {name: predicted[name] for name in EXPERT_MODALITIES},
                groups,
                judged_on=split,
                **drawn,
            ),
        )
    return splits, calibration


def _candidates(
    rows: FusionRows,
    found: FusionSnapshot,
    splits: Mapping[Split, JudgedSplit],
    calibration: Mapping[System, Calibration],
) -> dict[System, Candidate]:
    """The systems, each with everything that serving it reads."""
    store, layout, label = rows.store, rows.layout, rows.label
    experts = {name: expert_artifacts(layout, record) for name, record in rows.records.items()}
    head = fusion_artifacts(store, layout, label, found.id.version)
    artifacts: dict[System, dict[str, str]] = {
        "text": experts["text"],
        "vision": experts["vision"],
        "fusion": {**head, **experts["text"], **experts["vision"]},
    }
    titles = rows.titles
    return {
        system: Candidate(
            artifacts=artifacts[system],
            temperature=calibration[system].temperature.value,
            threshold=calibration[system].cut,
            metrics={
                split: {name: each.value for name, each in judged.metrics[system].items()}
                for split, judged in splits.items()
            },
            facts={
                "experts": titles if system == "fusion" else {system: titles[system]},
                "image_limits": rows.indices[_DECIDING].image_limits,
            },
            fusion_version=found.id.version if system == "fusion" else "",
        )
        for system in SYSTEMS
    }
