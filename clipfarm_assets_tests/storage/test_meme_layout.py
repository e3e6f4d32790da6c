import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.storage.keys import check_key
from clipfarm_assets.storage.meme_layout import MemeLayout

SHA256 = "0123456789abcdef" * 4
LABELS = st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True)


def test_every_key():
    layout = MemeLayout()
    for key, expected in {
        layout.manifest(): "memes/raw/data_manifest.jsonl",
        layout.ocr(): "memes/raw/ocr.jsonl",
        layout.taxonomy_source(): "memes/raw/label_taxonomy.json",
        layout.images(): "memes/raw/images/",
        layout.image("img/1.png"): "memes/raw/images/img/1.png",
        layout.image_hashes(): "memes/state/image_hashes.parquet",
        layout.splits(): "memes/splits.json",
        layout.label_taxonomy(): "memes/label_taxonomy.json",
        layout.shards_prefix("val"): "memes/shards/val/",
        layout.shard("train", 0): "memes/shards/train/shard-000000.tar",
        layout.shard("test", 12): "memes/shards/test/shard-000012.tar",
        layout.shard_index("train"): "memes/shards/train/index.json",
        layout.expert("text", "abuse_hate"): "memes/models/text_expert/",
        layout.expert("vision", "abuse_hate"): "memes/models/vision_expert/",
        layout.expert("text", "sarcasm"): "memes/models/label=sarcasm/text_expert/",
        layout.fusion_model("abuse_hate"): "memes/models/mm_fusion/",
        layout.fusion_model("sarcasm"): "memes/models/label=sarcasm/mm_fusion/",
        layout.features_prefix("sarcasm", "v-1"): "memes/features/label=sarcasm/v-1/",
        layout.features("abuse_hate", "v1", "train", SHA256): (
            f"memes/features/label=abuse_hate/v1/train/{SHA256}.npz"
        ),
        layout.evaluation("abuse_hate"): "memes/evaluation/label=abuse_hate/",
        layout.registry(): "memes/models/registry.json",
        layout.report("confusion.png"): "memes/reports/confusion.png",
    }.items():
        assert key == expected


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("raw/images/", "memes/raw/images/a.png"),
        ("raw/images", "memes/raw/images/a.png"),
        ("memes/raw/x", "memes/raw/x/a.png"),
        ("memes", "memes/memes/a.png"),
        ("", "memes/a.png"),
    ],
)
def test_the_folder_of_images_may_be_relative_or_whole(folder, expected):
    assert MemeLayout(images_prefix=folder).image("a.png") == expected


def test_files_may_be_named_whole():
    layout = MemeLayout(prefix="team/memes", manifest_key="team/memes/m.jsonl", ocr_key="o.jsonl")
    assert layout.manifest() == "team/memes/m.jsonl"
    assert layout.ocr() == "team/memes/o.jsonl"


@given(label=LABELS, part=st.integers(0, 10**6 - 1))
def test_keys_are_good_ones_and_of_one_label_alone(label, part):
    layout, other = MemeLayout(), "other" if label != "other" else "another"
    for make in (
        lambda name: layout.expert("text", name),
        lambda name: layout.fusion_model(name),
        lambda name: layout.features_prefix(name, "v"),
        lambda name: layout.evaluation(name),
    ):
        assert check_key(make(label).removesuffix("/"))
        assert not make(label).startswith(make(other))
    assert check_key(layout.shard("train", part))
    assert check_key(layout.features(label, "v", "val", SHA256))


@pytest.mark.parametrize(
    "make",
    [
        lambda layout: layout.image("../../secret"),
        lambda layout: layout.image("/etc/passwd"),
        lambda layout: layout.image(""),
        lambda layout: layout.shard("dev", 0),
        lambda layout: layout.shard("train", -1),
        lambda layout: layout.shard("train", 10**6),
        lambda layout: layout.shards_prefix("../x"),
        lambda layout: layout.expert("audio", "abuse_hate"),
        lambda layout: layout.expert("text", "../x"),
        lambda layout: layout.fusion_model("A"),
        lambda layout: layout.features("abuse_hate", "v/1", "train", SHA256),
        lambda layout: layout.features("abuse_hate", "", "train", SHA256),
        lambda layout: layout.features("abuse_hate", "v", "train", "../x"),
        lambda layout: layout.features("abuse_hate", "v", "train", SHA256.upper()),
        lambda layout: layout.evaluation("a.b"),
        lambda layout: layout.report("../x.png"),
        lambda _: MemeLayout(prefix=""),
        lambda _: MemeLayout(prefix="../x"),
        lambda _: MemeLayout(manifest_key="/x"),
        lambda _: MemeLayout(images_prefix="a//b"),
    ],
)
def test_bad_parts_make_no_key(make):
    with pytest.raises(ValueError, match=r"bad|unknown"):
        make(MemeLayout())
