import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.fit import (
    BLOCK_ROWS,
    Diverged,
    Objective,
    as_tensor,
    choose_device,
    evaluate,
    fit,
    predict,
)
from clipfarm_assets.training.networks.reproducible import Stream, generator, reproducible

CONFIG = FitConfig(learning_rate=0.01, batch_size=32, max_epochs=30, patience=30)


class Small(nn.Module):
    def __init__(self, width=6, dropout=0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 1)
        )

    def forward(self, x):
        return self.layers(x).squeeze(-1)


class Constant(nn.Module):
    """One parameter that every row gets; a step of the optimiser moves it by the rate."""

    def __init__(self, value=0.0):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return self.value.expand(len(x))


@dataclass
class Rows:
    x: torch.Tensor
    y: torch.Tensor


def linear_rows(n, seed, noise=0.1):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=draw)
    law = torch.tensor([1.0, -0.5, 0.8, 0.0, 0.3, 0.0])
    return Rows(x, 3.0 + x @ law + noise * torch.randn(n, generator=draw))


TRAIN, VAL, TEST = linear_rows(400, 1), linear_rows(80, 2), linear_rows(200, 3)


def fitted(seed=0, network=None, config=CONFIG, lines=None, **options):
    if network is None:
        with reproducible(seed):
            network = Small()
    curve = fit(
        network,
        {"x": TRAIN.x},
        TRAIN.y,
        {"x": VAL.x},
        VAL.y,
        config,
        seed,
        say=[].append if lines is None else lines.append,
        name="small",
        **options,
    )
    return network, curve


def run(network, train, val, config=CONFIG, **options):
    return fit(
        network,
        {"x": train.x},
        train.y,
        {"x": val.x},
        val.y,
        config,
        0,
        say=[].append,
        name="small",
        **options,
    )


def bits(network):
    return [value.numpy().tobytes() for value in network.state_dict().values()]


def test_recovers_a_linear_law():
    network, curve = fitted()
    prediction = torch.from_numpy(predict(network, {"x": TEST.x}))
    r2 = 1 - ((prediction - TEST.y) ** 2).sum() / ((TEST.y - TEST.y.mean()) ** 2).sum()
    assert r2 > 0.95
    assert len(curve.train_loss) == len(curve.val_score) == 30
    assert curve.train_loss[-1] < curve.train_loss[0]


def test_same_seed_same_bits_another_seed_others():
    first, curve = fitted(7)
    again, curve_again = fitted(7)
    other, _ = fitted(8)
    assert bits(first) == bits(again)
    assert curve == curve_again
    assert bits(first) != bits(other)


def test_global_random_state_does_not_decide():
    torch.manual_seed(123)
    first, _ = fitted(7)
    torch.manual_seed(456)
    again, _ = fitted(7)
    assert bits(first) == bits(again)


def test_seed_decides_order_and_dropout_each():
    start = Small(dropout=0.0).state_dict()

    def after(seed, dropout):
        network = Small(dropout=dropout)
        network.load_state_dict(start)
        batch = CONFIG.batch_size if dropout == 0.0 else len(TRAIN.y)
        config = CONFIG.model_copy(update={"max_epochs": 2, "batch_size": batch})
        return bits(fitted(seed, network, config)[0])

    assert after(1, 0.0) != after(2, 0.0), "the order of rows"
    # One batch holds all rows, so that nothing but dropout could differ much.
    assert after(1, 0.5) != after(2, 0.5)


def test_a_network_in_eval_mode_is_fitted_in_train_mode():
    start = Small(dropout=0.5).state_dict()

    def after(training):
        network = Small(dropout=0.5)
        network.load_state_dict(start)
        fitted(1, network.train(training), max_epochs=2)
        assert not network.training
        return bits(network)

    assert after(False) == after(True)


def test_streams_are_independent():
    drawn = {stream: torch.randn(4, generator=generator(3, stream)) for stream in Stream}
    values = [tuple(value.tolist()) for value in drawn.values()]
    assert len(set(values)) == len(Stream)
    with reproducible(3, Stream.DROPOUT):
        assert torch.equal(torch.randn(4), drawn[Stream.DROPOUT])


@pytest.mark.parametrize("before", [(False, False), (True, False), (True, True)])
def test_global_state_is_left_alone(before):
    deterministic, warn_only = before
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    state = torch.get_rng_state()
    seen = {}

    class Watcher(Small):
        def forward(self, x):
            seen["deterministic"] = torch.are_deterministic_algorithms_enabled()
            seen["warn_only"] = torch.is_deterministic_algorithms_warn_only_enabled()
            seen["cudnn"] = (cudnn.deterministic, cudnn.benchmark)
            return super().forward(x)

    try:
        network = Watcher()
        torch.set_rng_state(state)
        fitted(network=network)
        assert seen == {"deterministic": True, "warn_only": False, "cudnn": (True, False)}
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.is_deterministic_algorithms_warn_only_enabled() is warn_only
        assert (cudnn.deterministic, cudnn.benchmark) == flags
    finally:
        torch.use_deterministic_algorithms(False)


def test_global_state_is_left_alone_by_a_fit_that_fails():
    state = torch.get_rng_state()
    with pytest.raises(Diverged):
        fitted(network=Constant(math.nan))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_keeps_the_best_epoch_and_stops_when_patience_ends():
    """The train rows pull a constant to 10, the val rows want 0.5: it passes by and is lost."""
    network = Constant(0.0)
    config = FitConfig(learning_rate=0.1, weight_decay=0.0, batch_size=8, max_epochs=50, patience=3)
    x = torch.zeros(8, 1)
    curve = run(network, Rows(x, torch.full((8,), 10.0)), Rows(x, torch.full((8,), 0.5)), config)
    # Adam's first steps are of about the learning rate: 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8.
    assert curve.best_epoch == 4
    assert len(curve.val_score) == 4 + 1 + config.patience
    assert curve.stopped_early
    assert min(curve.val_score) == curve.val_score[4]
    assert network.value.item() == pytest.approx(0.5, abs=0.01)
    assert abs(network.value.item() - 0.5) == pytest.approx(curve.val_score[4], abs=1e-6)


def test_last_epoch_without_patience_ending_is_not_early():
    _, curve = fitted(max_epochs=3)
    assert len(curve.val_score) == 3
    assert not curve.stopped_early


def test_first_of_equally_good_epochs_is_kept():
    network = Constant(1.0)
    flat = Objective(nn.functional.mse_loss, lambda *_: torch.tensor(1.0), "flat")
    config = CONFIG.model_copy(update={"patience": 2})
    _, curve = fitted(network=network, config=config, objective=flat)
    assert curve.best_epoch == 0
    assert len(curve.val_score) == 3


def test_curve_says_what_a_plain_loop_says():
    """No dropout, one batch: AdamW on the mean squared error, step by step."""
    config = FitConfig(learning_rate=0.01, weight_decay=0.1, batch_size=1000, max_epochs=5)
    network = Small(dropout=0.0)
    plain = Small(dropout=0.0)
    plain.load_state_dict(network.state_dict())
    _, curve = fitted(network=network, config=config)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    losses, scores = [], []
    for _ in range(5):
        optimizer.zero_grad()
        loss = ((plain(TRAIN.x) - TRAIN.y) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        scores.append(((plain(VAL.x) - VAL.y) ** 2).mean().sqrt().item())
    assert curve.train_loss == pytest.approx(losses, rel=1e-4)
    assert curve.val_score == pytest.approx(scores, rel=1e-4)


def test_incomplete_batch_counts_its_rows():
    """33 rows in batches of 32: the mean loss of the epoch weighs the last batch by its one row."""
    network = Constant(0.0)
    x = torch.zeros(33, 1)
    target = torch.arange(33.0)
    config = FitConfig(learning_rate=1e-9, batch_size=32, max_epochs=1)
    curve = run(network, Rows(x, target), Rows(x, target), config)
    assert curve.train_loss[0] == pytest.approx((target**2).mean().item(), rel=1e-6)
    assert curve.val_score[0] == pytest.approx((target**2).mean().sqrt().item(), rel=1e-6)


def test_other_losses_and_scores():
    """Three classes from the sign of one number: cross entropy, scored by the error rate."""
    network = nn.Linear(6, 3)
    network.forward = lambda x: nn.functional.linear(x, network.weight, network.bias)
    classes = Objective(
        nn.functional.cross_entropy,
        lambda output, target: (output.argmax(1) != target).double().mean(),
        "val_error",
    )
    labels = (TRAIN.x[:, 0] > 0).long() + (TRAIN.x[:, 0] > 1).long()
    val_labels = (VAL.x[:, 0] > 0).long() + (VAL.x[:, 0] > 1).long()
    config = CONFIG.model_copy(update={"learning_rate": 0.05})
    train, val = Rows(TRAIN.x, labels), Rows(VAL.x, val_labels)
    curve = run(network, train, val, config, objective=classes)
    fields = curve.to_fields()
    assert fields["val_error"][fields["best_epoch"]] < 0.2
    assert set(fields) == {"train_loss", "val_error", "best_epoch", "stopped_early"}


def test_diverging_is_said():
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(Diverged, match=r"small diverged in epoch \d+: .* lower the learning rate"):
        fitted(config=config)


def test_inputs_that_are_not_finite_are_named():
    x = TRAIN.x.clone()
    x[3, 2] = math.inf
    with pytest.raises(Diverged, match=r"epoch 1: .*values that are not finite: x\)"):
        run(Small(), Rows(x, TRAIN.y), VAL)


@pytest.mark.parametrize(
    ("rows", "val_rows", "problem"),
    [(0, 5, "the train part has no rows"), (5, 0, "the val part has no rows")],
)
def test_no_rows(rows, val_rows, problem):
    with pytest.raises(ValueError, match=problem):
        run(
            Small(),
            Rows(TRAIN.x[:rows], TRAIN.y[:rows]),
            Rows(VAL.x[:val_rows], VAL.y[:val_rows]),
        )


def test_inputs_and_target_of_other_lengths():
    with pytest.raises(ValueError, match=r"train part has 399 targets and inputs .*'x': 400"):
        run(Small(), Rows(TRAIN.x, TRAIN.y[:-1]), VAL)


def test_evaluation_of_a_row_does_not_depend_on_the_others():
    torch.manual_seed(0)
    network = Small(width=513).eval()
    x = torch.randn(BLOCK_ROWS * 2 + 17, 513)
    together = evaluate(network, {"x": x})
    alone = torch.cat([evaluate(network, {"x": x[i : i + 1]}) for i in range(0, len(x), 29)])
    assert torch.equal(together[::29], alone)
    order = torch.randperm(len(x))
    assert torch.equal(evaluate(network, {"x": x[order]}), together[order])
    assert torch.allclose(together, network(x), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_is_without_dropout_and_leaves_the_mode(training):
    network = Small(dropout=0.9).train(training)
    x = torch.randn(5, 6)
    assert torch.equal(evaluate(network, {"x": x}), evaluate(network, {"x": x}))
    assert network.training is training
    assert not evaluate(network, {"x": x}).requires_grad


def test_evaluation_of_nothing():
    assert evaluate(Small(), {"x": torch.zeros(0, 6)}).shape == (0,)
    assert predict(Small(), {"x": torch.zeros(0, 6)}).shape == (0,)


def test_evaluation_of_a_method():
    network = Small()
    hidden = evaluate(network, {"x": TEST.x}, lambda x: network.layers[0](x))
    assert torch.allclose(hidden, network.layers[0](TEST.x), atol=1e-6)
    assert hidden.shape == (200, 16)


def test_predictions_that_are_not_finite_are_refused():
    x = TEST.x.clone()
    x[[3, 9]] = math.nan
    with pytest.raises(ValueError, match=r"2 of 200 predictions .*not finite: x"):
        predict(Small(), {"x": x})


def test_read_only_arrays_are_taken():
    array = TEST.x.numpy().copy()
    assert as_tensor(array).data_ptr() == array.ctypes.data
    array.flags.writeable = False
    tensor = as_tensor(array)
    assert torch.equal(tensor, TEST.x)
    assert tensor.data_ptr() != array.ctypes.data, "writing to it must not reach the array"


def test_device(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"no CUDA device here: use 'cpu' or 'auto'"):
        choose_device("cuda")
