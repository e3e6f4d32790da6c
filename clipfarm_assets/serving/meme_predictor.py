"""What serves a label of memes, applied to new ones: fusion, or one modality alone.

It computes what the evaluation computed, by the same functions and from the same files: the same
meme gets the same probability, bit for bit, on one machine and build.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from clipfarm_assets.pipelines.memes.expert_store import RECORD, ExpertRecord, expert_folder
from clipfarm_assets.pipelines.memes.fusion import load_fusion
from clipfarm_assets.serving.meme_artifacts import below, read_artifact
from clipfarm_assets.serving.meme_registry import MemeVersion, find_version
from clipfarm_assets.serving.version_list import BadRegistry
from clipfarm_assets.storage.images import BadImage, ImageLimits, rgb_png
from clipfarm_assets.storage.meme_layout import EXPERT_MODALITIES, ExpertModality, MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.classification.values import (
    Labels,
    predicted_classes,
    probabilities,
)
from clipfarm_assets.training.meme_snapshot import open_fusion
from clipfarm_assets.training.metrics import Doubles
from clipfarm_assets.training.snapshot import BadSnapshot

if TYPE_CHECKING:
    from clipfarm_assets.training.experts.expert import Expert
    from clipfarm_assets.training.experts.fusion_head import FusionModel
    from clipfarm_assets.training.experts.representations import Represented

_SHOWN: Final = 5


@dataclass(frozen=True)
class MemePredictions:
    """What a model says of N memes.

    Attributes:
        model_version: Which model.
        label: What was asked.
        system: ``fusion``, or the modality that was looked at alone.
        classes: Names of the C classes.
        probabilities: float64 ``(N, C)``, calibrated.
        predicted: int64 ``(N,)``: numbers of classes.
    """

    model_version: str
    label: str
    system: str
    classes: tuple[str, ...]
    probabilities: Doubles
    predicted: Labels

    def __len__(self) -> int:
        """Number of memes."""
        return len(self.predicted)

    @property
    def names(self) -> tuple[str, ...]:
        """The predicted classes by name."""
        return tuple(self.classes[number] for number in self.predicted)


@dataclass(frozen=True)
class MemePredictor:
    """A promoted model. Not for several threads at once, as its experts are not.

    Attributes:
        version: Its registry entry.
        experts: Those it sees memes through.
        fusion: What joins them; None where one modality serves alone.
    """

    version: MemeVersion
    experts: "Mapping[ExpertModality, Expert[Any, Any]]"
    fusion: "FusionModel | None"

    @property
    def modalities(self) -> tuple[ExpertModality, ...]:
        """What must be given of a meme."""
        return tuple(self.experts)

    def predict(
        self, texts: Sequence[str] | None = None, images: Sequence[bytes] | None = None
    ) -> MemePredictions:
        """Predict N >= 1 memes.

        Args:
            texts: Their words, OCR and caption put together as by `MemeRow.text`; may be blank.
                Not needed where images serve alone.
            images: Their files, PNG, JPEG, WebP, GIF or BMP. Not needed where texts serve alone.

        Raises:
            ValueError: What is needed is not given, numbers differ, there is none, or an image
                can't be decoded; names those.
            TypeError: They are no sequences of str and of bytes.
        """
        given: dict[ExpertModality, Sequence[Any]] = {}
        if texts is not None:
            given["text"] = _sequence("texts", texts, str)
        if images is not None:
            given["vision"] = _sequence("images", images, bytes)
        self._check(given)
        if "vision" in self.experts:
            given["vision"] = _packed(given["vision"], _limits(self.version))
        values = probabilities(self._logits(given), self.version.temperature)
        return MemePredictions(
            model_version=self.version.model_version,
            label=self.version.label,
            system=self.version.system,
            classes=self.version.classes,
            probabilities=values,
            predicted=predicted_classes(values, self.version.threshold),
        )

    def _check(self, given: Mapping[ExpertModality, Sequence[Any]]) -> None:
        lacking = [modality for modality in self.modalities if modality not in given]
        if lacking:
            names = {"text": "texts", "vision": "images"}
            msg = (
                f"{self.version.model_version} predicts by {self.version.system}: give "
                f"{' and '.join(names[modality] for modality in lacking)}"
            )
            raise ValueError(msg)
        counts = {modality: len(found) for modality, found in given.items()}
        if len(set(counts.values())) != 1 or not all(counts.values()):
            found = " and ".join(f"{count} of {modality}" for modality, count in counts.items())
            msg = f"expected at least one meme, and one text and one image of each: found {found}"
            raise ValueError(msg)

    def _logits(self, given: Mapping[ExpertModality, Sequence[Any]]) -> NDArray[Any]:
        """``(N, C)``, or ``(N, 1)`` of a head of one output."""
        if self.fusion is None:
            (modality,) = self.modalities
            return _represented(self.experts[modality], given[modality]).logits
        from clipfarm_assets.training.experts.fusion_head import stored_inputs

        architecture = self.fusion.architecture
        if not architecture.are_experts_frozen:
            return self._logits_of_encoders(self.fusion, given["text"], given["vision"])
        values = {}
        for modality, each in architecture.inputs.items():
            found = _represented(self.experts[modality], given[modality])
            values[modality] = found.hidden if each.representation == "hidden" else found.logits
        has_text = np.array([bool(text.strip()) for text in given["text"]])
        present = np.stack([has_text, np.ones_like(has_text)], axis=1)
        return self.fusion.logits(stored_inputs(values, present))

    def _logits_of_encoders(
        self, fusion: "FusionModel", texts: Sequence[str], images: Sequence[bytes]
    ) -> NDArray[Any]:
        """Of a model that trained its experts along."""
        from clipfarm_assets.training.experts.fusion_encoders import (
            EVALUATED_ROWS,
            MemeSample,
            encoded_inputs,
        )

        samples = (
            MemeSample(str(number), text, image, 0)
            for number, (text, image) in enumerate(zip(texts, images, strict=True))
        )
        seen = np.ones(len(EXPERT_MODALITIES), dtype=np.bool_)
        blocks = [
            fusion.logits(inputs, EVALUATED_ROWS)
            for inputs in encoded_inputs(fusion, samples, seen)
        ]
        return np.concatenate(blocks)


def load_predictor(
    store: ObjectStore,
    layout: MemeLayout | None = None,
    *,
    label: str | None = None,
    model_version: str | None = None,
    cache_dir: Path,
    device: str = "cpu",
) -> MemePredictor:
    """The model that serves a label, or the one of a version.

    Its files are compared with the registry's hashes before any of them is parsed.

    Args:
        store: Where.
        layout: Where in the store.
        label: The current model of this label; or else
        model_version: this model, e.g. ``abuse_hate-v3``.
        cache_dir: Folder for experts' files on this machine; made if absent.
        device: Where experts run.

    Raises:
        ValueError: Neither or both are given, or the name is none of a version.
        NoModel: No such model was promoted.
        BadRegistry: The registry is malformed.
        NoMemeModel: Its fusion model is gone.
        BadSnapshot: One of its files is not what was promoted.
        ModelMismatch: An expert's file is not.
        OtherExperts: Its fusion model was fitted on other experts.
    """
    layout = layout or MemeLayout()
    version = find_version(store, layout, label, model_version)
    wanted = EXPERT_MODALITIES if version.system == "fusion" else (version.system,)
    roots = {name: _pinned_root(layout, version, name) for name in wanted}
    records = {name: _pinned_record(store, version, root) for name, root in roots.items()}
    experts = {
        name: _open(expert_folder(store, layout, record, cache_dir, roots[name]), record, device)
        for name, record in records.items()
    }
    fusion = None
    if version.system == "fusion":
        found = open_fusion(store, layout, version.label, version.fusion_version)
        pinned = found.pinned(below(version, found.id.root(layout)))
        fusion = load_fusion(store, layout, pinned, cache_dir, records)
    return MemePredictor(version, experts, fusion)


def _pinned_root(layout: MemeLayout, version: MemeVersion, modality: ExpertModality) -> str:
    """The folder of the expert that was promoted, with the trailing slash."""
    # Versions lie beside the directory that people know, which an early registry may name.
    stem = layout.expert(modality, version.label).removesuffix("/")
    found = [
        key for key in version.artifacts if key.startswith(stem) and key.endswith(f"/{RECORD}")
    ]
    if len(found) != 1:
        msg = (
            f"{version.model_version} must name one {stem}…/{RECORD}: found {len(found)}; "
            f"materialise memes/evaluation for partition {version.label!r} to promote again"
        )
        raise BadSnapshot(msg)
    return found[0].removesuffix(RECORD)


def _pinned_record(store: ObjectStore, version: MemeVersion, root: str) -> ExpertRecord:
    """An expert's record; it holds the hash of the expert's files, which are compared with it."""
    key = f"{root}{RECORD}"
    data = read_artifact(store, version, key)
    try:
        return ExpertRecord.model_validate_json(data)
    except ValidationError as error:
        msg = f"{version.model_version}: {key} is no record of an expert: {str(error)[:300]}"
        raise BadSnapshot(msg) from None


def _open(folder: Path, record: ExpertRecord, device: str) -> "Expert[Any, Any]":
    from clipfarm_assets.training.expert_config import TextRepresentation
    from clipfarm_assets.training.experts.text import TextExpert
    from clipfarm_assets.training.experts.vision import VisionExpert

    kind = record.representation
    if isinstance(kind, TextRepresentation):
        return TextExpert.load(folder, device, representation=kind, name=record.name)
    return VisionExpert.load(folder, device, representation=kind, name=record.name)


def _represented(expert: "Expert[Any, Any]", raw: Sequence[Any]) -> "Represented":
    """What an expert says of N memes, a few in memory at a time."""
    step = expert.chunk_items
    parts = [
        expert.represent([expert.prepare(item) for item in raw[start : start + step]])
        for start in range(0, len(raw), step)
    ]
    hidden, logits = (np.concatenate(each) for each in zip(*parts, strict=True))
    return type(parts[0])(hidden, logits)


def _limits(version: MemeVersion) -> ImageLimits:
    """Those of the shards that the model was judged on.

    Raises:
        BadRegistry: They are none.
    """
    told = version.facts.get("image_limits", {})
    try:
        return ImageLimits(**told)
    except (TypeError, ValueError) as error:
        msg = f"{version.model_version} must have limits of images: found {told!r:.200}: {error}"
        raise BadRegistry(msg) from None


def _packed(images: Sequence[bytes], limits: ImageLimits) -> list[bytes]:
    """Images as shards would have them.

    All are made before anything is computed, so that all bad ones are named together.
    """
    bad, packed = [], []
    for number, data in enumerate(images):
        try:
            packed.append(rgb_png(data, limits).data)
        except BadImage as error:
            bad.append(f"image {number}: {error}")
    if bad:
        more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        msg = (
            f"{len(bad)} of {len(images)} images can't be decoded: {'; '.join(bad[:_SHOWN])}{more}"
        )
        raise ValueError(msg)
    return packed


def _sequence(name: str, given: object, kind: type) -> Sequence[Any]:
    """A sequence of str or of bytes.

    Raises:
        TypeError: It is none.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        msg = f"expected {name} as a list of {kind.__name__}, found {type(given).__name__}"
        raise TypeError(msg)
    wrong = [number for number, item in enumerate(given) if not isinstance(item, kind)]
    if wrong:
        msg = (
            f"expected {name} as a list of {kind.__name__}, found "
            f"{type(given[wrong[0]]).__name__} at {wrong[0]} ({len(wrong)} of {len(given)})"
        )
        raise TypeError(msg)
    return given
