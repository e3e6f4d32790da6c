"""The networks' layers in plain float64 numpy, read off a state dict, to compare with."""

import math

import numpy as np

erf = np.vectorize(math.erf, otypes=[np.float64])


def weights_of(network):
    return {key: value.double().numpy() for key, value in network.state_dict().items()}


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def layer_norm(weights, name, x):
    centred = x - x.mean(axis=1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def mlp(weights, name, x, hidden_layers):
    """Linear and GELU alternate; dropout takes every third place and does nothing here."""
    for layer in range(hidden_layers):
        x = gelu(linear(weights, f"{name}.{3 * layer}", x))
    return linear(weights, f"{name}.{3 * hidden_layers}", x)[:, 0]


def embeddings(weights, codes):
    tables = [weights[f"embeddings.tables.{c}.weight"][codes[:, c]] for c in range(codes.shape[1])]
    return np.concatenate(tables, axis=1)
