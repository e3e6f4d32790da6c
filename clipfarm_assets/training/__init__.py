"""Datasets, splits, model families, the one fit loop, metrics, snapshots."""
