"""Fits every family on one split of a dataset, and says how good each is."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.split_rules import PARTS, Part, SplitKind
from clipfarm_assets.training import intervals, metrics
from clipfarm_assets.training.config import RANK_METRICS, RankMetric, SuiteConfig
from clipfarm_assets.training.data import Labelled, TrainingData
from clipfarm_assets.training.families import FamilyName, Model, open_family
from clipfarm_assets.training.intervals import SplitConformal
from clipfarm_assets.training.metadata_encoder import MAX_CATEGORIES, MetadataEncoder

Say = Callable[[str], None]


class NoMetrics(RuntimeError):  # noqa: N818 - a state of the run
    """A family that was asked for gave no metrics: a structural fault that stops the run."""


class NoSuchSplit(ValueError):  # noqa: N818
    """The split asked for can't be made of these rows."""


@dataclass(frozen=True)
class FittedFamily:
    """One family, fitted on the train part.

    Attributes:
        model: What was fitted.
        predictions: Part -> log1p(views), float64 ``(n,)``.
        scores: ``val`` and ``test`` -> metric -> value.
        slices: ``val`` and ``test`` -> ``text_present_<0|1>`` -> metric -> value, and ``n``.
        interval: Calibrated on the residuals of val.
        coverage: ``val`` and ``test`` -> share of rows whose interval holds the target.
        seconds: Wall time of the fit.
    """

    name: FamilyName
    model: Model
    predictions: Mapping[Part, NDArray[np.float64]]
    scores: Mapping[Part, metrics.Metrics]
    slices: Mapping[Part, Mapping[metrics.Slice, Mapping[str, float | int | None]]]
    interval: SplitConformal
    coverage: Mapping[Part, float]
    seconds: float


@dataclass(frozen=True)
class SplitResult:
    """Every family on one split.

    Attributes:
        kind: Which split.
        parts: Its rows.
        encoder: Of the metadata, fitted on its train rows.
        families: In the order asked for.
    """

    kind: SplitKind
    parts: Mapping[Part, Labelled]
    encoder: MetadataEncoder
    families: Mapping[FamilyName, FittedFamily]

    def ranked(self, metric: RankMetric) -> list[FittedFamily]:
        """The families, best first, by the metric on val; by name where that is equal."""
        key = metrics.rank_key(metric)
        return sorted(self.families.values(), key=lambda f: (key(f.scores["val"][metric]), f.name))


def fit_split(
    data: TrainingData,
    kind: SplitKind,
    families: Sequence[FamilyName],
    config: SuiteConfig,
    say: Say,
) -> SplitResult:
    """Fit `families` on the train part of one split, and score them on val and test.

    Raises:
        NoSuchSplit: The rows don't allow this split; says why.
        NoMetrics: A family failed or predicted something that is no number, or none is asked for.
    """
    if not families:
        msg = "there are no metrics without a model: expected at least one family, found none"
        raise NoMetrics(msg)
    check_split(data, kind)
    parts = {part: data.part(kind, part) for part in PARTS}
    encoder = MetadataEncoder.fit(parts["train"].clips.metadata, data.contract)
    for name, number in encoder.rare.items():
        say(
            f"{kind} split: {name} has {MAX_CATEGORIES + number} categories in train: the "
            f"{MAX_CATEGORIES} most frequent are told apart, the others are as unseen"
        )
    fitted: dict[FamilyName, FittedFamily] = {}
    started = time.perf_counter()
    for done, name in enumerate(families, start=1):
        fitted[name] = _fit(name, parts, encoder, config, say)
        took = time.perf_counter() - started
        left = f", about {took / done * (len(families) - done):.0f} s left" * (done < len(families))
        say(
            f"{kind} split, {done}/{len(families)} families: {name} val "
            f"rmse_log {fitted[name].scores['val']['rmse_log']:.3f}, "
            f"{fitted[name].seconds:.1f} s{left}"
        )
    return SplitResult(kind, parts, encoder, fitted)


def check_split(data: TrainingData, kind: SplitKind) -> None:
    """Raise `NoSuchSplit`, with the reason, unless the dataset has this split."""
    if kind not in data.splits:
        reason = data.unavailable_splits.get(kind, "the dataset was made without it")
        msg = f"split {kind!r} can't be made of these {len(data)} rows: {reason}"
        raise NoSuchSplit(msg)


def _fit(
    name: FamilyName,
    parts: Mapping[Part, Labelled],
    encoder: MetadataEncoder,
    config: SuiteConfig,
    say: Say,
) -> FittedFamily:
    started = time.perf_counter()
    try:
        model = open_family(name).fit(
            parts["train"], parts["val"], encoder, config, config.seed, say
        )
        predictions = {part: _predict(model, part, rows) for part, rows in parts.items()}
        seconds = time.perf_counter() - started
        return _score(name, model, parts, predictions, config.interval_coverage, seconds)
    except (ArithmeticError, RuntimeError, ValueError) as error:
        msg = f"family {name!r} gave no metrics: {type(error).__name__}: {error}"
        raise NoMetrics(msg) from error


def _predict(model: Model, part: Part, rows: Labelled) -> NDArray[np.float64]:
    """Of every part: the train part has no metrics that would show what is wrong with it."""
    said = metrics.finite_vector(f"predictions of {part}", model.predict(rows.clips))
    if len(said) != len(rows):
        msg = f"there must be one prediction a row of {part}: found {len(said)} of {len(rows)}"
        raise ValueError(msg)
    return said


def _score(
    name: FamilyName,
    model: Model,
    parts: Mapping[Part, Labelled],
    predictions: Mapping[Part, NDArray[np.float64]],
    interval_coverage: float,
    seconds: float,
) -> FittedFamily:
    scores, slices, coverage = {}, {}, {}
    interval = SplitConformal.fit(parts["val"].target_log - predictions["val"], interval_coverage)
    judged: tuple[Part, ...] = ("val", "test")
    for part in judged:
        target, prediction = parts[part].target_log, predictions[part]
        scores[part] = metrics.regression_metrics(target, prediction)
        slices[part] = metrics.slices(target, prediction, parts[part].clips.text_present)
        low, high = interval.interval(prediction)
        coverage[part] = intervals.coverage(target, low, high)
    return FittedFamily(name, model, predictions, scores, slices, interval, coverage, seconds)


def leaderboard(
    main: SplitResult, others: Sequence[SplitResult], metric: RankMetric
) -> pl.DataFrame:
    """One row a family, best first by `metric` on the val part of the main split.

    Columns: ``rank, family, split``, every metric as ``val_*`` and ``test_*``, the interval's
    nominal and found coverage; and for every further split kind, fitted and judged by itself,
    ``<kind>_test_rmse_log`` and ``<kind>_test_r2_log``: the difference to the main split is what a
    model gains from knowing neighbours in time, or clips of the same channel.
    """
    rows = []
    for rank, family in enumerate(main.ranked(metric), start=1):
        row: dict[str, Any] = {"rank": rank, "family": family.name, "split": main.kind}
        for part in ("val", "test"):
            row |= {f"{part}_{name}": family.scores[part][name] for name in RANK_METRICS}
        row["interval_nominal"] = family.interval.nominal
        row["interval_test_coverage"] = family.coverage["test"]
        for other in others:
            scores = other.families[family.name].scores["test"]
            for name in ("rmse_log", "r2_log"):
                row[f"{other.kind}_test_{name}"] = scores[name]
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)
