"""What the experts of text and of images have in common."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from clipfarm_assets.encoders.models import hash_model_dir
from clipfarm_assets.storage.meme_layout import ExpertModality
from clipfarm_assets.training.expert_config import ImageRepresentation, TextRepresentation
from clipfarm_assets.training.experts.loading import load_base, load_finished
from clipfarm_assets.training.experts.representations import (
    ExpertOutput,
    NoRepresentation,
    Represented,
)

BLOCK_ROWS: Final = 32
"""Rows of every forward outside of training: see `Expert.represent`."""

_Item = TypeVar("_Item")
_Settings = TypeVar("_Settings", bound=TextRepresentation | ImageRepresentation)


class Expert(nn.Module, ABC, Generic[_Item, _Settings]):
    """A classifier of one modality, whose hidden state is to be had beside its logits.

    Not for several threads at once: the hidden state is caught on its way.

    Attributes:
        modality: Of what.
        settings: Of its representation; their defaults are its own.
        raw: Which field of a shard's sample it sees.
        chunk_items: So many items are worth a call of `represent`; more would only take memory.
        folder: Where its files are.
        name: Says which model it is.
        model: The transformers model.
        representation: What its hidden state is.
        classes: What its logits are of, in order.
        dim: Length of the hidden state.
    """

    modality: ExpertModality
    settings: type[_Settings]
    raw: str
    chunk_items: int

    def __init__(
        self, folder: Path, model: Any, representation: _Settings, name: str | None = None
    ) -> None:
        """Take a loaded model, and try it once.

        Raises:
            NoRepresentation: It has no hidden state to be found.
        """
        super().__init__()
        self.folder = folder
        self.name = name or folder.name
        self.model = model
        self.representation: _Settings = representation
        labels: Mapping[int, str] = model.config.id2label
        self.classes = tuple(str(labels[index]) for index in range(len(labels)))
        if model.base_model is model:
            msg = (
                f"cannot tell backbone and head of {type(model).__name__} apart, so that there is "
                "no hidden state to be found; use a model of another class"
            )
            raise NoRepresentation(msg)
        self.eval()
        with torch.inference_mode():
            self.dim = self(self._example()).hidden.shape[1]

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device | str = "cpu",
        *,
        representation: _Settings | None = None,
        name: str | None = None,
    ) -> Self:
        """A finished expert from a model directory.

        Args:
            folder: Of an ``AutoModelForSequenceClassification`` with its tokenizer, or of an
                ``AutoModelForImageClassification`` with its image processor.
            device: Where it runs.
            representation: What its hidden state is; by default as `settings` say.
            name: What it is called; by default the folder's name.

        Raises:
            ModelUnavailable: The files cannot be loaded, or do not fill the model.
            NoRepresentation: It has no hidden state to be found.
        """
        model = load_finished(cls.modality, folder)
        expert = cls(folder, model, representation or cls.settings(), name)
        return expert.to(device)  # type: ignore[no-any-return]

    @classmethod
    def start(
        cls,
        folder: Path,
        classes: Sequence[str],
        seed: int,
        *,
        representation: _Settings | None = None,
        name: str | None = None,
    ) -> Self:
        """An expert to fine-tune, on the CPU: a pretrained model, and a head drawn from `seed`.

        Raises:
            ModelUnavailable: The files cannot be loaded, or do not fill what is below the head.
            NoRepresentation: It has no hidden state to be found.
        """
        model = load_base(cls.modality, folder, classes, seed)
        return cls(folder, model, representation or cls.settings(), name)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.parameters()).device

    @property
    def version(self) -> str:
        """Names its files and its representation, e.g. ``text-3f5c0a9d1b22e4f7``.

        Raises:
            ModelUnavailable: The files are gone.
        """
        return expert_version(hash_model_dir(self.folder), self.representation)

    @property
    def backbone(self) -> nn.Module:
        """The model without its head."""
        module: nn.Module = self.model.base_model
        return module

    def forward(self, batch: Mapping[str, Tensor]) -> ExpertOutput:
        """Hidden state and logits of B rows.

        Args:
            batch: What `tokenise` or stacked images of `prepare` give: the model's arguments.
        """
        caught: list[Any] = []
        hook = self.backbone.register_forward_hook(lambda _m, _i, output: caught.append(output))
        try:
            logits = self.model(**batch).logits
        finally:
            hook.remove()
        if not caught:
            msg = f"{type(self.model).__name__} does not call its backbone: use another model"
            raise NoRepresentation(msg)
        return ExpertOutput(self._pooled(caught[-1], batch), logits)

    def train(self, mode: bool = True) -> "Expert[_Item, _Settings]":
        """As of every module, but parts that do not learn stay in eval mode.

        Their dropout would only blur what they say, and running statistics would learn after all.
        """
        super().train(mode)
        if mode:
            _rest(self.model)
        return self

    def represent(self, items: Sequence[_Item]) -> Represented:
        """Hidden states and logits of N items, in eval mode.

        Forwards have exactly `BLOCK_ROWS` rows, the last one's filled up: a matrix product's
        kernel, and with it the last bit of its result, depends on the number of rows. So what an
        item gives depends neither on the items beside it nor on their number or order, bit for bit,
        on one device with one number of threads.

        Args:
            items: What `prepare` gives.
        """
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                return self._represented(items)
        finally:
            self.train(was_training)

    def cut_of(self, items: Sequence[_Item]) -> list[int]:
        """How many tokens of each item are beyond the maximum, and not seen; images have none."""
        return [0] * len(items)

    @abstractmethod
    def prepare(self, raw: Any) -> _Item:
        """A sample's field as `represent` takes it; safe to call from threads.

        Raises:
            BadImage: It is none.
        """

    @abstractmethod
    def collate(self, raw: Sequence[Any]) -> dict[str, Tensor]:
        """B samples' fields as `forward` takes them, for training."""

    @abstractmethod
    def _example(self) -> dict[str, Tensor]:
        """A batch to try the model with."""

    @abstractmethod
    def _pooled(self, output: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The hidden state, of what the backbone gave."""

    @abstractmethod
    def _represented(self, items: Sequence[_Item]) -> Represented:
        """See `represent`."""


def expert_version(
    weights_sha256: str, representation: TextRepresentation | ImageRepresentation
) -> str:
    """The version of an expert by the hash of its files and what its hidden state is."""
    fields = {"weights_sha256": weights_sha256, "representation": representation.model_dump()}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return f"{representation.modality}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _rest(module: nn.Module) -> None:
    """Put every part below `module` that has parameters, and none that learns, into eval mode."""
    for child in module.children():
        learns = [parameter.requires_grad for parameter in child.parameters()]
        if learns and not any(learns):
            child.eval()
        else:
            _rest(child)
