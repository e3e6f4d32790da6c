"""The promises about memes, as functions from what is stored to findings; shown as asset checks."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.meme_rows import SPLITS, MemeRow, RowProblem, Split
from clipfarm_assets.contracts.meme_splits import MemeSplits, near_duplicate_groups
from clipfarm_assets.pipelines.memes.evaluation import METRICS
from clipfarm_assets.pipelines.memes.expert_store import (
    BadRecord,
    NoExpert,
    UnfinishedExpert,
    damaged_files,
    damaged_version,
    expert_record,
    remedy,
)
from clipfarm_assets.pipelines.memes.hashes import hash_images
from clipfarm_assets.pipelines.memes.manifest import list_images, read_memes
from clipfarm_assets.pipelines.memes.rows import ShardsDamaged, iter_samples, read_index
from clipfarm_assets.pipelines.memes.splits import read_splits
from clipfarm_assets.storage.meme_layout import ExpertModality, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tar_shards import BadSample, DamagedShard, Sample
from clipfarm_assets.training.meme_snapshot import open_fusion
from clipfarm_assets.training.model_versions import newest_intact

_NOT_YET: Final = "materialise it first"


def splits_are_grouped(store: ObjectStore, layout: MemeLayout) -> Verdict:
    """Every row has a split, and near-duplicates, found anew as the splits' run did, are in one.

    Raises:
        NoMemes, NoMemeRows, BadTaxonomy: See `read_memes`.
        NoMemeSplits, BadSplits: See `read_splits`.
    """
    rows = read_memes(store, layout).rows
    splits = read_splits(store, layout)
    images = list_images(store, layout)
    hashes = hash_images(store, layout, (row.image for row in rows), images, limits=splits.images)
    findings = [
        Finding(f"id {row.id}", "has no split: materialise memes/splits")
        for row in rows
        if row.id not in splits.split_of
    ]
    members: dict[str, list[str]] = {}
    groups = near_duplicate_groups(rows, hashes.values(), splits.max_distance)
    for meme_id, group in groups.items():
        members.setdefault(group, []).append(meme_id)
    for group, ids in sorted(members.items()):
        found = {splits.split_of[meme_id]: meme_id for meme_id in ids if meme_id in splits.split_of}
        if len(found) > 1:
            places = ", ".join(f"{found[s]} in {s}" for s in SPLITS if s in found)
            findings.append(Finding(f"group {group}", f"near-duplicates are apart: {places}"))
    facts = {
        "groups": len(members),
        "near_duplicates": _in_company(members),
        "max_distance": splits.max_distance,
    }
    return Verdict(
        tuple(findings),
        len(rows),
        {**facts, **{f"memes/{s}": n for s, n in splits.sizes().items()}},
    )


def _in_company(members: Mapping[str, list[str]]) -> int:
    return sum(len(ids) for ids in members.values() if len(ids) > 1)


def shards_match_splits(store: ObjectStore, layout: MemeLayout, split: Split) -> Verdict:
    """The shards of a split hold its memes as their rows say; all others are reported.

    Raises:
        NoMemes, NoMemeRows, BadTaxonomy: See `read_memes`.
        NoMemeSplits, BadSplits: See `read_splits`.
        NoShards, BadIndex: See `read_index`.
    """
    memes = read_memes(store, layout)
    rows = {row.id: row for row in memes.rows}
    splits = read_splits(store, layout)
    index = read_index(store, layout, split)
    bad: list[BadSample] = []
    seen: set[str] = set()
    findings = [
        Finding(f"label {label}", "has other classes in the index: materialise memes/shards")
        for label, classes in memes.taxonomy.labels.items()
        if index.classes.get(label) != classes
    ]
    if index.image_limits != asdict(splits.images):
        told = "images were packed within other limits than they were hashed"
        findings.append(Finding(split, f"{told}: materialise memes/splits and memes/shards"))
    try:
        for sample in iter_samples(store, layout, split, on_bad=bad.append, index=index):
            meme_id = str(sample.json.get("id"))
            if meme_id in seen:
                findings.append(Finding(f"id {meme_id}", "is there twice"))
            seen.add(meme_id)
            findings += _sample_problems(sample, meme_id, rows.get(meme_id), splits, split)
    except (DamagedShard, ShardsDamaged) as error:
        findings.append(Finding(split, str(error)))
    else:
        missing = [meme_id for meme_id in splits.ids(split) if meme_id not in seen]
        findings += [
            Finding(f"id {meme_id}", f"is of {split}, and neither in its shards nor reported")
            for meme_id in _unreported(missing, index.problems)
        ]
    findings += [Finding(f"sample {each.key}", each.why) for each in bad]
    facts = {"shards": len(index.shards), "reported": len(index.problems)}
    return Verdict(tuple(findings), len(seen), facts)


def _sample_problems(
    sample: Sample, meme_id: str, row: MemeRow | None, splits: MemeSplits, split: Split
) -> Iterable[Finding]:
    subject = f"id {meme_id}"
    if splits.split_of.get(meme_id) != split:
        found = splits.split_of.get(meme_id, "no split")
        yield Finding(subject, f"is in the shards of {split}, and of {found}")
        return
    if sample.json.get("group") != splits.group_of[meme_id]:
        yield Finding(subject, f"is in group {splits.group_of[meme_id]}, and its sample says other")
    if row is None:
        yield Finding(subject, "is in the shards, and the manifest has no such row (any more)")
    elif sample.json.get("labels") != dict(row.labels):
        told = f"the row says {dict(row.labels)}, the sample {sample.json.get('labels')}"
        yield Finding(subject, f"{told}: materialise memes/shards")
    elif (sample.key, sample.txt) != (row.key, row.text):
        yield Finding(subject, "has another key or text than its row: materialise memes/shards")


def _unreported(missing: Iterable[str], problems: Iterable[RowProblem]) -> list[str]:
    # The end of each sentence on where a row is; an id may hold the word itself.
    ends = {problem.where.rpartition("id ")[2] for problem in problems}
    rest = [meme_id for meme_id in missing if meme_id not in ends]
    places = [problem.where for problem in problems]
    return [
        meme_id for meme_id in rest if not any(place.endswith(f"id {meme_id}") for place in places)
    ]


def expert_intact(
    store: ObjectStore, layout: MemeLayout, modality: ExpertModality, label: str
) -> Verdict:
    """An expert's directory and its version are whole, and hold the bytes that are on record."""
    subject = layout.expert(modality, label)
    try:
        record = expert_record(store, layout, modality, label)
    except (BadRecord, NoExpert, UnfinishedExpert) as error:
        return Verdict((Finding(subject, str(error)),), 0)
    damaged = damaged_files(store, subject, record) | damaged_version(store, subject, record)
    findings = tuple(
        Finding(key, f"{problem}; {remedy(record)}") for key, problem in damaged.items()
    )
    facts = {
        "expert": record.name,
        "stand_in": "yes" if record.is_stand_in else "no",
        "origin": record.origin,
        "dimension": record.dim,
    }
    return Verdict(findings, len(record.files), facts)


def fusion_intact(store: ObjectStore, layout: MemeLayout, label: str) -> Verdict:
    """A fusion model's files are those that were published, also under the keys people know."""
    return newest_intact(layout.fusion_model(label), lambda: open_fusion(store, layout, label))


def fusion_beats_unimodal(store: ObjectStore, layout: MemeLayout, label: str) -> Verdict:
    """Fusion is better than every modality alone, beyond chance; the facts say by how much."""
    key = layout.evaluation(label) + METRICS
    try:
        metrics: dict[str, Any] = json.loads(store.get(key))
    except FileNotFoundError:
        missing = Finding(label, f"there is no {key}: {_NOT_YET}, as memes/evaluation")
        return Verdict((missing,), 0)
    judged = metrics["splits"][metrics["decided_on"]]
    told, dev = judged["verdict"], metrics["splits"]["val"]["verdict"]
    difference = told["difference"]
    facts = {
        "verdict": told["told"],
        "fusion_macro_f1": float(told["fusion"]),
        "best_unimodal": told["best_unimodal"],
        "unimodal_macro_f1": float(told["unimodal"]),
        "difference": float(difference["value"]),
        "lower_bound": float(difference["low"]),
        "upper_bound": float(difference["high"]),
        "confidence": f"{difference['level']:.0%}",
        "resampled_groups": difference["groups"],
        "compared_with": told["hardest"],
        "groups_better": difference["better"],
        "groups_worse": difference["worse"],
        "sign_test_p": float(difference["sign_p"]),
        # The target as the specification has it: no worse than the best expert on dev.
        "dev_fusion_macro_f1": float(dev["fusion"]),
        "dev_unimodal_macro_f1": float(dev["unimodal"]),
        "dev_matches_or_exceeds": "yes" if dev["fusion"] >= dev["unimodal"] else "no",
        "serves": "fusion" if told["fusion_wins"] else f"{told['best_unimodal']} alone",
    }
    findings = () if told["fusion_wins"] else (Finding(label, told["told"]),)
    return Verdict(findings, judged["rows"], facts)
