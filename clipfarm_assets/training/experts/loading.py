"""Hugging Face classifiers from local directories: finished ones, or bases with a new head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from clipfarm_assets.encoders.loading import no_progress_bars
from clipfarm_assets.encoders.models import ModelUnavailable, has_safetensors
from clipfarm_assets.storage.meme_layout import ExpertModality
from clipfarm_assets.training.networks.reproducible import reproducible

_AUTO_CLASSES = {
    "text": transformers.AutoModelForSequenceClassification,
    "vision": transformers.AutoModelForImageClassification,
}


class WrongClasses(ValueError):  # noqa: N818
    """A finished expert tells other classes than those asked for."""


def load_finished(modality: ExpertModality, folder: Path) -> Any:
    """A classifier whose weights are all there: float32, on the CPU, in eval mode.

    Attention is computed as transformers chooses for the class: sdpa where it can.

    Raises:
        ModelUnavailable: The files cannot be loaded, or do not fill the model.
    """
    model, missing, mismatched = _load(modality, folder)
    _refuse(modality, folder, missing, mismatched, "fine-tune it first, as `base`")
    return model


def load_base(modality: ExpertModality, folder: Path, classes: Sequence[str], seed: int) -> Any:
    """A pretrained model with a head for `classes`, drawn from `seed` if it has none that fits.

    Raises:
        ModelUnavailable: The files cannot be loaded, or do not fill what is below the head.
    """
    names = dict(enumerate(classes))
    with reproducible(seed):
        model, missing, mismatched = _load(
            modality, folder, id2label=names, label2id={v: k for k, v in names.items()}
        )
    missing = [key for key in missing if not is_of_head(model, key)]
    mismatched = [key for key in mismatched if not is_of_head(model, key)]
    _refuse(modality, folder, missing, mismatched, "get a checkpoint made for this class")
    return model


def is_of_head(model: Any, parameter: str) -> bool:
    """Whether a parameter of a classifier is of its head.

    That is all outside of the backbone, and the backbone's pooler: what checkpoints have of it was
    made for another task, or is not there.
    """
    backbone, _, rest = parameter.partition(".")
    return backbone != model.base_model_prefix or "pooler" in rest.split(".")


def check_classes(
    found: Sequence[str],
    expected: Sequence[str],
    where: str,
    names: Mapping[str, str] | None = None,
) -> None:
    """Refuse an expert for other classes.

    Two classes by other names may be the same ones, or these the other way round, or others: only
    a person can tell. ``LABEL_0`` and so on are what transformers writes where nobody gave names.

    Args:
        found: What the model calls its outputs.
        expected: Classes of the label.
        where: Names the expert.
        names: What the model calls a class -> ours.

    Raises:
        WrongClasses: They are not the classes, in their order.
    """
    if names is not None:
        if set(names) != set(found):
            msg = (
                f"`class_names` must name each of {', '.join(found)}, the classes of the expert "
                f"{where}: found {', '.join(names) or 'none'}"
            )
            raise WrongClasses(msg)
        found = [names[each] for each in found]
    elif list(found) == [f"LABEL_{number}" for number in range(len(expected))]:
        return
    if list(found) != list(expected):
        msg = (
            f"the expert {where} must tell the classes {', '.join(expected)}, in this order: "
            f"found {', '.join(found)}; if these are the same by other names, set `class_names`, "
            "e.g. {their name: ours}; else use another, or give it as `base` to fine-tune"
        )
        raise WrongClasses(msg)


def _load(
    modality: ExpertModality, folder: Path, **of_config: Any
) -> tuple[Any, list[str], list[str]]:
    """The model, the names of weights it lacks, and of those that have another shape."""
    auto = _AUTO_CLASSES[modality]
    try:
        with no_progress_bars():
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, **of_config
            )
            model, report = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=has_safetensors(folder),
                local_files_only=True,
                ignore_mismatched_sizes=True,  # so that the caller can name them
                output_loading_info=True,
            )
    except Exception as error:
        # Foreign files: what reading them raises is of any type.
        reason = " ".join(str(error).split())[:500]
        msg = f"cannot load {auto.__name__} from {folder}: {type(error).__name__}: {reason}"
        raise ModelUnavailable(msg) from error
    missing = sorted(report["missing_keys"])
    return model.eval(), missing, sorted(str(key) for key, *_ in report["mismatched_keys"])


def _refuse(
    modality: ExpertModality,
    folder: Path,
    missing: Sequence[str],
    mismatched: Sequence[str],
    advice: str,
) -> None:
    if missing or mismatched:
        msg = (
            f"the weights in {folder} do not fill {_AUTO_CLASSES[modality].__name__}: "
            f"{len(missing)} missing {missing[:3]}, {len(mismatched)} of another shape "
            f"{mismatched[:3]}; {advice}"
        )
        raise ModelUnavailable(msg)
