"""Low-rank updates of an expert's layers, by the optional package ``peft``.

Source of the method: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021.
"""

from typing import Any

from torch import nn

from clipfarm_assets.training.experts.layers import NoLayers, freeze, layers_of
from clipfarm_assets.training.experts.loading import is_of_head
from clipfarm_assets.training.networks.reproducible import reproducible


class LoraUnavailable(ImportError):  # noqa: N818
    """The extra ``lora`` is not installed."""


def add_lora(model: Any, rank: int, seed: int, *, head: bool = True) -> Any:
    """Give the linear parts of all layers updates of rank `rank`, which learn; the rest is frozen.

    A fresh update is zero, so that the model still gives what it gave. Its scale is 2.

    Args:
        model: A transformers classifier; changed in place.
        rank: Of the updates.
        seed: Their random half is drawn from it.
        head: Whether the head learns too, the backbone's pooler with it.

    Returns:
        To be given to `merge_lora` in the end.

    Raises:
        LoraUnavailable: ``peft`` is not installed.
        NoLayers: The model has no layers with linear parts.
    """
    try:
        import peft
    except ImportError as error:
        msg = (
            "lora_rank needs the package peft: in the checkout, run pip install '.[lora]', or set "
            "lora_rank to 0"
        )
        raise LoraUnavailable(msg) from error

    where, layers = layers_of(model)
    linear = [
        name for name, module in layers.named_modules(prefix=where) if isinstance(module, nn.Linear)
    ]
    if not linear:
        msg = f"{type(model).__name__} has no linear parts in its layers: set lora_rank to 0"
        raise NoLayers(msg)
    freeze(model)
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=linear, bias="none"
    )
    with reproducible(seed):
        adapted = peft.LoraModel(model, config, "default")
    for name, parameter in model.named_parameters():
        if head and is_of_head(model, name):
            parameter.requires_grad = True
    return adapted


def merge_lora(adapted: Any) -> None:
    """Add the updates to the weights they update: the model is of plain parts again."""
    adapted.merge_and_unload()
