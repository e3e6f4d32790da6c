"""An expert as the files of a Hugging Face model directory."""

import json
import tempfile
from pathlib import Path
from typing import Any, Final

from clipfarm_assets.encoders.loading import no_progress_bars
from clipfarm_assets.encoders.models import model_files
from clipfarm_assets.training.experts.expert import Expert

# What says by which version, or from where, and nothing of the model.
_CIRCUMSTANCES: Final = frozenset({"transformers_version", "_name_or_path"})
_WEIGHTS: Final = (".safetensors", ".bin", ".index.json")
_CONFIG: Final = "config.json"


def saved(expert: Expert[Any, Any]) -> dict[str, bytes]:
    """All files, by their path in the directory; equal weights of one base give equal bytes.

    Weights and configuration are the expert's; the files of its tokenizer or image processor, which
    no training changes, are those it was loaded from.
    """
    with tempfile.TemporaryDirectory(prefix="clipfarm-expert-") as name:
        folder = Path(name)
        with no_progress_bars():
            expert.model.save_pretrained(folder)
        files = read_model_files(folder)
    config = json.loads(files[_CONFIG])
    told = {key: value for key, value in config.items() if key not in _CIRCUMSTANCES}
    files[_CONFIG] = (json.dumps(told, indent=2, sort_keys=True) + "\n").encode()
    for name in model_files(expert.folder):
        if name not in files and not name.endswith(_WEIGHTS):
            files[name] = (expert.folder / name).read_bytes()
    return dict(sorted(files.items()))


def read_model_files(folder: Path) -> dict[str, bytes]:
    """The files of a model directory that loading it reads, by path.

    Raises:
        ModelUnavailable: There are no weights.
    """
    return {name: (folder / name).read_bytes() for name in model_files(folder)}
