"""Which parts of an expert learn: its head, and as many of its last layers as are wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from clipfarm_assets.training.experts.loading import is_of_head


class NoLayers(ValueError):  # noqa: N818
    """A model has no, or not as many, layers to unfreeze."""


@dataclass(frozen=True, slots=True)
class Learning:
    """What of a model learns, by names of parts: of modules, or of single parameters.

    A part may hold frozen parameters too, but of what learns every parameter is of one part.

    Attributes:
        head: What turns the backbone's output into logits.
        layers: The unfrozen part of the backbone.
    """

    head: tuple[str, ...]
    layers: tuple[str, ...]


def freeze(model: nn.Module) -> None:
    """Let nothing learn."""
    for parameter in model.parameters():
        parameter.requires_grad = False


def unfreeze(model: Any, top_layers: int | Literal["all"], *, head: bool = True) -> Learning:
    """Let the head and the last layers of a transformers classifier learn, and nothing else.

    With the last layers goes what comes after them in the backbone, such as a last norm; with all
    of them everything below, such as embeddings. The layers are the backbone's largest list of
    modules that is in no other: blocks in most models, stages in hierarchical ones.

    Args:
        model: The classifier.
        top_layers: How many.
        head: Whether the head learns too, the backbone's pooler with it.

    Raises:
        NoLayers: There are fewer.
    """
    freeze(model)
    above = _above(model, top_layers)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = head if is_of_head(model, name) else above(name)
    return learning_parts(model)


def learning_parts(model: Any) -> Learning:
    """What of a transformers classifier learns now."""
    learning = [name for name, value in model.named_parameters() if value.requires_grad]
    heads = {name for name in learning if is_of_head(model, name)}
    return Learning(
        head=tuple(_cover(model, "", heads)),
        layers=tuple(_cover(model, "", set(learning) - heads)),
    )


def layers_of(model: Any) -> tuple[str, nn.ModuleList]:
    """The layers of a transformers classifier, and their name in it.

    Raises:
        NoLayers: There are none to be found.
    """
    prefix = model.base_model_prefix
    outermost: dict[str, nn.ModuleList] = {}
    for name, module in model.base_model.named_modules(prefix=prefix):
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if not any(name.startswith(f"{other}.") for other in outermost):
            outermost[name] = module
    if not outermost:
        msg = f"cannot find the layers of {type(model).__name__}: unfreeze all of it, or none"
        raise NoLayers(msg)
    return max(outermost.items(), key=lambda named: sum(p.numel() for p in named[1].parameters()))


def _above(model: Any, top_layers: int | Literal["all"]) -> Callable[[str], bool]:
    """Tells of a parameter of the backbone, by its name, whether it is of the last layers."""
    if top_layers == "all":
        return lambda _name: True
    if top_layers == 0:
        return lambda _name: False
    where, layers = layers_of(model)
    if top_layers > len(layers):
        msg = (
            f"{type(model).__name__} has {len(layers)} layers at {where}: expected top_layers of "
            f"{len(layers)} or less, or 'all', found {top_layers}"
        )
        raise NoLayers(msg)
    first = len(layers) - top_layers
    names = [name for name, _ in model.named_parameters()]
    last = max(place for place, name in enumerate(names) if name.startswith(f"{where}."))
    unfrozen = set(names[last + 1 :])  # registered after the layers, as it is called after them
    unfrozen |= {
        name
        for name in names
        if name.startswith(f"{where}.") and int(name[len(where) + 1 :].split(".")[0]) >= first
    }
    return unfrozen.__contains__


def _cover(module: nn.Module, name: str, wanted: set[str]) -> list[str]:
    """The fewest parts of `module` that hold all of `wanted`, and nothing else that learns."""
    prefix = f"{name}." if name else ""
    learning = {prefix + n for n, p in module.named_parameters() if p.requires_grad}
    if not learning & wanted:
        return []
    if name and learning <= wanted:
        return [name]
    own = [prefix + n for n, p in module.named_parameters(recurse=False) if p.requires_grad]
    parts = [parameter for parameter in own if parameter in wanted]
    for child_name, child in module.named_children():
        parts += _cover(child, prefix + child_name, wanted)
    return parts
