"""Loading a sentence transformer whose weights are known to be complete."""

import json
from pathlib import Path
from typing import Any, Final

from clipfarm_assets.encoders.loading import load_model, no_progress_bars
from clipfarm_assets.encoders.models import ModelUnavailable, has_safetensors

_UNUSED: Final = ("pooler.dense.weight", "pooler.dense.bias")
"""Sentence embeddings pool the tokens themselves."""


def load_sentence_transformer(path: Path, device: Any) -> Any:
    """The sentence transformer of a local directory: float32, sdpa attention, eval mode.

    Raises:
        ModelUnavailable: The files cannot be loaded, or do not fill the model.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    folder = _transformer_dir(path)
    try:
        with no_progress_bars():
            model = SentenceTransformer(
                str(path),
                device=str(device),
                local_files_only=True,
                model_kwargs={
                    "dtype": torch.float32,
                    "attn_implementation": "sdpa",
                    "use_safetensors": has_safetensors(path),
                },
            )
    except Exception as error:
        reason = " ".join(str(error).split())
        msg = f"cannot load the sentence transformer {path}: {type(error).__name__}: {reason}"
        raise ModelUnavailable(msg) from error
    if not _filled(model, folder):
        # SentenceTransformer does not report missing weights. Transformers does, and knows all the
        # names under which a checkpoint may hold a weight: load once more only to see.
        load_model(AutoModel, folder, torch.device("cpu"), may_miss=_UNUSED)
    return model.eval()


def _filled(model: Any, folder: Path) -> bool:
    """Whether `folder` holds each weight of the transformer under its own name and in its shape.

    False if that cannot be told from the header of one safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    transformer = getattr(model[0], "model", None)
    file = folder / "model.safetensors"
    if transformer is None or not file.is_file():
        return False
    try:
        with safe_open(file, "pt") as weights:
            found = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 - a handle, not a mapping
    except SafetensorError:
        return False
    return all(
        found.get(name) == list(tensor.shape)
        for name, tensor in transformer.state_dict().items()
        if name not in _UNUSED
    )


def _transformer_dir(path: Path) -> Path:
    """The folder of the first module, which holds the transformer."""
    modules = path / "modules.json"
    if not modules.is_file():
        return path
    try:
        return path / Path(json.loads(modules.read_bytes())[0]["path"])
    except (ValueError, LookupError, TypeError) as error:
        msg = f"{modules} is malformed ({type(error).__name__}: {error})"
        raise ModelUnavailable(msg) from error
