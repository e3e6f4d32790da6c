import pytest
import torch
import transformers
from torch import nn

from clipfarm_assets.training.experts.layers import NoLayers, layers_of, unfreeze
from clipfarm_assets_tests.training.experts import kit


@pytest.fixture(scope="module")
def models(text_dir, vision_dir):
    torch.manual_seed(0)
    resnet = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        )
    )
    distil = transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(vocab_size=30, dim=8, n_layers=3, n_heads=2, hidden_dim=8)
    )
    return {
        "bert": kit.start_text(text_dir).model,
        "vit": kit.start_vision(vision_dir).model,
        "resnet": resnet,
        "distilbert": distil,
    }


def learning(model):
    return {name for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize(
    ("kind", "where", "count"),
    [
        ("bert", "bert.encoder.layer", 3),
        ("vit", "vit.layers", 3),
        ("resnet", "resnet.encoder.stages", 2),
        ("distilbert", "distilbert.transformer.layer", 3),
    ],
)
def test_layers_are_found_whatever_they_are_called(models, kind, where, count):
    name, layers = layers_of(models[kind])
    assert (name, len(layers)) == (where, count)


@pytest.mark.parametrize("kind", ["bert", "vit", "resnet", "distilbert"])
@pytest.mark.parametrize("top_layers", [0, 1, 2, "all"])
def test_parts_hold_every_learning_parameter_once(models, kind, top_layers):
    model = models[kind]
    found = unfreeze(model, top_layers)
    parts = (*found.head, *found.layers)
    for name in learning(model):
        assert sum(name == part or name.startswith(f"{part}.") for part in parts) == 1, name
    assert bool(found.layers) == (top_layers != 0)


def test_the_head_is_all_outside_the_backbone_and_its_pooler(models):
    unfreeze(models["bert"], 0)
    assert learning(models["bert"]) == {
        "classifier.weight", "classifier.bias", "bert.pooler.dense.weight", "bert.pooler.dense.bias"
    }  # fmt: skip
    unfreeze(models["vit"], 0)
    assert learning(models["vit"]) == {"classifier.weight", "classifier.bias"}
    unfreeze(models["vit"], 1, head=False)
    assert not any(name.startswith("classifier") for name in learning(models["vit"]))


def test_with_the_last_layers_goes_what_comes_after_them(models):
    unfreeze(models["vit"], 1)
    found = {".".join(name.split(".")[:3]) for name in learning(models["vit"])}
    assert found == {
        "vit.layers.2", "vit.layernorm.weight", "vit.layernorm.bias",
        "classifier.weight", "classifier.bias",
    }  # fmt: skip


def test_all_is_everything(models):
    for model in models.values():
        unfreeze(model, "all")
        assert learning(model) == {name for name, _ in model.named_parameters()}


def test_more_layers_than_there_are_are_refused(models):
    with pytest.raises(NoLayers, match=r"has 3 layers at bert.encoder.layer: .*found 4"):
        unfreeze(models["bert"], 4)


def test_a_model_without_layers_says_so():
    class Flat(nn.Module):
        base_model_prefix = "base"

        def __init__(self):
            super().__init__()
            self.base = nn.Linear(2, 2)

        @property
        def base_model(self):
            return self.base

    with pytest.raises(NoLayers, match="cannot find the layers of Flat"):
        unfreeze(Flat(), 1)
