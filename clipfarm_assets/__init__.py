"""clipfarm: a Dagster asset graph for people who learn from short media."""
