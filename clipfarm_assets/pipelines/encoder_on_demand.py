"""An encoder that is loaded when it is first needed, and checked before its first vector."""

import time
from collections.abc import Callable
from threading import Lock

from clipfarm_assets.encoders.base import EmbeddingVersion, Encoder, ModelMismatch
from clipfarm_assets.encoders.decoding import InThread, MediaDecoding, decoded_by
from clipfarm_assets.pipelines.deployment import Deployment


class EncoderOnDemand:
    """Opens the encoder at its first use, once a run: a run with nothing to embed loads no model.

    Safe to call from several threads: the first one opens it, the others wait, and share the error
    if it cannot be opened. `opening_seconds` is what opening took, the checks included.
    """

    def __init__(
        self,
        deployment: Deployment,
        open_encoder: Callable[[], Encoder],
        known_version: Callable[[], EmbeddingVersion | None],
        before_use: Callable[[Encoder], None],
        decoding: MediaDecoding | None = None,
    ) -> None:
        """Remember how to open it, how to learn its version without, and what else to check.

        Args:
            deployment: Whose models lock has to admit it.
            open_encoder: Loads it.
            known_version: Its version if that is on record; loads nothing.
            before_use: Called once, after opening and before the encoder is admitted; may raise.
            decoding: Who decodes for it; the caller's to close. None: the thread that asks.
        """
        self._deployment, self._open, self._known = deployment, open_encoder, known_version
        self._before_use = before_use
        self.decoding = InThread() if decoding is None else decoding
        self._lock = Lock()
        self._encoder: Encoder | None = None
        self._error: Exception | None = None
        self._version: EmbeddingVersion | None = None
        self.opening_seconds = 0.0

    @property
    def version(self) -> EmbeddingVersion:
        """The encoder's version; opens it only if the version is not on record yet."""
        if self._version is None:
            self._version = self._known() or self().version
        return self._version

    @property
    def version_if_known(self) -> EmbeddingVersion | None:
        """The version if anything asked for it or used the encoder so far; opens nothing."""
        return self._version or (self._encoder.version if self._encoder else None)

    @property
    def if_opened(self) -> Encoder | None:
        """The encoder, if anything used it so far; opens nothing."""
        return self._encoder

    def __call__(self) -> Encoder:
        """The encoder; its version is recorded in the models lock before its first vector.

        Raises:
            ModelMismatch: It is of another version than was known of it, or its vectors must not
                be mixed with those that are here.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._encoder is None:
                began = time.perf_counter()
                try:
                    self._encoder = self._opened()
                except Exception as error:
                    self._error = error
                    raise
                finally:
                    self.opening_seconds += time.perf_counter() - began
            return self._encoder

    def _opened(self) -> Encoder:
        encoder = decoded_by(self._open(), self.decoding)
        if self._version is not None and self._version != encoder.version:
            # The delta was made for the known one: its vectors would look outdated forever.
            msg = (
                f"expected the encoder to be of the recorded version {self._version.id}, "
                f"found {encoder.version.id}: its model or parameters changed during the run; "
                "run again"
            )
            raise ModelMismatch(msg)
        self._before_use(encoder)
        self._deployment.models_lock().admit(encoder.version, is_stand_in=encoder.is_stand_in)
        return encoder
