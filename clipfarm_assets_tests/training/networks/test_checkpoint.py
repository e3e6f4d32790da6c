"""What a checkpoint holds, and that a fit goes on from nothing but its own."""

import io
import json

import pytest
import torch
from safetensors import safe_open

from clipfarm_assets.training.networks import fit_state
from clipfarm_assets.training.networks.checkpoint import BadCheckpoint, pack, unpack
from clipfarm_assets.training.networks.fit import Diverged, Objective, cross_entropy
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.networks.weights import to_safetensors
from clipfarm_assets_tests.training.networks.fit_cases import (
    CONFIG,
    GROUPS,
    OBJECTIVE,
    TRAIN_X,
    TRAIN_Y,
    Classifier,
    Kept,
    Killed,
    KilledAfter,
    bits,
    classifier,
    in_memory,
    run,
    streamed,
)

WHOLE = run()


def killed_data(saves=2, **options):
    killed = KilledAfter(saves)
    with pytest.raises(Killed):
        run(killed, **options)
    return killed.data


DATA = killed_data()


def changed_weights():
    network = classifier(7)
    with torch.no_grad():
        network.frozen.bias[0] += 1
    return network


class Wider(Classifier):
    def __init__(self):
        super().__init__()
        self.more = torch.nn.Linear(1, 1)


def wider():
    with reproducible(7):
        return Wider()


def thawed():
    network = classifier(7)
    network.frozen.requires_grad_(True)
    return network


OTHERS = {
    "seed": ({"seed": 8, "network": classifier(7)}, "seed is 7 there and 8 here"),
    "config": (
        {"config": CONFIG.model_copy(update={"learning_rate": 0.03})},
        "config.learning_rate is 0.02 there and 0.03 here",
    ),
    "weights": ({"network": changed_weights()}, "network.start is "),
    "form": ({"network": wider()}, "network.form is "),
    "frozen": ({"network": thawed()}, "network.form is "),
    "rows": ({"train": in_memory(x=TRAIN_X * 2)}, "data.train is "),
    "labels": ({"train": in_memory(y=1 - TRAIN_Y)}, "data.train is "),
    "batches": ({"train": in_memory(batch_size=15)}, "data.train is "),
    "val": ({"val": in_memory()}, "data.val is "),
    "objective": ({"objective": cross_entropy()}, "objective is "),
    "weighting": ({"objective": cross_entropy([1.0, 3.0])}, "objective is "),
    "groups": ({"groups": GROUPS[:1]}, "groups is "),
    "clipping": ({"clip_norm": None}, "clip is ["),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_fits_checkpoint_is_refused(other):
    options, problem = OTHERS[other]
    kept = Kept(DATA)
    with pytest.raises(BadCheckpoint) as caught:
        run(kept, **options)
    assert "the checkpoint belongs to another fit: " in str(caught.value)
    assert problem in str(caught.value)
    assert kept.data == DATA, "what is refused is left as it is"
    assert not kept.saved


def test_of_another_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.0")
    with pytest.raises(BadCheckpoint, match=r'torch is ".*" there and "9\.0" here'):
        run(Kept(DATA))


def test_a_refused_network_is_untouched():
    network = classifier(8)
    before = bits(network)
    with pytest.raises(BadCheckpoint):
        run(Kept(DATA), network=network)
    assert bits(network) == before


def test_restarting_is_said_and_counted():
    lines = []
    kept = Kept(DATA)
    curve, weights = run(kept, seed=8, lines=lines, restart_foreign=True)
    assert (curve, weights) == run(seed=8)
    assert (curve.resumed_after, curve.discarded) == (0, 1)
    assert lines[0].startswith("memes: starts anew, 1 checkpoint discarded: ")
    assert "seed is 7 there and 8 here" in lines[0]
    assert run(Kept(DATA), restart_foreign=True)[0].discarded == 0


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def pt_file():
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    return buffer.getvalue()


DAMAGED = {
    "empty": b"",
    "junk": b"junk" * 100,
    "cut": DATA[:-100],
    "longer": DATA + b"x",
    "pickle": pt_file(),
    "bit in the tensors": flipped(DATA, len(DATA) - 5),
    "bit in the middle": flipped(DATA, len(DATA) // 2),
    "bit in the header": flipped(DATA, 60),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_checkpoints_are_refused(kind):
    with pytest.raises(BadCheckpoint, match=r"[Cc]lear it"):
        run(Kept(DAMAGED[kind]))
    curve, weights = run(Kept(DAMAGED[kind]), restart_foreign=True)
    assert (curve, weights) == WHOLE
    assert curve.discarded == 1


def test_a_file_without_our_text_is_refused():
    for metadata in (None, {"fit": "{}"}, {"fit": '{"format": 2}'}, {"other": "x"}):
        data = to_safetensors({"a": torch.zeros(2)}, metadata)
        with pytest.raises(BadCheckpoint, match="none of a fit, or of another version"):
            run(Kept(data))


def test_a_diverged_fit_leaves_no_checkpoint():
    """Gone on from, it would diverge again; so the next fit must not find it."""
    calls = 0

    def loss(output, target):
        nonlocal calls
        calls += 1
        return OBJECTIVE.loss(output, target) * (float("nan") if calls > 7 else 1)

    kept = Kept()
    with pytest.raises(Diverged, match="memes diverged in epoch 2"):
        run(kept, objective=Objective(loss, OBJECTIVE.score, "val_loss"))
    assert len(kept.saved) == 1
    assert kept.data is None


def test_what_is_in_a_checkpoint(tmp_path):
    """Plain tensors by name and JSON, for any reader of the format."""
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(DATA)
    with safe_open(path, "pt") as file:
        keys = set(file.keys())
        about = json.loads(file.metadata()["fit"])
        assert file.get_tensor("curve/val_score").tolist() == list(WHOLE[0].val_score[:2])
        assert file.get_tensor("network/calls").item() == 10
    assert about["belongs_to"]["seed"] == 7
    assert about["belongs_to"]["config"] == CONFIG.model_dump(mode="json")
    assert not [key for key in keys if "frozen" in key], "what cannot change is not stored"
    learning = fit_state.learning(classifier())
    assert {key.removeprefix("network/") for key in keys if key.startswith("network/")} == set(
        learning
    )
    moments = {key for key in keys if key.startswith("optimizer/")}
    names = [key for key in learning if key.split(".")[0] in {"body", "head"}]
    kinds = ("step", "exp_avg", "exp_avg_sq")
    assert moments == {f"optimizer/{kind}/{name}" for kind in kinds for name in names}


def test_same_state_same_bytes():
    assert killed_data() == DATA
    assert pack({"seed": 1}, {"b": torch.ones(1), "a": torch.ones(1)}) == pack(
        {"seed": 1}, {"a": torch.ones(1), "b": torch.ones(1)}
    )


def test_numbers_survive_bit_by_bit():
    tensors = {"a": torch.tensor([float("nan"), float("inf"), -0.0, 5e-324], dtype=torch.float64)}
    belongs_to = {"rate": 0.1 + 0.2, "groups": [{"module": "a", "weight_decay": None}], "t": (1, 2)}
    found = unpack(pack(belongs_to, tensors), belongs_to)
    assert found["a"].numpy().tobytes() == tensors["a"].numpy().tobytes()
    with pytest.raises(BadCheckpoint, match=r"rate is 0\.30000000000000004 there and 0\.3 here"):
        unpack(pack(belongs_to, tensors), {**belongs_to, "rate": 0.3})
    with pytest.raises(BadCheckpoint, match=r"more is null there and 1 here"):
        unpack(pack(belongs_to, tensors), {**belongs_to, "more": 1})


def test_a_stream_without_a_name_has_no_checkpoint():
    with pytest.raises(ValueError, match="without a `source`"):
        run(Kept(), train=streamed(3, source=""))
    run(train=streamed(3, source=""))
