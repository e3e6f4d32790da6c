"""Words to vectors, by a sentence transformer: metadata and transcript side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clipfarm_assets.encoders.base import (
    ContentMissing,
    Deadline,
    Encoded,
    MediaError,
    Source,
)
from clipfarm_assets.encoders.config import TextConfig, template_fields
from clipfarm_assets.encoders.guard import unit_vector
from clipfarm_assets.encoders.loading import choose_device, use_threads
from clipfarm_assets.encoders.models import ResolvedModel
from clipfarm_assets.encoders.text.loading import load_sentence_transformer
from clipfarm_assets.encoders.text.ways import TextWays
from clipfarm_assets.encoders.torch_encoder import TorchEncoder

PREPROCESS_VERSION: Final = "text-1"
MAX_JSON_BYTES: Final = 8 * 2**20
MAX_CHARACTERS: Final = 1_000_000
"""Characters of one text. A novel has fewer; a clip's transcript has a few thousand."""
_PACKED_GROUP: Final = 64
"""Clips a call: about 15 forwards of 1,024 tokens, of which one is not full."""


@dataclass(frozen=True, slots=True)
class PreparedText:
    """The two texts of a clip, not yet tokenised: a call for a whole group costs less."""

    metadata: str
    transcript: str


class TextEncoder(TorchEncoder[TextConfig]):
    """Unit vectors of metadata and transcript, concatenated and L2-normalised again.

    Texts of a group share forwards without padding where that is known to leave each text's bits
    as they are, see `ways`.

    Attributes:
        packed: Whether texts share forwards.
        why_not_packed: The reason if they don't.
        group_size: Clips that fill shared forwards well.
    """

    def __init__(self, resolved: ResolvedModel, config: TextConfig) -> None:
        """Load the model; see `open_encoder` for errors."""
        model = load_sentence_transformer(resolved.path, choose_device(config))
        self._fields = template_fields(config.template)
        self._ways = TextWays(model, config)
        dim = 2 * model.get_embedding_dimension()
        super().__init__("text", resolved, PREPROCESS_VERSION, config, dim)

    def _open(self, config: TextConfig) -> None:
        self._way, self.why_not_packed = self._ways.open(config.precision)
        self.packed = self.why_not_packed is None
        self.group_size = _PACKED_GROUP if self.packed else 1

    @property
    def note(self) -> str:
        """See `base.Encoder`."""
        if self.why_not_packed is None:
            return "texts share forwards, which leaves each one's bits as they are"
        return f"a text a forward: {self.why_not_packed}"

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
        """Both texts of every clip. The note ``tokens_cut`` counts tokens beyond the maximum.

        A text's bits depend neither on its neighbours nor on their number or order. Safe to call
        from several threads at once.

        Raises:
            MediaError: The model's output has no direction.
        """
        use_threads(self._config)
        texts = [text for item in prepared for text in (item.metadata, item.transcript)]
        parts = iter(self._way.embed(texts))
        encoded = []
        for metadata, transcript in zip(parts, parts, strict=True):
            vector = unit_vector(np.concatenate((metadata.vector, transcript.vector)), "text")
            cut = metadata.tokens_cut + transcript.tokens_cut
            encoded.append(Encoded(vector, {"tokens_cut": cut}))
        return encoded


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
