"""Words to vectors, by a sentence transformer: metadata and transcript side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import (
    ContentMissing,
    Deadline,
    Encoded,
    MediaError,
    Source,
)
from clipfarm_assets.encoders.config import TextConfig, template_fields
from clipfarm_assets.encoders.guard import unit_vector
from clipfarm_assets.encoders.loading import (
    choose_device,
    load_model,
    no_progress_bars,
    use_threads,
)
from clipfarm_assets.encoders.models import (
    ModelUnavailable,
    ResolvedModel,
    embedding_version,
    has_safetensors,
)

PREPROCESS_VERSION: Final = "text-1"
MAX_JSON_BYTES: Final = 8 * 2**20
MAX_CHARACTERS: Final = 1_000_000
"""Characters of one text. A novel has fewer; a clip's transcript has a few thousand."""


@dataclass(frozen=True, slots=True)
class PreparedText:
    """The two texts of a clip, not yet tokenised: tokenizers are not thread-safe."""

    metadata: str
    transcript: str


class TextEncoder:
    """Unit vectors of metadata and transcript, concatenated and L2-normalised again.

    One text a forward, never padded with neighbours: padding is masked, yet it changes the shapes
    of the matrix products and with them last bits.
    """

    def __init__(self, resolved: ResolvedModel, config: TextConfig) -> None:
        """Load the model; see `open_encoder` for errors."""
        self._config = config
        self._fields = template_fields(config.template)
        self._model = _load(resolved.path, choose_device(config))
        self._max_tokens = int(self._model.max_seq_length or self._model.tokenizer.model_max_length)
        self.is_stand_in = resolved.is_stand_in
        self.version = embedding_version(
            "text", resolved, PREPROCESS_VERSION, config, 2 * self._model.get_embedding_dimension()
        )

    def prepare(self, source: Source, deadline: Deadline) -> PreparedText:
        """Read the transcript from the JSON object and fill the metadata template.

        Raises:
            MediaError: The JSON is invalid or of another form, a metadata field is absent, or a
                text is too long or not encodable.
            ContentMissing: There is no transcript, or it is blank.
        """
        deadline.check("reading the transcript")
        absent = [name for name in self._fields if name not in source.metadata]
        if absent:
            msg = f"cannot embed the text: the metadata has no {', '.join(absent)}"
            raise MediaError(msg)
        metadata = self._config.template.format(
            **{name: source.metadata[name] for name in self._fields}
        )
        transcript = read_transcript(source.raw)
        _check_text(metadata, "metadata text")
        _check_text(transcript, "transcript")
        return PreparedText(metadata, transcript)

    def encode(self, prepared: Sequence[PreparedText]) -> list[Encoded]:
        """Two forwards a clip. The note ``tokens_cut`` counts the tokens beyond the maximum.

        Raises:
            MediaError: The model's output has no direction.
        """
        use_threads(self._config)
        encoded = []
        for item in prepared:
            texts = (item.metadata, item.transcript)
            vectors, cut = zip(*(self._embed(text) for text in texts), strict=True)
            vector = unit_vector(np.concatenate(vectors), "text")
            encoded.append(Encoded(vector, {"tokens_cut": sum(cut)}))
        return encoded

    def _embed(self, text: str) -> tuple[NDArray[np.float32], int]:
        """One text's unit vector, and how many of its tokens the model did not see."""
        tokens = len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"])
        if self._config.long_text == "chunk_mean" and tokens > self._max_tokens:
            return self._embed_chunks(text), 0
        vector = self._model.encode([text], batch_size=1, show_progress_bar=False)[0]
        return unit_vector(vector, "text"), max(0, tokens - self._max_tokens)

    def _embed_chunks(self, text: str) -> NDArray[np.float32]:
        """The mean of the unit vectors of consecutive chunks of the most tokens, normalised."""
        import torch

        chunks = self._model.tokenizer(
            text, truncation=True, max_length=self._max_tokens, return_overflowing_tokens=True
        )
        vectors = []
        for index in range(len(chunks["input_ids"])):
            features = {
                name: torch.tensor([chunks[name][index]], device=self._model.device)
                for name in self._model.tokenizer.model_input_names
                if name in chunks
            }
            with torch.inference_mode():
                output = self._model(features)["sentence_embedding"][0]
            vectors.append(unit_vector(output.cpu().numpy(), "text"))
        return unit_vector(np.mean(vectors, axis=0, dtype=np.float64), "text")


def read_transcript(raw: bytes) -> str:
    """The field ``transcript`` of a JSON object.

    Raises:
        MediaError: Not a JSON object, too large, or the field is not text.
        ContentMissing: The field is absent, null or blank.
    """
    if len(raw) > MAX_JSON_BYTES:
        msg = f"cannot read the transcript: {len(raw)} bytes, the limit is {MAX_JSON_BYTES}"
        raise MediaError(msg)
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        msg = f"cannot read the transcript: not valid JSON ({reason}); download it again"
        raise MediaError(msg) from error
    if not isinstance(data, dict):
        msg = f"cannot read the transcript: expected a JSON object, found {type(data).__name__}"
        raise MediaError(msg)
    transcript = data.get("transcript")
    if transcript is None:
        msg = "the JSON object has no transcript yet"
        raise ContentMissing(msg)
    if not isinstance(transcript, str):
        found = type(transcript).__name__
        msg = f"cannot read the transcript: expected text in the field transcript, found {found}"
        raise MediaError(msg)
    if not transcript.strip():
        msg = "the transcript is empty"
        raise ContentMissing(msg)
    return transcript


def _check_text(text: str, what: str) -> None:
    if len(text) > MAX_CHARACTERS:
        msg = f"cannot embed the {what}: {len(text)} characters, the limit is {MAX_CHARACTERS}"
        raise MediaError(msg)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = f"cannot embed the {what}: it holds half of a character pair ({error})"
        raise MediaError(msg) from error


def _load(path: Path, device: Any) -> Any:
    """The sentence transformer of a local directory, its weights verified to be complete."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    # SentenceTransformer does not report missing weights, so load once more only to see them. The
    # pooler is not used: sentence embeddings pool the tokens themselves.
    load_model(
        AutoModel,
        _transformer_dir(path),
        torch.device("cpu"),
        may_miss=("pooler.dense.weight", "pooler.dense.bias"),
    )
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
    return model.eval()


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
