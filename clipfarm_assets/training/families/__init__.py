"""The model families of the suite, each a module of its name.

A family module has two functions::

    fit(train, val, encoder, config, seed, say) -> Model
    load(read, encoder) -> Model

`train` and `val` are `training.data.Labelled`; `encoder` is the `MetadataEncoder` fitted on the
train rows of the same split; `config` is the whole `SuiteConfig`; `seed` decides every random
choice; `read` gives the bytes of an artifact by the name that `Model.artifacts` gave it. The
modules import torch or scikit-learn at their top, and are themselves imported by `open_family`.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.metadata_encoder import MetadataEncoder

FamilyName = Literal[
    "concat_mlp",
    "gated_fusion_mlp",
    "ridge",
    "gbdt",
    "mean",
    "metadata_only",
    "pca_gbdt",
    "stacked",
]
FAMILIES: Final[tuple[FamilyName, ...]] = get_args(FamilyName)
"""The four of the contract; the floor; the question whether embeddings help; two added ones."""

CONTRACT_FAMILIES: Final[tuple[FamilyName, ...]] = (
    "concat_mlp",
    "gated_fusion_mlp",
    "ridge",
    "gbdt",
)

Say = Callable[[str], None]
Read = Callable[[str], bytes]


class Model(Protocol):
    """A fitted family."""

    @property
    def curves(self) -> Mapping[str, Mapping[str, Any]]:
        """Learning curves by network, e.g. ``{"concat_mlp": {"val_rmse": [...]}}``; may be empty.

        A loaded model has none.
        """

    def predict(self, clips: ClipBatch) -> NDArray[np.float64]:
        """log1p(views) of N clips, float64 ``(N,)``, finite."""

    def artifacts(self) -> Mapping[str, bytes]:
        """What `load` needs, by name below ``models/``, e.g. ``ridge.skops``; same bytes again."""


class Family(Protocol):
    """A family's module."""

    def fit(
        self,
        train: Labelled,
        val: Labelled,
        encoder: MetadataEncoder,
        config: SuiteConfig,
        seed: int,
        say: Say,
    ) -> Model:
        """Fit on `train`; `val` decides when to stop, nothing else."""

    def load(self, read: Read, encoder: MetadataEncoder) -> Model:
        """The model whose artifacts `read` gives."""


def open_family(name: FamilyName) -> Family:
    """Import a family's module.

    Raises:
        ValueError: There is no family of that name.
    """
    if name not in FAMILIES:
        msg = f"unknown model family {name!r}: expected one of {', '.join(FAMILIES)}"
        raise ValueError(msg)
    module: Any = import_module(f"clipfarm_assets.training.families.{name}")
    family: Family = module
    return family
