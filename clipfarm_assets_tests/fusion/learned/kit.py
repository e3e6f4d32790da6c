"""Three modalities of all kinds: token ids with padding, vectors made tokens, stored vectors."""

import math

import torch
from torch import nn

from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.fusion.learned.tokens import StoredEncoder, Tokens
from clipfarm_assets.fusion.options import STRATEGIES, FusionOptions

WORDS, LENGTH = 11, 5
MODALITIES = ("text", "audio", "midi")
# Small, and random only where a test asks for it.
PLAIN = {"dim": 8, "hidden": (6,), "heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
ALL = [FusionOptions(strategy=name, **PLAIN) for name in STRATEGIES]
DEEP = [FusionOptions(strategy=name, layers=2, **PLAIN) for name in ("early", "cross_attention")]


class Words(nn.Module):
    """A vector a word; counts the rows it is called with."""

    def __init__(self, dim=7):
        super().__init__()
        self.dim = dim
        self.rows = []
        self.table = nn.Embedding(WORDS, dim)

    def forward(self, ids, mask):
        self.rows.append(len(ids))
        return Tokens(self.table(ids), mask)


class Windows(nn.Module):
    """Three tokens of a vector; counts the rows it is called with."""

    def __init__(self, width=5, dim=6):
        super().__init__()
        self.dim = dim
        self.rows = []
        self.linear = nn.Linear(width, 3 * dim)

    def forward(self, values):
        self.rows.append(len(values))
        tokens = self.linear(values).unflatten(1, (3, self.dim))
        return Tokens(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def network(options, seed=1, classes=3, context_dim=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = {"text": Words(), "audio": Windows(), "midi": StoredEncoder(4)}
        return FusionNetwork(encoders, options, classes=classes, context_dim=context_dim)


def presence(rows, seed=3):
    """Any combination; the first row has nothing, the second has all."""
    present = torch.rand(rows, 3, generator=torch.Generator().manual_seed(seed)) < 0.5
    present[0], present[1] = False, True
    return present


def inputs(rows, present=None, seed=2):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LENGTH + 1, (rows, 1), generator=draw)
    return {
        "present": presence(rows) if present is None else present,
        "text.ids": torch.randint(0, WORDS, (rows, LENGTH), generator=draw),
        "text.mask": torch.arange(LENGTH) < lengths,
        "audio": torch.randn(rows, 5, generator=draw),
        "midi": torch.randn(rows, 4, generator=draw),
    }


def spoilt(given, garbage=math.nan):
    """The same with garbage where a modality is absent: ids of no word, numbers that are none."""
    present = given["present"]
    other = {key: value.clone() for key, value in given.items()}
    other["text.ids"][~present[:, 0]] = 10**9
    other["text.mask"][~present[:, 0]] = False
    other["audio"][~present[:, 1]] = garbage
    other["midi"][~present[:, 2]] = garbage
    return other
