import json
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.expert_config import ExpertConfig
from clipfarm_assets.training.experts.finetune import fine_tune, train_batches, val_batches
from clipfarm_assets.training.experts.lora import LoraUnavailable
from clipfarm_assets.training.experts.saving import saved
from clipfarm_assets.training.experts.text import TextExpert
from clipfarm_assets.training.experts.vision import VisionExpert
from clipfarm_assets_tests.training.experts import kit

TRAIN = kit.angry_texts(96, seed=1)
VAL = kit.angry_texts(40, seed=2)


def run(expert, config, pairs=TRAIN, val=VAL, **settings):
    return fine_tune(
        expert,
        train_batches(expert, kit.rows_of(pairs), len(pairs), config, source="train"),
        val_batches(expert, kit.rows_of(val), len(val), source="val"),
        config,
        config.seed,
        say=lambda _line: None,
        **settings,
    )


@pytest.fixture(scope="module")
def tuned(text_dir):
    expert = kit.start_text(text_dir)
    config = kit.quick_config()
    return expert, run(expert, config), saved(expert)


class Memory:
    """A checkpoint whose fit is killed after some epochs."""

    def __init__(self, kill_after=None):
        self.data, self.saves, self.kill_after = None, 0, kill_after

    def load(self):
        return self.data

    def save(self, data):
        self.data, self.saves = data, self.saves + 1
        if self.saves == self.kill_after:
            raise KeyboardInterrupt

    def clear(self):
        self.data = None


def test_loss_falls_and_what_is_to_be_learned_is(tuned):
    expert, curve, _ = tuned
    assert curve.train_loss[-1] < 0.5 * curve.train_loss[0]
    predicted = expert.represent([text for text, _ in VAL]).logits.argmax(axis=1)
    assert np.mean(predicted == [angry for _, angry in VAL]) > 0.9


def test_same_seed_same_bytes_and_another_seed_others(text_dir, tuned):
    again = kit.start_text(text_dir)
    curve = run(again, kit.quick_config())
    assert curve == tuned[1]
    assert saved(again) == tuned[2]
    other = kit.start_text(text_dir)
    run(other, kit.quick_config(seed=43))
    assert saved(other)["model.safetensors"] != tuned[2]["model.safetensors"]


def test_a_killed_fit_goes_on_to_the_same_bytes(text_dir, tuned):
    checkpoint = Memory(kill_after=1)
    with pytest.raises(KeyboardInterrupt):
        run(kit.start_text(text_dir), kit.quick_config(), checkpoint=checkpoint)
    checkpoint.kill_after = None
    expert = kit.start_text(text_dir)
    curve = run(expert, kit.quick_config(), checkpoint=checkpoint)
    assert curve.resumed_after == 1
    assert saved(expert) == tuned[2]


def test_a_checkpoint_of_another_tokenizer_is_not_gone_on_with(text_dir, tmp_path):
    """Of the same weights and texts: other tokens are other rows."""
    folder = tmp_path / text_dir.name
    shutil.copytree(text_dir, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    checkpoint = Memory(kill_after=1)
    with pytest.raises(KeyboardInterrupt):
        run(kit.start_text(text_dir), kit.quick_config(), checkpoint=checkpoint)
    checkpoint.kill_after = None
    assert run(kit.start_text(folder), kit.quick_config(), checkpoint=checkpoint).resumed_after == 0


def test_the_saved_directory_loads_to_the_same_bits(tuned, tmp_path):
    expert, _, files = tuned
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    texts = kit.some_texts(20)
    loaded = TextExpert.load(tmp_path)
    assert np.array_equal(loaded.represent(texts).hidden, expert.represent(texts).hidden)
    assert np.array_equal(loaded.represent(texts).logits, expert.represent(texts).logits)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert plain.config.id2label == {0: "calm", 1: "angry"}
    assert plain.config.clipfarm_stand_in is True
    config = json.loads(files["config.json"])
    assert not {"transformers_version", "_name_or_path"} & config.keys()
    assert saved(loaded) == files


def test_only_what_is_unfrozen_changes_each_at_its_own_rate(text_dir):
    expert = kit.start_text(text_dir)
    before = {key: value.clone() for key, value in expert.model.state_dict().items()}
    fit = FitConfig(learning_rate=1e-2, batch_size=96, max_epochs=1, patience=1, weight_decay=0)
    config = kit.quick_config(top_layers=1, layers_learning_rate=1e-4, fit=fit)
    run(expert, config)
    moved = {
        key: float((value - before[key]).abs().max())
        for key, value in expert.model.state_dict().items()
    }
    # Adam's first step is as long as the rate, wherever there is a gradient.
    for key, distance in moved.items():
        if key.startswith(("classifier", "bert.pooler")):
            assert distance == pytest.approx(1e-2, rel=0.01), key
        elif key.startswith("bert.encoder.layer.2.") and not key.endswith("key.bias"):
            assert distance == pytest.approx(1e-4, rel=0.02), key
        elif not key.startswith("bert.encoder.layer.2."):
            assert distance == 0, key


def test_a_vision_expert_is_fine_tuned_by_the_same_loop(vision_dir):
    bright, dark = ([kit.some_image(seed).point(f) for seed in range(24)] for f in (_up, _down))
    pairs = [(kit.encoded(image), 1) for image in bright] + [
        (kit.encoded(image), 0) for image in dark
    ]
    expert = kit.start_vision(vision_dir)
    curve = run(expert, kit.quick_config(top_layers=1), pairs, pairs)
    assert curve.train_loss[-1] < curve.train_loss[0]
    assert curve.other_scores["val_accuracy"][curve.best_epoch] > 0.9
    again = kit.start_vision(vision_dir)
    run(again, kit.quick_config(top_layers=1), pairs, pairs)
    assert saved(again) == saved(expert)
    assert isinstance(again, VisionExpert)


def _up(value):
    return 128 + value // 2


def _down(value):
    return value // 2


def test_low_rank_updates_are_merged_and_leave_a_plain_model(text_dir):
    pytest.importorskip("peft")
    config = kit.quick_config(lora_rank=2, layers_learning_rate=1e-2)
    expert, again = kit.start_text(text_dir), kit.start_text(text_dir)
    before = {key: value.clone() for key, value in expert.model.state_dict().items()}
    curve = run(expert, config)
    run(again, config)
    assert curve.train_loss[-1] < curve.train_loss[0]
    after = expert.model.state_dict()
    assert after.keys() == before.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    body = {key for key in changed if not key.startswith(("classifier", "bert.pooler"))}
    assert body == {key for key in before if ".layer." in key and before[key].ndim == 2}
    ranks = {int(torch.linalg.matrix_rank(after[k] - before[k], atol=1e-4)) for k in body}
    assert max(ranks) <= 2
    assert saved(again) == saved(expert)


def test_low_rank_updates_without_the_extra_say_what_to_install(text_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LoraUnavailable, match=r"pip install '\.\[lora\]'"):
        run(kit.start_text(text_dir), kit.quick_config(lora_rank=2))


def test_low_rank_and_single_layers_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        ExpertConfig(lora_rank=4, top_layers=2)
