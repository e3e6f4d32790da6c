"""Each modality's encoder, projection and own head fitted by themselves, before all are fused.

A fit of everything at once may leave one modality where it began: as soon as another one explains
most labels, little gradient is left for it (Wang et al., "What Makes Training Multi-modal
Classification Networks Hard?", 2020; Peng et al., "Balanced Multimodal Learning via On-the-fly
Gradient Modulation", 2022). Fitted alone, each learns what it can, stops at its own best epoch, and
fusion begins from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from clipfarm_assets.fusion.learned.auxiliary import own_network
from clipfarm_assets.fusion.learned.gradients import clip_by_modality
from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.training.networks.batches import Batches
from clipfarm_assets.training.networks.checkpoint import Checkpoint
from clipfarm_assets.training.networks.fit import Curve, fit_batches
from clipfarm_assets.training.networks.objectives import Objective
from clipfarm_assets.training.networks.parameter_groups import ParameterGroup
from clipfarm_assets.training.networks.progress import Say
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.networks.watch import GradientWatch
from clipfarm_assets.training.song_config import TrainingConfig
from clipfarm_assets.training.songs.single import OneModality


def warm_start(
    network: FusionNetwork,
    train: Batches,
    val: Batches,
    config: TrainingConfig,
    objective: Objective,
    groups: Sequence[ParameterGroup],
    *,
    name: str,
    checkpoints: Mapping[str, Checkpoint],
    say: Say,
) -> dict[str, Curve]:
    """Fit each modality of `network` by its own head, in place; fusion and its head stay.

    Own heads are drawn anew by the seed, so that the start is one and the same whatever fuses,
    where the rest was drawn alike: networks of several strategies may share its checkpoints.

    The curves' ``watched`` has the modality's gradient norm by epoch. Of several modalities none
    competes with another here, so that nothing is advised.

    Args:
        network: With auxiliary heads.
        train: Its inputs, and classes; of all modalities.
        val: Likewise; decides, for each modality, when to stop.
        config: How; `warm_start_epochs` of it at most.
        objective: Of one head's logits.
        groups: Rates of the network's parts.
        name: What is fitted, as messages say it.
        checkpoints: By modality, see `fit_batches`; what has none is fitted again by a run that
            goes on, with the same result.
        say: Gets lines of progress.

    Returns:
        A curve a modality.

    Raises:
        Diverged: The loss became infinite or NaN.
    """
    with reproducible(config.seed):
        for head in network.unimodal.values():
            head.reset_parameters()
    fit = config.fit.model_copy(update={"max_epochs": config.warm_start_epochs})
    curves: dict[str, Curve] = {}
    for column, modality in enumerate(network.modalities):
        own = own_network(network, modality)
        told = f"{name}, {modality} by itself"
        curves[modality] = fit_batches(
            own,
            OneModality(train, modality, column),
            OneModality(val, modality, column),
            fit,
            config.seed,
            say=say,
            name=told,
            objective=objective,
            groups=_groups_of(modality, groups),
            checkpoint=checkpoints.get(modality),
            clip_norm=config.clip_per_modality,
            clip=clip_by_modality,
            restart_foreign=True,
            watch=GradientWatch(own, config.imbalance_ratio, name=told, warn=say),
        )
    return curves


def _groups_of(modality: str, groups: Sequence[ParameterGroup]) -> list[ParameterGroup]:
    """Those of a modality's parts, of which the own head is called ``head`` in `own_network`."""
    return [
        replace(group, module="head") if group.module == f"unimodal.{modality}" else group
        for group in groups
        if group.module.rpartition(".")[2] == modality
    ]
