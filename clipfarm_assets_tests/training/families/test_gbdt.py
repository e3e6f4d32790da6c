"""The projector is the contract's, and the trees see what it makes of the fused vector."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.families import gbdt
from clipfarm_assets.training.networks.clip_inputs import WrongVectors
from clipfarm_assets.training.sklearn_files import from_skops
from clipfarm_assets_tests.training import kit


@pytest.fixture(scope="module")
def rows():
    return kit.planted(200)


def fit(rows, **settings):
    boosting = {"boosting": {"max_iter": 20}}
    config = SuiteConfig.model_validate({"gbdt": boosting | settings})
    return gbdt.fit(rows.train, rows.val, rows.encoder, config, 0, kit.unheard)


def test_the_contracts_sizes_by_default(rows):
    stored = fit(rows).artifacts()
    # Our own bytes of this test; weights_only reads tensors and runs no code.
    state = torch.load(io.BytesIO(stored["gbdt_projector.pt"]), weights_only=True)
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        "core.0.weight": (256, 25),
        "core.0.bias": (256,),
        "core.3.weight": (128, 256),
        "core.3.bias": (128,),
        "head.weight": (1, 128),
        "head.bias": (1,),
    }


def test_equals_a_plain_forward_pass(rows):
    model = fit(rows, projector_dim=5, projector_hidden=16)
    state = {k: v.double().numpy() for k, v in model.projector.state_dict().items()}
    clips = rows.test.clips
    hidden = clips.fused.astype(np.float64) @ state["core.0.weight"].T + state["core.0.bias"]
    erf = torch.special.erf(torch.from_numpy(hidden / np.sqrt(2))).numpy()
    latent = (hidden * (1 + erf) / 2) @ state["core.3.weight"].T + state["core.3.bias"]
    features = np.hstack(
        [
            latent.astype(np.float32),
            rows.encoder.numeric(clips.metadata),
            rows.encoder.one_hot(clips.metadata),
        ]
    )
    trees = from_skops(model.artifacts()["gbdt.skops"], "gbdt.skops")
    assert trees.n_features_in_ == 5 + 2 + sum(rows.encoder.cardinalities) - 2
    assert np.array_equal(trees.predict(features), model.predict(clips))


@pytest.mark.parametrize(("wanted", "most"), [(1, 10), (12, 12), (40, 20)])
def test_epochs_of_the_projector(rows, wanted, most):
    model = fit(
        rows, projector_dim=2, projector_hidden=4, fit={"max_epochs": wanted, "patience": 99}
    )
    assert len(model.curves["gbdt_projector"]["val_rmse"]) == most


def test_vectors_of_another_length_are_refused(rows):
    model = fit(rows, projector_dim=2, projector_hidden=4)
    shorter = replace(rows.test.clips, fused=rows.test.clips.fused[:, :-1])
    with pytest.raises(WrongVectors, match="must be of 25 numbers"):
        model.predict(shorter)
