"""The fusion head is the network it is said to be, also over experts that are trained along."""

import numpy as np
import pytest
import torch
from torch import nn

from clipfarm_assets.training.experts.fusion_encoders import (
    CollateMemes,
    MemeSample,
    encoded_inputs,
    expert_groups,
    learning_encoders,
)
from clipfarm_assets.training.experts.fusion_head import (
    FusionModel,
    WrongFeatures,
    architecture_of,
    build_network,
    collate_stored,
    fit_fusion,
    objective_of,
    stored_inputs,
    stored_rows,
)
from clipfarm_assets.training.meme_config import MemeFusionConfig
from clipfarm_assets.training.networks.fit import StreamedBatches
from clipfarm_assets_tests.training.experts import kit

CLASSES = ("not_abuse_hate", "abuse_hate")
VERSIONS = {"text": "text-1", "vision": "vision-1"}


def made(classes=CLASSES, widths=None, **settings):
    config = MemeFusionConfig(**{"hidden": 16} | settings)
    widths = widths or {"text": 6, "vision": 5}
    return config, architecture_of(config, "abuse_hate", classes, VERSIONS, widths)


def vectors(count, seed=0):
    random = np.random.default_rng(seed)
    return (
        {"text": random.normal(size=(count, 6)), "vision": random.normal(size=(count, 5))},
        random.random((count, 2)) > 0.2,
    )


def test_late_fusion_is_concat_linear_gelu_dropout_linear():
    _, architecture = made(hidden=16, dropout=0.25)
    network = build_network(architecture, 0)
    layers = list(network.head)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.GELU, nn.Dropout, nn.Linear]
    assert (layers[0].in_features, layers[0].out_features) == (11, 16)
    assert (layers[2].p, layers[3].out_features) == (0.25, 2)


def test_the_seed_decides_the_weights_and_nothing_around_it():
    _, architecture = made()
    torch.manual_seed(1)
    one = build_network(architecture, 7).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    two = build_network(architecture, 7).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], two[key]) for key in one)
    other = build_network(architecture, 8).state_dict()
    assert not torch.equal(other["head.0.weight"], one["head.0.weight"])


def test_a_row_depends_on_itself_alone_and_absent_values_do_not_matter():
    _, architecture = made()
    model = FusionModel(architecture, build_network(architecture, 0))
    values, present = vectors(300)
    whole = model.logits(stored_inputs(values, present))
    assert whole.dtype == np.float64
    some = {name: each[40:41] for name, each in values.items()}
    assert (model.logits(stored_inputs(some, present[40:41])) == whole[40:41]).all()
    for side, each in enumerate(values.values()):
        each[~present[:, side]] = np.nan
    assert (model.logits(stored_inputs(values, present)) == whole).all()
    assert model.logits(stored_inputs(*vectors(0))).shape == (0, 2)


def test_artifacts_give_the_model_back():
    _, architecture = made(strategy="gated")
    model = FusionModel(architecture, build_network(architecture, 3).eval())
    files = model.artifacts()
    assert files == model.artifacts()
    again = FusionModel.load(files.__getitem__)
    assert again.architecture == architecture
    assert again.artifacts() == files
    inputs = stored_inputs(*vectors(20))
    assert (again.logits(inputs) == model.logits(inputs)).all()


def test_representations_of_another_length_are_refused():
    _, architecture = made()
    model = FusionModel(architecture, build_network(architecture, 0))
    values, present = vectors(3)
    values["vision"] = values["text"]
    with pytest.raises(
        WrongFeatures, match=r"sees 5 numbers of vision \(hidden of expert vision-1"
    ):
        model.logits(stored_inputs(values, present))


def test_binary_cross_entropy_has_one_output_and_is_for_two_classes():
    config, architecture = made(objective="binary_cross_entropy")
    model = FusionModel(architecture, build_network(architecture, 0))
    assert architecture.outputs == 1
    logits = model.logits(stored_inputs(*vectors(4)))
    assert (logits[:, 0] == 0).all()
    assert logits[:, 1].any()
    # Balanced: a positive counts as often as there are negatives to each of them.
    output, target = torch.tensor([[0.3], [-0.2]]), torch.tensor([1, 0])
    plain = nn.functional.binary_cross_entropy_with_logits(
        output[:, 0], target.float(), pos_weight=torch.tensor(3.0)
    )
    assert objective_of(config, [30, 10]).loss(output, target) == pytest.approx(plain.item())
    with pytest.raises(ValueError, match="is for two classes, abuse_hate has 3"):
        made(("a", "b", "c"), objective="binary_cross_entropy")


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="`lora_rank` or `unfreeze_top_layers`, not both"):
        MemeFusionConfig(lora_rank=2, unfreeze_top_layers=1)


def test_stored_rows_and_batches_are_the_same_numbers():
    values, present = vectors(5)
    labels = np.array([0, 1, 1, 0, 1])
    inputs, target = collate_stored(list(stored_rows(values, present, labels)))
    whole = stored_inputs(values, present)
    assert all(torch.equal(inputs[key], whole[key]) for key in whole)
    assert target.tolist() == labels.tolist()


def samples(count, seed=4):
    texts = kit.angry_texts(count, seed)
    images = kit.some_images(count, seed)
    return [
        MemeSample(f"s{n}", "" if n % 5 == 4 else text, image, angry)
        for n, ((text, angry), image) in enumerate(zip(texts, images, strict=True))
    ]


def along(text_dir, vision_dir, **how):
    """A network over two small experts whose last layers learn."""
    experts = {"text": kit.start_text(text_dir), "vision": kit.start_vision(vision_dir)}
    config, architecture = made(
        kit.CLASSES,
        {"text": 32, "vision": 32},
        expert_learning_rate=1e-3,
        fit={"batch_size": 8, "max_epochs": 2, "learning_rate": 5e-3},
        **(how or {"unfreeze_top_layers": 1}),
    )
    encoders = learning_encoders(architecture, experts, 0)
    return config, architecture, experts, build_network(architecture, 0, encoders)


def fitted(text_dir, vision_dir, **how):
    config, architecture, experts, network = along(text_dir, vision_dir, **how)
    rows = samples(24)

    def batches(part):
        collate = CollateMemes(experts, is_padded_in_full=part == "val")
        return StreamedBatches(lambda _: iter(rows), 24, 8, 0, collate, "rows", part)

    curve = fit_fusion(
        network,
        batches("train"),
        batches("val"),
        [12, 12],
        config,
        checkpoint=None,
        say=lambda _: None,
        groups=expert_groups(experts, config.expert_learning_rate),
        clip_norm=1.0,
    )
    return FusionModel(architecture, network), curve


def test_experts_that_are_trained_along_move_in_their_last_layers_alone(text_dir, vision_dir):
    _, _, _, start = along(text_dir, vision_dir)
    before = {key: value.clone() for key, value in start.state_dict().items()}
    model, curve = fitted(text_dir, vision_dir)
    after = model.network.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("encoders.text" in key for key in moved)
    assert any("encoders.vision" in key for key in moved)
    assert all(".2." in key or "norm" in key for key in moved if key.startswith("encoders")), moved
    assert curve.train_loss[-1] < curve.train_loss[0]


@pytest.mark.parametrize("how", [{"unfreeze_top_layers": 1}, {"lora_rank": 2}], ids=str)
def test_a_model_that_trained_its_experts_along_is_given_back(text_dir, vision_dir, how):
    if "lora_rank" in how:
        pytest.importorskip("peft")
    model, _ = fitted(text_dir, vision_dir, **how)
    files = model.artifacts()
    frozen = [key for key, value in model.network.named_parameters() if not value.requires_grad]
    assert frozen
    with pytest.raises(ValueError, match="give `encoders`"):
        FusionModel.load(files.__getitem__)

    def encoders(architecture):
        experts = {"text": kit.start_text(text_dir), "vision": kit.start_vision(vision_dir)}
        return learning_encoders(architecture, experts, 9)

    again = FusionModel.load(files.__getitem__, encoders)
    assert again.artifacts() == files
    seen = np.array([True, True])

    def logits(of, rows, shown=seen):
        return np.concatenate([of.logits(each, 32) for each in encoded_inputs(of, rows, shown)])

    rows = samples(40, 6)
    whole = logits(model, rows)
    assert (logits(again, rows) == whole).all()
    assert (logits(model, rows[33:35]) == whole[33:35]).all()
    alone = logits(model, rows, np.array([False, True]))
    blank = [n for n, row in enumerate(rows) if not row.text]
    assert (alone[blank] == whole[blank]).all()
    assert (alone != whole).any()
