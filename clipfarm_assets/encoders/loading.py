"""Loading weights strictly, and where they run."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clipfarm_assets.encoders.config import EncoderConfig
from clipfarm_assets.encoders.models import ModelUnavailable, has_safetensors


def load_model(
    model_class: Any,
    path: Path,
    device: Any,
    *,
    may_miss: Iterable[str] = (),
    attention: str = "sdpa",
) -> Any:
    """A transformers model from a local directory: float32, eval mode.

    ``from_pretrained`` only warns about weights it did not find and fills them at random; here
    that is an error. Weights the class has no use for (a decoder, a head) are fine.

    Args:
        model_class: A transformers model class.
        path: The model directory.
        device: Torch device for the model.
        may_miss: Parameters that inference does not use and a checkpoint need not have.
        attention: How it is computed; ``eager`` for models that have no other.

    Raises:
        ModelUnavailable: The files cannot be loaded, or do not fill the model.
    """
    import torch

    try:
        with no_progress_bars():
            model, report = model_class.from_pretrained(
                path,
                dtype=torch.float32,
                attn_implementation=attention,
                use_safetensors=has_safetensors(path),
                local_files_only=True,
                ignore_mismatched_sizes=True,  # so that the report below names them
                output_loading_info=True,
            )
    except Exception as error:
        reason = " ".join(str(error).split())
        msg = f"cannot load {model_class.__name__} from {path}: {type(error).__name__}: {reason}"
        raise ModelUnavailable(msg) from error
    missing = sorted(set(report["missing_keys"]) - set(may_miss))
    mismatched = sorted(str(key) for key, *_ in report["mismatched_keys"])
    if missing or mismatched:
        msg = (
            f"the weights in {path} do not fill {model_class.__name__}: {len(missing)} missing "
            f"{missing[:3]}, {len(mismatched)} of another shape {mismatched[:3]}; get a checkpoint "
            "made for this class"
        )
        raise ModelUnavailable(msg)
    return model.to(device).eval()


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers' bars for local files out of a run's log."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def choose_device(config: EncoderConfig) -> Any:
    """The torch device for `config.device`.

    Raises:
        ModelUnavailable: The device asked for is not there.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if config.device == "auto":
        return _exact_float32(torch.device(next(n for n, there in available.items() if there)))
    if not available[config.device]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        msg = f"device {config.device} is not available here; available: {there}"
        raise ModelUnavailable(msg)
    return _exact_float32(torch.device(config.device))


def _exact_float32(device: Any) -> Any:
    """On CUDA, convolutions and products of float32 in float32: torch's own default is less."""
    import torch

    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return device


def use_threads(config: EncoderConfig) -> None:
    """Apply `config.threads` in the thread that is about to run a model.

    Torch keeps the number by thread, and a model may be loaded in another one. It is part of the
    promise of equal bytes, not of the embedding version: another number may split sums elsewhere
    and change last bits (4e-8 was seen), which is no other embedding.
    """
    import torch

    # Setting it reconfigures several libraries at once; an item must not do that beside another.
    if torch.get_num_threads() != config.threads:
        torch.set_num_threads(config.threads)


def half_precision_copy(module: Any) -> Any:
    """A copy of `module` whose linear layers have bfloat16 weights; all else stays as it is.

    Casting once instead of in every forward, as autocast does. The norms stay in float32: their
    sums are what bfloat16 is too coarse for.
    """
    import copy

    import torch

    copied = copy.deepcopy(module)
    for part in copied.modules():
        if isinstance(part, torch.nn.Linear):
            part.to(torch.bfloat16)
    return copied
