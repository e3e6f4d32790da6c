"""Small seeded models that stand in for songs' pretrained ones where there is no network.

Of the real models' classes, and of their hidden size unless told otherwise. wav2vec 2.0's is the
one that clips have, see `encoders.demo_models`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import transformers

from clipfarm_assets.encoders.demo_models import built_once
from clipfarm_assets.training.experts.stand_ins import save_stand_in, vocabulary, write_json

# Raise the number when a recipe below changes: the name is the identity.
DEBERTA_STAND_IN: Final = "clipfarm-song-deberta-v3-stand-in-1"
CLAP_STAND_IN: Final = "clipfarm-song-clap-stand-in-1"

_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MAX_TOKENS: Final = 512
_SEEDS: Final = {DEBERTA_STAND_IN: 21, CLAP_STAND_IN: 22}


@dataclass(frozen=True, slots=True)
class DebertaSize:
    """How large a stand-in of DeBERTa is.

    Attributes:
        hidden: Width of its hidden state.
        layers: Number of its layers.
        heads: Attention heads of a layer.
        inner: Width between a layer's two linear parts.
    """

    hidden: int = 768
    layers: int = 2
    heads: int = 12
    inner: int = 384


@dataclass(frozen=True, slots=True)
class ClapSize:
    """How large a stand-in of CLAP's audio half is.

    Attributes:
        patch: Width of a patch's embedding; the last stage is eight times as wide.
        heads: Attention heads of each stage; a stage has one layer.
        projection: Width of the audio embedding.
        mels: Mel bands; a picture's side is four times as many pixels.
        window: Patches of an attention window's side.
        seconds: Longest clip.
    """

    patch: int = 96
    heads: tuple[int, int, int, int] = (4, 8, 16, 32)
    projection: int = 512
    mels: int = 64
    window: int = 8
    seconds: int = 10


FULL_DEBERTA: Final = DebertaSize()
FULL_CLAP: Final = ClapSize()


def stand_in_deberta(
    folder: Path, texts: Iterable[str] = (), size: DebertaSize = FULL_DEBERTA
) -> Path:
    """A seeded DeBERTa-v3 that knows the words of `texts`, and reads others letter by letter.

    Args:
        folder: Where its directory is made, unless it is there.
        texts: Gone through once. The directory's name tells their words from others.
        size: How large it is; one folder is for one size.

    Returns:
        The directory.
    """
    pieces = [*_SPECIAL, *vocabulary(texts)]
    known = hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:8]
    return built_once(
        folder / f"{DEBERTA_STAND_IN}-{known}", lambda path: _build_deberta(path, pieces, size)
    )


def stand_in_clap(folder: Path, size: ClapSize = FULL_CLAP) -> Path:
    """A seeded CLAP of the unfused kind, its audio half alone.

    Args:
        folder: Where its directory is made, unless it is there.
        size: How large it is; one folder is for one size.

    Returns:
        The directory.
    """
    return built_once(folder / CLAP_STAND_IN, lambda path: _build_clap(path, size))


def _build_deberta(path: Path, pieces: list[str], size: DebertaSize) -> None:
    config = transformers.DebertaV2Config(
        vocab_size=len(pieces),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.inner,
        max_position_embeddings=_MAX_TOKENS,
        # As deberta-v3-base has it.
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
    )
    save_stand_in(transformers.DebertaV2Model(config), path, _SEEDS[DEBERTA_STAND_IN])
    tokenizer = transformers.BertTokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)}, model_max_length=_MAX_TOKENS
    )
    tokenizer.save_pretrained(path)


def _build_clap(path: Path, size: ClapSize) -> None:
    config = transformers.ClapAudioConfig(
        num_mel_bins=size.mels,
        spec_size=4 * size.mels,
        window_size=size.window,
        patch_embeds_hidden_size=size.patch,
        depths=(1, 1, 1, 1),
        num_attention_heads=size.heads,
        hidden_size=8 * size.patch,
        projection_dim=size.projection,
    )
    model = transformers.ClapAudioModelWithProjection(config)
    # What a trained one has learned of decibels: without it all sounds would look alike.
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.fill_(-40.0)
    norm.running_var.fill_(20.0**2)
    save_stand_in(model, path, _SEEDS[CLAP_STAND_IN])
    write_json(
        path / "preprocessor_config.json",
        {
            "feature_extractor_type": "ClapFeatureExtractor",
            "feature_size": size.mels,
            "sampling_rate": 48_000,
            "fft_window_size": 1024,
            "hop_length": 480,
            "frequency_min": 50,
            "frequency_max": 14_000,
            "max_length_s": size.seconds,
            "padding": "repeatpad",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "top_db": None,
            "truncation": "rand_trunc",
        },
    )
