"""Rows with labels and probabilities, and the plain way of judging them."""

import math

import numpy as np


def rows(n, classes=2, *, seed=0, ties=False, skill=1.5):
    """Labels and probabilities of a model of some skill; with ties, of few distinct values."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += skill * rng.random(n)
    if ties:
        logits = np.round(logits)
    values = np.exp(logits)
    return labels, values / values.sum(axis=1, keepdims=True)


def plain_predicted(values, threshold=0.5):
    if len(values[0]) == 2:
        return [int(row[1] >= threshold) for row in values]
    return [max(range(len(row)), key=lambda c: (row[c], -c)) for row in values]


def plain_accuracy(labels, predicted):
    return sum(t == p for t, p in zip(labels, predicted, strict=True)) / len(labels)


def plain_macro_f1(labels, predicted):
    scores = []
    for c in sorted({*labels, *predicted}):
        pairs = list(zip(labels, predicted, strict=True))
        tp = sum(t == c and p == c for t, p in pairs)
        fp = sum(t != c and p == c for t, p in pairs)
        fn = sum(t == c and p != c for t, p in pairs)
        scores.append(2 * tp / (2 * tp + fp + fn))
    return sum(scores) / len(scores)


def plain_auroc(labels, values):
    classes = len(values[0])
    areas = []
    for c in (1,) if classes == 2 else range(classes):
        own = [row[c] for row, t in zip(values, labels, strict=True) if t == c]
        others = [row[c] for row, t in zip(values, labels, strict=True) if t != c]
        if not own or not others:
            return None
        won = sum((a > b) + 0.5 * (a == b) for a in own for b in others)
        areas.append(won / (len(own) * len(others)))
    return sum(areas) / classes if classes > 2 else areas[0]


def plain_ece(labels, values, bins=15):
    total = 0.0
    for b in range(bins):
        held = [
            (max(row), row.index(max(row)) == t)
            for row, t in zip(values, labels, strict=True)
            if b / bins < max(row) <= (b + 1) / bins
        ]
        if held:
            confidence = sum(c for c, _ in held) / len(held)
            right = sum(r for _, r in held) / len(held)
            total += abs(confidence - right) * len(held) / len(labels)
    return total


def plain_brier(labels, values):
    if len(values[0]) == 2:
        errors = [(row[1] - t) ** 2 for row, t in zip(values, labels, strict=True)]
    else:
        errors = [
            sum((p - (c == t)) ** 2 for c, p in enumerate(row))
            for row, t in zip(values, labels, strict=True)
        ]
    return sum(errors) / len(labels)


def plain_nll(labels, values):
    return -sum(math.log(row[t]) for row, t in zip(values, labels, strict=True)) / len(labels)


def plain_metrics(labels, values, threshold=0.5):
    labels, values = [int(t) for t in labels], [[float(p) for p in row] for row in values]
    predicted = plain_predicted(values, threshold)
    return {
        "accuracy": plain_accuracy(labels, predicted),
        "macro_f1": plain_macro_f1(labels, predicted),
        "auroc": plain_auroc(labels, values),
        "ece": plain_ece(labels, values),
        "brier": plain_brier(labels, values),
        "nll": plain_nll(labels, values),
    }
