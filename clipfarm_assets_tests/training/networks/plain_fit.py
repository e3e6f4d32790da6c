"""The loop as it was when clips alone were fitted: every row in memory, no checkpoint, one rate.

Kept word for word but for progress and errors. Its bits are those of the models that users have.
"""

import torch
from torch import nn

from clipfarm_assets.training.networks.reproducible import Stream, generator, reproducible

BLOCK_ROWS = 256


def rmse(output, target):
    return nn.functional.mse_loss(output, target).sqrt()


def plain_fit(
    network,
    inputs,
    target,
    val_inputs,
    val_target,
    config,
    seed,
    max_epochs=None,
    loss_of=nn.functional.mse_loss,
    score_of=rmse,
):
    """Fit in place; train losses, val scores, best epoch, whether it stopped early."""
    device = torch.device("cpu")
    last = config.max_epochs if max_epochs is None else max_epochs
    order = generator(seed, Stream.SHUFFLE)
    losses = []
    scores = []
    best = {}
    best_epoch = 0
    with reproducible(seed, Stream.DROPOUT, device):
        network.to(device)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        for epoch in range(last):
            permutation = torch.randperm(len(target), generator=order)
            batches = permutation.split(config.batch_size)
            losses.append(_epoch(network, optimizer, inputs, target, batches, loss_of))
            output = _evaluate(network, val_inputs)
            score = score_of(_wide(output), _wide(val_target)).item()
            scores.append(score)
            if epoch == 0 or scores[-1] < scores[best_epoch]:
                best_epoch = epoch
                best = {key: value.clone() for key, value in network.state_dict().items()}
            if epoch - best_epoch >= config.patience:
                break
        network.load_state_dict(best)
        network.to("cpu").eval()
    return tuple(losses), tuple(scores), best_epoch, len(scores) < last


def _epoch(network, optimizer, inputs, target, batches, loss_of):
    network.train()
    device = next(network.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    for rows in batches:
        optimizer.zero_grad(set_to_none=True)
        batch = {key: value[rows].to(device) for key, value in inputs.items()}
        loss = loss_of(network(**batch), target[rows].to(device))
        loss.backward()
        optimizer.step()
        total += loss.detach().double() * len(rows)
    return (total / len(target)).item()


def _evaluate(network, inputs):
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    count = len(next(iter(inputs.values())))
    outputs = []
    try:
        with torch.inference_mode():
            for start in range(0, max(count, 1), BLOCK_ROWS):
                block = {
                    key: _padded(value[start : start + BLOCK_ROWS]).to(device)
                    for key, value in inputs.items()
                }
                outputs.append(network(**block).cpu())
    finally:
        network.train(was_training)
    return torch.cat(outputs)[:count]


def _padded(rows):
    missing = BLOCK_ROWS - len(rows)
    if not missing:
        return rows
    return torch.cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])


def _wide(values):
    return values.double() if values.is_floating_point() else values
