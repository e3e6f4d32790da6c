"""What the encoders share: one set of loaded weights, used at one precision or at several."""

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import Equivalence
from clipfarm_assets.encoders.config import EncoderConfig, Precision
from clipfarm_assets.encoders.decoding import InThread, MediaDecoding
from clipfarm_assets.encoders.models import ResolvedModel, embedding_version

_Config = TypeVar("_Config", bound=EncoderConfig)
_Made = TypeVar("_Made")


class OncePerPrecision(Generic[_Made]):
    """What is dear to make for a precision: made at first use, once, and kept.

    Safe to call from several threads; one that asks while another makes waits for it.
    """

    def __init__(self) -> None:
        """Nothing is made yet."""
        self._lock = threading.Lock()
        self._made: dict[Precision, _Made] = {}

    def get(self, precision: Precision, make: Callable[[], _Made]) -> _Made:
        """What `make` returned for this precision, the first time."""
        with self._lock:
            if precision not in self._made:
                self._made[precision] = make()
            return self._made[precision]


class TorchEncoder(ABC, Generic[_Config]):
    """An encoder over loaded weights, and copies of it at other precisions over the same.

    A subclass loads the model, then calls this ``__init__``, and sets in `_open` what changes with
    the precision; all else its copies share.

    Attributes:
        version: Provenance of the vectors, the precision in use included.
        is_stand_in: Whether the weights are seeded, not trained.
        equivalence: Set by the gate that allowed, or refused, a faster precision.
        decoding: Who decodes for it: the calling thread, see `decoding_by`.
    """

    decoding: MediaDecoding = InThread()

    def __init__(
        self,
        modality: Modality,
        resolved: ResolvedModel,
        preprocess_version: str,
        config: _Config,
        dim: int,
    ) -> None:
        """Come to use the precision of `config`.

        Args:
            modality: What is embedded.
            resolved: Where the loaded weights are from.
            preprocess_version: Name of the preprocessing contract.
            config: The modality's settings.
            dim: Length of the vectors.
        """
        self._modality: Modality = modality
        self._resolved = resolved
        self._preprocess_version = preprocess_version
        self._dim = dim
        self.is_stand_in = resolved.is_stand_in
        self._use(config)

    def at(self, precision: Precision) -> Self:
        """This encoder at a precision, on the same weights; those it adds are made once."""
        other = copy.copy(self)
        other._use(self._config.model_copy(update={"precision": precision}))
        return other

    def decoding_by(self, decoding: MediaDecoding) -> Self:
        """This encoder, on the same weights, with media decoded by `decoding`."""
        other = copy.copy(self)
        other.decoding = decoding
        return other

    def _use(self, config: _Config) -> None:
        self._config = config
        self.equivalence: Equivalence | None = None
        self.version = embedding_version(
            self._modality, self._resolved, self._preprocess_version, config, self._dim
        )
        self._open(config)

    @abstractmethod
    def _open(self, config: _Config) -> None:
        """Set what computes at the precision of `config`."""
