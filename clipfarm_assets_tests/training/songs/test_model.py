"""What is kept of a model makes the same one again, or is refused."""

import pytest
import torch

from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.training.networks.weights import BadWeights
from clipfarm_assets.training.song_snapshot import MODELS
from clipfarm_assets.training.songs.model import SETTINGS, SongModel, settings_of
from clipfarm_assets_tests.training.songs import kit


@pytest.mark.parametrize("name", MODELS)
def test_a_reloaded_model_gives_the_same_logits_bit_for_bit(name):
    model = SongModel.build(name, kit.config(seed=3), kit.CLASSES)
    model.network.eval()
    given, _ = kit.rows(20)
    present = given["present"]
    if name not in STRATEGIES:
        modality = name.removeprefix("single:")
        given = {key: value for key, value in given.items() if key.startswith(f"{modality}.")}
        given["present"] = present[:, [kit.alone(modality)]]
    files = model.artifacts()
    assert set(files) == {"config.yaml", "model.json", "model.safetensors"}
    torch.manual_seed(99)
    again = SongModel.load(files.__getitem__)
    assert (again.name, again.config, again.classes) == (name, model.config, kit.CLASSES)
    assert not again.network.training
    with torch.inference_mode():
        assert torch.equal(again.network(**given), model.network(**given))
    assert again.artifacts() == files


def test_fusion_strategy_is_that_of_the_name_whatever_the_settings_say():
    kinds = set()
    for strategy in STRATEGIES:
        model = SongModel.build(strategy, kit.config(), kit.CLASSES)
        assert model.config.model.fusion.strategy == strategy
        kinds.add(type(model.network.strategy).__name__)
    assert kinds == {"Late", "Early", "CrossAttention", "Gated"}
    with pytest.raises(ValueError, match="unknown model 'lat': expected one of late, early"):
        SongModel.build("lat", kit.config(), kit.CLASSES)


def test_how_models_are_judged_makes_no_other_model():
    settings = kit.config()
    judged = settings.evaluation.model_copy(update={"resamples": 7})
    other = settings.model_copy(update={"evaluation": judged})
    assert settings_of(settings, "late") == settings_of(other, "late")


def test_a_modality_alone_has_as_many_epochs_as_the_warm_start_and_fusion_together():
    settings = kit.config(warm_start_epochs=4)
    alone, fused = (settings_of(settings, name).training for name in ("single:audio", "early"))
    assert alone.fit.max_epochs == fused.fit.max_epochs + 4 == settings.training.fit.max_epochs + 4
    assert not alone.has_own_heads
    again = settings_of(settings_of(settings, "single:audio"), "single:audio")
    assert again == settings_of(settings, "single:audio")


def test_the_seed_draws_the_weights():
    one, same, other = (
        SongModel.build("gated", kit.config(seed=seed), kit.CLASSES).artifacts()
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one["model.safetensors"] != other["model.safetensors"]


def test_files_of_another_model_are_refused():
    files = SongModel.build("late", kit.config(), kit.CLASSES).artifacts()
    early = SongModel.build("early", kit.config(), kit.CLASSES).artifacts()
    with pytest.raises(BadWeights, match="is not of this network"):
        SongModel.load({**files, "model.safetensors": early["model.safetensors"]}.__getitem__)
    with pytest.raises(BadWeights, match="must be those of a song model"):
        SongModel.load({**files, "model.json": b"{}"}.__getitem__)
    told = files[SETTINGS].replace(b"hidden_dim: 8", b"hidden_dim: -8")
    with pytest.raises(BadWeights, match="hidden_dim"):
        SongModel.load({**files, SETTINGS: told}.__getitem__)


def test_frozen_weights_are_not_kept_and_must_be_those_it_was_fitted_over(monkeypatch):
    """What is frozen is found again by its hash: other pretrained weights are another model."""
    from clipfarm_assets.training.songs import model as room

    drawn = room.build_network

    def frozen(*arguments, add=0.0, **options):
        network = drawn(*arguments, **options)
        network.encoders["audio"].requires_grad_(requires_grad=False)
        with torch.no_grad():
            for value in network.encoders["audio"].parameters():
                value += add
        return network

    monkeypatch.setattr(room, "build_network", frozen)
    model = SongModel.build("late", kit.config(), kit.CLASSES)
    files = model.artifacts()
    whole = sum(value.nbytes for value in model.network.state_dict().values())
    audio = sum(value.nbytes for value in model.network.encoders["audio"].state_dict().values())
    assert len(files["model.safetensors"]) < whole - audio + 8000
    assert b"encoders.audio" not in files["model.safetensors"]
    SongModel.load(files.__getitem__)
    monkeypatch.setattr(room, "build_network", lambda *a, **o: frozen(*a, add=0.5, **o))
    with pytest.raises(BadWeights, match="fitted over other pretrained weights"):
        SongModel.load(files.__getitem__)
