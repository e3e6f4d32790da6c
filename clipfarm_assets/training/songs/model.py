"""A model of songs: the network, its settings and classes, and the files that are kept of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.training.networks.batches import tensors_hash
from clipfarm_assets.training.networks.fit_state import learning
from clipfarm_assets.training.networks.weights import (
    Architecture,
    BadWeights,
    from_safetensors,
    load_weights,
    to_safetensors,
)
from clipfarm_assets.training.song_config import SongConfig, song_config
from clipfarm_assets.training.song_encoders.build import build_network
from clipfarm_assets.training.song_snapshot import modality_of

WEIGHTS: Final = "model.safetensors"
SETTINGS: Final = "config.yaml"
ABOUT: Final = "model.json"

Folders = Mapping[Modality, Path]
"""Modality -> model directory of its pretrained encoder."""


class About(Architecture):
    """``model.json``: what settings don't say.

    Attributes:
        model: A strategy, or one modality alone.
        classes: Names of the classes, in the order of the logits.
        frozen: Hash of the weights that were not trained, and are not kept: they are those of
            pretrained encoders.
    """

    model: str
    classes: tuple[str, ...]
    frozen: str


@dataclass(frozen=True)
class SongModel:
    """A network of songs.

    Attributes:
        name: A strategy, or ``single:<modality>``.
        config: What it is made by.
        classes: Names of the classes, in the order of the logits.
        network: Of all modalities, or of that one.
    """

    name: str
    config: SongConfig
    classes: tuple[str, ...]
    network: FusionNetwork

    @classmethod
    def build(
        cls, name: str, config: SongConfig, classes: tuple[str, ...], folders: Folders | None = None
    ) -> Self:
        """A network that is freshly drawn by the configuration's seed.

        Args:
            name: A strategy, in place of the configuration's; or one modality alone, whose network
                has a head of its own as wide as fusion's. A row without the modality gets what a
                learned missing token says there: how frequent the classes are.
            config: Its settings.
            classes: Names of the classes.
            folders: Model directories of pretrained encoders, see `build_encoders`.

        Raises:
            ModelUnavailable, NoLayers: See `build_network`.
            ValueError: There is no model of that name, or a directory is needed and not given.
        """
        alone = modality_of(name)
        config = settings_of(config, name)
        modalities = MODALITIES if alone is None else (alone,)
        network = build_network(config, len(classes), folders, modalities=modalities)
        return cls(name, config, classes, network)

    @property
    def frozen_sha256(self) -> str:
        """Hash of the weights that a fit leaves as they are."""
        kept = learning(self.network)
        state = self.network.state_dict()
        return tensors_hash({key: value for key, value in state.items() if key not in kept})

    def artifacts(self) -> dict[str, bytes]:
        """``config.yaml``, ``model.json`` and ``model.safetensors``, of what was trained.

        Equal weights give equal bytes.
        """
        about = About(model=self.name, classes=self.classes, frozen=self.frozen_sha256)
        return {
            SETTINGS: self.config.to_yaml().encode(),
            ABOUT: (about.model_dump_json(indent=2) + "\n").encode(),
            WEIGHTS: to_safetensors(learning(self.network)),
        }

    @classmethod
    def load(cls, read: Callable[[str], bytes], folders: Folders | None = None) -> Self:
        """The model whose artifacts `read` gives, by their names; in eval mode.

        Args:
            read: Gives an artifact's bytes.
            folders: Model directories of pretrained encoders.

        Raises:
            BadWeights: They are not of such a model, or the pretrained encoders are others.
            ModelUnavailable, NoLayers, ValueError: See `build`.
        """
        try:
            about = About.model_validate_json(read(ABOUT))
            config = song_config(read(SETTINGS).decode(), SETTINGS)
            modality_of(about.model)
        except ValueError as error:  # pydantic's and the configuration's are such
            told = " ".join(str(error).split())
            msg = f"{ABOUT} and {SETTINGS} must be those of a song model: {told:.500}"
            raise BadWeights(msg) from None
        model = cls.build(about.model, config, about.classes, folders)
        if model.frozen_sha256 != about.frozen:
            msg = (
                f"the model was fitted over other pretrained weights (sha256 {about.frozen:.12}…, "
                f"found {model.frozen_sha256:.12}…): use the encoders that its {SETTINGS} names, "
                "or train it again"
            )
            raise BadWeights(msg)
        weights = from_safetensors(read(WEIGHTS), WEIGHTS)
        kept = learning(model.network)
        frozen = {k: v for k, v in model.network.state_dict().items() if k not in kept}
        load_weights(model.network, {**frozen, **weights}, WEIGHTS)
        model.network.eval()
        return model


def settings_of(config: SongConfig, name: str) -> SongConfig:
    """The configuration of a model: of one modality alone, without what only several can have.

    How models are judged makes no model another one, so it has its defaults.
    """
    fusion, training = config.model.fusion, config.training
    if modality_of(name) is None:
        fusion = fusion.model_copy(update={"strategy": name})
    else:
        fusion = fusion.model_copy(update={"strategy": "late"})
        epochs = training.fit.max_epochs + training.warm_start_epochs
        training = training.model_copy(
            update={
                "fit": training.fit.model_copy(update={"max_epochs": epochs}),
                "warm_start_epochs": 0,
                "modality_dropout": 0.0,
                "auxiliary_weight": 0.0,
            }
        )
    return SongConfig(
        model=config.model.model_copy(update={"fusion": fusion}),
        preprocessing=config.preprocessing,
        data=config.data,
        training=training,
    )
