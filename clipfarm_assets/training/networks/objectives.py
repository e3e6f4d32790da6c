"""What a fit minimises, and what decides when it stops."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import torch
from torch import Tensor, nn

from clipfarm_assets.training.classification.metrics import accuracy, macro_f1
from clipfarm_assets.training.classification.values import (
    Labels,
    predicted_classes,
    probabilities,
)

Score: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(output [N, ...], target [N, ...]) -> scalar``, of all validation rows, on the CPU, float64."""


@dataclass(frozen=True)
class Objective:
    """What a fit minimises, and what decides when it stops.

    Attributes:
        loss: ``(output [b, ...], target [b, ...]) -> mean over the rows``, a scalar.
        score: The same of all validation rows in float64; lower is better.
        score_name: How curves and progress name it.
        name: Says which loss this is, with its weights: checkpoints are told apart by it. By
            default `score_name`.
        other_scores: More to know of the validation rows after each epoch, by name. They decide
            nothing, and need not be finite.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    score: Score
    score_name: str
    name: str = ""
    other_scores: Mapping[str, Score] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep the names of a curve's fields apart.

        Raises:
            ValueError: A score's name is taken.
        """
        taken = {"train_loss", "best_epoch", "stopped_early", self.score_name}
        if twice := sorted(taken & set(self.other_scores)):
            msg = f"other_scores must have names of their own, found {twice} again"
            raise ValueError(msg)

    @property
    def identity(self) -> str:
        """What a checkpoint knows it by."""
        return f"{self.name or self.score_name}: {', '.join([self.score_name, *self.other_scores])}"


def _rmse(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(output, target).sqrt()


REGRESSION: Final = Objective(nn.functional.mse_loss, _rmse, "val_rmse")
"""Mean squared error, stopped on the validation RMSE: the training contract, section 7."""


def _class_score(metric: Callable[[Labels, Labels], float]) -> Score:
    def score(output: Tensor, target: Tensor) -> Tensor:
        labels = target.long()
        if not torch.equal(labels.to(target.dtype), target):
            msg = "labels must be whole numbers, those of the classes: found fractions"
            raise ValueError(msg)
        predicted = predicted_classes(probabilities(output.numpy()))
        return torch.tensor(metric(labels.numpy(), predicted), dtype=torch.float64)

    return score


CLASS_SCORES: Final[Mapping[str, Score]] = {
    "val_accuracy": _class_score(accuracy),
    "val_macro_f1": _class_score(macro_f1),
}
"""What is told of a classifier after each epoch: of C logits, or of one that says class 1."""


def cross_entropy(
    class_weights: Sequence[float] | None = None,
    other_scores: Mapping[str, Score] = CLASS_SCORES,
) -> Objective:
    """Cross entropy of logits ``[b, C]`` and classes int64 ``[b]``, stopped on ``val_loss``.

    With weights both are ``sum(w[y_i] * nll_i) / sum(w[y_i])``, as torch defines them.

    Args:
        class_weights: C finite weights above 0, e.g. `balanced_class_weights`.
        other_scores: As in `Objective`.

    Raises:
        ValueError: A weight is not finite or not above 0; on use: there are not C of them.
    """
    weights = None if class_weights is None else _weights("class_weights", class_weights)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if weights is None:
            return nn.functional.cross_entropy(output, target)
        if output.shape[1:] != weights.shape:
            msg = (
                f"class_weights must be one a class: {len(weights)} for logits of shape "
                f"{tuple(output.shape)}"
            )
            raise ValueError(msg)
        return nn.functional.cross_entropy(output, target, weights.to(output))

    name = f"cross_entropy(class_weights={_listed(weights)})"
    return Objective(loss, loss, "val_loss", name, other_scores)


def binary_cross_entropy(
    pos_weight: float | None = None,
    other_scores: Mapping[str, Score] = CLASS_SCORES,
) -> Objective:
    """Binary cross entropy of logits and labels 0 and 1, stopped on ``val_loss``.

    Logits are ``[b]``, ``[b, 1]``, or ``[b, L]`` for L labels at once; labels ``[b]`` or ``[b, L]``
    of any type.

    Args:
        pos_weight: What a positive's term counts more than a negative's, finite and above 0.
        other_scores: As in `Objective`.

    Raises:
        ValueError: The weight is not finite or not above 0; on use: logits and labels differ in
            shape.
    """
    weight = None if pos_weight is None else _weights("pos_weight", [pos_weight])

    def loss(output: Tensor, target: Tensor) -> Tensor:
        logits = output.squeeze(-1) if output.ndim == target.ndim + 1 else output
        if logits.shape != target.shape:
            msg = (
                f"binary cross entropy needs a logit a label: found logits {tuple(output.shape)} "
                f"and labels {tuple(target.shape)}; a network of one output, or cross_entropy"
            )
            raise ValueError(msg)
        positive = None if weight is None else weight.to(logits)
        return nn.functional.binary_cross_entropy_with_logits(
            logits, target.to(logits.dtype), pos_weight=positive
        )

    name = f"binary_cross_entropy(pos_weight={_listed(weight)})"
    return Objective(loss, loss, "val_loss", name, other_scores)


def balanced_class_weights(counts: Sequence[int]) -> list[float]:
    """``N / (C * n_c)``: every class weighs the same in sum, and a row 1 on average.

    Args:
        counts: Train rows of each of the C classes.

    Raises:
        ValueError: A class has no rows, so that no weight could balance it.
    """
    if not counts or min(counts) < 1:
        msg = (
            f"every class needs train rows to be weighed by, found {list(counts)}: leave class "
            "weights out, or split again"
        )
        raise ValueError(msg)
    return [sum(counts) / (len(counts) * count) for count in counts]


def _weights(name: str, values: Sequence[float]) -> Tensor:
    weights = torch.tensor(list(values), dtype=torch.float64)
    if not (len(weights) and bool(weights.isfinite().all()) and bool((weights > 0).all())):
        msg = f"{name} must be finite and above 0, found {list(values)}"
        raise ValueError(msg)
    return weights


def _listed(weights: Tensor | None) -> str:
    return "none" if weights is None else str(weights.tolist())
