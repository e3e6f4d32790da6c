"""What the loop can do beyond one rate, one score and rows in memory."""

import math
import weakref

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from clipfarm_assets.training.networks.fit import (
    Diverged,
    Objective,
    ParameterGroup,
    StreamedBatches,
    cross_entropy,
    evaluate,
    fit_batches,
)
from clipfarm_assets.training.networks.parameter_groups import adamw
from clipfarm_assets_tests.training.networks.fit_cases import (
    CONFIG,
    OBJECTIVE,
    TRAIN_X,
    TRAIN_Y,
    VAL_X,
    VAL_Y,
    bits,
    classifier,
    in_memory,
    rows_of,
    val_batches,
)


def run(network=None, train=None, val=None, config=CONFIG, seed=0, **options):
    network = classifier() if network is None else network
    curve = fit_batches(
        network,
        in_memory() if train is None else train,
        val_batches() if val is None else val,
        config,
        seed,
        say=[].append,
        name="memes",
        **{"objective": OBJECTIVE, **options},
    )
    return network, curve


def one_epoch(**fields):
    return CONFIG.model_copy(update={"max_epochs": 1, **fields})


def moved(before, network):
    """Which parameters one epoch changed."""
    after = bits(network)
    return {key for key in after if after[key] != before[key]}


def test_it_learns():
    _, curve = run(config=CONFIG.model_copy(update={"max_epochs": 20, "patience": 20}))
    assert max(curve.other_scores["val_macro_f1"]) > 0.8
    assert curve.train_loss[-1] < curve.train_loss[0]


def test_other_scores_are_told_and_decide_nothing():
    def calls(name):
        def score(output, target):
            assert output.dtype == torch.float64
            assert torch.equal(target, VAL_Y)
            return torch.tensor(float("nan") if name == "val_nan" else 0.25)

        return score

    others = {"val_quarter": calls("val_quarter"), "val_nan": calls("val_nan")}
    plain, without = run(objective=cross_entropy(other_scores={}))
    network, curve = run(objective=cross_entropy(other_scores=others))
    assert bits(network) == bits(plain)
    assert curve.val_score == without.val_score
    assert without.other_scores == {}
    fields = curve.to_fields()
    epochs = len(curve.val_score)
    assert fields["val_quarter"] == [0.25] * epochs
    assert fields["val_nan"] == [None] * epochs
    assert {key: fields[key] for key in without.to_fields()} == without.to_fields()


def test_scores_are_those_of_the_kept_weights():
    network, curve = run()
    output = evaluate(network, {"x": VAL_X}, block_rows=16)
    for name, scores in curve.other_scores.items():
        found = OBJECTIVE.other_scores[name](output.double(), VAL_Y).item()
        assert found == scores[curve.best_epoch]
    assert OBJECTIVE.score(output.double(), VAL_Y).item() == min(curve.val_score)


def test_groups_learn_at_their_own_rate():
    """A rate of about nothing leaves a part where it was; the rest goes its way."""
    network = classifier()
    before = bits(network)
    still = ParameterGroup("body", learning_rate=1e-30, weight_decay=0.0)
    run(network, config=one_epoch(), groups=[still])
    assert moved(before, network) == {"head.weight", "head.bias", "calls"}


def test_a_group_at_the_configs_rate_changes_nothing():
    plain, curve = run()
    groups = [
        ParameterGroup("head", CONFIG.learning_rate),
        ParameterGroup("body.0.bias", CONFIG.learning_rate, CONFIG.weight_decay),
    ]
    network, other = run(groups=groups)
    assert bits(network) == bits(plain)
    assert other == curve


def test_rates_and_decays_of_groups():
    network = classifier()
    groups = [ParameterGroup("head", 0.5), ParameterGroup("body.0.bias", 0.25, weight_decay=0.0)]
    optimizer, names = adamw(network, CONFIG, groups)
    parts = [(len(p["params"]), p["lr"], p["weight_decay"]) for p in optimizer.param_groups]
    decay = CONFIG.weight_decay
    assert parts == [(2, 0.5, decay), (1, 0.25, 0.0), (3, CONFIG.learning_rate, decay)]
    held = [p for part in optimizer.param_groups for p in part["params"]]
    assert [id(dict(network.named_parameters())[name]) for name in names] == list(map(id, held))
    everything = [ParameterGroup(part, 0.1) for part in ("body", "head", "unused")]
    assert len(adamw(network, CONFIG, everything)[0].param_groups) == 3


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        (
            [ParameterGroup("bod", 0.1)],
            r"group 'bod' holds no parameter.*\['body', 'head', 'unused'\]",
        ),
        ([ParameterGroup("frozen", 0.1)], r"group 'frozen' holds no parameter that learns"),
        (
            [ParameterGroup("body", 0.1), ParameterGroup("body.0.bias", 0.2)],
            r"two parameter groups hold body\.0\.bias",
        ),
    ],
)
def test_groups_that_make_no_sense(groups, problem):
    with pytest.raises(ValueError, match=problem):
        run(groups=groups)


def test_nothing_to_fit():
    with pytest.raises(ValueError, match="all parameters of the Classifier are frozen"):
        run(classifier().requires_grad_(False))


def test_frozen_parts_and_their_best_epoch():
    network = classifier()
    before = bits(network)
    run(network)
    assert moved(before, network) == {
        "body.0.weight", "body.0.bias", "head.weight", "head.bias", "calls",
    }  # fmt: skip


def test_clipping_scales_a_long_gradient_down():
    """Each step's gradient, of all parameters together, is of the norm asked for at most."""
    norms = {None: [], 0.01: [], 1e9: []}
    weights = {}
    for clip_norm, seen in norms.items():
        network = classifier(dropout=0.0)
        learning = [p for p in network.parameters() if p.requires_grad]

        def remember(optimizer, *_, learning=learning, seen=seen):
            grads = [p.grad for p in learning if p.grad is not None]
            seen.append(math.sqrt(sum(grad.square().sum().item() for grad in grads)))

        handle = register_optimizer_step_pre_hook(remember)
        try:
            run(network, config=one_epoch(), clip_norm=clip_norm)
        finally:
            handle.remove()
        weights[clip_norm] = bits(network)
    assert min(norms[None]) > 0.02, "the case must have gradients to clip"
    assert norms[0.01] == pytest.approx([0.01] * len(norms[None]), rel=1e-3)
    assert weights[1e9] == weights[None]
    assert weights[0.01] != weights[None]


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.inf, math.nan])
def test_clipping_that_makes_no_sense(clip_norm):
    with pytest.raises(ValueError, match="clip_norm must be finite and above 0"):
        run(clip_norm=clip_norm)


def test_validation_keeps_its_order_and_ignores_the_epoch():
    """Streamed or in memory, shuffled or not: the same rows, and the scores but the last bit."""
    _, curve = run()
    val = StreamedBatches(
        lambda _: rows_of(VAL_X, VAL_Y), len(VAL_Y), 16, shuffle_buffer=0, part="val"
    )
    assert run(val=val)[1] == curve
    shuffled = run(val=in_memory(x=VAL_X, y=VAL_Y))[1]
    assert shuffled.train_loss[: len(curve.train_loss)] == pytest.approx(curve.train_loss)
    assert shuffled.val_score == pytest.approx(curve.val_score, rel=1e-9)


def test_validation_goes_through_in_blocks_of_its_batches():
    seen = set()

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, x):
            if not self.training:
                seen.add(len(x))
            return self.layer(x)

    run(Watching(), config=one_epoch())
    assert seen == {16}


def test_memory_does_not_grow_with_the_rows():
    """Of a stream's rows none is alive once its batch has gone by."""
    alive = weakref.WeakSet()
    most = 0

    class Row:
        def __init__(self, index):
            self.index = index

    def rows(_):
        nonlocal most
        for index in range(200):
            row = Row(index % len(TRAIN_Y))
            alive.add(row)
            most = max(most, len(alive))
            yield row

    def collate(batch):
        places = [row.index for row in batch]
        return {"x": TRAIN_X[places]}, TRAIN_Y[places]

    train = StreamedBatches(rows, 200, 8, shuffle_buffer=20, collate=collate)
    run(train=train, config=one_epoch())
    assert 20 < most <= 20 + 8 + 8 + 2


def test_a_diverging_step_ends_the_epoch_at_once():
    read = 0

    def rows(_):
        nonlocal read
        for index in range(len(TRAIN_Y)):
            read += 1
            x = TRAIN_X[index] * (math.nan if index == 20 else 1)
            yield {"x": x}, TRAIN_Y[index]

    train = StreamedBatches(rows, len(TRAIN_Y), 10)
    with pytest.raises(Diverged, match=r"memes diverged in epoch 1: .*not finite: x\)"):
        run(train=train)
    assert read == 30


def test_val_rows_that_are_not_finite_are_named():
    val = in_memory(x=VAL_X * math.inf, y=VAL_Y, shuffle=False)
    with pytest.raises(Diverged, match=r"epoch 1: .*values that are not finite: x\)"):
        run(val=val)


def test_a_part_that_says_it_has_no_rows():
    class Nothing:
        rows = 0
        batch_size = 1

    with pytest.raises(ValueError, match="the val part has no rows"):
        run(val=Nothing())


def test_a_loss_of_integers_as_scores():
    """Scores may be of any scalar kind: a count of wrong rows."""
    wrong = Objective(
        OBJECTIVE.loss, lambda output, target: (output.argmax(1) != target).sum(), "val_wrong"
    )
    _, curve = run(objective=wrong, config=one_epoch())
    assert curve.val_score[0] == int(curve.val_score[0])


def head_alone(network, clip_norm):
    nn.utils.clip_grad_norm_(network.head.parameters(), clip_norm)


def test_clipping_in_another_way():
    """Only the head is held back: at a norm of about nothing, weight decay is all that moves it."""
    config = one_epoch(weight_decay=0.0)
    network = classifier()
    before = bits(network)
    run(network, config=config, clip_norm=1e-30, clip=head_alone)
    assert moved(before, network) == {"body.0.weight", "body.0.bias", "calls"}
