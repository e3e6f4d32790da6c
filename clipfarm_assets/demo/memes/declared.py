"""What the demo declares of each set, compared with what came of it."""

import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_LABEL
from clipfarm_assets.demo.declared import Declared
from clipfarm_assets.demo.memes.plan import Kind
from clipfarm_assets.pipelines.memes.evaluation import METRICS, PREDICTIONS
from clipfarm_assets.pipelines.memes.fusion import CURVES
from clipfarm_assets.pipelines.memes.promises import fusion_intact
from clipfarm_assets.pipelines.memes.rows import iter_samples
from clipfarm_assets.serving.meme_predictor import load_predictor
from clipfarm_assets.serving.meme_registry import find_version
from clipfarm_assets.storage.meme_layout import EXPERT_MODALITIES, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.storage.tar_shards import BadSample, Sample
from clipfarm_assets.training.meme_snapshot import open_fusion

CHANCE: Final = 0.5
NEAR_CHANCE: Final = 0.05
"""How far from `CHANCE` a macro-F1 may be where nothing can be known."""
GOOD: Final = 0.95
"""Macro-F1 that fusion must reach where it can know the label."""

_PREDICTED_AGAIN: Final = 8
"""Memes that the model that serves is asked about."""


def metrics_of(store: ObjectStore, layout: MemeLayout) -> dict[str, Any]:
    """``metrics.json`` of the evaluation."""
    metrics: dict[str, Any] = json.loads(store.get(layout.evaluation(DEFAULT_LABEL) + METRICS))
    return metrics


def declared_of(kind: Kind, store: ObjectStore, layout: MemeLayout) -> list[Declared]:
    """What must have come of a set that went through the pipeline, and what has.

    Args:
        kind: Which set.
        store: Where it is.
        layout: Where there.
    """
    found = list(_of_any_set(store, layout))
    if kind != "pilot":  # with so few rows, any verdict may come out
        found += _of_verdict(kind, store, layout)
    return found


def _of_verdict(kind: Kind, store: ObjectStore, layout: MemeLayout) -> Iterator[Declared]:
    judged = metrics_of(store, layout)["splits"]["test"]
    score = {name: each["macro_f1"]["value"] for name, each in judged["systems"].items()}
    if kind == "xor":
        for name in EXPERT_MODALITIES:
            distance = abs(score[name] - CHANCE)
            yield Declared(
                f"macro-F1 of {name} alone",
                f"{CHANCE} to within {NEAR_CHANCE}",
                f"{score[name]:.3f}",
                distance <= NEAR_CHANCE,
            )
        reached = score["fusion"]
        yield Declared("macro-F1 of fusion", f"{GOOD} or more", f"{reached:.3f}", reached >= GOOD)
    verdict = judged["verdict"]
    wins, low = verdict["fusion_wins"], verdict["difference"]["low"]
    yield Declared(
        "fusion_beats_unimodal",
        "passes" if kind == "xor" else "fails: fusion does not win",
        f"{'passes' if wins else 'fails'}, lower bound {low:+.3f}",
        wins == (kind == "xor"),
    )
    system = find_version(store, layout, DEFAULT_LABEL).system
    expected = "fusion" if kind == "xor" else "text"
    yield Declared("what serves", expected, system, system == expected)


def _of_any_set(store: ObjectStore, layout: MemeLayout) -> Iterator[Declared]:
    losses = open_fusion(store, layout, DEFAULT_LABEL).json(CURVES)["fusion"]["train_loss"]
    yield Declared(
        "training loss of fusion",
        "falls",
        f"{losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} epochs",
        losses[-1] < losses[0],
    )
    saved = fusion_intact(store, layout, DEFAULT_LABEL)
    pt = f"{layout.fusion_model(DEFAULT_LABEL)}fusion_model.pt"
    yield Declared(
        "saved model",
        f"{pt} and all else intact",
        saved.summary(1),
        saved.holds and store.exists(pt),
    )
    count, same = _predicted_again(store, layout)
    yield Declared(
        "loaded again, what serves says",
        "the probabilities of the evaluation",
        f"{'the same' if same else 'others'} for {count} memes",
        same and count > 0,
    )


def _predicted_again(store: ObjectStore, layout: MemeLayout) -> tuple[int, bool]:
    """Ask what serves about some memes of test: how many, and whether it says the same."""
    system = find_version(store, layout, DEFAULT_LABEL).system
    table = parquet_to_table(store.get(layout.evaluation(DEFAULT_LABEL) + PREDICTIONS))
    rows = pl.DataFrame(table).filter((pl.col("split") == "test") & (pl.col("system") == system))
    said = dict(zip(rows["id"].to_list(), rows["probabilities"].to_list(), strict=True))
    bad: list[BadSample] = []
    labelled = (
        sample
        for sample in iter_samples(store, layout, "test", on_bad=bad.append)
        if sample.json["id"] in said
    )
    samples: list[Sample] = list(islice(labelled, _PREDICTED_AGAIN))
    if not samples:
        return 0, False
    with tempfile.TemporaryDirectory() as folder:
        predictor = load_predictor(store, layout, label=DEFAULT_LABEL, cache_dir=Path(folder))
        found = predictor.predict([s.txt for s in samples], [s.png for s in samples])
    expected = np.array([said[sample.json["id"]] for sample in samples])
    return len(samples), bool(np.array_equal(found.probabilities, expected))
