"""Encoded once, asked for every subset: the same bits as the whole network, whatever is absent."""

import math

import numpy as np
import pytest
import torch

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.training.classification.subsets import presence, subsets
from clipfarm_assets.training.networks.batches import InMemory
from clipfarm_assets.training.networks.evaluation import evaluate
from clipfarm_assets.training.songs.evaluation import said_of
from clipfarm_assets_tests.training.songs import kit

SHOWN = subsets(MODALITIES)
ROWS, SIZE = 50, 40


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_logits_are_the_whole_network_s_bit_for_bit(strategy):
    network = kit.network(strategy=strategy).eval()
    given, label = kit.rows(ROWS)
    said = said_of(network, InMemory(given, label, SIZE, shuffle=False), SHOWN)
    assert said.labels.tolist() == label.tolist()
    assert np.array_equal(said.present, given["present"].numpy())
    for shown in SHOWN:
        seen = given["present"] & torch.from_numpy(presence(MODALITIES, shown))
        whole = evaluate(network, {**given, "present": seen}, block_rows=SIZE)
        assert np.array_equal(said.logits[shown], whole.double().numpy()), shown
    assert not np.array_equal(said.logits[SHOWN[-1]], said.logits[SHOWN[-2]])


def test_absent_inputs_filled_with_nan_change_no_bit():
    network = kit.network(strategy="cross_attention").eval()
    given, label = kit.rows(ROWS)
    spoilt = {key: value.clone() for key, value in given.items()}
    for column, key in enumerate(("text.values", "audio.mel", "midi.roll")):
        spoilt[key][~given["present"][:, column]] = math.nan
    plain, other = (
        said_of(network, InMemory(each, label, SIZE, shuffle=False), SHOWN)
        for each in (given, spoilt)
    )
    for shown in SHOWN:
        assert np.array_equal(plain.logits[shown], other.logits[shown])


def test_encoders_are_called_once_a_batch_however_many_subsets():
    network = kit.network().eval()
    calls = []
    network.encoders["audio"].register_forward_hook(lambda *_: calls.append(1))
    given, label = kit.rows(ROWS, present=torch.ones(ROWS, 3, dtype=torch.bool))
    said_of(network, InMemory(given, label, 25, shuffle=False), SHOWN)
    assert len(calls) == 2


def test_a_modality_that_no_row_has():
    network = kit.network(strategy="early").eval()
    present = torch.tensor([[True, True, False]]).expand(ROWS, 3).clone()
    given, label = kit.rows(ROWS, present=present)
    said = said_of(network, InMemory(given, label, SIZE, shuffle=False), SHOWN)
    whole = evaluate(network, given, block_rows=SIZE).double().numpy()
    assert np.array_equal(said.logits[MODALITIES], whole)
    assert np.array_equal(said.logits[MODALITIES], said.logits["text", "audio"])
    without = {key: value for key, value in given.items() if key != "midi.roll"}
    left_out = said_of(network, InMemory(without, label, SIZE, shuffle=False), [MODALITIES])
    assert np.allclose(left_out.logits[MODALITIES], whole, atol=1e-6)


def test_the_network_is_left_as_it_was():
    network = kit.network(strategy="gated").eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    encoders = dict(network.encoders.items())
    said_of(network, kit.batches(ROWS), SHOWN)
    assert dict(network.encoders.items()) == encoders
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_inference_with_all_modalities():
    """No modality is dropped outside training, whatever the probability in training is."""
    settings = kit.config(modality_dropout=0.9)
    network = kit.network(settings).eval()
    given, label = kit.rows(ROWS)
    first, again = (said_of(network, kit.batches(ROWS), [MODALITIES]) for _ in range(2))
    assert np.array_equal(first.logits[MODALITIES], again.logits[MODALITIES])
    with torch.inference_mode():
        output = network.outputs(**given)
    assert torch.equal(output.present, given["present"])
    network.train()
    assert not torch.equal(network.outputs(**given).present, given["present"])
    assert len(label) == ROWS


def test_an_unknown_modality_is_refused():
    with pytest.raises(ValueError, match="unknown modality video"):
        said_of(kit.network().eval(), kit.batches(4), [("text", "video")])
