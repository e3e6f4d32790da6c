"""The meme pipeline by runs of the real definitions."""

import json

import dagster as dg
import pytest

from clipfarm_assets.contracts.meme_rows import LEFT_OUT, SPLITS
from clipfarm_assets.contracts.meme_splits import MemeSplits
from clipfarm_assets.defs.memes import common
from clipfarm_assets.defs.memes.data import ShardsConfig, SplitsConfig
from clipfarm_assets.defs.memes.models import (
    EvaluationRun,
    FusionRun,
    TextExpertRun,
    expert_config,
    fusion_config,
)
from clipfarm_assets.demo.memes.edge_cases import EDGE_CASES, expected_changes
from clipfarm_assets.orchestration.settings import BadSettings
from clipfarm_assets.pipelines.memes.shard_set import ShardOptions
from clipfarm_assets.training.expert_config import ExpertConfig
from clipfarm_assets.training.meme_config import MemeEvaluationConfig, MemeFusionConfig
from clipfarm_assets_tests.defs import kit
from clipfarm_assets_tests.defs.meme_kit import (
    LABEL,
    ROWS,
    MemeBench,
    checked,
    observations,
    shown,
    table,
)
from clipfarm_assets_tests.defs.test_definitions import MEME_CHECKS


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Memes in shards, nothing trained, and the instance that knows of it."""
    bench = MemeBench(tmp_path_factory.mktemp("packed") / "bench").make()
    with dg.DagsterInstance.ephemeral() as instance:
        bench.pack(instance)
        yield bench, instance


@pytest.fixture(scope="module")
def trained(packed, tmp_path_factory):
    """The same with models."""
    bench = packed[0].copy(tmp_path_factory.mktemp("trained") / "bench")
    with dg.DagsterInstance.ephemeral() as instance:
        bench.pack(instance)
        bench.train(instance)
        yield bench, instance


@pytest.fixture
def fresh(packed, tmp_path):
    return packed[0].copy(tmp_path / "bench")


def data_versions(instance, name):
    found = kit.materialisations(instance, name, "memes")
    return {key: each.tags["dagster/data_version"] for key, each in found.items()}


def expected_rows():
    """Lines that are rows: the ordinary ones, and the edge cases whose line is not left out."""
    not_rows = LEFT_OUT - {"duplicate_id"} | {"ocr_without_row"}
    rows = [
        case
        for case in EDGE_CASES
        if not case.expected.problems & not_rows and not case.expected.unused_images
    ]
    return ROWS + len(rows)


def test_the_manifest_is_observed_with_all_its_problems(packed):
    (observation,) = observations(packed[1])
    found = observation.metadata
    assert found["dagster/row_count"].value == expected_rows()
    assert found["lines_left_out"].value == 5
    assert found["images_no_row_names"].value == 1
    for kind in ("bad_json", "missing_id", "duplicate_id", "unknown_label", "image_not_found"):
        assert found[f"problem/{kind}"].value == 1, kind
    samples = {row["kind"]: row["what"] for row in table(found["problem_samples"])}
    assert "sarcasm" in samples["unknown_label"]
    assert found["unlabelled/abuse_hate"].value == 4
    assert {row["class"] for row in table(found["labels"])} == {"abuse_hate", "not_abuse_hate"}


def test_an_observation_has_the_contents_version(packed, instance):
    bench = packed[0]
    before = observations(packed[1])[0].tags["dagster/data_version"]
    bench.run(instance, "memes_observe")
    assert observations(instance)[0].tags["dagster/data_version"] == before


def test_splits_show_sizes_groups_and_notes(packed):
    found = shown(packed[1], "splits")[None]
    sizes = [found[f"memes/{split}"].value for split in SPLITS]
    assert sum(sizes) == found["dagster/row_count"].value == expected_rows()
    assert found["near_duplicates"].value >= ROWS
    assert found["new"].value == expected_rows()
    assert found["image_problem/image_corrupt"].value == 3
    assert {row["split"] for row in table(found["classes"])} == set(SPLITS)


def test_each_split_is_packed_and_shows_what_was_left_out(packed):
    bench, instance = packed
    found = shown(instance, "shards")
    assert set(found) == set(SPLITS)
    rows = sum(found[split]["dagster/row_count"].value for split in SPLITS)
    left_out = sum(found[split]["problems"].value for split in SPLITS)
    assert rows + left_out == expected_rows()
    assert left_out == 4
    changes = {}
    for split in SPLITS:
        for name, value in found[split].items():
            if name.startswith("image/"):
                change = name.removeprefix("image/")
                changes[change] = changes.get(change, 0) + value.value
        assert bench.store.exists(found[split]["index"].value)
    assert changes == expected_changes()


def test_a_range_in_one_run_equals_a_run_a_split(packed, tmp_path, instance):
    other = MemeBench(tmp_path / "other").make()
    other.run(instance, "memes_split")
    for split in SPLITS:
        other.run(instance, "memes_pack", split)
    assert other.objects() == packed[0].objects()
    ranged, single = shown(packed[1], "shards"), shown(instance, "shards")
    versions = [data_versions(each, "shards") for each in (packed[1], instance)]
    assert versions[0] == versions[1]
    assert len(set(versions[0].values())) == len(SPLITS)
    assert set(ranged) == set(single)


def test_checks_of_data_hold_a_partition(packed):
    splits = checked(packed[1], "splits", "splits_are_grouped")
    assert splits[None][0]
    assert splits[None][1]["examined"].value == expected_rows()
    shards = checked(packed[1], "shards", "shards_match_splits")
    assert {key: shards[key][0] for key in SPLITS} == dict.fromkeys(SPLITS, True)
    assert sum(shards[key][1]["reported"].value for key in SPLITS) == 4


def test_packing_again_writes_nothing(fresh, instance):
    before = fresh.objects()
    fresh.pack(instance)
    assert fresh.objects() == before
    for found in shown(instance, "shards").values():
        assert found["written"].value == found["removed"].value == 0
    assert shown(instance, "splits")[None]["images_read"].value <= 3


def test_near_duplicates_apart_fail_the_check_and_block(fresh, instance):
    key = fresh.memes.splits()
    splits = MemeSplits.from_json(fresh.store.get(key))
    moved = "meme-00003-00"
    other = next(s for s in SPLITS if s != splits.split_of[moved])
    broken = MemeSplits(
        {**splits.split_of, moved: other},
        {meme_id: meme_id for meme_id in splits.group_of},  # so that it looks consistent
        splits.seed,
        splits.ratios,
    )
    fresh.store.put(key, broken.to_json())
    result = check_alone(fresh, instance, "splits", "splits_are_grouped")
    passed, found = checked(instance, "splits", "splits_are_grouped")[None]
    assert not passed
    assert not result.success
    (row,) = table(found["first_findings"])
    assert moved in row["problem"]
    assert "apart" in row["problem"]


def test_shards_are_not_packed_with_a_taxonomy_changed_after_the_splits(fresh, instance):
    before = fresh.objects()
    swapped = {"labels": {LABEL: ["abuse_hate", "not_abuse_hate"]}, "aliases": {"label": LABEL}}
    fresh.store.put(fresh.memes.taxonomy_source(), json.dumps(swapped).encode())
    result = fresh.run(instance, "memes_pack", "val", check=False)
    assert not result.success
    assert fresh.objects() == before
    fresh.run(instance, "memes_split")
    fresh.run(instance, "memes_pack", "val")
    (row, _) = table(shown(instance, "shards")["val"]["labels"])
    assert row["class"] in swapped["labels"][LABEL]


def test_images_are_packed_within_the_limits_they_were_hashed_within(fresh, instance):
    config = {"ops": {"memes__splits": {"config": {"longest_side": 32, "pixels": 1 << 20}}}}
    fresh.run(instance, "memes_split", config=config)
    check_alone(fresh, instance, "shards", "shards_match_splits", "val")
    assert not checked(instance, "shards", "shards_match_splits")["val"][0]
    fresh.run(instance, "memes_pack", "val")
    made_with = {
        row["what"]: row["is"] for row in table(shown(instance, "shards")["val"]["made_with"])
    }
    assert (made_with["image_longest_side"], made_with["image_pixels"]) == ("32", str(1 << 20))
    check_alone(fresh, instance, "shards", "shards_match_splits", "val")
    assert checked(instance, "shards", "shards_match_splits")["val"][0]


def check_alone(bench, instance, asset, name, key=None):
    return bench.check_alone(instance, ("memes", asset), name, key)


def test_a_label_changed_after_packing_fails_its_split_alone(fresh, instance):
    lines = fresh.store.get(fresh.memes.manifest()).splitlines()
    changed = json.loads(lines[-1])
    changed["labels"]["abuse_hate"] ^= 1
    data = b"\n".join([*lines[:-1], json.dumps(changed).encode()])
    fresh.store.put(fresh.memes.manifest(), data)
    split = MemeSplits.from_json(fresh.store.get(fresh.memes.splits())).split_of[changed["id"]]
    for key in SPLITS:
        check_alone(fresh, instance, "shards", "shards_match_splits", key)
    results = checked(instance, "shards", "shards_match_splits")
    assert {key: results[key][0] for key in SPLITS} == {key: key != split for key in SPLITS}
    (row,) = table(results[split][1]["first_findings"])
    assert row["subject"] == f"id {changed['id']}"
    assert "materialise memes/shards" in row["problem"]


def test_a_damaged_shard_fails_its_check(fresh, instance):
    key = fresh.memes.shard("val", 0)
    fresh.store.put(key, fresh.store.get(key)[:-512] + b"x" * 512)
    check_alone(fresh, instance, "shards", "shards_match_splits", "val")
    passed, found = checked(instance, "shards", "shards_match_splits")["val"]
    assert not passed
    assert "sha256" in table(found["first_findings"])[0]["problem"]


@pytest.mark.parametrize(
    ("job", "key", "says"),
    [
        ("memes_observe", None, "memes/raw/data_manifest.jsonl"),
        ("memes_split", None, "memes/raw/data_manifest.jsonl"),
        ("memes_pack", "train", "memes/raw/data_manifest.jsonl"),
        ("memes_train", LABEL, "materialise memes/splits"),
    ],
)
def test_an_empty_store_says_what_is_missing(tmp_path, instance, job, key, says):
    with pytest.raises(dg.Failure, match=says):
        MemeBench(tmp_path).run(instance, job, key)


def test_experts_say_what_they_are(trained):
    bench, instance = trained
    for modality in ("text", "vision"):
        found = shown(instance, f"{modality}_expert")[LABEL]
        assert "stand-in" in found["expert"].value
        assert found["stand_in"].value is True
        assert found["origin"].value == "fine_tuned"
        assert found["dimension"].value == 24
        assert found["rows/train"].value > 0
        assert "data:image/png;base64," in found["plot/curves"].md_str
        root = found["key"].value
        for row in table(found["files"]):
            assert bench.store.exists(root + row["file"])
    warnings = [
        event.user_message
        for run in instance.get_runs()
        for event in instance.all_logs(run.run_id)
        if event.level == 30 and "stand-in" in event.user_message
    ]
    assert len(warnings) == 2


def test_fusion_shows_its_fit_and_lies_under_the_known_keys(trained):
    bench, instance = trained
    found = shown(instance, "fusion_model")[LABEL]
    assert found["key"].value == "memes/models/mm_fusion/"
    assert bench.store.exists("memes/models/mm_fusion/fusion_model.pt")
    assert "stand-in" in found["expert/text"].value
    assert found["fusion/epochs"].value <= 2
    assert "val/macro_f1" in found
    assert "data:image/png;base64," in found["plot/curves"].md_str
    assert {row["split"] for row in table(found["rows"])} == {"train", "val"}
    version = data_versions(instance, "fusion_model")[LABEL]
    assert found["model"].value == f"{LABEL}/{version}"


def test_the_evaluation_shows_metrics_verdict_plots_and_what_serves(trained):
    bench, instance = trained
    found = shown(instance, "evaluation")[LABEL]
    rows = {(row["split"], row["system"]): row for row in table(found["metrics"])}
    assert set(rows) == {(s, m) for s in ("val", "test") for m in ("text", "vision", "fusion")}
    stored = json.loads(bench.store.get("memes/evaluation/label=abuse_hate/metrics.json"))
    verdict = stored["splits"]["test"]["verdict"]
    assert found["verdict"].value == verdict["title"]
    assert found["verdict_told"].value == verdict["told"]
    served = json.loads(bench.store.get("memes/models/registry.json"))["labels"][LABEL]
    assert served["current"] == found["model_version"].value == f"{LABEL}-v1"
    expected = "fusion" if verdict["fusion_wins"] else verdict["best_unimodal"]
    assert found["serves"].value == served["versions"][0]["system"] == expected
    for plot in ("curves", "reliability", "confusion", "roc", "intervals"):
        assert "data:image/png;base64," in found[f"plot/{plot}"].md_str


def test_checks_of_models_hold_and_the_verdict_is_shown(trained):
    bench, instance = trained
    for key in MEME_CHECKS:
        asset, name = key.removeprefix("memes/").split(":")
        if asset in {"splits", "shards"} or name == "fusion_beats_unimodal":
            continue
        passed, found = checked(instance, asset, name)[LABEL]
        assert passed, key
        assert found["examined"].value > 0, key
    passed, found = checked(instance, "evaluation", "fusion_beats_unimodal")[LABEL]
    verdict = json.loads(bench.store.get("memes/evaluation/label=abuse_hate/metrics.json"))[
        "splits"
    ]["test"]["verdict"]
    assert passed == verdict["fusion_wins"]
    assert found["verdict"].value == verdict["told"]
    assert float(found["lower_bound"].value) == pytest.approx(
        verdict["difference"]["low"], abs=5e-4
    )


def test_training_again_fits_nothing(trained, instance, tmp_path):
    bench = trained[0].copy(tmp_path / "bench")
    before = bench.objects()
    bench.train(instance)
    assert bench.objects() == before
    for name in ("text_expert", "vision_expert", "fusion_model"):
        assert shown(instance, name)[LABEL]["reused"].value is True, name
    assert shown(instance, "evaluation")[LABEL]["registry"].value == "unchanged"


def test_changed_files_of_models_fail_their_checks(trained, instance, tmp_path):
    bench = trained[0].copy(tmp_path / "bench")
    weights = "memes/models/text_expert/model.safetensors"
    bench.store.put(weights, bench.store.get(weights)[:-4] + b"oops")
    bench.store.delete("memes/models/mm_fusion/fusion_model.pt")
    check_alone(bench, instance, "text_expert", "expert_intact", LABEL)
    check_alone(bench, instance, "fusion_model", "snapshot_intact", LABEL)
    for asset, name, says in (
        ("text_expert", "expert_intact", "sha256"),
        ("fusion_model", "snapshot_intact", "fusion_model.pt"),
    ):
        passed, found = checked(instance, asset, name)[LABEL]
        assert not passed
        assert says in str(table(found["first_findings"]))


def test_the_launchpads_defaults_are_those_of_the_pipeline():
    assert expert_config(TextExpertRun(), "text") == ExpertConfig()
    assert fusion_config(FusionRun()) == MemeFusionConfig()
    assert MemeEvaluationConfig(**EvaluationRun().model_dump()) == MemeEvaluationConfig()
    assert ShardsConfig().options(SplitsConfig().limits) == ShardOptions()
    for kind in (TextExpertRun, FusionRun, EvaluationRun, ShardsConfig, SplitsConfig):
        for name, field in kind.model_fields.items():
            assert field.description, name


def test_nested_settings_keep_the_other_defaults():
    config = expert_config(
        TextExpertRun(max_epochs=7, hyperparameters={"fit": {"batch_size": 4}}), "text"
    )
    default = ExpertConfig().fit
    assert config.fit == default.model_copy(update={"max_epochs": 7, "batch_size": 4})
    assert fusion_config(FusionRun(max_epochs=3)).fit.patience == MemeFusionConfig().fit.patience


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"colour": "red"}, "text_expert.hyperparameters.colour is no setting: expected some of"),
        ({"seed": 1}, "is a field of its own: set text_expert.seed"),
        ({"lora_rank": -1}, r"lora_rank must be greater than or equal to 0: found -1"),
        ({"fit": {"max_epochs": 2}}, "set max_epochs alone"),
    ],
)
def test_a_wrong_setting_is_one_sentence(told, says):
    with pytest.raises(BadSettings, match=says):
        expert_config(TextExpertRun(max_epochs=1, hyperparameters=told), "text")


def test_a_label_that_memes_have_not_is_named_with_those_there_are(packed):
    opened = packed[0].deployment()
    with opened.ledger:
        common.check_label(opened, LABEL)
        with pytest.raises(BadSettings, match=r"'sarcasm' is no label .* have abuse_hate: name"):
            common.check_label(opened, "sarcasm")
