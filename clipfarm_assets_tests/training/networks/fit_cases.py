"""Rows, networks and stores of checkpoints that the tests of the loop share."""

import os
import signal

import torch
from torch import nn

from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.checkpoint import StoredCheckpoint
from clipfarm_assets.training.networks.fit import (
    InMemory,
    ParameterGroup,
    StreamedBatches,
    cross_entropy,
    fit_batches,
)
from clipfarm_assets.training.networks.reproducible import reproducible

CONFIG = FitConfig(learning_rate=0.02, batch_size=16, max_epochs=6, patience=2)


class Classifier(nn.Module):
    """Dropout, a running buffer, a frozen part, a part that no loss reaches: all that is state."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.frozen = nn.Linear(5, 5)
        self.frozen.requires_grad_(False)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Dropout(dropout))
        self.head = nn.Linear(8, 2)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.head(self.body(self.frozen(x)))


def classifier(seed=0, **options):
    with reproducible(seed):
        return Classifier(**options)


def labelled(rows, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=draw)
    noise = torch.randn(rows, generator=draw)
    return x, (x[:, 0] - x[:, 1] + 0.3 * noise > 0).long()


TRAIN_X, TRAIN_Y = labelled(70, 1)
VAL_X, VAL_Y = labelled(30, 2)


def in_memory(batch_size=CONFIG.batch_size, shuffle=True, x=TRAIN_X, y=TRAIN_Y):
    return InMemory({"x": x}, y, batch_size, shuffle=shuffle)


def rows_of(x=TRAIN_X, y=TRAIN_Y):
    return [({"x": row}, target) for row, target in zip(x, y, strict=True)]


def streamed(buffer, source="the train rows", **options):
    return StreamedBatches(
        lambda _: iter(rows_of()),
        len(TRAIN_Y),
        CONFIG.batch_size,
        shuffle_buffer=buffer,
        source=source,
        **options,
    )


def val_batches():
    return InMemory({"x": VAL_X}, VAL_Y, 16, shuffle=False, part="val")


OBJECTIVE = cross_entropy([1.0, 2.0])


def bits(network):
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


class Kept:
    """A checkpoint in memory."""

    def __init__(self, data=None):
        self.data = data
        self.saved = []

    def load(self):
        return self.data

    def save(self, data):
        self.data = data
        self.saved.append(data)

    def clear(self):
        self.data = None


GROUPS = (ParameterGroup("body", 0.3), ParameterGroup("head.bias", 0.1, weight_decay=0.0))


class Killed(BaseException):
    """Like a kill, it is caught by nobody on the way."""


class KilledAfter(Kept):
    """Is killed right after a number of epochs was saved, or right before it would be."""

    def __init__(self, saves, before=False):
        super().__init__()
        self.saves, self.before = saves, before

    def save(self, data):
        last = len(self.saved) + 1 == self.saves
        if last and self.before:
            raise Killed
        super().save(data)
        if last:
            raise Killed


def run(checkpoint=None, network=None, train=None, seed=7, lines=None, config=CONFIG, **options):
    network = classifier(seed) if network is None else network
    curve = fit_batches(
        network,
        in_memory() if train is None else train,
        options.pop("val", None) or val_batches(),
        config,
        seed,
        say=[].append if lines is None else lines.append,
        name="memes",
        checkpoint=checkpoint,
        **{"objective": OBJECTIVE, "groups": GROUPS, "clip_norm": 0.5, **options},
    )
    return curve, bits(network)


class Dying(StoredCheckpoint):
    """Its process ends with the third checkpoint stored."""

    def save(self, data):
        super().save(data)
        if len(list(self.store.list("saved/"))) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        self.store.put(f"saved/{os.urandom(4).hex()}", b"")


def dying_run(folder, threads):
    """The target of a process that is killed."""
    torch.set_num_threads(threads)
    run(Dying(ObjectStore.open(folder), "memes/checkpoint.safetensors"))
