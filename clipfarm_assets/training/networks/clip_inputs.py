"""Clips as the tensors that networks are called with."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.training.data import ClipBatch, Labelled
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.networks.fit import as_tensor
from clipfarm_assets.training.networks.weights import BadWeights


class WrongVectors(ValueError):  # noqa: N818
    """Vectors of another length than the network's."""


def fused_input(clips: ClipBatch, expected_dim: int) -> dict[str, Tensor]:
    """``fused`` ``[N, fused_dim]``.

    Raises:
        WrongVectors: They are not of `expected_dim` numbers.
    """
    return {"fused": _vectors("fused", clips.fused, expected_dim)}


def modality_inputs(clips: ClipBatch, expected_dims: tuple[int, ...]) -> dict[str, Tensor]:
    """``video``, ``audio``, ``text`` ``[N, dim]`` and ``present`` ``[N, 3]``.

    Raises:
        WrongVectors: They are not of `expected_dims` numbers.
    """
    inputs: dict[str, Tensor] = {
        modality: _vectors(modality, clips.modality(modality), expected)
        for modality, expected in zip(MODALITIES, expected_dims, strict=True)
    }
    return {**inputs, "present": present_input(clips)}


def present_input(clips: ClipBatch) -> Tensor:
    """Which modality each clip has, bool ``[N, 3]``: video and audio always."""
    always = np.ones(len(clips), dtype=np.bool_)
    has = {"video": always, "audio": always, "text": clips.text_present}
    return torch.from_numpy(np.stack([has[modality] for modality in MODALITIES], axis=1))


def metadata_inputs(clips: ClipBatch, encoder: MetadataEncoder) -> dict[str, Tensor]:
    """``numeric`` float32 ``[N, K]``, standardised, and ``codes`` int64 ``[N, C]``."""
    return {
        "numeric": as_tensor(encoder.standardised(clips.metadata)),
        "codes": as_tensor(encoder.codes(clips.metadata)),
    }


def target_of(rows: Labelled) -> Tensor:
    """``target_log`` as float32 ``[N]``."""
    return as_tensor(rows.target_log.astype(np.float32))


def check_encoder(
    name: str, numeric_dim: int, cardinalities: tuple[int, ...], encoder: MetadataEncoder
) -> None:
    """Refuse a network whose metadata features are not the encoder's.

    Raises:
        BadWeights: They differ in number or in categories.
    """
    expected = (len(encoder.contract.numeric), tuple(encoder.cardinalities))
    if (numeric_dim, cardinalities) != expected:
        msg = (
            f"{name} was fitted with {numeric_dim} numeric features and categories of "
            f"{list(cardinalities)} codes, the metadata encoder has {expected[0]} and "
            f"{list(expected[1])}: load both from one snapshot"
        )
        raise BadWeights(msg)


def _vectors(name: str, array: NDArray[Any], expected: int) -> Tensor:
    if array.ndim != 2 or array.shape[1] != expected:
        msg = (
            f"{name} vectors must be of {expected} numbers, as the network was fitted: found shape "
            f"{array.shape}; use the vectors of the strategy and lock it was fitted with"
        )
        raise WrongVectors(msg)
    return as_tensor(array)
