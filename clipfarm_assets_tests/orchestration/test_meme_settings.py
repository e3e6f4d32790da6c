"""The deployment's setting of memes: labels and where files lie."""

import json
import runpy

import pytest

from clipfarm_assets.defs.resources import resources_from
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.meme_settings import VARIABLE, MemeSettings, meme_settings
from clipfarm_assets.storage.meme_layout import MemeLayout

TOLD = {
    "labels": ["abuse_hate", "sarcasm"],
    "prefix": "of/memes",
    "images_prefix": "pictures/",
    "ocr_key": "words.jsonl",
}


def settings(told):
    return meme_settings({VARIABLE: told if isinstance(told, str) else json.dumps(told)})


@pytest.mark.parametrize("told", [None, ""])
def test_unset_it_is_the_documented_layout_and_the_one_label(told):
    found = meme_settings({} if told is None else {VARIABLE: told})
    assert found == MemeSettings()
    assert found.labels == ("abuse_hate",)
    assert found.layout == MemeLayout()


def test_it_sets_labels_and_keys(tmp_path):
    assert settings(TOLD).labels == ("abuse_hate", "sarcasm")
    environ = {VARIABLE: json.dumps(TOLD), "CLIPFARM_HOME": str(tmp_path)}
    layout = resources_from(environ)["deployment"].memes
    assert layout == settings(TOLD).layout
    assert layout.image("a.png") == "of/memes/pictures/a.png"
    assert layout.manifest() == "of/memes/raw/data_manifest.jsonl"
    assert layout.ocr() == "of/memes/words.jsonl"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("[1]", "must be a JSON object of fields: found '[1]'"),
        ('{"labels": ["a"], "labels": ["b"]}', "must name each field once"),
        ({"lables": ["a"]}, f"{VARIABLE}.lables is no setting: expected some of labels, prefix"),
        ({"labels": []}, f"{VARIABLE}.labels "),
        ({"labels": ["a", "a"]}, "must name each label once"),
        ({"labels": ["Hate!"]}, "bad label 'Hate!': expected a-z"),
        ({"prefix": "../elsewhere"}, f"{VARIABLE}: bad object key"),
        ({"images_prefix": 7}, f"{VARIABLE}.images_prefix must be a valid string: found 7"),
    ],
)
def test_what_it_cannot_be_is_one_sentence(told, says):
    with pytest.raises(ValueError, match=VARIABLE) as refused:
        settings(told)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_labels_are_the_partitions_of_models(monkeypatch):
    monkeypatch.setenv(VARIABLE, json.dumps(TOLD))
    found = runpy.run_path(partitions.__file__)  # as loading the definitions runs it
    assert found["meme_labels"].get_partition_keys() == ["abuse_hate", "sarcasm"]
    assert found["meme_splits"].get_partition_keys() == ["train", "val", "test"]
