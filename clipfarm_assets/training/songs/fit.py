"""How networks of songs are fitted: what is minimised, at which rates, clipped and watched how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from clipfarm_assets.fusion.learned.auxiliary import AllLogits, auxiliary_loss, fused_alone
from clipfarm_assets.fusion.learned.gradients import clip_by_modality
from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.training.networks.batches import Batches
from clipfarm_assets.training.networks.checkpoint import Checkpoint
from clipfarm_assets.training.networks.fit import Curve, Say, fit_batches
from clipfarm_assets.training.networks.objectives import (
    Objective,
    balanced_class_weights,
    cross_entropy,
)
from clipfarm_assets.training.networks.parameter_groups import ParameterGroup
from clipfarm_assets.training.networks.watch import GradientWatch
from clipfarm_assets.training.song_config import TrainingConfig
from clipfarm_assets.training.songs.gradients import GradientHistory
from clipfarm_assets.training.songs.warm_start import warm_start


def objective_of(
    config: TrainingConfig, counts: Sequence[int], *, has_auxiliary: bool
) -> Objective:
    """What a fit minimises; only the fused logits decide when it stops.

    Args:
        config: Class weights, and the weight of the modalities' own heads.
        counts: Train rows of each class.
        has_auxiliary: Whether the network gives the logits of all its heads, see `AllLogits`.

    Raises:
        ValueError: Classes are to be balanced, and one has no rows.
    """
    weights = balanced_class_weights(counts) if config.class_weights == "balanced" else None
    fused = cross_entropy(weights)
    if not has_auxiliary:
        return fused
    return Objective(
        auxiliary_loss(fused.loss, config.auxiliary_weight),
        fused_alone(fused.score),
        fused.score_name,
        f"{fused.name} + {config.auxiliary_weight:g} of each modality's own",
        {name: fused_alone(score) for name, score in fused.other_scores.items()},
    )


def rate_groups(network: FusionNetwork, rates: Mapping[str, float]) -> list[ParameterGroup]:
    """Each modality's encoder at its rate, or what comes after it.

    That is projection, missing token and own head: where nothing of the encoder is trained, so that
    every rate is that of something.
    """
    groups: list[ParameterGroup] = []
    for name in network.modalities:
        own = [f"{part}.{name}" for part in ("projections", "missing")]
        own += [f"unimodal.{name}"] if name in network.unimodal else []
        parts = [f"encoders.{name}"] if learning_parameters(network.encoders[name]) else own
        groups += [ParameterGroup(part, rates[name]) for part in parts]
    return groups


def learning_parameters(module: nn.Module) -> int:
    """How many numbers of a module a fit changes."""
    return sum(each.numel() for each in module.parameters() if each.requires_grad)


@dataclass(frozen=True)
class Fitted:
    """How a network was fitted.

    Attributes:
        curve: Of the fusion.
        warm_start: Modality -> curve of it by itself, before; empty without a warm start.
        gradients: Norms by modality and epoch.
    """

    curve: Curve
    warm_start: Mapping[str, Curve]
    gradients: GradientHistory

    @property
    def resumed_after(self) -> int:
        """Epochs of the fusion that a checkpoint brought along."""
        return self.curve.resumed_after

    @property
    def discarded(self) -> int:
        """Checkpoints that were of no use."""
        return sum(each.discarded for each in (self.curve, *self.warm_start.values()))

    def to_fields(self) -> dict[str, Any]:
        """The curves as a JSON object."""
        warm = {name: each.to_fields() for name, each in self.warm_start.items()}
        return {**self.curve.to_fields(), "warm_start": warm}

    def warm_scores(self) -> dict[str, dict[str, float]]:
        """Modality -> how well its own head tells the classes of val after the warm start."""
        return {
            name: {
                "epochs": len(each.val_score),
                **{key: values[each.best_epoch] for key, values in _scores(each).items()},
            }
            for name, each in self.warm_start.items()
        }


def fit_network(
    network: FusionNetwork,
    train: Batches,
    val: Batches,
    counts: Sequence[int],
    config: TrainingConfig,
    rates: Mapping[str, float],
    *,
    name: str,
    checkpoint: Checkpoint | None,
    say: Say,
    warn: Say,
    warm_checkpoints: Mapping[str, Checkpoint] | None = None,
) -> Fitted:
    """Fit `network` in place; see `fit_batches`. A checkpoint of no use is discarded, and counted.

    Args:
        network: Freshly built.
        train: Its inputs, and classes.
        val: Likewise; decides when to stop.
        counts: Train rows of each class.
        config: How. There is no warm start of a network without auxiliary heads.
        rates: Learning rate of each modality's encoder, see `rate_groups`.
        name: What is fitted, as messages say it.
        checkpoint: See `fit_batches`.
        say: Gets lines of progress.
        warn: Gets advice on gradients that are out of balance.
        warm_checkpoints: By modality, see `warm_start`.

    Raises:
        ValueError: See `objective_of`.
        Diverged: The loss became infinite or NaN.
    """
    groups = rate_groups(network, rates)
    clipped = config.clip_per_modality is not None
    warmed: dict[str, Curve] = {}
    if network.unimodal and config.warm_start_epochs:
        warmed = warm_start(
            network,
            train,
            val,
            config,
            objective_of(config, counts, has_auxiliary=False),
            groups,
            name=name,
            checkpoints=warm_checkpoints or {},
            say=say,
        )
    fitted: nn.Module = network
    if network.unimodal and config.auxiliary_weight:
        fitted = AllLogits(network)
        groups = [replace(group, module=f"network.{group.module}") for group in groups]
    curve = fit_batches(
        fitted,
        train,
        val,
        config.fit,
        config.seed,
        say=say,
        name=name,
        objective=objective_of(config, counts, has_auxiliary=fitted is not network),
        groups=groups,
        checkpoint=checkpoint,
        clip_norm=config.clip_per_modality,
        clip=clip_by_modality,
        restart_foreign=True,
        watch=GradientWatch(network, config.imbalance_ratio, clipped=clipped, name=name, warn=warn),
    )
    gradients = GradientHistory.of(
        curve.watched,
        config.imbalance_ratio,
        clipped=clipped,
        warm_start={modality: each.watched[modality] for modality, each in warmed.items()},
    )
    return Fitted(curve, warmed, gradients)


def _scores(curve: Curve) -> dict[str, tuple[float, ...]]:
    return {curve.score_name: curve.val_score, **curve.other_scores}
