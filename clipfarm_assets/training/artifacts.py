"""The files of a snapshot, as bytes: what the training contract asks for (section 9), and plots.

Every file is a function of the data, the configuration, the code and the machine: none holds a
time of writing, so that a run that was killed and started again writes the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from clipfarm_assets.contracts.split_rules import EXCLUDED, PARTS, Part, SplitKind
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets.training import metrics, plots
from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import TrainingData
from clipfarm_assets.training.families import FamilyName
from clipfarm_assets.training.importance import permutation_importance
from clipfarm_assets.training.suite import FittedFamily, SplitResult, leaderboard

METADATA_ENCODER: Final = "models/metadata_encoder.json"
INTERVALS: Final = "models/intervals.json"

_JUDGED: Final[tuple[Part, ...]] = ("val", "test")


def snapshot_artifacts(
    data: TrainingData,
    main: SplitResult,
    others: Sequence[SplitResult],
    config: SuiteConfig,
    facts: Mapping[str, Any],
) -> dict[str, bytes]:
    """All artifacts by name.

    Args:
        data: What the models were fitted to.
        main: The split whose models are kept.
        others: Further splits, judged beside it.
        config: All settings.
        facts: What ``config_used.json`` says: run, settings, versions, hashes.
    """
    board = leaderboard(main, others, config.rank_metric)
    best = main.families[board["family"][0]]
    importance = permutation_importance(
        best.model, main.parts["test"], data.provenance.strategy, seed=config.seed
    )
    artifacts = {
        "config_used.json": json_bytes(facts),
        "data_summary.json": json_bytes(data_summary(data)),
        "metrics_summary.json": json_bytes(metrics_summary(main, others, config)),
        "slice_metrics_text_present.json": json_bytes(
            {name: family.slices for name, family in main.families.items()}
        ),
        "split_manifest.parquet": _parquet(split_manifest(data, main.kind)),
        "leaderboard.csv": board.write_csv().encode(),
        "importance.csv": importance.write_csv().encode(),
        METADATA_ENCODER: main.encoder.to_json(),
        INTERVALS: json_bytes({n: f.interval.to_fields() for n, f in main.families.items()}),
    }
    for family in main.families.values():
        artifacts |= {f"models/{name}": file for name, file in family.model.artifacts().items()}
        artifacts |= {
            f"curves/{name}.json": json_bytes(curve) for name, curve in family.model.curves.items()
        }
    for part in PARTS:
        artifacts[f"predictions/{part}.parquet"] = _parquet(predictions(main, part))
    for other in others:
        artifacts[f"predictions/split={other.kind}/test.parquet"] = _parquet(
            predictions(other, "test")
        )
    made_of = data.provenance
    job = f"{made_of.strategy}, {made_of.horizon} days"
    return artifacts | _plots(job, main, others, importance, best)


def metrics_summary(
    main: SplitResult, others: Sequence[SplitResult], config: SuiteConfig
) -> dict[str, Any]:
    """Metrics of every family and the choice of the best, by val."""
    best = main.ranked(config.rank_metric)[0]
    rank_metric = f"val_{config.rank_metric}"
    return {
        "rank_metric": rank_metric,
        "split": main.kind,
        "best_model": {
            "family": best.name,
            rank_metric: best.scores["val"][config.rank_metric],
        },
        "models": {
            name: {
                **{part: dict(family.scores[part]) for part in _JUDGED},
                "interval": {
                    **family.interval.to_fields(),
                    **{f"{part}_coverage": family.coverage[part] for part in _JUDGED},
                },
            }
            for name, family in main.families.items()
        },
        "splits": {
            other.kind: {
                name: {part: dict(family.scores[part]) for part in _JUDGED}
                for name, family in other.families.items()
            }
            for other in others
        },
    }


def data_summary(data: TrainingData) -> dict[str, Any]:
    """Size, splits, missing values and target of a dataset."""
    metadata = data.clips.metadata
    return {
        "rows": len(data),
        "strategy": data.provenance.strategy,
        "horizon_days": data.provenance.horizon,
        "splits": {kind: split_counts(data, kind) for kind in data.splits},
        "unavailable_splits": dict(data.unavailable_splits),
        "text_present": int(data.clips.text_present.sum()),
        "missing": {name: metadata[name].null_count() for name in metadata.columns},
        "counts": dict(data.counts),
        "target_log": _stats(data.target_log),
        "target_raw": _stats(data.target_raw),
        "dims": {"fused": data.clips.fused.shape[1], **data.clips.dims},
        "channels": len(np.unique(data.clips.channel_id)),
    }


def split_counts(data: TrainingData, kind: SplitKind) -> dict[str, int]:
    """Rows by part of one split, and those it excludes."""
    return {part: int((data.splits[kind] == part).sum()) for part in (*PARTS, EXCLUDED)}


def split_manifest(data: TrainingData, kind: SplitKind) -> pl.DataFrame:
    """Columns of the contract, section 5; rows that the split excludes are marked so."""
    return pl.DataFrame(
        {
            "video_id": data.clips.video_ids.tolist(),
            "split": data.splits[kind].tolist(),
            "text_present": data.clips.text_present.astype(np.int64),
            "target_log": data.target_log,
            "target_raw": data.target_raw,
        }
    )


def split_sha256(data: TrainingData, kind: SplitKind) -> str:
    """Identity of a split: which clip is in which part."""
    lines = zip(data.clips.video_ids.tolist(), data.splits[kind].tolist(), strict=True)
    return hashlib.sha256("\n".join(f"{i} {part}" for i, part in lines).encode()).hexdigest()


def predictions(result: SplitResult, part: Part) -> pl.DataFrame:
    """Every family's predictions of one part, with their intervals; raw values are views."""
    rows = result.parts[part]
    frames = []
    for name, family in result.families.items():
        log = family.predictions[part]
        low, high = family.interval.interval_raw(log)
        frames.append(
            pl.DataFrame(
                {
                    "video_id": rows.clips.video_ids.tolist(),
                    "family": [name] * len(rows),
                    "text_present": rows.clips.text_present.astype(np.int64),
                    "target_log": rows.target_log,
                    "target_raw": np.expm1(rows.target_log),
                    "prediction_log": log,
                    "prediction_raw": metrics.to_raw(log),
                    "interval_low_raw": low,
                    "interval_high_raw": high,
                }
            )
        )
    return pl.concat(frames)


def _plots(
    job: str,
    main: SplitResult,
    others: Sequence[SplitResult],
    importance: pl.DataFrame,
    best: FittedFamily,
) -> dict[str, bytes]:
    """Plots by name; each says what was fitted and which rows it shows."""
    test = f"{job}, {main.kind} split, {len(main.parts['test'])} test clips"
    residuals = [
        predictions(r, "test").filter(pl.col("family") == best.name).with_columns(split=pl.lit(k))
        for k, r in [(main.kind, main), *((o.kind, o) for o in others)]
    ]
    coverage = pl.DataFrame(
        {
            "family": list(main.families),
            "nominal": [f.interval.nominal for f in main.families.values()],
            "coverage": [f.coverage["test"] for f in main.families.values()],
            "n": [len(main.parts["test"])] * len(main.families),
        }
    )
    drawn = {
        "plots/predictions.png": plots.predictions_png(predictions(main, "test"), test),
        "plots/residuals.png": plots.residuals_png(
            pl.concat(residuals), f"{best.name}: {job}, test clips of each split"
        ),
        "plots/importance.png": plots.importance_png(importance, f"{best.name}: {test}"),
        "plots/coverage.png": plots.coverage_png(coverage, test),
    }
    curves = {n: c for f in main.families.values() for n, c in f.model.curves.items()}
    if curves:
        drawn["plots/curves.png"] = plots.curves_png(
            curves,
            f"{job}, {main.kind} split; networks stop by val, trees by train rows held out",
        )
    gated: FamilyName = "gated_fusion_mlp"
    if gated in main.families:
        clips = main.parts["test"].clips
        model: Any = main.families[gated].model
        drawn["plots/gate_weights.png"] = plots.gate_png(
            model.gate_weights(clips), clips.text_present, f"{gated}: {test}"
        )
    return drawn


def _stats(values: Any) -> dict[str, float]:
    return {
        "min": float(np.min(values)),
        "median": float(np.median(values)),
        "mean": float(np.mean(values)),
        "sd": float(np.std(values)),
        "max": float(np.max(values)),
    }


def json_bytes(fields: Any) -> bytes:
    """Readable JSON of which equal fields give equal bytes."""
    return (json.dumps(fields, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    return table_to_parquet(frame.to_arrow())
