"""Verdicts and candidates of memes' models, whose artifacts are in the store."""

import numpy as np

from clipfarm_assets.serving.meme_artifacts import artifact_hashes
from clipfarm_assets.serving.meme_registry import Candidate
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.training.classification.verdict import judge_fusion

LAYOUT = MemeLayout()
KEY = LAYOUT.registry()
LABEL = "abuse_hate"
CLASSES = ("not_abuse_hate", "abuse_hate")


def verdict(*, fusion_wins, best="text", seed=0):
    """Of 80 memes: fusion is right on all, or on those on which the best modality is."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=80)
    right = np.where(np.arange(80) % 4 == 0, 1 - labels, labels)
    fusion = labels if fusion_wins else right
    unimodal = {name: right if name == best else 1 - labels for name in ("text", "vision")}
    return judge_fusion(labels, fusion, unimodal, judged_on="test", resamples=50)


def candidate(store, system, label=LABEL, content=b"weights"):
    """Two files of a system, and its numbers."""
    keys = [f"memes/models/{label}/{system}/{name}" for name in ("config.json", "model.bin")]
    for key in keys:
        store.put(key, content + key.encode())
    return Candidate(
        artifacts=artifact_hashes(store, keys),
        temperature=1.5,
        threshold=0.4,
        metrics={"val": {"macro_f1": 0.9, "auroc": None}, "test": {"macro_f1": 0.8}},
        facts={"stand_ins": ["text"]},
        fusion_version="0" * 16 if system.startswith("fusion") else "",
    )


def candidates(store, **options):
    return {system: candidate(store, system, **options) for system in ("fusion", "text", "vision")}
