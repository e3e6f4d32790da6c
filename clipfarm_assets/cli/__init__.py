"""The ``clipfarm`` command: what an operator asks of a deployment, and may change in it.

A command gathers facts by a plain function of another room and prints them. It reads the same
environment as Dagster does, and imports neither Dagster nor a model library.
"""
