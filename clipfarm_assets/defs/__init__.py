"""The Dagster assets, one folder a pipeline: thin functions that wire the rooms below."""
