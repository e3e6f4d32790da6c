"""Fine-tuning an expert on a stream of samples, by the one fit loop."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from clipfarm_assets.training.expert_config import ExpertConfig
from clipfarm_assets.training.experts.expert import BLOCK_ROWS, Expert
from clipfarm_assets.training.experts.layers import learning_parts, unfreeze
from clipfarm_assets.training.experts.lora import add_lora, merge_lora
from clipfarm_assets.training.networks.fit import (
    Batches,
    Checkpoint,
    Curve,
    Inputs,
    Objective,
    ParameterGroup,
    Say,
    StreamedBatches,
    cross_entropy,
    fit_batches,
)

RawRow = tuple[Any, int]
"""A sample's text or image file, and its class."""

CROSS_ENTROPY: Final = cross_entropy()


class _Classifier(nn.Module):
    """An expert as the fit loop calls it."""

    def __init__(self, expert: Expert[Any, Any]) -> None:
        super().__init__()
        self.expert = expert

    def forward(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.expert(inputs).logits
        return logits


def train_batches(
    expert: Expert[Any, Any],
    make_rows: Callable[[torch.Generator], Iterable[RawRow]],
    rows: int,
    config: ExpertConfig,
    *,
    source: str,
) -> StreamedBatches[RawRow]:
    """Samples in an order of their own each epoch, tokenised or decoded a batch at a time.

    Args:
        expert: Which it is for.
        make_rows: Gives the samples; see `StreamedBatches`.
        rows: How many.
        config: Batch size and shuffle buffer.
        source: Names the samples, for checkpoints; the expert's version is added, because its
            files decide what becomes of a sample, e.g. by which tokenizer.
    """
    return StreamedBatches(
        make_rows,
        rows,
        config.fit.batch_size,
        config.shuffle_buffer,
        shuffle_bytes=config.shuffle_bytes,
        size_of=lambda row: len(row[0]),
        collate=_collate(expert),
        source=_source(expert, source),
    )


def val_batches(
    expert: Expert[Any, Any],
    make_rows: Callable[[torch.Generator], Iterable[RawRow]],
    rows: int,
    *,
    source: str,
) -> StreamedBatches[RawRow]:
    """Samples in their own order, in the blocks that experts are evaluated by."""
    return StreamedBatches(
        make_rows,
        rows,
        BLOCK_ROWS,
        collate=_collate(expert),
        source=_source(expert, source),
        part="val",
    )


def fine_tune(
    expert: Expert[Any, Any],
    train: Batches,
    val: Batches,
    config: ExpertConfig,
    seed: int,
    *,
    say: Say,
    objective: Objective = CROSS_ENTROPY,
    checkpoint: Checkpoint | None = None,
) -> Curve:
    """Fit an expert in place, and leave it on the CPU in eval mode at its best epoch.

    The head learns at the rate of ``config.fit``, the last ``config.top_layers`` layers, or
    low-rank updates of all of them, at ``config.layers_learning_rate``. The rest stays as it is.

    Args:
        expert: Started from a base, or finished and to be trained further.
        train: Of the model's arguments and classes, see `train_batches`.
        val: See `val_batches`.
        config: What learns, and how.
        seed: Decides order, dropout and low-rank updates.
        say: Gets lines of progress.
        objective: Loss and scores.
        checkpoint: See `fit_batches`; a checkpoint of other settings is discarded.

    Raises:
        LoraUnavailable: Low-rank updates are wanted, and ``peft`` is not installed.
        NoLayers: The model has fewer layers.
        Diverged: The loss became infinite or NaN.
    """
    adapted = None
    if config.lora_rank:
        adapted = add_lora(expert.model, config.lora_rank, seed)
    else:
        unfreeze(expert.model, config.top_layers)
    name = f"{expert.modality} expert"
    learning = sum(p.numel() for p in expert.parameters() if p.requires_grad)
    total = sum(p.numel() for p in expert.parameters())
    say(f"{name}: {learning} of {total} parameters learn")
    groups = [
        ParameterGroup(f"expert.model.{part}", config.layers_learning_rate)
        for part in learning_parts(expert.model).layers
    ]
    curve = fit_batches(
        _Classifier(expert),
        train,
        val,
        config.fit,
        seed,
        say=say,
        name=name,
        objective=objective,
        groups=groups,
        checkpoint=checkpoint,
        restart_foreign=True,
    )
    if adapted is not None:
        merge_lora(adapted)
    return curve


def _collate(expert: Expert[Any, Any]) -> Callable[[Sequence[RawRow]], tuple[Inputs, Tensor]]:
    def collate(rows: Sequence[RawRow]) -> tuple[Inputs, Tensor]:
        return expert.collate([raw for raw, _ in rows]), torch.tensor([c for _, c in rows])

    return collate


def _source(expert: Expert[Any, Any], source: str) -> str:
    return f"{source} for {expert.version}"
