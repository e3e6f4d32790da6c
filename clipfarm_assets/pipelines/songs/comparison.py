"""The fusion strategies side by side, against each modality alone, and with one taken away.

Every model is calibrated on val and judged on val and test, with intervals of a bootstrap by song
(or album, where segments were split by it). A strategy is asked once for every subset of the
modalities, of which follow exact Shapley shares and what is lost where one is taken away. All files
are functions of models and segments; ``comparison.json`` is written last and names their hashes.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipfarm_assets.contracts.meme_rows import Split
from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.encoders.models import Profile
from clipfarm_assets.fusion.options import STRATEGIES, StrategyName
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.songs.comparison_files import (
    comparison_csv,
    comparison_plots,
    degradation_csv,
    losses,
    predictions_parquet,
    shapley_csv,
)
from clipfarm_assets.pipelines.songs.fusion import CALIBRATION, GRADIENTS, Trainer
from clipfarm_assets.pipelines.songs.fusion_rows import JUDGED, SongRows, open_rows
from clipfarm_assets.pipelines.songs.judged import (
    JudgedModel,
    JudgedRows,
    judge_against_single,
    judge_model,
)
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training import snapshot
from clipfarm_assets.training.artifacts import json_bytes
from clipfarm_assets.training.classification.calibrated import Calibration
from clipfarm_assets.training.classification.subsets import Subset, subsets
from clipfarm_assets.training.classification.verdict import FusionVerdict
from clipfarm_assets.training.metrics import Doubles
from clipfarm_assets.training.snapshot import Artifact
from clipfarm_assets.training.song_config import NOT_OF_A_MODEL, SongConfig
from clipfarm_assets.training.song_snapshot import (
    SongModelId,
    SongSnapshot,
    mirror,
    modality_of,
    open_song_model,
    single,
)

if TYPE_CHECKING:
    from clipfarm_assets.training.songs.evaluation import Said

COMPARISON: Final = "comparison.json"
OTHER_SETTINGS: Final = "fitted_by_other_settings"
"""In it: strategy -> setting that single modalities were fitted otherwise by -> either value."""
COMPARISON_CSV: Final = "comparison.csv"
SHAPLEY_CSV: Final = "shapley.csv"
DEGRADATION_CSV: Final = "degradation.csv"
PREDICTIONS: Final = "predictions.parquet"

DECIDING: Final[Split] = "test"
_SHOWN: Final = 5
"""Settings that a sentence names."""


@dataclass(frozen=True)
class JudgedSplit:
    """One split's labelled segments, and what every model says of them.

    Attributes:
        rows: The segments.
        models: Strategies, then single modalities, by name.
        verdicts: Strategy -> whether it is better than the best modality alone.
        without_dropout: Strategy -> its twin, fitted without modality dropout.
    """

    rows: JudgedRows
    models: Mapping[str, JudgedModel]
    verdicts: Mapping[StrategyName, FusionVerdict]
    without_dropout: Mapping[StrategyName, JudgedModel]

    def to_fields(self, bounds: Mapping[str, float]) -> dict[str, Any]:
        """As a JSON object; `bounds` are the most that may be lost without each modality."""
        return {
            **self.rows.to_fields(),
            "models": {name: model.to_fields() for name, model in self.models.items()},
            "without_dropout": {
                name: twin.to_fields() for name, twin in self.without_dropout.items()
            },
            "verdicts": {name: verdict.to_fields() for name, verdict in self.verdicts.items()},
            "degradation": {
                name: {
                    kind: {
                        removed: {
                            **each.to_fields(),
                            "lost": each.lost.value,
                            "is_within": each.is_within(bounds[removed]),
                        }
                        for removed, each in found.items()
                    }
                    for kind, found in kinds.items()
                }
                for name, kinds in losses(self).items()
            },
        }


@dataclass(frozen=True)
class Comparison:
    """How good the strategies are.

    Attributes:
        models: Strategies and single modalities that were judged.
        classes: What they tell.
        splits: ``val`` and ``test``.
        best: The strategy of the best macro-F1 on val, of equal ones the first.
        bounds: Modality -> most macro-F1 that may be lost without it.
        metrics: ``comparison.json``.
        plots: ``plots/<name>.png`` -> bytes.
        notes: What of it is to be taken with care.
        seconds: Wall time.
    """

    models: Mapping[str, SongModelId]
    classes: tuple[str, ...]
    splits: Mapping[Split, JudgedSplit]
    best: StrategyName
    bounds: Mapping[str, float]
    metrics: Mapping[str, Any]
    plots: Mapping[str, bytes]
    notes: tuple[str, ...]
    seconds: float

    @property
    def decided(self) -> JudgedSplit:
        """The split whose verdicts count."""
        return self.splits[DECIDING]


class OtherSegments(ValueError):  # noqa: N818 - reads better where it is raised
    """A model was fitted on other segments than there are now: perhaps on what is to judge it."""


def compare(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig | None = None,
    say: Say = silent,
    *,
    without_dropout: Sequence[StrategyName] = (),
    warn: Say | None = None,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Comparison:
    """Judge the newest model of every strategy, and fit single modalities to compare them with.

    Args:
        store: Where models and segments are.
        layout: Where there.
        config: What single modalities are fitted by: the strategies' settings. And how to judge.
        say: Told how far it is.
        without_dropout: Strategies to fit once more without modality dropout, to see what it is
            good for. Nothing of these is published under the keys that people know.
        warn: See `train_fusion`.
        cache_dir: Folder for pretrained encoders' files on this machine.
        profile: Whose encoders are taken where none is named; by default the environment's.
        clock: Gives the ``created_at`` of what is fitted.

    Raises:
        NoSongModel: A strategy has no model.
        OtherSegments: One was fitted on other segments, or otherwise prepared ones.
        NoLabelledSegments: Val or test has nothing to judge by.
    """
    started = time.perf_counter()
    config = config or SongConfig()
    with ExitStack() as stack:
        if cache_dir is None:
            cache_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = open_rows(store, layout, config, say, cache_dir=cache_dir, profile=profile)
        rows.check_judged()
        found: dict[str, SongSnapshot] = {
            strategy: open_song_model(store, layout, strategy) for strategy in STRATEGIES
        }
        for strategy, each in found.items():
            _check_fitted_on(rows, strategy, each)
        others = _other_settings(config, found)
        notes = tuple(f"{name} {fitted_otherwise(each)}" for name, each in others.items() if each)
        trainer = Trainer(rows, config, say, warn or say, clock)
        for modality in MODALITIES:
            found[single(modality)], _ = trainer.find_or_make(single(modality))
            mirror(found[single(modality)])
        twins = _twins(trainer, without_dropout)
        judged = {split: _judge(rows, split, found, twins, config) for split in JUDGED}
    bounds = config.evaluation.bounds()
    val = judged["val"].models
    best = max(STRATEGIES, key=lambda name: val[name].metrics["macro_f1"].value or 0.0)
    norms: dict[str, Any] = {name: found[name].json(GRADIENTS)["norms"] for name in STRATEGIES}
    files = {
        COMPARISON_CSV: comparison_csv(judged.values()),
        SHAPLEY_CSV: shapley_csv(judged.values()),
        DEGRADATION_CSV: degradation_csv(judged.values(), bounds),
        PREDICTIONS: predictions_parquet(judged.values()),
        **comparison_plots(rows.classes, judged[DECIDING], best, bounds, norms),
    }
    metrics = {
        "classes": list(rows.classes),
        "models": {name: each.id.version for name, each in found.items()},
        "without_modality_dropout": {name: each.id.version for name, each in twins.items()},
        "segments": {split: rows.identity(split) for split in JUDGED},
        "settings": config.evaluation.model_dump(mode="json"),
        OTHER_SETTINGS: others,
        "splits": {split: each.to_fields(bounds) for split, each in judged.items()},
        "decided_on": DECIDING,
        "best_on_val": best,
        "notes": list(notes),
        "files": {name: Artifact.of(data).sha256 for name, data in sorted(files.items())},
    }
    folder = layout.comparison()
    for name, data in sorted(files.items()):
        store.put(folder + name, data)
    store.put(folder + COMPARISON, json_bytes(metrics))
    for told in (*notes, *_told(judged[DECIDING], bounds)):
        say(told)
    return Comparison(
        models={name: each.id for name, each in found.items()},
        classes=rows.classes,
        splits=judged,
        best=best,
        bounds=bounds,
        metrics=metrics,
        plots={name: data for name, data in files.items() if name.endswith(".png")},
        notes=notes,
        seconds=time.perf_counter() - started,
    )


def _check_fitted_on(rows: SongRows, strategy: str, found: SongSnapshot) -> None:
    used = found.json(snapshot.CONFIG)
    others = [s for s, identity in used["segments"].items() if identity != rows.identity(s)]
    if others or tuple(used["classes"]) != rows.classes:
        what = f"segments of {' and '.join(others)}" if others else "classes"
        msg = (
            f"song model {found.id} was fitted on other {what} than these settings give now, so "
            "that it can't be judged beside the others: materialise songs/fusion_models for "
            f"partition {strategy!r} again, with the settings of the comparison"
        )
        raise OtherSegments(msg)


def _other_settings(
    config: SongConfig, found: Mapping[str, SongSnapshot]
) -> dict[str, dict[str, dict[str, Any]]]:
    """See `OTHER_SETTINGS`."""
    here = _flat(config.model_dump(mode="json", exclude=NOT_OF_A_MODEL))
    here.pop("model.fusion.strategy")
    others = {}
    for strategy, each in found.items():
        there = _flat(each.json(snapshot.CONFIG)["settings"])
        others[strategy] = {
            name: {"strategy": there.get(name), "single": value}
            for name, value in here.items()
            if there.get(name) != value
        }
    return others


def fitted_otherwise(others: Mapping[str, Mapping[str, Any]]) -> str:
    """What `OTHER_SETTINGS` has of a strategy, in words."""
    told = [f"{name} {each['strategy']!r}, not {each['single']!r}" for name, each in others.items()]
    more = f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    shown = "; ".join(told[:_SHOWN])
    return f"was fitted by other settings than single modalities are: {shown}{more}"


def _flat(fields: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """A tree of settings by dotted names."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{where}{name}.")
        else:
            found[f"{where}{name}"] = value
    return found


def _twins(
    trainer: Trainer, strategies: Sequence[StrategyName]
) -> dict[StrategyName, SongSnapshot]:
    """The strategies without modality dropout: versions of their own, no newest ones."""
    without = trainer.without_modality_dropout()
    return {strategy: without.find_or_make(strategy)[0] for strategy in strategies}


def _judge(
    rows: SongRows,
    split: Split,
    found: Mapping[str, SongSnapshot],
    twins: Mapping[StrategyName, SongSnapshot],
    config: SongConfig,
) -> JudgedSplit:
    said = {name: _said(rows, split, name, each) for name, each in found.items()}
    segments = rows.labelled(split)
    whole = said[STRATEGIES[0]].present  # single modalities know of their own alone
    judged = JudgedRows(split, segments.ids, segments.groups, segments.labels, whole)

    def judge(name: str, each: SongSnapshot, logits: Mapping[Subset, Doubles]) -> JudgedModel:
        calibration = Calibration.from_fields(each.json(CALIBRATION))
        return judge_model(name, judged, logits, calibration, config.evaluation)

    models = {name: judge(name, each, said[name].logits) for name, each in found.items()}
    alone: dict[Modality, JudgedModel] = {m: models[single(m)] for m in MODALITIES}
    verdicts = {
        strategy: judge_against_single(judged, models[strategy], alone, config.evaluation)
        for strategy in STRATEGIES
    }
    without = {
        name: judge(name, each, _said(rows, split, name, each).logits)
        for name, each in twins.items()
    }
    return JudgedSplit(judged, models, verdicts, without)


def _said(rows: SongRows, split: Split, name: str, found: SongSnapshot) -> "Said":
    """What the rows have, and what a model says of them by the modalities that it is shown."""
    from clipfarm_assets.training.songs.evaluation import said_of

    network = rows.load(found).network
    shown = subsets(MODALITIES) if modality_of(name) is None else [network.modalities]
    said = said_of(network, rows.batches(split, name), shown)
    rows.check_in_order(split, said.labels)
    return said


def _told(judged: JudgedSplit, bounds: Mapping[str, float]) -> list[str]:
    """What came of it, a sentence a strategy and verdict."""
    told = [f"{name}: {verdict.title}; {verdict}" for name, verdict in judged.verdicts.items()]
    for name, kinds in losses(judged).items():
        for kind, found in kinds.items():
            lost = ", ".join(
                f"{each.lost.value:+.3f} {removed} (at most {bounds[removed]:g})"
                for removed, each in found.items()
            )
            told.append(f"{name}, {kind}: macro-F1 lost without {lost}")
    return told
