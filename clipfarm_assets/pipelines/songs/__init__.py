"""The steps of the song pipeline, as plain functions from data to reports. Free of torch."""
