"""The steps of the meme pipeline, as plain functions from data to reports."""
