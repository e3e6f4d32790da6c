"""Raw files of one clip to the vectors that a model takes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import Deadline, Encoder, Source
from clipfarm_assets.encoders.config import TEMPLATE_FIELDS
from clipfarm_assets.serving.binding import BindingMismatch

OpenEncoder = Callable[[Modality], Encoder]
CheckVersion = Callable[[Modality, str], None]

DEADLINE_SECONDS = 120.0


def embed_files(
    files: Mapping[Modality, bytes | Path],
    metadata: Mapping[str, str],
    open_encoder: OpenEncoder,
    check_version: CheckVersion,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> dict[Modality, NDArray[np.float32]]:
    """One clip's vectors, float32 ``(1, dim)`` by modality, made as the embedding stage makes them.

    Args:
        files: By modality: mp4, wav, and the transcript's JSON; a path is read.
        metadata: The clip's row; its text fields are part of what a text encoder embeds.
        open_encoder: Gives the encoder of a modality.
        check_version: Raises unless a modality's vectors may be of that version. Called before the
            file is looked at.
        deadline_seconds: For decoding one file.

    Raises:
        BindingMismatch: There is a transcript, and the row lacks a text field.
        MediaError: A file can't be embedded.
        ContentMissing: The transcript is there but empty: such a clip has no text.
        FileNotFoundError: A path leads nowhere.
    """
    untold = [name for name in TEMPLATE_FIELDS if name not in metadata and "text" in files]
    if untold:
        msg = (
            f"the text vector is made of transcript and metadata, and the row lacks "
            f"{', '.join(untold)}: give them, empty where unknown"
        )
        raise BindingMismatch(msg)
    text_fields = {name: metadata.get(name) or "" for name in TEMPLATE_FIELDS}
    vectors = {}
    for modality, file in files.items():
        encoder = open_encoder(modality)
        check_version(modality, encoder.version.id)
        raw = file.read_bytes() if isinstance(file, Path) else file
        source = Source(metadata["video_id"], raw, text_fields)
        prepared = encoder.prepare(source, Deadline.after(deadline_seconds))
        vectors[modality] = encoder.encode([prepared])[0].vector[np.newaxis]
    return vectors
