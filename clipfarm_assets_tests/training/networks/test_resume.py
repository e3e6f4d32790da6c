"""A fit killed after any epoch and gone on with from its checkpoint ends with the same bits."""

import signal

import pytest
import torch

from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.networks.checkpoint import StoredCheckpoint
from clipfarm_assets.training.networks.fit import Objective
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets_tests import processes
from clipfarm_assets_tests.training.networks.fit_cases import (
    OBJECTIVE,
    Kept,
    Killed,
    KilledAfter,
    classifier,
    dying_run,
    run,
    streamed,
)

WHOLE = run()
EPOCHS = len(WHOLE[0].val_score)


def test_the_case_is_one_that_a_wrong_resume_would_change():
    """Dropout and order matter, it stops early, and its best epoch is in the middle."""
    assert 0 < WHOLE[0].best_epoch < EPOCHS - 1
    assert WHOLE[0].stopped_early
    assert run(seed=8) != WHOLE
    assert run(network=classifier(7, dropout=0.0)) != WHOLE


def test_a_checkpoint_changes_nothing():
    kept = Kept()
    assert run(kept) == WHOLE
    assert len(kept.saved) == EPOCHS


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("saves", range(1, EPOCHS + 1))
def test_killed_after_any_epoch(saves, before):
    killed = KilledAfter(saves, before)
    state = torch.get_rng_state()
    with pytest.raises(Killed):
        run(killed)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(saves)  # the process that goes on has random numbers of its own
    lines = []
    again = Kept(killed.data)
    curve, weights = run(again, lines=lines)
    assert (curve, weights) == WHOLE
    done = saves - before
    assert curve.resumed_after == done
    assert len(again.saved) == EPOCHS - done
    assert (f"memes: goes on from a checkpoint after epoch {done}/6" in lines) is (done > 0)
    assert curve.to_fields() == WHOLE[0].to_fields()


def test_killed_after_every_epoch():
    """A machine that lives for one epoch at a time comes to the same end."""
    data = None
    for _ in range(EPOCHS):
        killed = KilledAfter(1)
        killed.data = data
        with pytest.raises(Killed):
            run(killed)
        data = killed.data
    assert run(Kept(data)) == WHOLE


def test_killed_within_an_epoch():
    calls = 0

    def loss(output, target):
        nonlocal calls
        calls += 1
        if calls == 12:  # of 5 a whole epoch
            raise Killed
        return OBJECTIVE.loss(output, target)

    kept = Kept()
    dying = Objective(
        loss, OBJECTIVE.score, OBJECTIVE.score_name, OBJECTIVE.name, OBJECTIVE.other_scores
    )
    with pytest.raises(Killed):
        run(kept, objective=dying)
    assert len(kept.saved) == 2
    assert run(kept) == WHOLE


@pytest.mark.parametrize("buffer", [0, 9, 1000])
def test_killed_streams(buffer):
    whole = run(train=streamed(buffer))
    for saves in (1, 3):
        killed = KilledAfter(saves)
        with pytest.raises(Killed):
            run(killed, train=streamed(buffer))
        assert run(Kept(killed.data), train=streamed(buffer)) == whole


def test_a_fit_that_ended_ends_again_at_once():
    kept = Kept()
    run(kept)
    assert run(kept, objective=OBJECTIVE) == WHOLE
    assert len(kept.saved) == EPOCHS


@pytest.mark.kills
def test_a_killed_process(tmp_path):
    store = ObjectStore.open(str(tmp_path))
    process = processes.start(dying_run, str(tmp_path), torch.get_num_threads())
    assert processes.ended(process) == [-signal.SIGKILL]
    kept = StoredCheckpoint(store, "memes/checkpoint.safetensors")
    curve, weights = run(kept)
    assert (curve, weights) == WHOLE
    assert curve.resumed_after == 3
    kept.clear()
    assert kept.load() is None
    kept.clear()


def test_tied_weights_go_on_tied():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(5, 5)
            self.two = torch.nn.Linear(5, 5)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x).relu())[:, :2]

    def tied():
        with reproducible(1):
            return Tied()

    options = {"groups": (), "seed": 1}
    whole = run(network=tied(), **options)
    killed = KilledAfter(2)
    with pytest.raises(Killed):
        run(killed, network=tied(), **options)
    network = tied()
    assert run(Kept(killed.data), network=network, **options) == whole
    assert network.one.weight is network.two.weight
