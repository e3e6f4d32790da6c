import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from clipfarm_assets.training.networks.objectives import (
    CLASS_SCORES,
    REGRESSION,
    Objective,
    balanced_class_weights,
    binary_cross_entropy,
    cross_entropy,
)

DRAW = torch.Generator().manual_seed(0)
LOGITS = torch.randn(40, 3, generator=DRAW)
CLASSES = torch.randint(3, (40,), generator=DRAW)
BINARY = torch.randint(2, (40,), generator=DRAW)


def test_cross_entropy_is_the_mean_negative_log_probability():
    probabilities = torch.softmax(LOGITS.double(), 1)
    expected = -probabilities[torch.arange(40), CLASSES].log().mean()
    objective = cross_entropy()
    assert objective.loss(LOGITS, CLASSES).item() == pytest.approx(expected.item(), rel=1e-6)
    assert objective.score(LOGITS.double(), CLASSES).item() == pytest.approx(expected.item())


def test_class_weights_weigh_classes():
    weights = [0.5, 1.0, 4.0]
    each = -torch.log_softmax(LOGITS.double(), 1)[torch.arange(40), CLASSES]
    by_row = torch.tensor(weights, dtype=torch.float64)[CLASSES]
    expected = (each * by_row).sum() / by_row.sum()
    objective = cross_entropy(weights)
    assert objective.score(LOGITS.double(), CLASSES).item() == pytest.approx(expected.item())
    assert torch.equal(
        objective.loss(LOGITS, CLASSES),
        nn.functional.cross_entropy(LOGITS, CLASSES, torch.tensor(weights)),
    )
    assert objective.loss(LOGITS, CLASSES) != cross_entropy().loss(LOGITS, CLASSES)


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_binary_cross_entropy_of_one_logit(shape, dtype):
    logits = LOGITS[:, 0].reshape(shape)
    z, y = LOGITS[:, 0].double(), BINARY.double()
    positive = -torch.sigmoid(z).log() * y
    negative = -torch.sigmoid(-z).log() * (1 - y)
    for weight in (None, 3.0):
        expected = ((weight or 1.0) * positive + negative).mean().item()
        objective = binary_cross_entropy(weight)
        found = objective.loss(logits, BINARY.to(dtype)).item()
        assert found == pytest.approx(expected, rel=1e-5)
        found = objective.score(logits.double(), BINARY.to(dtype)).item()
        assert found == pytest.approx(expected)


def test_binary_cross_entropy_of_several_labels():
    labels = torch.stack([BINARY, 1 - BINARY, BINARY], 1)
    each = [
        binary_cross_entropy(2.0).score(LOGITS[:, i].double(), labels[:, i]).item()
        for i in range(3)
    ]
    found = binary_cross_entropy(2.0).score(LOGITS.double(), labels).item()
    assert found == pytest.approx(np.mean(each))


@pytest.mark.parametrize("objective", [cross_entropy([1.0, 2.0, 3.0]), binary_cross_entropy(2.0)])
def test_losses_have_gradients(objective):
    one = "binary" in objective.name
    output = (LOGITS[:, 0] if one else LOGITS).clone().requires_grad_(True)
    target = BINARY if one else CLASSES
    objective.loss(output, target).backward()
    assert bool((output.grad != 0).all())


@pytest.mark.parametrize(
    ("output", "target"),
    [(LOGITS, CLASSES), (LOGITS[:, :2], BINARY), (LOGITS[:, 0], BINARY), (LOGITS[:, :1], BINARY)],
)
def test_other_scores_are_those_of_scikit_learn(output, target):
    """Of C logits the largest says the class; of one, whether it is above 0."""
    predicted = output.argmax(1) if output.ndim == 2 and output.shape[1] > 1 else output > 0
    predicted = predicted.reshape(40).long().numpy()
    for labels in (target, target.float()):
        found = {name: score(output.double(), labels) for name, score in CLASS_SCORES.items()}
        assert found["val_accuracy"].dtype == torch.float64
        assert found["val_accuracy"].item() == accuracy_score(target, predicted)
        expected = f1_score(target, predicted, average="macro")
        assert found["val_macro_f1"].item() == pytest.approx(expected, rel=1e-12)


def test_fractions_are_no_classes():
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        CLASS_SCORES["val_accuracy"](LOGITS.double(), CLASSES + 0.5)


def test_balanced_weights():
    counts = [10, 30, 60]
    weights = balanced_class_weights(counts)
    sums = [weight * count for weight, count in zip(weights, counts, strict=True)]
    assert sums == pytest.approx([sums[0]] * 3), "every class weighs the same"
    assert sum(sums) == pytest.approx(100), "and a row 1 on average"
    assert balanced_class_weights([5, 5]) == [1.0, 1.0]


@pytest.mark.parametrize("counts", [[], [0, 5], [5, -1]])
def test_classes_without_rows_have_no_weight(counts):
    with pytest.raises(ValueError, match="every class needs train rows"):
        balanced_class_weights(counts)


@pytest.mark.parametrize("weights", [[], [1.0, 0.0], [1.0, -1.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_weights_that_make_no_sense(weights):
    with pytest.raises(ValueError, match="class_weights must be finite and above 0"):
        cross_entropy(weights)
    if weights:
        with pytest.raises(ValueError, match="pos_weight must be finite and above 0"):
            binary_cross_entropy(weights[0] if weights[0] != 1.0 else weights[1])


def test_a_weight_a_class():
    with pytest.raises(ValueError, match=r"2 for logits of shape \(40, 3\)"):
        cross_entropy([1.0, 2.0]).loss(LOGITS, CLASSES)


def test_a_logit_a_label():
    with pytest.raises(ValueError, match=r"found logits \(40, 3\) and labels \(40,\)"):
        binary_cross_entropy().loss(LOGITS, BINARY)


def test_identities_tell_objectives_apart():
    objectives = [
        REGRESSION,
        cross_entropy(),
        cross_entropy([1.0, 1.0]),
        cross_entropy([1.0, 2.0]),
        cross_entropy(other_scores={}),
        binary_cross_entropy(),
        binary_cross_entropy(2.0),
    ]
    assert len({objective.identity for objective in objectives}) == len(objectives)
    assert cross_entropy([1.0, 2.0]).identity == cross_entropy((1, 2)).identity


@pytest.mark.parametrize("name", ["val_loss", "best_epoch", "train_loss"])
def test_names_of_scores_are_their_own(name):
    with pytest.raises(ValueError, match=rf"names of their own, found \['{name}'\] again"):
        Objective(
            nn.functional.mse_loss, nn.functional.mse_loss, "val_loss", other_scores={name: 1}
        )
